"""``random``: a random backend, each as probable as its weight says. Looks at nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.weights import Weights

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class WeightedRandom:
    """Independent draws by weight."""

    needs_key: ClassVar[bool] = False
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = False

    __slots__ = ("_weights",)

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Forget the last set of candidates."""
        self._weights = Weights(members)

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """A draw by weight."""
        if candidates is not self._weights.candidates:
            self._weights = Weights(candidates)
        return self._weights.draw(context.random)
