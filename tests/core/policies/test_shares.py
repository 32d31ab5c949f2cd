"""Simulations: of 100 000 picks every policy gives each backend its share, within one percent of all.

Idle means that each request ends before the next one comes; busy that some are in flight and a random one of
them ends when one comes: sixty, but 3 000 for consistent_hash, whose bound else moves overflow from small
backends to large ones.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from lbproc.core.pick import NoBackend, choose
from lbproc.core.policies.policy import Candidate, PickContext
from lbproc.core.policies.registry import REGISTRY
from lbproc.core.pool import PoolState, pool_state
from lbproc.types import Admin, Health
from tests.core.policies.examples import key_of, members, rebuilt, tickets

PICKS = 100_000
IN_FLIGHT = 60
MANY_IN_FLIGHT = 3000
"""Enough that chance alone keeps every backend well below the bound of consistent_hash."""

SPREADING = sorted(set(REGISTRY) - {"first_available"})
UP = (Health.UP, Admin.READY, False)
DOWN = (Health.DOWN, Admin.READY, False)

pytestmark = pytest.mark.slow

EVERY_SPREADING_POLICY = pytest.mark.parametrize("name", SPREADING)


def shares(name: str, state: PoolState, in_flight: int) -> Counter[int]:
    """Picks of each member, by its index."""
    policy = rebuilt(name, state.members)
    random = Random(11)
    made, ticket = PickContext(Random(7)), tickets()
    keys = [key_of(number) for number in range(1 << 14)]
    loads = [0] * len(state.eligible)
    held: list[int] = []
    picked: Counter[int] = Counter()
    position_of: dict[Candidate, int] = {one: position for position, one in enumerate(state.eligible)}
    for _ in range(PICKS):
        made.begin(keys[int(random.random() * len(keys))], ticket)
        choice = choose(state, policy, loads, made)
        assert not isinstance(choice, NoBackend)
        candidate, at_most = choice
        position = position_of[candidate]
        assert loads[position] <= at_most
        picked[candidate.index] += 1
        if in_flight:
            loads[position] += 1
            held.append(position)
            if len(held) > in_flight:
                ending = int(random.random() * len(held))
                held[ending], held[-1] = held[-1], held[ending]
                loads[held.pop()] -= 1
    return picked


def load_of(name: str) -> int:
    """How many are in flight when a pool of this policy is busy."""
    return MANY_IN_FLIGHT if name == "consistent_hash" else IN_FLIGHT


def assert_shares(picked: Counter[int], weights: tuple[int, ...], within: float = 0.01) -> None:
    for index, weight in enumerate(weights):
        assert abs(picked[index] / PICKS - weight / sum(weights)) < within, (picked, weights)


@EVERY_SPREADING_POLICY
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3), (5, 1, 1, 3, 0)], ids=str)
def test_shares_follow_the_weights(name: str, weights: tuple[int, ...], is_busy: bool) -> None:
    in_flight = load_of(name) if is_busy else 0
    state = pool_state(members(*weights), [UP] * len(weights))
    assert_shares(shares(name, state, in_flight), weights)


@EVERY_SPREADING_POLICY
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
def test_shares_of_a_missing_backend_go_to_the_others_by_weight(name: str, is_busy: bool) -> None:
    in_flight = load_of(name) if is_busy else 0
    state = pool_state(members(1, 2, 3, 2), [UP, DOWN, UP, UP])
    assert_shares(shares(name, state, in_flight), (1, 0, 3, 2))


def test_with_few_in_flight_the_bound_of_consistent_hash_favours_great_weights() -> None:
    """A quarter above the share is soon reached where the share is six requests."""
    weights = (5, 1, 1, 3)
    picked = shares("consistent_hash", pool_state(members(*weights), [UP] * 4), IN_FLIGHT)
    assert_shares(picked, weights, within=0.03)
    assert picked[0] / PICKS > 0.51
