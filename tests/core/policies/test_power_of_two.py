"""The better of two draws."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.core.policies.examples import context, members, rebuilt


@pytest.mark.parametrize(
    ("weights", "loads", "better"),
    [((1, 1), [3, 2], 1), ((1, 1), [2, 3], 0), ((1, 3), [1, 2], 1), ((1, 3), [1, 4], 0), ((2, 1), [0, 1], 0)],
)
def test_of_two_the_less_loaded_for_its_weight_always_wins(
    weights: tuple[int, ...], loads: list[int], better: int
) -> None:
    pool = members(*weights)
    policy = rebuilt("power_of_two", pool)
    made = context()
    assert {policy.pick(pool, loads, made) for _ in range(100)} == {better}


def test_the_most_loaded_of_several_is_never_picked() -> None:
    pool = members(1, 1, 1, 1)
    policy = rebuilt("power_of_two", pool)
    made = context()
    picked = Counter(policy.pick(pool, [1, 2, 4, 3], made) for _ in range(6000))
    assert set(picked) == {0, 1, 3}
    # Of the six pairs the least loaded is in three, the next in two, the next in one.
    assert [round(picked[position] / 1000) for position in (0, 1, 3)] == [3, 2, 1]


def test_a_tie_goes_by_weight() -> None:
    pool = members(1, 3)
    policy = rebuilt("power_of_two", pool)
    made = context()
    picked = Counter(policy.pick(pool, [0, 0], made) for _ in range(8000))
    assert abs(picked[0] - 2000) < 150


def test_weights_are_those_of_the_candidates_that_are_there() -> None:
    pool = members(1, 2, 3)
    policy = rebuilt("power_of_two", pool)
    assert policy.pick(pool[:2], [1, 3], context()) == 0
    assert policy.pick(pool[1:], [3, 4], context()) == 1
    assert policy.pick(pool[1:], [2, 4], context()) == 0
