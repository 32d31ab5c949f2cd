"""``ip_hash``: a client address stays on its backend, whatever the loads.

The backend is the one the address prefers by rendezvous hashing, by weight. When it is away (down, full,
tried), its clients go to the next in their own order, each to another one, and come back when it does; nobody
else's moves. The whole address counts, not its network. A client without an address (on a unix socket) goes
to the least loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.least_connections import LeastConnections
from lbproc.core.policies.placement import Placement
from lbproc.core.policies.rendezvous import slot_of

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class IpHash:
    """The preferred backend of the client that is there."""

    needs_key: ClassVar[bool] = True
    fixed_key: ClassVar[str | None] = "client_ip"
    exact: ClassVar[bool] = False

    __slots__ = ("_keyless", "_placement")

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Forget where clients prefer to be; it is worked out again as they come."""
        self._placement = Placement(members)
        self._keyless = LeastConnections()

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """The first in the client's order."""
        if not context.key:
            return self._keyless.pick(candidates, loads, context)
        placement = self._placement
        placement.look_at(candidates)
        slot = slot_of(context.key)
        position = placement.favourite(slot)
        return next(placement.order(slot)) if position is None else position
