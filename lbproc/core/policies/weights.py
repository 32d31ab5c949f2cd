"""Weights of a set of candidates, worked out once per set: what random draws and comparisons by weight need.

Invariant: ``total`` is above 0. A set in which all weights are 0 counts as one of equal weights.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from lbproc.core.policies.policy import Candidate


def effective_weights(candidates: tuple[Candidate, ...]) -> tuple[int, ...]:
    """The weight of each candidate; all 1 when all are 0."""
    weights = tuple([candidate.weight for candidate in candidates])
    return weights if any(weights) else (1,) * len(weights)


class Weights:
    """The weights of one set of candidates.

    Attributes:
        candidates: the set.
        values: the weight of each.
        total: their sum.
        is_equal: all weights are the same, so nothing needs to be weighed.
        has_zero: some weight is 0.
    """

    __slots__ = ("_cumulative", "candidates", "has_zero", "is_equal", "total", "values")

    def __init__(self, candidates: tuple[Candidate, ...]) -> None:
        self.candidates = candidates
        self.values = effective_weights(candidates)
        self._cumulative = list(accumulate(self.values))
        self.total = sum(self.values)
        self.is_equal = len(set(self.values)) <= 1
        self.has_zero = 0 in self.values

    def draw(self, random: Random) -> int:
        """A position, each as probable as its weight says."""
        if self.is_equal:
            return int(random.random() * len(self.values))
        return bisect_right(self._cumulative, int(random.random() * self.total))

    def draw_other(self, first: int, random: Random) -> int:
        """A position other than ``first``, drawn by weight; ``first`` itself when no other has any weight."""
        if self.is_equal:
            others = len(self.values) - 1
            if not others:
                return first
            other = int(random.random() * others)
            return other + 1 if other >= first else other
        weight = self.values[first]
        left = self.total - weight
        if not left:
            return first
        point = int(random.random() * left)
        if point >= self._cumulative[first] - weight:
            point += weight
        return bisect_right(self._cumulative, point)
