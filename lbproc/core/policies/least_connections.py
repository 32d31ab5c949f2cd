"""``least_connections``: the backend with the fewest requests in flight for its weight. The default.

The least ``load / weight`` wins; among equals one is drawn by weight, so an idle pool spreads single requests
by weight too and no backend is always first. Loads are totals over all workers and the place is taken only at
the load that was seen. So while requests only arrive, backends of equal weight never differ by more than one,
and backends of any weights hold their exact shares whenever the number of requests divides evenly by the
weights.

Invariant, while requests only arrive: ``(load[i] - 1) / weight[i] <= load[j] / weight[j]`` for all i and j.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import inf
from operator import truediv
from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.weights import Weights

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext


class LeastConnections:
    """The least loaded, exactly, over all workers."""

    needs_key: ClassVar[bool] = False
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = True

    __slots__ = ("_candidates", "_is_equal", "_weights")

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Forget the last set of candidates."""
        self._remember(members)

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """The least loaded for its weight; a random one of those when several are."""
        if candidates is not self._candidates:
            self._remember(candidates)
        if not self._is_equal:
            return self._pick_weighted(loads, context)
        least = min(loads)
        ties = loads.count(least)
        if ties == 1:
            return loads.index(least)
        chosen = int(context.random.random() * ties)
        if ties == len(loads):
            return chosen
        position = loads.index(least)
        for _ in range(chosen):
            position = loads.index(least, position + 1)
        return position

    def _pick_weighted(self, loads: list[int], context: PickContext) -> int:
        # Equal ratios are equal floats, since division rounds correctly; and with less than 2**24 in flight
        # and weights below 2**28 different ratios are different floats.
        weights = self._weights.values
        if self._weights.has_zero:
            ratios = [load / weight if weight else inf for load, weight in zip(loads, weights, strict=True)]
        else:
            ratios = list(map(truediv, loads, weights))
        least = min(ratios)
        ties = ratios.count(least)
        if ties == 1:
            return ratios.index(least)
        if ties == len(ratios):
            return self._weights.draw(context.random)
        tied = [position for position, ratio in enumerate(ratios) if ratio == least]
        cumulative = list(accumulate([weights[position] for position in tied]))
        return tied[bisect_right(cumulative, int(context.random.random() * cumulative[-1]))]

    def _remember(self, candidates: tuple[Candidate, ...]) -> None:
        self._weights = Weights(candidates)
        self._is_equal = self._weights.is_equal
        self._candidates = candidates
