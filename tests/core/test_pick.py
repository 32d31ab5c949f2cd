"""One pick, and several workers that pick from the same totals in every order there is."""

from __future__ import annotations

from random import Random

import pytest

from lbproc.core.pick import UNLIMITED, NoBackend, choose
from lbproc.core.policies.policy import PickContext
from lbproc.core.policies.registry import REGISTRY
from lbproc.core.pool import PoolState, pool_state
from lbproc.types import Admin, Health
from tests.core.interleaving import Interleaving, Worker, World
from tests.core.policies.examples import context, members, rebuilt

EVERY_POLICY = pytest.mark.parametrize("name", sorted(REGISTRY))
UP = (Health.UP, Admin.READY, False)


def all_up(*weights: int, cap: int | None = None) -> PoolState:
    return pool_state(members(*weights, cap=cap), [UP] * len(weights))


# One pick.


@EVERY_POLICY
def test_nothing_eligible_is_no_backend(name: str) -> None:
    state = pool_state(members(1), [(Health.DOWN, Admin.READY, False)])
    assert choose(state, rebuilt(name, state.members), [], context()) is NoBackend.NONE_ELIGIBLE


@EVERY_POLICY
def test_all_at_their_caps_is_full(name: str) -> None:
    state = all_up(1, 2, cap=3)
    assert choose(state, rebuilt(name, state.members), [3, 4], context()) is NoBackend.ALL_FULL


@EVERY_POLICY
def test_the_condition_of_a_take_is_the_load_seen_or_no_limit(name: str) -> None:
    state = all_up(1, 1, 1)
    policy = rebuilt(name, state.members)
    loads = [5, 4, 6]
    choice = choose(state, policy, loads, context(key=b"key"))
    assert not isinstance(choice, NoBackend)
    candidate, at_most = choice
    assert at_most == (loads[candidate.index] if policy.exact else UNLIMITED)


@EVERY_POLICY
def test_the_condition_of_a_take_is_below_the_cap(name: str) -> None:
    state = all_up(1, 1, 1, cap=7)
    policy = rebuilt(name, state.members)
    loads = [5, 4, 6]
    choice = choose(state, policy, loads, context(key=b"key"))
    assert not isinstance(choice, NoBackend)
    candidate, at_most = choice
    assert at_most == (loads[candidate.index] if policy.exact else 6)


@EVERY_POLICY
def test_a_full_backend_is_not_picked(name: str) -> None:
    state = all_up(1, 1, 1, cap=7)
    policy = rebuilt(name, state.members)
    for seed in range(30):
        choice = choose(state, policy, [7, 6, 9], context(seed, b"%d" % seed))
        assert not isinstance(choice, NoBackend)
        candidate, at_most = choice
        assert (candidate, at_most) == (state.members[1], 6)


def test_a_cap_of_one_backend_does_not_limit_the_others() -> None:
    pool = (*members(1), *members(1, 1, cap=2)[1:])
    state = pool_state(pool, [UP, UP])
    policy = rebuilt("first_available", pool)
    assert choose(state, policy, [50_000, 0], context()) == (pool[0], UNLIMITED)


# Several workers on the same totals.


def spread(world: World) -> int:
    return max(world.totals) - min(world.totals)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backends", "arrivals"),
    [(2, (2, 2)), (2, (1, 1, 2)), (3, (2, 2)), (3, (1, 1, 1)), (2, (4, 3)), (2, (2, 2, 2)), (3, (2, 2, 2))],
)
def test_with_arrivals_only_equal_backends_never_differ_by_more_than_1(
    backends: int, arrivals: tuple[int, ...]
) -> None:
    def check(world: World) -> None:
        assert spread(world) <= 1

    first = World((0,) * backends, tuple(Worker(number) for number in arrivals))
    ends = Interleaving("least_connections", all_up(*[1] * backends)).explore(first, check)
    assert {sum(world.totals) for world in ends} == {sum(arrivals)}


@pytest.mark.slow
def test_with_arrivals_only_weights_hold_at_every_step_and_exactly_at_the_end() -> None:
    weights = (1, 2)

    def check(world: World) -> None:
        for load, weight in zip(world.totals, weights, strict=True):
            for other, other_weight in zip(world.totals, weights, strict=True):
                assert (load - 1) * other_weight <= other * weight

    first = World((0, 0), (Worker(3), Worker(3)))
    ends = Interleaving("least_connections", all_up(*weights)).explore(first, check)
    assert {world.totals for world in ends} == {(2, 4)}


@pytest.mark.slow
@EVERY_POLICY
def test_a_cap_is_never_exceeded_and_never_refuses_too_early(name: str) -> None:
    def check(world: World) -> None:
        assert max(world.totals) <= 2

    first = World((0, 0), (Worker(3), Worker(3)))
    ends = Interleaving(name, all_up(1, 1, cap=2)).explore(first, check)
    assert {(world.totals, world.refused) for world in ends} == {((2, 2), 2)}


@pytest.mark.slow
@EVERY_POLICY
def test_a_cap_is_never_exceeded_while_requests_come_and_go(name: str) -> None:
    def check(world: World) -> None:
        assert max(world.totals) <= 1
        held = [index for worker in world.workers for index in worker.held]
        assert world.totals == (held.count(0), held.count(1))

    first = World((0, 0), (Worker(2), Worker(2)))
    ends = Interleaving(name, all_up(1, 2, cap=1), releases=True).explore(first, check)
    assert {world.totals for world in ends} == {(0, 0)}


@pytest.mark.slow
def test_the_check_finds_a_policy_that_takes_places_without_looking_again() -> None:
    """The model is worth something: what is not exact does differ by more than 1."""
    worst = 0

    def check(world: World) -> None:
        nonlocal worst
        worst = max(worst, spread(world))

    first = World((0, 0), (Worker(1), Worker(1)))
    Interleaving("random", all_up(1, 1)).explore(first, check)
    assert worst == 2


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "expected"), [((1, 1, 1), (100, 100, 100)), ((1, 2, 3), (50, 100, 150))])
def test_300_held_over_four_workers_are_shared_exactly(
    weights: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    random = Random(1)
    for _ in range(5):
        interleaving = Interleaving("least_connections", all_up(*weights))
        world = World((0, 0, 0), (Worker(75),) * 4)
        while any(worker.arrivals for worker in world.workers):
            world = random.choice(list(interleaving.steps(world)))
            for load, weight in zip(world.totals, weights, strict=True):
                for other, other_weight in zip(world.totals, weights, strict=True):
                    assert (load - 1) * other_weight <= other * weight
        assert world.totals == expected


def test_round_robin_over_four_workers_gives_exact_rounds_whatever_the_order_of_takes() -> None:
    state = all_up(1, 2, 3)
    policies = [rebuilt("round_robin", state.members) for _ in range(4)]
    contexts = [PickContext(Random(seed)) for seed in range(4)]
    random = Random(2)
    tickets = iter(range(3000))
    totals = [0, 0, 0]
    for _ in range(3000):
        number = random.randrange(4)
        contexts[number].begin(b"", tickets.__next__)
        choice = choose(state, policies[number], [0, 0, 0], contexts[number])
        assert not isinstance(choice, NoBackend)
        totals[choice[0].index] += 1
    assert totals == [500, 1000, 1500]
