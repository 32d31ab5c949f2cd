"""``round_robin``: one after the other, by weight, in one order over all workers.

The order is a smooth weighted schedule, the one of nginx: at each step everybody's claim grows by its weight,
the greatest claim wins and pays the sum of all weights. Weights 5, 1, 1 give a a b a c a a. Workers take
their turn from one shared ticket, so ``k`` rounds of the schedule are exactly ``k`` times its shares,
whichever workers serve them.

Candidates that are missing (down, full, tried) are cut out of the schedule instead of being skipped over:
whoever stands behind a gap would get the gap's turns on top of its own.

Invariants: all workers compute the same schedule from the same members; a schedule holds each candidate as
often as its weight, divided by what all weights have in common.
"""

from __future__ import annotations

from collections import deque
from math import gcd
from typing import TYPE_CHECKING, ClassVar

from lbproc.core.policies.weights import effective_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.core.policies.policy import Candidate, PickContext

MAX_LENGTH = 10_000
"""Turns in a schedule. Weights whose sum is above are scaled down; each keeps at least one turn."""

MAX_REMEMBERED = 32
"""Schedules kept for sets of candidates that were cut out of the whole one."""


class RoundRobin:
    """The next in the schedule, by a shared ticket."""

    needs_key: ClassVar[bool] = False
    fixed_key: ClassVar[str | None] = None
    exact: ClassVar[bool] = False

    __slots__ = ("_candidates", "_remembered", "_schedule", "_whole")

    def __init__(self) -> None:
        self.rebuild(())

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Compute the whole schedule."""
        self._whole = [members[position] for position in smooth_schedule(effective_weights(members))]
        self._remembered: dict[tuple[Candidate, ...], list[int]] = {}
        self._candidates: tuple[Candidate, ...] = ()
        self._schedule: list[int] = []

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """Whose turn it is among these."""
        if candidates is not self._candidates:
            self._schedule = self._schedule_of(candidates)
            self._candidates = candidates
        schedule = self._schedule
        return schedule[context.draw() % len(schedule)]

    def _schedule_of(self, candidates: tuple[Candidate, ...]) -> list[int]:
        schedule = self._remembered.get(candidates)
        if schedule is None:
            positions = {candidate: position for position, candidate in enumerate(candidates)}
            schedule = [positions[candidate] for candidate in self._whole if candidate in positions]
            # Nobody here has a turn in the whole schedule when all of these have weight 0 and others do not.
            schedule = schedule or list(range(len(candidates)))
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[candidates] = schedule
        return schedule


def smooth_schedule(weights: Sequence[int]) -> list[int]:
    """One round: positions in ``weights``, each as often as its reduced weight, spread out evenly.

    Those of the same weight take turns among themselves, so only the head of each group can have the greatest
    claim. That makes the cost length x different weights instead of length x members: at most two tenths of a
    second, for 10 000 turns of 140 different weights, and a few milliseconds for usual weights.
    """
    turns = _reduced(weights)
    total = sum(turns)
    groups: dict[int, deque[tuple[int, int]]] = {}
    for position, turn in enumerate(turns):
        if turn:
            groups.setdefault(turn, deque()).append((0, position))
    schedule = []
    for step in range(1, total + 1):
        # The claim of somebody after this step's growth, had it won `won` times: turn * step - total * won.
        _, negative_position, turn = max(
            (turn * step - total * group[0][0], -group[0][1], turn) for turn, group in groups.items()
        )
        won, position = groups[turn].popleft()
        groups[turn].append((won + 1, position))
        schedule.append(-negative_position)
    return schedule


def _reduced(weights: Sequence[int]) -> list[int]:
    divisor = gcd(*weights)
    if not divisor:
        return [0] * len(weights)
    turns = [weight // divisor for weight in weights]
    total = sum(turns)
    if total > MAX_LENGTH:
        turns = [max(1, round(turn * MAX_LENGTH / total)) if turn else 0 for turn in turns]
    return turns
