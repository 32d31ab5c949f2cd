"""Which backends may take a request."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.pool import MAX_PARTS, NO_CAP, PoolState, Status, pool_state, status_of
from lbproc.types import Admin, Health
from tests.core.policies.examples import members

UP: Status = (Health.UP, Admin.READY, False)
DOWN: Status = (Health.DOWN, Admin.READY, False)


def indexes(state: PoolState) -> list[int]:
    return [candidate.index for candidate in state.eligible]


@pytest.mark.parametrize(("health", "admin", "ejected"), list(product(Health, Admin, (False, True))))
def test_a_backend_takes_requests_when_up_or_starting_and_ready_and_not_ejected(
    health: Health, admin: Admin, ejected: bool
) -> None:
    expected = health in {Health.UP, Health.STARTING} and admin is Admin.READY and not ejected
    assert indexes(pool_state(members(1), [(health, admin, ejected)])) == ([0] if expected else [])


def test_eligible_candidates_are_in_member_order() -> None:
    assert indexes(pool_state(members(1, 1, 1, 1), [UP, DOWN, UP, UP])) == [0, 2, 3]


def test_backups_stand_by_while_a_primary_is_left() -> None:
    state = pool_state(members(1, 1, 1, backups=1), [DOWN, UP, UP])
    assert indexes(state) == [1]
    assert [candidate.index for candidate in state.backups] == [2]


def test_backups_take_over_when_no_primary_is_left() -> None:
    state = pool_state(members(1, 1, 1, 1, backups=2), [DOWN, DOWN, DOWN, UP])
    assert indexes(state) == [3]
    assert state.backups == ()


def test_a_pool_of_backups_only_uses_them() -> None:
    assert indexes(pool_state(members(1, 1, backups=2), [UP, UP])) == [0, 1]


def test_weight_0_is_no_traffic_even_when_the_others_are_away() -> None:
    assert indexes(pool_state(members(0, 1), [UP, UP])) == [1]
    assert indexes(pool_state(members(0, 1), [UP, DOWN])) == []


def test_a_backup_takes_over_for_primaries_of_weight_0() -> None:
    assert indexes(pool_state(members(0, 1, backups=1), [UP, UP])) == [1]


def test_all_weights_0_count_as_equal() -> None:
    assert indexes(pool_state(members(0, 0, 0), [UP, DOWN, UP])) == [0, 2]


def test_an_empty_pool_has_nothing_eligible() -> None:
    assert pool_state((), ()) == PoolState((), (), (), None)


def test_every_member_needs_a_status() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pool_state(members(1, 1), [UP])


def test_caps_are_those_of_the_eligible() -> None:
    plain, capped, large = members(1)[0], *members(1, 1, cap=NO_CAP + 5)
    capped = members(1, 1, 1, cap=7)[1]
    state = pool_state((plain, capped, large), [UP, UP, UP])
    assert state.caps == (NO_CAP, 7, NO_CAP)
    assert pool_state((plain, capped), [DOWN, UP]).caps == (7,)
    assert pool_state((plain, capped), [UP, DOWN]).caps is None


def test_caps_are_those_of_the_backups_when_they_take_over() -> None:
    pool = (*members(1), *members(1, 1, cap=3, backups=1)[1:])
    assert pool_state(pool, [UP, UP]).caps is None
    assert pool_state(pool, [DOWN, UP]).caps == (3,)


def test_without_tried_ones_nothing_is_worked_out_anew() -> None:
    state = pool_state(members(1, 1), [UP, UP])
    assert state.without([]) is state


def test_tried_ones_are_left_out_and_backups_come_in_when_all_primaries_were_tried() -> None:
    pool = members(1, 1, 1, 1, backups=2)
    state = pool_state(pool, [UP] * 4)
    assert indexes(state.without([pool[0]])) == [1]
    assert indexes(state.without([pool[0], pool[1]])) == [2, 3]
    assert indexes(state.without([pool[0], pool[1], pool[2]])) == [3]
    assert indexes(state.without(pool)) == []


def test_a_tried_one_stays_tried_when_its_weight_has_changed_since() -> None:
    tried = members(1, 1)[0]
    assert indexes(pool_state(members(5, 5), [UP, UP]).without([tried])) == [1]


@given(
    weights=st.lists(st.integers(0, 3), max_size=6),
    backups=st.integers(0, 6),
    statuses=st.lists(
        st.tuples(st.sampled_from(Health), st.sampled_from(Admin), st.booleans()), min_size=6, max_size=6
    ),
    mask=st.integers(0, 63),
)
def test_eligible_are_members_of_one_kind_and_tried_ones_are_gone(
    weights: list[int], backups: int, statuses: list[Status], mask: int
) -> None:
    pool = members(*weights, backups=min(backups, len(weights)))
    state = pool_state(pool, statuses[: len(pool)])
    tried = [one for one in pool if mask >> one.index & 1]
    for looked_at, gone in ((state, []), (state.without(tried), tried)):
        assert len({one.backup for one in looked_at.eligible}) <= 1
        assert indexes(looked_at) == sorted(indexes(looked_at))
        assert set(looked_at.eligible) <= set(pool) - set(gone)
        # Nobody that could help is left out: nothing eligible means nothing stands by either.
        assert looked_at.eligible or not looked_at.backups


def test_a_part_is_the_same_tuple_for_the_same_positions_and_remembered_parts_are_bounded() -> None:
    pool = members(*[1] * 7)
    state = pool_state(pool, [UP] * 7)
    assert state.part((0, 3)) == (pool[0], pool[3])
    assert state.part((0, 3)) is state.part((0, 3))
    for mask in range(128):
        state.part(tuple(position for position in range(7) if mask >> position & 1))
        assert len(state._parts) <= MAX_PARTS


def test_of_a_backend_that_nobody_can_find_nothing_is_known() -> None:
    assert status_of((Health.UP, Admin.DRAIN, True), is_resolved=True) == (Health.UP, Admin.DRAIN, True)
    unknown = status_of((Health.UP, Admin.READY, False), is_resolved=False)
    assert unknown == (Health.CHECKING, Admin.READY, False)
    pool = members(1, 1)
    assert indexes(pool_state(pool, [UP, unknown])) == [0]
    assert not pool_state(pool, [UP, unknown], 1.0).panic
