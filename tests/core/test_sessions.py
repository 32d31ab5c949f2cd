"""When sessions of datagrams end, and in which order they are looked at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.sessions import QUIET, REMOVED_WITHIN, Expiry, Stage, ends_at

IDLE = 30.0


@pytest.mark.parametrize(
    ("stage", "heard_at", "moved_at", "since", "expected"),
    [
        (Stage.SERVING, 5.0, 20.0, 0.0, 20.0 + IDLE),
        (Stage.RETIRED, 5.0, 20.0, 10.0, 5.0 + IDLE),
        (Stage.LEFT, 5.0, 20.0, 10.0, 5.0 + IDLE),
        (Stage.REMOVED, 5.0, 9.0, 10.0, 10.0 + QUIET),
        (Stage.REMOVED, 5.0, 11.0, 10.0, 11.0 + QUIET),
        (Stage.REMOVED, 100.0, 100.0, 10.0, 10.0 + REMOVED_WITHIN),
        (Stage.STOPPING, 5.0, 9.0, 10.0, 10.0 + QUIET),
        (Stage.STOPPING, 100.0, 100.0, 10.0, 100.0 + QUIET),
    ],
)
def test_a_session_ends_when_its_stage_says(
    stage: Stage, heard_at: float, moved_at: float, since: float, expected: float
) -> None:
    assert ends_at(stage, IDLE, heard_at, moved_at, since) == expected


def test_sessions_begin_while_their_address_is_there() -> None:
    assert {stage for stage in Stage if stage.takes_new} == {Stage.SERVING, Stage.RETIRED}


def test_later_stages_are_more_urgent() -> None:
    assert sorted(Stage, key=lambda stage: stage.value) == [
        Stage.SERVING,
        Stage.RETIRED,
        Stage.LEFT,
        Stage.REMOVED,
        Stage.STOPPING,
    ]


def test_nothing_is_due_where_nothing_is() -> None:
    expiry: Expiry[str] = Expiry()
    assert expiry.next_at == math.inf
    assert list(expiry.due(1e9)) == []


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 100)), st.lists(st.floats(0, 120)))
def test_each_is_due_once_when_its_time_has_come(times: dict[str, float], looks: list[float]) -> None:
    expiry: Expiry[str] = Expiry()
    for name, at in times.items():
        expiry.add(name, at)
    seen: list[str] = []
    for now in sorted(looks):
        assert (expiry.next_at <= now) is any(at <= now for name, at in times.items() if name not in seen)
        for name in expiry.due(now):
            assert times[name] <= now
            seen.append(name)
        assert sorted(seen) == sorted(name for name, at in times.items() if at <= now)


def test_a_reset_forgets_what_was_there() -> None:
    expiry: Expiry[str] = Expiry()
    expiry.add("gone", 1.0)
    expiry.add("stays", 2.0)
    expiry.reset(["stays"], lambda _: 9.0)
    assert expiry.next_at == 9.0
    assert list(expiry.due(5.0)) == []
    assert list(expiry.due(9.0)) == ["stays"]
