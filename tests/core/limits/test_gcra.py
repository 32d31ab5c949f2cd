"""One decision of a rate limit, and what a limit promises over time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.limits.gcra import SECOND, Decision, RateLimit, carried_over

LIMITS = st.builds(RateLimit, interval=st.integers(1, 50), burst=st.integers(1, 6))
COMINGS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=40)


@pytest.mark.parametrize(
    ("amount", "seconds", "burst", "expected"),
    [
        (100, 1, None, RateLimit(10_000_000, 100)),
        (1000, 60, 50, RateLimit(60_000_000, 50)),
        (3, 1, None, RateLimit(333_333_334, 3)),
        (1, 60, None, RateLimit(60 * SECOND, 1)),
        (100_000, 60, None, RateLimit(600_000, 1666)),
        (7 * SECOND, 1, 1, RateLimit(1, 1)),
    ],
)
def test_intervals_are_rounded_up_and_burst_defaults_to_a_second(
    amount: int, seconds: int, burst: int | None, expected: RateLimit
) -> None:
    assert RateLimit.per(amount, seconds, burst) == expected


def test_a_full_bucket_admits_a_burst_at_once_and_then_one_per_interval() -> None:
    limit = RateLimit(interval=10, burst=3)
    decisions, arrival_at = [], 0
    for now in (1000, 1000, 1000, 1000, 1009, 1010, 1010):
        decision = limit.decide(arrival_at, now)
        decisions.append(decision)
        arrival_at = decision.arrival_at
    assert decisions == [
        Decision(admitted=True, arrival_at=1010, retry_after=0, remaining=2),
        Decision(admitted=True, arrival_at=1020, retry_after=0, remaining=1),
        Decision(admitted=True, arrival_at=1030, retry_after=0, remaining=0),
        Decision(admitted=False, arrival_at=1030, retry_after=10, remaining=0),
        Decision(admitted=False, arrival_at=1030, retry_after=1, remaining=0),
        Decision(admitted=True, arrival_at=1040, retry_after=0, remaining=0),
        Decision(admitted=False, arrival_at=1040, retry_after=10, remaining=0),
    ]


def test_a_bucket_fills_up_to_the_burst_and_no_further() -> None:
    limit = RateLimit(interval=10, burst=3)
    assert limit.decide(5, 1_000_000).remaining == 2


def test_a_cost_counts_as_so_many_requests() -> None:
    limit = RateLimit(interval=10, burst=3)
    assert limit.decide(0, 1000, cost=3) == Decision(
        admitted=True, arrival_at=1030, retry_after=0, remaining=0
    )
    assert limit.decide(1010, 1000, cost=3) == Decision(
        admitted=False, arrival_at=1010, retry_after=10, remaining=2
    )
    assert limit.decide(1030, 1000, cost=0).admitted


def test_a_cost_above_the_burst_is_never_admitted() -> None:
    limit = RateLimit(interval=10, burst=3)
    assert limit.decide(0, 1000, cost=4) == Decision(admitted=False, arrival_at=0, retry_after=0, remaining=3)
    assert limit.decide(1020, 1000, cost=4).retry_after == 20


def test_an_arrival_time_further_ahead_than_a_burst_leaves_nothing() -> None:
    assert RateLimit(interval=10, burst=3).decide(5000, 1000) == Decision(
        admitted=False, arrival_at=5000, retry_after=3980, remaining=0
    )


@given(limit=LIMITS, comings=COMINGS)
def test_over_any_window_at_most_burst_and_rate_are_admitted(
    limit: RateLimit, comings: list[tuple[int, int]]
) -> None:
    arrival_at, now = 0, 1000
    admitted: list[tuple[int, int]] = []
    for wait, cost in comings:
        now += wait
        decision = limit.decide(arrival_at, now, cost)
        arrival_at = decision.arrival_at
        if decision.admitted:
            admitted.append((now, cost))
    for start in range(len(admitted)):
        total = 0
        for at, cost in admitted[start:]:
            total += cost
            assert total * limit.interval <= limit.burst * limit.interval + at - admitted[start][0]


@given(limit=LIMITS, comings=COMINGS)
def test_what_a_decision_says_of_the_future_comes_true(
    limit: RateLimit, comings: list[tuple[int, int]]
) -> None:
    arrival_at, now = 0, 1000
    for wait, cost in comings:
        now += wait
        decision = limit.decide(arrival_at, now, cost)
        if not decision.admitted:
            assert decision.arrival_at == arrival_at
            if cost <= limit.burst:
                assert limit.decide(arrival_at, now + decision.retry_after, cost).admitted
                assert not limit.decide(arrival_at, now + decision.retry_after - 1, cost).admitted
            else:
                assert limit.decide(arrival_at, now + decision.retry_after).remaining == limit.burst - 1
        arrival_at = decision.arrival_at
        assert arrival_at <= now + limit.burst * limit.interval
        assert limit.decide(arrival_at, now, decision.remaining).admitted
        assert not limit.decide(arrival_at, now, decision.remaining + 1).admitted


@given(limit=LIMITS, comings=COMINGS, shuffled=st.randoms(use_true_random=False))
def test_stale_clock_readings_admit_nothing_extra(
    limit: RateLimit, comings: list[tuple[int, int]], shuffled: object
) -> None:
    """Workers read the clock before they swap, so decisions may come in another order than their instants."""
    instants = [1000]
    for wait, _ in comings:
        instants.append(instants[-1] + wait)
    shuffled.shuffle(instants)  # type: ignore[attr-defined]
    arrival_at, admitted = 0, []
    for now in instants:
        decision = limit.decide(arrival_at, now)
        arrival_at = decision.arrival_at
        if decision.admitted:
            admitted.append(now)
    admitted.sort()
    for start in range(len(admitted)):
        for end in range(start, len(admitted)):
            window = admitted[end] - admitted[start]
            assert (end - start + 1) * limit.interval <= limit.burst * limit.interval + window


def test_what_was_used_up_is_carried_over_in_requests() -> None:
    old, new = RateLimit(interval=10, burst=5), RateLimit(interval=100, burst=8)
    assert carried_over(1030, 1000, old, new) == 1300
    assert new.decide(1300, 1000).remaining == 4


def test_a_part_of_a_request_is_rounded_up() -> None:
    assert carried_over(1001, 1000, RateLimit(3, 5), RateLimit(100, 5)) == 1034


def test_a_full_bucket_stays_full() -> None:
    limit = RateLimit(interval=10, burst=5)
    assert carried_over(0, 1000, limit, RateLimit(7, 7)) == 0
    assert carried_over(1000, 1000, limit, RateLimit(7, 7)) == 1000


def test_a_bucket_is_never_emptier_than_empty() -> None:
    assert carried_over(1100, 1000, RateLimit(1, 100), RateLimit(60, 2)) == 1120


@given(old=LIMITS, new=LIMITS, comings=COMINGS, change_after=st.integers(0, 40))
def test_a_change_of_limit_gives_nobody_a_second_burst(
    old: RateLimit, new: RateLimit, comings: list[tuple[int, int]], change_after: int
) -> None:
    """Over a window around the change at most the greater burst and what both rates give are admitted."""
    arrival_at, now, changed_at = 0, 1000, 0
    admitted: list[int] = []
    for number, (wait, _) in enumerate(comings):
        now += wait
        if number == change_after:
            arrival_at, changed_at = carried_over(arrival_at, now, old, new), now
        decision = (new if changed_at else old).decide(arrival_at, now)
        arrival_at = decision.arrival_at
        if decision.admitted:
            admitted.append(now)
    for start, first in enumerate(admitted):
        before = max(0, (changed_at or now) - first)
        for count, (last, _) in enumerate(pairwise([*admitted[start:], now]), start=1):
            refilled = min(before, last - first) / old.interval + max(0, last - first - before) / new.interval
            if changed_at <= first:
                assert count <= (new if changed_at else old).burst + refilled + 1e-9
            else:
                assert count <= max(old.burst, new.burst) + refilled + 1e-9
