"""Slow start: the curve, and the weights that follow it."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.slow_start import FIRST, FULL, effective_weights, is_starting, level

SECOND = 1_000_000_000
INSTANTS = st.integers(1, 10**18)
SPANS = st.integers(1, 10**14)


@pytest.mark.parametrize(
    ("seconds", "percent"),
    [(0, 10), (1.6, 10), (1.7, 15), (15, 55), (28.3, 90), (28.4, 95), (29.9, 95), (30, 100)],
)
def test_documented_points_of_the_curve(seconds: float, percent: int) -> None:
    started_at = 77 * SECOND
    assert level(started_at, 30 * SECOND, started_at + int(seconds * SECOND)) * 5 == percent


def test_never_started_and_no_slow_start_are_full() -> None:
    assert level(0, 30 * SECOND, 1) == FULL
    assert level(SECOND, 0, SECOND) == FULL


def test_a_stamp_of_the_future_is_the_very_beginning() -> None:
    assert level(10 * SECOND, SECOND, 9 * SECOND) == FIRST


@given(INSTANTS, SPANS, st.integers(0, 10**14), st.integers(0, 10**14))
def test_level_never_falls(started_at: int, slow_start: int, earlier: int, more: int) -> None:
    first = level(started_at, slow_start, started_at + earlier)
    assert FIRST <= first <= level(started_at, slow_start, started_at + earlier + more) <= FULL


@given(INSTANTS, SPANS, st.integers(0, 10**14))
def test_level_is_at_most_a_step_below_the_straight_line(
    started_at: int, slow_start: int, elapsed: int
) -> None:
    line = FIRST + (FULL - FIRST) * min(Fraction(elapsed, slow_start), Fraction(1))
    now = started_at + elapsed
    assert line - 1 < level(started_at, slow_start, now) <= line
    assert is_starting(started_at, slow_start, now) is (elapsed < slow_start)


@given(st.integers(FIRST, FULL), st.lists(st.integers(0, 1000), max_size=8))
def test_equal_levels_leave_weights_alone(same: int, weights: list[int]) -> None:
    assert effective_weights(weights, [same] * len(weights)) == tuple(weights)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(FIRST, FULL)), min_size=1, max_size=8))
def test_shares_are_those_of_weight_times_level(pairs: list[tuple[int, int]]) -> None:
    weights, levels = [weight for weight, _ in pairs], [twentieths for _, twentieths in pairs]
    effective = effective_weights(weights, levels)
    wanted = [Fraction(weight * twentieths, FULL) for weight, twentieths in pairs]
    for one, other, one_wanted, other_wanted in zip(
        effective, effective[1:], wanted, wanted[1:], strict=False
    ):
        assert one * other_wanted == other * one_wanted
    assert [not weight for weight in effective] == [not weight for weight in weights]
