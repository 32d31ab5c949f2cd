"""A day of virtual time with flapping backends: checks, ejections and retry budget keep their promises."""

from __future__ import annotations

from random import Random

import pytest

from lbproc.core.health import Standing
from lbproc.core.outlier import OutlierRules
from lbproc.core.retry import BUCKET, RETRY, RetryRules
from tests.core.day import DAY, OUTLIER, RETRIES, Day, Mood, Plan, flapping

HOUR = 3600.0
STEADY, NOT_FOUND, FLAPPER, HANGER, GREY, GONE = range(6)


def make_plans(chance: Random) -> list[Plan]:
    """Six backends; all are well in the last hour of the day."""
    end = DAY - HOUR
    return [
        [],
        [],
        flapping(chance, 60.0, 20.0, Mood.REFUSING, Mood.HANGING, until=end),
        flapping(chance, 600.0, 60.0, Mood.HANGING, until=end),
        flapping(chance, 1800.0, 600.0, Mood.GREY, until=end),
        [(6 * HOUR, Mood.REFUSING), (8 * HOUR, Mood.WELL), (20 * HOUR, Mood.HANGING), (21 * HOUR, Mood.WELL)],
    ]


def make_day(
    seed: int,
    rate: float,
    retries: RetryRules | None = RETRIES,
    outlier: OutlierRules | None = OUTLIER,
) -> Day:
    chance = Random(seed)
    day = Day(make_plans(chance), rate, chance, retries, outlier, always_404=[NOT_FOUND])
    day.run()
    return day


def assert_promises(day: Day) -> None:
    books, backends = day.books, day.backends
    # No request goes to a dead backend later than fall x (interval + timeout).
    assert books.late == []
    # Retries never multiply an outage: not over the day, and not over any stretch of it (asserted in it too).
    assert books.repeated * RETRY <= BUCKET + books.requests * RETRIES.deposit
    assert books.highest_spending <= BUCKET
    # Whoever fails nothing is never ejected; what is not found is no failure.
    assert [backends[number].times_ejected for number in (STEADY, NOT_FOUND)] == [0, 0]
    assert backends[NOT_FOUND].served > 0
    for backend in backends:
        assert backend.times_ejected * OUTLIER.consecutive_errors <= backend.failures
        assert backend.seconds_ejected <= backend.times_ejected * OUTLIER.max_eject_for + 1e-3
        # After an hour without trouble nobody is out.
        assert backend.check.standing is Standing.PASSING
        assert not backend.ejected_until


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_day_with_flapping_backends_keeps_every_promise(seed: int) -> None:
    day = make_day(seed, rate=1.0)
    assert_promises(day)
    # All of it was put to the test.
    assert day.books.requests > 80_000
    assert day.books.repeated > 0
    assert all(day.backends[number].failures for number in (FLAPPER, HANGER, GREY, GONE))
    assert day.backends[GREY].times_ejected > 0


@pytest.mark.slow
def test_what_it_is_good_for() -> None:
    """The same day with and without: ejections and retries keep most of the failures from the clients."""
    bare = make_day(1, rate=1.0, retries=None, outlier=None)
    whole = make_day(1, rate=1.0)
    assert bare.books.lost > 20 * whole.books.lost
    assert bare.books.late == []
    assert whole.books.without_backend == 0


@pytest.mark.slow
def test_an_outage_of_most_backends_is_not_multiplied() -> None:
    """Five of six answer half of all requests with 503 for 23 hours, and pass their checks all the time."""
    chance = Random(5)
    plans: list[Plan] = [[], *([(HOUR, Mood.GREY)] for _ in range(5))]
    day = Day(plans, 2.0, chance, outlier=None)
    day.run()
    assert day.books.tries <= day.books.requests * (1 + RETRIES.deposit / RETRY) + BUCKET / RETRY
    assert day.books.denied > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_busy_days(seed: int) -> None:
    assert_promises(make_day(seed, rate=5.0))
