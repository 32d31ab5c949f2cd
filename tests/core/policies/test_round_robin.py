"""The schedule, exact rounds, and gaps in it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.policies.policy import Candidate, PickContext
from lbproc.core.policies.round_robin import MAX_LENGTH, MAX_REMEMBERED, RoundRobin, smooth_schedule
from tests.core.policies.examples import members, rebuilt, tickets


def nginx_schedule(weights: list[int]) -> list[int]:
    """The smooth weighted round robin of nginx, word for word: the reference."""
    current = [0] * len(weights)
    schedule = []
    for _ in range(sum(weights)):
        best = -1
        for position, weight in enumerate(weights):
            current[position] += weight
            if weight and (best < 0 or current[position] > current[best]):
                best = position
        current[best] -= sum(weights)
        schedule.append(best)
    return schedule


@pytest.mark.parametrize(
    ("weights", "schedule"),
    [
        ((1, 1, 1), "abc"),
        ((7, 7, 7), "abc"),
        ((5, 1, 1), "aabacaa"),
        ((1, 2, 3), "cbacbc"),
        ((10, 20), "bab"),
        ((0, 2, 0, 1), "bdb"),
        ((4,), "a"),
        ((0, 0), ""),
        ((), ""),
    ],
)
def test_schedules(weights: tuple[int, ...], schedule: str) -> None:
    assert "".join("abcd"[position] for position in smooth_schedule(weights)) == schedule


@given(st.lists(st.integers(0, 12), min_size=1, max_size=10).filter(lambda weights: 1 in weights))
def test_the_schedule_is_the_one_of_nginx(weights: list[int]) -> None:
    assert smooth_schedule(weights) == nginx_schedule(weights)


def test_a_long_schedule_is_scaled_down_and_leaves_out_nobody() -> None:
    weights = [*range(901, 1001), 1]
    schedule = smooth_schedule(weights)
    assert MAX_LENGTH * 0.99 <= len(schedule) <= MAX_LENGTH + len(weights)
    shares = Counter(schedule)
    assert set(shares) == set(range(len(weights)))
    total = sum(weights)
    assert all(
        abs(shares[position] / len(schedule) - weight / total) < 0.001
        for position, weight in enumerate(weights)
    )


def test_workers_that_share_a_ticket_keep_one_order_and_exact_rounds() -> None:
    pool = members(1, 2, 3)
    ticket = tickets()
    workers = [(rebuilt("round_robin", pool), PickContext(Random(seed))) for seed in range(4)]
    random = Random(1)
    order = []
    for _ in range(3000):
        policy, made = random.choice(workers)
        made.begin(b"", ticket)
        order.append(policy.pick(pool, [0, 0, 0], made))
    assert order == smooth_schedule([1, 2, 3]) * 500


def test_equal_backends_get_exactly_equal_numbers() -> None:
    pool = members(1, 1, 1)
    policy, made, ticket = rebuilt("round_robin", pool), PickContext(Random(1)), tickets()
    picked: Counter[int] = Counter()
    for _ in range(3000):
        made.begin(b"", ticket)
        picked[policy.pick(pool, [0, 0, 0], made)] += 1
    assert picked == {0: 1000, 1: 1000, 2: 1000}


def test_the_turns_of_a_missing_backend_go_to_all_the_others() -> None:
    pool = members(1, 1, 1, 1)
    left = (pool[0], pool[2], pool[3])
    policy, made, ticket = rebuilt("round_robin", pool), PickContext(Random(1)), tickets()
    picked: Counter[int] = Counter()
    for _ in range(3000):
        made.begin(b"", ticket)
        picked[left[policy.pick(left, [0, 0, 0], made)].index] += 1
    assert picked == {0: 1000, 2: 1000, 3: 1000}


def test_requests_that_pick_again_spread_evenly_over_the_others() -> None:
    pool = members(1, 1, 1)
    policy, made, ticket = rebuilt("round_robin", pool), PickContext(Random(1)), tickets()
    served: Counter[int] = Counter()
    for _ in range(30_000):
        made.begin(b"", ticket)
        first = policy.pick(pool, [0, 0, 0], made)
        if first == 0:  # It refuses.
            made.begin(b"", ticket, again=True)
            first = policy.pick(pool[1:], [0, 0], made) + 1
        served[first] += 1
    assert served[1] + served[2] == 30_000
    assert abs(served[1] - served[2]) < 300


def test_candidates_without_a_turn_share_when_nobody_else_is_left() -> None:
    pool = members(0, 3, 0)
    policy, made, ticket = rebuilt("round_robin", pool), PickContext(Random(1)), tickets()
    left = (pool[0], pool[2])
    picked = []
    for _ in range(4):
        made.begin(b"", ticket)
        picked.append(policy.pick(left, [0, 0], made))
    assert picked == [0, 1, 0, 1]


def test_what_is_remembered_of_sets_of_candidates_is_bounded() -> None:
    pool = members(*[1] * 7)
    policy = RoundRobin()
    policy.rebuild(pool)
    made, ticket = PickContext(Random(1)), tickets()
    for mask in range(1, 128):
        candidates: tuple[Candidate, ...] = tuple(one for one in pool if mask >> one.index & 1)
        made.begin(b"", ticket)
        policy.pick(candidates, [0] * len(candidates), made)
        assert len(policy._remembered) <= MAX_REMEMBERED
