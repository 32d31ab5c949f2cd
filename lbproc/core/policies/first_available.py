"""``first_available``: the first backend, in the order of the configuration, that is available and not full.

Fills one backend up to its ``max_connections`` before it uses the next: for backends that cost money while
they run, and for a plain order of preference. Always the first is here the point, not a tie gone wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class FirstAvailable:
    """The first one left."""

    needs_key: ClassVar[bool] = False
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = False

    __slots__ = ()

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Nothing to take note of: the candidates come in member order."""

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """The first of some weight; the first of all when none has any."""
        for position, candidate in enumerate(candidates):
            if candidate.weight:
                return position
        return 0
