from __future__ import annotations

from lbproc.telemetry.stamp import UtcClock

NOON = 1_782_907_200 * 1_000_000_000  # 2026-07-01T12:00:00Z


def test_the_stamp_is_utc_with_milliseconds() -> None:
    clock = UtcClock(lambda: NOON + 125_999_999)
    assert clock.stamp() == "2026-07-01T12:00:00.125Z"


def test_the_calendar_part_follows_the_seconds() -> None:
    times = iter([NOON, NOON + 999_000_000, NOON + 1_000_000_000, NOON - 1])
    clock = UtcClock(lambda: next(times))
    assert [clock.stamp() for _ in range(4)] == [
        "2026-07-01T12:00:00.000Z",
        "2026-07-01T12:00:00.999Z",
        "2026-07-01T12:00:01.000Z",
        "2026-07-01T11:59:59.999Z",
    ]


def test_without_a_reader_the_clock_is_the_real_one() -> None:
    assert UtcClock().stamp() > "2026-01-01T00:00:00.000Z"


def test_dates_are_judged_by_the_same_clock() -> None:
    assert UtcClock(lambda: NOON + 500_000_000).seconds() == 1_782_907_200.5
