"""Orders of preference: stable, minimal in movement, by weight."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.policies.rendezvous import MAX_RANKED, SLOTS, Rendezvous, slot_of
from tests.core.policies.examples import key_of, members

SOME_SLOTS = range(0, SLOTS, 31)


def test_slots_and_orders_are_the_same_in_every_version() -> None:
    """Held fast: a change would move every client of every installation to another backend."""
    assert [slot_of(key) for key in (b"", b"192.0.2.1", b"2001:db8::1")] == [45566, 10050, 28137]
    assert [Rendezvous(members(1, 1, 2, 3)).order(slot) for slot in (0, 1, 40_000)] == [
        (3, 1, 0, 2),
        (3, 1, 2, 0),
        (1, 3, 2, 0),
    ]


def test_the_favourite_is_the_first_of_the_order() -> None:
    rendezvous = Rendezvous(members(1, 2, 3, 0))
    for slot in SOME_SLOTS:
        assert rendezvous.favourite(slot) == rendezvous.order(slot)[0]
        assert rendezvous.favourite(slot) == rendezvous.favourite(slot)
        assert rendezvous.order(slot) is rendezvous.order(slot)


def test_an_order_holds_everybody_once_and_weight_0_last() -> None:
    rendezvous = Rendezvous(members(0, 1, 1000, 0, 3))
    for slot in SOME_SLOTS:
        order = rendezvous.order(slot)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert set(order[3:]) == {0, 3}


def test_those_of_weight_0_stand_in_no_fixed_order() -> None:
    rendezvous = Rendezvous(members(0, 0, 1))
    assert {rendezvous.order(slot)[1] for slot in SOME_SLOTS} == {0, 1}


def test_a_member_that_leaves_gives_up_its_slots_and_no_other_moves() -> None:
    pool = members(1, 2, 3, 1, 1)
    before = Rendezvous(pool)
    after = Rendezvous(pool[:2] + pool[3:])
    for slot in SOME_SLOTS:
        left = [index for index in before.order(slot) if index != 2]
        assert [index if index < 2 else index + 1 for index in after.order(slot)] == left


@pytest.mark.slow
def test_a_member_that_grows_takes_slots_and_no_other_moves() -> None:
    before, after = Rendezvous(members(2, 2, 2)), Rendezvous(members(2, 3, 2))
    moved = 0
    for slot in range(SLOTS):
        old, new = before.favourite(slot), after.favourite(slot)
        assert new in {old, 1}
        moved += old != new
    # From a third to three sevenths of everything: two in 21 move, and not one more than has to.
    assert abs(moved / SLOTS - 2 / 21) < 0.01


def test_order_in_the_configuration_and_names_do_not_matter() -> None:
    pool = members(1, 2, 3)
    turned = tuple(replace(one, index=place, name=f"x{place}") for place, one in enumerate(reversed(pool)))
    here, there = Rendezvous(pool), Rendezvous(turned)
    assert all(here.favourite(slot) == 2 - there.favourite(slot) for slot in SOME_SLOTS)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 3), (5, 1), (1,) * 16])
def test_slots_are_shared_out_by_weight(weights: tuple[int, ...]) -> None:
    rendezvous = Rendezvous(members(*weights))
    shares = Counter(map(rendezvous.favourite, range(SLOTS)))
    assert all(
        abs(shares[index] / SLOTS - weight / sum(weights)) < 0.005 for index, weight in enumerate(weights)
    )


def test_similar_keys_spread_over_the_slots() -> None:
    assert len({slot_of(key_of(number)) for number in range(4096)}) > 3900


@given(st.binary(max_size=40))
def test_every_key_has_a_slot(key: bytes) -> None:
    assert 0 <= slot_of(key) < SLOTS


def test_remembered_orders_are_bounded() -> None:
    pool = members(*[1] * 40)
    rendezvous = Rendezvous(pool)
    for slot in range(0, SLOTS, 9):
        rendezvous.order(slot)
        assert len(rendezvous._orders) * len(pool) <= MAX_RANKED
