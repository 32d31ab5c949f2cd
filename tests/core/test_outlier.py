"""Passive checks, the deciding: what counts, when, for how long, how many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.config.outlier import OutlierConfig
from lbproc.core.http.exchange import Fault, is_backend_fault
from lbproc.core.outlier import OutlierRules, is_failed_answer

SECOND = 1_000_000_000
INSTANTS = st.integers(1, 10**18)

BACKENDS_FAULTS = {
    Fault.CONNECT_REFUSED,
    Fault.CONNECT_TIMEOUT,
    Fault.CONNECT_UNREACHABLE,
    Fault.CONNECT_FAILED,
    Fault.TLS_TIMEOUT,
    Fault.TLS_ENDED,
    Fault.TLS_PROTOCOL,
    Fault.TLS_CERTIFICATE,
    Fault.TLS_ALERT,
    Fault.BACKEND_LOST,
    Fault.BACKEND_STALLED,
    Fault.RESPONSE_TIMEOUT,
    Fault.RESPONSE_MALFORMED,
    Fault.RESPONSE_INCOMPLETE,
    Fault.RESPONSE_STALLED,
}
OTHERS_FAULTS = {
    Fault.BACKEND_DOWN,
    Fault.REQUEST_MALFORMED,
    Fault.REQUEST_TOO_LARGE,
    Fault.REQUEST_TIMEOUT,
    Fault.OUT_OF_SOCKETS,
    Fault.OUT_OF_PLACES,
    Fault.NO_BACKEND,
    Fault.ALL_FULL,
    Fault.MISDIRECTED,
    Fault.NO_ROUTE,
    Fault.CLIENT_GONE,
    Fault.CLIENT_STALLED,
}


def test_nothing_that_can_go_wrong_is_forgotten() -> None:
    assert set(Fault) == BACKENDS_FAULTS | OTHERS_FAULTS


@pytest.mark.parametrize("status", range(100, 600))
def test_every_5xx_counts_and_no_other_answer(status: int) -> None:
    assert is_failed_answer(status) is (status // 100 == 5)


@pytest.mark.parametrize("fault", sorted(BACKENDS_FAULTS, key=str))
def test_what_the_backend_did_counts(fault: Fault) -> None:
    assert is_backend_fault(fault)


@pytest.mark.parametrize("fault", sorted(OTHERS_FAULTS, key=str))
def test_what_the_client_did_or_lbproc_lacked_never_counts(fault: Fault) -> None:
    assert not is_backend_fault(fault)


def test_as_many_failures_in_a_row_as_were_asked_for_are_enough_and_so_are_more() -> None:
    rules = OutlierRules(consecutive_errors=5)
    assert [rules.is_due(errors) for errors in range(8)] == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("share", "members", "most"),
    [
        (0.5, 1, 0),
        (0.5, 2, 1),
        (0.5, 3, 1),
        (0.5, 4, 2),
        (0.5, 5, 2),
        (0.1, 2, 1),
        (0.1, 30, 3),
        (0.29, 100, 29),
        (1.0, 1, 1),
        (1.0, 7, 7),
        (0.5, 0, 0),
    ],
)
def test_share_of_the_ejected_is_rounded_down_but_one_of_two_may_always_go(
    share: float, members: int, most: int
) -> None:
    assert OutlierRules(max_ejected=share).most_ejected(members) == most


def test_ejections_in_a_row_take_longer_and_longer_up_to_ten_times() -> None:
    rules = OutlierRules(eject_for=30.0)
    now, number, returned_at, lengths = SECOND, 0, 0, []
    for _ in range(12):
        number, until = rules.next_ejection(number, returned_at, now)
        lengths.append((until - now) // SECOND)
        returned_at = until
        now = until + SECOND
    assert lengths == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    assert number == 12


def test_longest_ejection_is_what_the_operator_says() -> None:
    rules = OutlierRules(eject_for=30.0, max_eject_for=45.0)
    assert (rules.next_ejection(1, SECOND, SECOND).until - SECOND) // SECOND == 45


def test_good_time_as_long_as_the_last_ejection_begins_anew() -> None:
    rules = OutlierRules(eject_for=30.0)
    returned_at = 1000 * SECOND
    assert rules.next_ejection(3, returned_at, returned_at + 90 * SECOND - 1).number == 4
    assert rules.next_ejection(3, returned_at, returned_at + 90 * SECOND).number == 1


@given(st.integers(0, 10**6), INSTANTS, INSTANTS, st.floats(0.001, 10**6), st.floats(0.001, 10**6))
def test_every_ejection_ends_later_than_now_at_an_even_instant(
    ejections: int, returned_at: int, now: int, eject_for: float, longest: float
) -> None:
    rules = OutlierRules(eject_for=eject_for, max_eject_for=max(eject_for, longest))
    number, until = rules.next_ejection(ejections, returned_at, now)
    assert 1 <= number <= ejections + 1
    assert until % 2 == 0
    assert 0 < until - now <= max(eject_for, longest) * SECOND + 2
    assert rules.next_ejection(ejections + 1, returned_at, now).until >= until


@given(st.floats(0.001, 1.0), st.integers(0, 5000))
def test_never_more_than_the_share_are_ejected_but_for_the_one(share: float, members: int) -> None:
    most = OutlierRules(max_ejected=share).most_ejected(members)
    assert 0 <= most <= max(1, share * members + 1e-6)
    assert most <= members


def test_rules_are_those_of_the_configuration() -> None:
    config = OutlierConfig.model_validate({"consecutive_errors": 3, "eject_for": "10s", "max_ejected": 0.2})
    assert OutlierRules.of(config) == OutlierRules(3, 10.0, 100.0, 0.2)
