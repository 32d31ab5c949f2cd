"""What every policy in the registry keeps to."""

from __future__ import annotations

from itertools import combinations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.policies.policy import PickContext
from lbproc.core.policies.registry import REGISTRY
from tests.core.policies.examples import ChosenRandom, context, key_of, members, rebuilt, tickets

EVERY_POLICY = pytest.mark.parametrize("name", sorted(REGISTRY))


@EVERY_POLICY
def test_every_subset_and_every_small_load_gives_a_position(name: str) -> None:
    pool = members(1, 2, 0, 3)
    policy = rebuilt(name, pool)
    chosen = ChosenRandom()
    made = PickContext(chosen)
    ticket = tickets()
    for size in range(1, 5):
        for candidates in combinations(pool, size):
            for loads in product(range(3), repeat=size):
                for chosen.fraction in (0.0, 0.5, 0.999_999):
                    made.begin(b"key" if sum(loads) % 2 else b"", ticket)
                    position = policy.pick(candidates, list(loads), made)
                    assert 0 <= position < size
                    assert candidates[position].weight or not any(one.weight for one in candidates)


@EVERY_POLICY
@given(drawn=st.data())
def test_any_pool_gives_a_position_and_weight_0_nothing(name: str, drawn: st.DataObject) -> None:
    pool = members(*drawn.draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12)))
    present = drawn.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    candidates = tuple(sorted(present, key=lambda one: one.index))
    loads = drawn.draw(
        st.lists(st.integers(0, 2**24 - 2), min_size=len(candidates), max_size=len(candidates))
    )
    seen = list(loads)
    made = context(drawn.draw(st.integers(0, 9)), drawn.draw(st.binary(max_size=12)))
    position = rebuilt(name, pool).pick(candidates, loads, made)
    assert 0 <= position < len(candidates)
    assert candidates[position].weight or not any(one.weight for one in candidates)
    assert loads == seen


@EVERY_POLICY
def test_one_candidate_is_picked(name: str) -> None:
    pool = members(3, 1, 2)
    policy = rebuilt(name, pool)
    for one in pool:
        assert policy.pick((one,), [7], context(key=b"key")) == 0


@EVERY_POLICY
def test_two_workers_pick_alike_from_the_same_arguments(name: str) -> None:
    pool = members(1, 2, 3, 2)
    here, there = rebuilt(name, pool), rebuilt(name, pool)
    ours, theirs = PickContext(Random(5)), PickContext(Random(5))
    our_ticket, their_ticket = tickets(), tickets()
    random = Random(3)
    for number in range(300):
        loads = [random.randrange(4) for _ in pool]
        ours.begin(key_of(number), our_ticket)
        theirs.begin(key_of(number), their_ticket)
        assert here.pick(pool, loads, ours) == there.pick(pool, list(loads), theirs)


@EVERY_POLICY
def test_what_a_policy_remembers_of_a_set_of_candidates_changes_no_pick(name: str) -> None:
    pool = members(1, 2, 3, 2)
    sets = [pool, pool[1:], pool[:2], pool[::2]]
    remembering = rebuilt(name, pool)
    random = Random(3)
    for number in range(300):
        candidates = random.choice(sets)
        loads = [random.randrange(4) for _ in candidates]
        ours, theirs = context(number, key_of(number)), context(number, key_of(number))
        copy = (*candidates,)
        assert remembering.pick(candidates, loads, ours) == rebuilt(name, pool).pick(copy, loads, theirs)


@EVERY_POLICY
def test_no_tie_always_goes_to_the_first(name: str) -> None:
    for pool in (members(1, 1, 1), members(2, 2, 2, 1), members(0, 0, 0)):
        policy = rebuilt(name, pool)
        made, ticket = PickContext(Random(1)), tickets()
        picked = set()
        for number in range(200):
            made.begin(key_of(number), ticket)
            picked.add(policy.pick(pool, [0] * len(pool), made))
        assert picked == ({0} if name == "first_available" else set(range(len(pool))))


@EVERY_POLICY
def test_members_can_change(name: str) -> None:
    policy = rebuilt(name, members(1, 1))
    made, ticket = PickContext(Random(1)), tickets()
    for pool in (members(1), members(1, 2, 3, 4, 5), members(5, 1)):
        policy.rebuild(pool)
        for number in range(50):
            made.begin(key_of(number), ticket)
            assert 0 <= policy.pick(pool, [0] * len(pool), made) < len(pool)


@EVERY_POLICY
def test_a_weight_that_becomes_0_ends_the_traffic(name: str) -> None:
    policy = rebuilt(name, members(1, 1, 1))
    policy.pick(members(1, 1, 1), [0, 0, 0], context(key=b"key"))
    pool = members(0, 1, 1)
    policy.rebuild(pool)
    made, ticket = PickContext(Random(1)), tickets()
    for number in range(100):
        made.begin(key_of(number), ticket)
        assert policy.pick(pool, [0, 9, 9], made) != 0


@EVERY_POLICY
def test_only_round_robin_takes_a_ticket_and_only_one_per_request(name: str) -> None:
    pool = members(1, 2, 3)
    policy = rebuilt(name, pool)
    ticket, made = tickets(), PickContext(Random(1))
    for number in range(20):
        made.begin(key_of(number), ticket)
        for _ in range(3):
            policy.pick(pool, [0, 0, 0], made)
    assert ticket() == (20 if name == "round_robin" else 0)


@EVERY_POLICY
def test_only_hashing_policies_look_at_the_key(name: str) -> None:
    pool = members(1, 2, 3)
    policy = rebuilt(name, pool)
    picks = {policy.pick(pool, [0, 0, 0], context(7, key_of(number))) for number in range(100)}
    assert len(picks) == (3 if policy.needs_key else 1)
