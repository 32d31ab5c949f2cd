"""The least loaded for its weight, and ties."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.policies.policy import PickContext
from tests.core.policies.examples import ChosenRandom, context, members, rebuilt, tickets

GRID = 1200


def shares_of_ties(weights: tuple[int, ...], loads: list[int]) -> Counter[int]:
    """How often each is picked when the random draw goes once over a fine grid."""
    pool = members(*weights)
    policy = rebuilt("least_connections", pool)
    random = ChosenRandom()
    made = PickContext(random)
    picked: Counter[int] = Counter()
    for step in range(GRID):
        random.fraction = step / GRID
        made.begin(b"", tickets())
        picked[policy.pick(pool, loads, made)] += 1
    return picked


@pytest.mark.parametrize(
    ("weights", "loads", "expected"),
    [
        ((1, 1, 1), [2, 1, 2], {1: GRID}),
        ((1, 1, 1), [0, 0, 0], {0: 400, 1: 400, 2: 400}),
        ((4, 4, 4), [5, 3, 3], {1: 600, 2: 600}),
        ((1, 1, 1, 1), [3, 9, 3, 3], {0: 400, 2: 400, 3: 400}),
        ((0, 0), [1, 1], {0: 600, 1: 600}),
        ((1, 2, 3), [0, 0, 0], {0: 200, 1: 400, 2: 600}),
        ((1, 2, 3), [1, 2, 2], {2: GRID}),
        ((1, 2, 3), [50, 100, 149], {2: GRID}),
        ((1, 2, 3), [10, 20, 31], {0: 400, 1: 800}),
        ((0, 2, 1), [0, 2, 1], {1: 800, 2: 400}),
        ((0, 2, 1), [0, 2, 9], {1: GRID}),
    ],
)
def test_the_least_for_its_weight_and_ties_by_weight(
    weights: tuple[int, ...], loads: list[int], expected: dict[int, int]
) -> None:
    assert shares_of_ties(weights, loads) == expected


@given(
    backends=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 2**24 - 2)), min_size=1, max_size=20),
    fraction=st.floats(0, 1, exclude_max=True),
)
def test_nobody_has_less_for_its_weight_in_exact_arithmetic(
    backends: list[tuple[int, int]], fraction: float
) -> None:
    pool = members(*(weight for weight, _ in backends))
    random = ChosenRandom()
    random.fraction = fraction
    made = PickContext(random)
    picked = rebuilt("least_connections", pool).pick(pool, [load for _, load in backends], made)
    weight, load = backends[picked]
    assert all(load * other_weight <= other_load * weight for other_weight, other_load in backends)


def test_weights_300_arrivals_give_exact_shares() -> None:
    pool = members(1, 2, 3)
    policy = rebuilt("least_connections", pool)
    made = context()
    loads = [0, 0, 0]
    for _ in range(300):
        loads[policy.pick(pool, loads, made)] += 1
    assert loads == [50, 100, 150]


def test_the_greatest_draw_there_is_picks_the_last_tie() -> None:
    random = ChosenRandom()
    random.fraction = 1 - 2**-53
    for weights, loads in (((3, 7), [0, 0]), ((3, 7, 9), [3, 7, 10]), ((1, 1), [0, 0])):
        picked = rebuilt("least_connections", members(*weights)).pick(
            members(*weights), loads, PickContext(random)
        )
        assert picked == 1


def test_weights_are_those_of_the_candidates_that_are_there() -> None:
    pool = members(1, 2, 3, 3)
    policy = rebuilt("least_connections", pool)
    for candidates, loads, expected in (
        (pool, [1, 1, 2, 3], 1),
        (pool[2:], [2, 1], 1),
        (pool[:2], [1, 3], 0),
        (pool, [1, 2, 3, 2], 3),
    ):
        assert policy.pick(candidates, loads, context()) == expected
