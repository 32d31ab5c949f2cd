"""Clients stay where they are."""

from __future__ import annotations

from collections import Counter

from tests.core.policies.examples import context, key_of, members, rebuilt

CLIENTS = [key_of(number) for number in range(2000)]


def test_a_client_stays_whatever_the_loads() -> None:
    pool = members(1, 2, 3)
    policy = rebuilt("ip_hash", pool)
    for client in CLIENTS[:100]:
        picks = {
            policy.pick(pool, loads, context(key=client)) for loads in ([0, 0, 0], [99, 0, 0], [0, 9, 99])
        }
        assert len(picks) == 1


def test_only_the_clients_of_a_missing_backend_move_and_they_spread() -> None:
    pool = members(1, 1, 1, 1)
    left = (pool[0], pool[2], pool[3])
    policy = rebuilt("ip_hash", pool)
    moved: Counter[int] = Counter()
    for client in CLIENTS:
        home = pool[policy.pick(pool, [0] * 4, context(key=client))]
        away = left[policy.pick(left, [0] * 3, context(key=client))]
        if home is pool[1]:
            moved[away.index] += 1
        else:
            assert away is home
        assert pool[policy.pick(pool, [0] * 4, context(key=client))] is home
    assert set(moved) == {0, 2, 3}
    assert min(moved.values()) > 100


def test_a_client_without_an_address_goes_to_the_least_loaded() -> None:
    pool = members(1, 1, 1)
    policy = rebuilt("ip_hash", pool)
    assert policy.pick(pool, [3, 1, 2], context()) == 1
