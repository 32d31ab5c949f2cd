"""Keys stay where they are, up to the bound on the load."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.policies.rendezvous import Rendezvous, slot_of
from tests.core.policies.examples import context, key_of, members, rebuilt

KEYS = [key_of(number) for number in range(2000)]


def bound(loads: list[int], weights: tuple[int, ...], position: int) -> int:
    """The most that a backend may hold after this pick: its share of all with the new one, and a quarter."""
    return -(-5 * (sum(loads) + 1) * weights[position] // (4 * sum(weights)))


def test_without_load_a_key_is_where_it_prefers_to_be() -> None:
    pool = members(1, 2, 3)
    policy, rendezvous = rebuilt("consistent_hash", pool), Rendezvous(pool)
    for key in KEYS[:200]:
        assert policy.pick(pool, [0, 0, 0], context(key=key)) == rendezvous.favourite(slot_of(key))


def test_a_new_backend_takes_its_share_and_nothing_else_moves() -> None:
    before, after = members(1, 1, 1), members(1, 1, 1, 1)
    old, new = rebuilt("consistent_hash", before), rebuilt("consistent_hash", after)
    moved = 0
    for key in KEYS:
        was = old.pick(before, [0] * 3, context(key=key))
        became = new.pick(after, [0] * 4, context(key=key))
        assert became in {was, 3}
        moved += became == 3
    assert abs(moved / len(KEYS) - 1 / 4) < 0.03


def test_only_the_keys_of_a_missing_backend_move_and_come_back() -> None:
    pool = members(1, 1, 1)
    left = pool[1:]
    policy = rebuilt("consistent_hash", pool)
    for key in KEYS:
        home = pool[policy.pick(pool, [0] * 3, context(key=key))]
        away = left[policy.pick(left, [0] * 2, context(key=key))]
        assert away is home or home is pool[0]
        assert pool[policy.pick(pool, [0] * 3, context(key=key))] is home


def test_the_overflow_of_one_hot_key_goes_down_its_own_order() -> None:
    pool = members(1, 1, 1, 1)
    policy = rebuilt("consistent_hash", pool)
    order = Rendezvous(pool).order(slot_of(b"hot"))
    loads = [0, 0, 0, 0]
    for _ in range(400):
        loads[policy.pick(pool, loads, context(key=b"hot"))] += 1
    assert loads[order[0]] == 125
    assert [loads[index] for index in order] == sorted(loads, reverse=True)


@given(
    weights=st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any).map(tuple),
    keys=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_with_arrivals_only_nobody_exceeds_its_bound(weights: tuple[int, ...], keys: int, seed: int) -> None:
    pool = members(*weights)
    policy = rebuilt("consistent_hash", pool)
    random = Random(seed)
    loads = [0] * len(pool)
    for _ in range(60):
        position = policy.pick(pool, loads, context(key=b"%d" % random.randrange(keys)))
        assert loads[position] + 1 <= bound(loads, weights, position)
        loads[position] += 1


@given(
    backends=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), min_size=1, max_size=8),
    key=st.binary(min_size=1, max_size=4),
)
def test_whatever_the_loads_the_first_with_room_in_the_order_is_picked(
    backends: list[tuple[int, int]], key: bytes
) -> None:
    weights = tuple(weight for weight, _ in backends)
    if not any(weights):
        weights = (1,) * len(weights)
    loads = [load for _, load in backends]
    pool = members(*(weight for weight, _ in backends))
    picked = rebuilt("consistent_hash", pool).pick(pool, loads, context(key=key))
    with_room = [
        position
        for position in Rendezvous(pool).order(slot_of(key))
        if loads[position] + 1 <= bound(loads, weights, position)
    ]
    assert picked == with_room[0]


@pytest.mark.parametrize("loads", [[3, 1, 2], [30, 10, 20]])
def test_a_request_without_the_key_goes_to_the_least_loaded(loads: list[int]) -> None:
    pool = members(1, 1, 1)
    assert rebuilt("consistent_hash", pool).pick(pool, loads, context()) == 1
