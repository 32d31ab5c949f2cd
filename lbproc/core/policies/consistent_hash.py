"""``consistent_hash``: a key stays on its backend, up to a bound on the load of each backend.

A key goes to the backend it prefers by rendezvous hashing. A backend takes no further request once it holds a
quarter more than its share of what is in flight; the key then goes on to the next in its order. So one hot
key cannot sink one backend, and the caches of the others see only the overflow. Mirrokni, Thorup and
Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018).

A request without the key has nothing to be consistent with and goes to the least loaded.

Invariant, while requests only arrive: ``load <= ceil(1.25 * (total + 1) * weight / all weights)`` after a
pick, over the candidates of that pick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.least_connections import LeastConnections
from lbproc.core.policies.placement import Placement
from lbproc.core.policies.rendezvous import slot_of

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class ConsistentHash:
    """The preferred backend of the key that is not overloaded."""

    needs_key: ClassVar[bool] = True
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = True

    __slots__ = ("_keyless", "_placement")

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Forget where keys prefer to be; it is worked out again as they come."""
        self._placement = Placement(members)
        self._keyless = LeastConnections()

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """The first in the key's order with room under the bound."""
        if not context.key:
            return self._keyless.pick(candidates, loads, context)
        placement = self._placement
        placement.look_at(candidates)
        slot = slot_of(context.key)
        weights = placement.weights.values
        # load < 1.25 * (total + 1) * weight / all weights, in integers.
        scale = 4 * placement.weights.total
        room = 5 * (sum(loads) + 1)
        position = placement.favourite(slot)
        if position is not None and loads[position] * scale < room * weights[position]:
            return position
        # The bounds add up to more than total + 1, so one of the candidates is below its own.
        return next(
            position
            for position in placement.order(slot)
            if loads[position] * scale < room * weights[position]
        )
