"""Panic: when most of a pool is away, all that the operator allows get traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.pool import PoolState, Status, pool_state
from lbproc.types import Admin, Health
from tests.core.policies.examples import members

UP: Status = (Health.UP, Admin.READY, False)
DOWN: Status = (Health.DOWN, Admin.READY, False)
EJECTED: Status = (Health.UP, Admin.READY, True)
CHECKING: Status = (Health.CHECKING, Admin.READY, False)
STARTING: Status = (Health.STARTING, Admin.READY, False)
DRAIN: Status = (Health.UP, Admin.DRAIN, False)
MAINTENANCE: Status = (Health.UP, Admin.MAINTENANCE, False)

STATUSES = st.tuples(st.sampled_from(Health), st.sampled_from(Admin), st.booleans())


def eligible(state: PoolState) -> list[int]:
    return [candidate.index for candidate in state.eligible]


@pytest.mark.parametrize(
    ("statuses", "panic", "expected"),
    [
        ([UP, UP, DOWN, DOWN], False, [0, 1]),
        ([UP, DOWN, DOWN, DOWN], True, [0, 1, 2, 3]),
        ([UP, EJECTED, EJECTED, EJECTED], True, [0, 1, 2, 3]),
        ([STARTING, DOWN, EJECTED, UP], False, [0, 3]),
        ([DOWN, DOWN, EJECTED, DOWN], True, [0, 1, 2, 3]),
    ],
)
def test_fewer_than_the_threshold_are_not_sent_everything(
    statuses: list[Status], panic: bool, expected: list[int]
) -> None:
    state = pool_state(members(1, 1, 1, 1), statuses, 0.5)
    assert (state.panic, eligible(state)) == (panic, expected)


@pytest.mark.parametrize(
    ("statuses", "panic", "expected"),
    [
        ([UP, DOWN, DRAIN, MAINTENANCE], False, [0]),
        ([UP, DOWN, DOWN, DRAIN], True, [0, 1, 2]),
        ([DRAIN, DRAIN, MAINTENANCE, DRAIN], False, []),
        ([UP, CHECKING, CHECKING, CHECKING], False, [0]),
        ([CHECKING, CHECKING, CHECKING, CHECKING], False, []),
        ([DOWN, CHECKING, CHECKING, CHECKING], True, [0]),
    ],
)
def test_who_is_out_on_purpose_or_unknown_neither_counts_nor_gets_anything(
    statuses: list[Status], panic: bool, expected: list[int]
) -> None:
    state = pool_state(members(1, 1, 1, 1), statuses, 0.5)
    assert (state.panic, eligible(state)) == (panic, expected)


def test_weight_0_neither_counts_nor_gets_anything() -> None:
    state = pool_state(members(1, 0, 1, 1), [DOWN, UP, UP, DOWN], 0.5)
    assert (state.panic, eligible(state)) == (True, [0, 2, 3])


@pytest.mark.parametrize(
    ("statuses", "panic", "expected", "standing_by"),
    [
        ([UP, DOWN, DOWN, UP, UP], True, [0, 1, 2], [3, 4]),
        ([UP, UP, DOWN, UP, DOWN], False, [0, 1], [3]),
        ([DOWN, DOWN, DOWN, UP, UP], False, [3, 4], []),
        ([DOWN, DOWN, DOWN, UP, EJECTED], False, [3], []),
        ([DOWN, DOWN, DOWN, DOWN, DOWN], True, [0, 1, 2], []),
        ([DRAIN, DRAIN, DRAIN, DOWN, DOWN], True, [3, 4], []),
    ],
)
def test_backups_take_over_as_always_and_are_judged_by_themselves(
    statuses: list[Status], panic: bool, expected: list[int], standing_by: list[int]
) -> None:
    state = pool_state(members(1, 1, 1, 1, 1, backups=2), statuses, 0.5)
    assert (state.panic, eligible(state)) == (panic, expected)
    assert [candidate.index for candidate in state.backups] == standing_by


def test_too_few_backups_are_not_sent_everything_either() -> None:
    state = pool_state(members(1, 1, 1, 1, backups=3), [DOWN, DOWN, UP, DOWN], 0.5)
    assert (state.panic, eligible(state)) == (True, [1, 2, 3])


def test_a_tried_one_is_left_out_in_panic_too() -> None:
    pool = members(1, 1, 1)
    state = pool_state(pool, [DOWN, DOWN, UP], 0.5)
    rest = state.without([pool[2]])
    assert rest.panic
    assert eligible(rest) == [0, 1]


@given(st.lists(STATUSES, max_size=6), st.integers(0, 6))
def test_without_a_threshold_nothing_changes(statuses: list[Status], backups: int) -> None:
    pool = members(*[1] * len(statuses), backups=min(backups, len(statuses)))
    assert pool_state(pool, statuses, 0.0) == pool_state(pool, statuses)
    assert not pool_state(pool, statuses).panic


@given(st.lists(st.tuples(STATUSES, st.integers(0, 2)), max_size=6), st.integers(0, 6), st.floats(0, 1))
def test_panic_only_ever_adds_and_never_overrules_the_operator(
    given_members: list[tuple[Status, int]], backups: int, threshold: float
) -> None:
    statuses = [status for status, _ in given_members]
    pool = members(*[weight for _, weight in given_members], backups=min(backups, len(statuses)))
    calm, state = pool_state(pool, statuses), pool_state(pool, statuses, threshold)
    assert set(calm.eligible) <= set(state.eligible)
    assert state.panic == (state.eligible != calm.eligible)
    for candidate in state.eligible:
        health, admin, _ = statuses[candidate.index]
        assert admin is Admin.READY
        assert health is not Health.CHECKING
    assert len({candidate.backup for candidate in state.eligible}) <= 1
