"""Where keys prefer to be, as positions among the candidates of a pick.

Joins the order of preference, which is over all members and so does not move when one of them is away, with
the candidates that are there now. What is worked out for a set of candidates is kept until another set comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.policies.rendezvous import Rendezvous
from lbproc.core.policies.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.core.policies.policy import Candidate


class Placement:
    """Preferences over the members, seen through the present candidates.

    Attributes:
        weights: the weights of the present candidates.
    """

    __slots__ = ("_positions", "_rendezvous", "weights")

    def __init__(self, members: tuple[Candidate, ...]) -> None:
        self._rendezvous = Rendezvous(members)
        self._positions: list[int | None] = [None] * len(members)
        self._see(members)

    def look_at(self, candidates: tuple[Candidate, ...]) -> None:
        """Make these the present candidates. Costs nothing when they are so already."""
        if candidates is not self.weights.candidates:
            self._see(candidates)

    def favourite(self, slot: int) -> int | None:
        """The position of the member that a slot prefers, None when it is not among the candidates."""
        return self._positions[self._rendezvous.favourite(slot)]

    def order(self, slot: int) -> Iterator[int]:
        """The positions of all candidates, the preferred one first."""
        positions = self._positions
        for index in self._rendezvous.order(slot):
            position = positions[index]
            if position is not None:
                yield position

    def _see(self, candidates: tuple[Candidate, ...]) -> None:
        self.weights = Weights(candidates)
        self._positions = [None] * len(self._positions)
        for position, candidate in enumerate(candidates):
            self._positions[candidate.index] = position
