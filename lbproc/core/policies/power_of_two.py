"""``power_of_two``: two different backends drawn by weight, then the less loaded of the two.

Nearly as even as the least loaded of all, with less agreement between proxies on one target: right when
several lbproc instances, which do not see each other's loads, stand in front of the same backends.
Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.weights import Weights

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class PowerOfTwo:
    """The better of two draws; the first one when they are equal."""

    needs_key: ClassVar[bool] = False
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = True

    __slots__ = ("_weights",)

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Forget the last set of candidates."""
        self._weights = Weights(members)

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """Draw two and keep the one with the lower ``load / weight``."""
        weights = self._weights
        if candidates is not weights.candidates:
            weights = self._weights = Weights(candidates)
        first = weights.draw(context.random)
        second = weights.draw_other(first, context.random)
        # Multiplied out instead of divided: a / b > c / d.
        if loads[first] * weights.values[second] > loads[second] * weights.values[first]:
            return second
        return first
