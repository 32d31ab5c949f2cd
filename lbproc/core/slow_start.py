"""Slow start: how much of its weight a backend has while it is new, or back.

The curve is a straight line from 10 % of the weight at the start to all of it after ``slow_start``, climbed
in 18 equal steps of 5 %: with ``slow_start = "30s"`` it is 10 % at first, 15 % after 1.7 s, 55 % after 15 s,
95 % after 28.4 s and 100 % after 30 s. To a backend, steps are as good as a line; each costs every worker a
new schedule.

Weights that policies see while a member is on its way are the operator's times 20 for everybody, so that a
twentieth is a whole number. Shares are relative: when all members are on the same step, as after the start of
everything, traffic is spread as usual, and weights are as the operator gave them.

Instants and spans are whole nanoseconds, as in the table.

Invariants: a level never falls as time goes on; a weight above 0 never becomes 0 and 0 stays 0; equal levels
leave weights as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = 20
"""The level of a backend with all of its weight: levels are twentieths."""

FIRST = 2
"""The level at the start: 10 %. With less, a backend of a small share might see no request to warm up on."""

_STEPS = FULL - FIRST


def level(started_at: int, slow_start: int, now: int) -> int:
    """How many twentieths of its weight a backend has.

    Args:
        started_at: when it started; 0: never, or long ago.
        slow_start: how long it takes; 0: no time at all.
        now: the present.
    """
    elapsed = max(now - started_at, 0)
    if not started_at or elapsed >= slow_start:
        return FULL
    return FIRST + elapsed * _STEPS // slow_start


def is_starting(started_at: int, slow_start: int, now: int) -> bool:
    """Whether a backend has less than all of its weight, with the arguments of `level`."""
    return level(started_at, slow_start, now) < FULL


def effective_weights(weights: Sequence[int], levels: Sequence[int]) -> tuple[int, ...]:
    """The weights to pick by.

    Args:
        weights: what the operator gave the members.
        levels: of the same members.
    """
    if len(set(levels)) <= 1:
        return tuple(weights)
    return tuple(weight * twentieths for weight, twentieths in zip(weights, levels, strict=True))
