"""The first one left."""

from __future__ import annotations

from tests.core.policies.examples import context, members, rebuilt


def test_the_first_of_some_weight_is_picked_whatever_the_loads() -> None:
    pool = members(0, 1, 5)
    policy = rebuilt("first_available", pool)
    assert policy.pick(pool, [0, 99, 0], context()) == 1
    assert policy.pick(pool[2:], [7], context()) == 0


def test_the_first_of_all_when_none_has_weight() -> None:
    pool = members(0, 0)
    assert rebuilt("first_available", pool).pick(pool, [5, 0], context()) == 0
