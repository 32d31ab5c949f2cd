"""Rise and fall, the three speeds, and the bound on the time that a death goes unnoticed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.health import JITTER, SOON, SOON_EACH, Cadence, Check, Standing, first_delays

CADENCE = Cadence(interval=2.0, timeout=1.0, doubt_interval=1.0, down_interval=4.0, rise=2, fall=3)

PASS, FAIL = True, False


def after(standing: Standing, *results: bool | None, cadence: Cadence = CADENCE) -> Check:
    """A check that got some results, one a second from 0 on, without jitter."""
    check = Check(cadence, standing, 0.0)
    for second, passed in enumerate(results):
        check.begin(float(second))
        check.conclude(passed, float(second), 0.0)
    return check


@pytest.mark.parametrize(
    ("standing", "results", "then"),
    [
        (Standing.UNDECIDED, (), Standing.UNDECIDED),
        (Standing.UNDECIDED, (PASS,), Standing.PASSING),
        (Standing.UNDECIDED, (FAIL, FAIL), Standing.UNDECIDED),
        (Standing.UNDECIDED, (FAIL, FAIL, PASS), Standing.PASSING),
        (Standing.UNDECIDED, (FAIL, FAIL, FAIL), Standing.FAILING),
        (Standing.PASSING, (FAIL, FAIL), Standing.PASSING),
        (Standing.PASSING, (FAIL, FAIL, FAIL), Standing.FAILING),
        (Standing.PASSING, (FAIL, FAIL, PASS, FAIL, FAIL), Standing.PASSING),
        (Standing.FAILING, (PASS,), Standing.FAILING),
        (Standing.FAILING, (PASS, PASS), Standing.PASSING),
        (Standing.FAILING, (PASS, FAIL, PASS), Standing.FAILING),
        (Standing.PASSING, (FAIL, FAIL, None, FAIL), Standing.FAILING),
        (Standing.FAILING, (None, None, None), Standing.FAILING),
    ],
)
def test_enough_results_in_a_row_turn_a_standing(
    standing: Standing, results: tuple[bool | None, ...], then: Standing
) -> None:
    assert after(standing, *results).standing is then


def test_only_a_turn_is_told_as_a_change() -> None:
    check = Check(CADENCE, Standing.PASSING, 0.0)
    told = [check.conclude(passed, 0.0, 0.0) for passed in (FAIL, FAIL, FAIL, FAIL, PASS, PASS, PASS)]
    assert told == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("check", "span"),
    [
        (after(Standing.PASSING, PASS), 2.0),
        (after(Standing.PASSING, FAIL), 1.0),
        (after(Standing.UNDECIDED, FAIL), 1.0),
        (after(Standing.FAILING, FAIL), 4.0),
        (after(Standing.FAILING, PASS), 1.0),
        (after(Standing.PASSING, None), 2.0),
    ],
)
def test_probes_are_quicker_in_doubt_and_slower_while_down(check: Check, span: float) -> None:
    assert check.due_at == span


def test_a_probe_that_took_longer_than_the_span_is_followed_at_once() -> None:
    check = Check(CADENCE, Standing.PASSING, 0.0)
    check.begin(5.0)
    check.conclude(FAIL, 6.5, 0.0)
    assert check.due_at == 6.5


def test_jitter_shortens_a_span_by_a_tenth_at_most() -> None:
    check = Check(CADENCE, Standing.PASSING, 0.0)
    check.begin(10.0)
    check.conclude(PASS, 10.1, 1.0)
    assert check.due_at == 10.0 + 2.0 * (1 - JITTER)


def test_another_cadence_keeps_what_was_counted_and_never_delays_a_probe() -> None:
    check = after(Standing.PASSING, PASS, FAIL, FAIL)
    assert check.due_at == 3.0
    slower = Cadence(60.0, 1.0, 30.0, 120.0, 2, 3)
    check.adopt(slower, 2.5)
    assert check.due_at == 3.0
    assert check.contrary == 2
    quicker = Cadence(0.4, 0.1, 0.2, 0.8, 2, 3)
    check.adopt(quicker, 2.5)
    assert check.due_at == 2.7
    check.conclude(FAIL, 2.7, 0.0)
    assert check.standing is Standing.FAILING


@st.composite
def cadences(draw: st.DrawFn) -> Cadence:
    interval = draw(st.floats(0.1, 100.0))
    return Cadence(
        interval=interval,
        timeout=draw(st.floats(0.001, interval)),
        doubt_interval=draw(st.floats(0.001, interval)),
        down_interval=draw(st.floats(0.001, 1000.0)),
        rise=draw(st.integers(1, 5)),
        fall=draw(st.integers(1, 5)),
    )


@given(cadences(), st.integers(1, 20), st.floats(0.0, 1.0), st.randoms(use_true_random=False))
def test_a_death_is_noticed_within_the_promised_time(
    cadence: Cadence, before: int, place: float, chance: random.Random
) -> None:
    """Whenever it dies, however long probes take: failing at the latest fall x (interval + timeout) later.

    The death lies anywhere between the beginning of the last probe that could pass and the next probe; so the
    last one may have passed although the backend died while it was under way.
    """
    check = Check(cadence, Standing.PASSING, 0.0)
    began_at = now = 0.0
    for _ in range(before):
        began_at = check.due_at
        check.begin(began_at)
        now = began_at + chance.random() * cadence.timeout
        check.conclude(chance.random() < 0.8, now, chance.random())
    dies_at = began_at + place * (check.due_at - began_at)
    if check.standing is not Standing.PASSING:
        return
    while check.standing is Standing.PASSING:
        now = check.due_at
        check.begin(now)
        now += cadence.timeout * chance.choice((0.0, chance.random(), 1.0))
        check.conclude(FAIL, now, chance.random())
    assert now <= dies_at + cadence.notice + 1e-6


@given(cadences(), st.randoms(use_true_random=False))
def test_probes_of_one_check_never_overlap_and_are_never_further_apart_than_the_slowest_span(
    cadence: Cadence, chance: random.Random
) -> None:
    check = Check(cadence, Standing.UNDECIDED, 0.0)
    begun: list[float] = []
    ended = 0.0
    for _ in range(50):
        assert check.due_at >= ended
        begun.append(check.due_at)
        check.begin(check.due_at)
        ended = check.due_at + chance.random() * cadence.timeout
        check.conclude(chance.choice((PASS, FAIL, None)), ended, chance.random())
    slowest = max(cadence.interval, cadence.down_interval, cadence.doubt_interval, cadence.timeout)
    assert all(later - earlier <= slowest + 1e-6 for earlier, later in pairwise(begun))


def test_those_that_wait_for_traffic_are_probed_soon_and_the_others_over_their_interval() -> None:
    asked = [(Standing.PASSING, 10.0), (Standing.UNDECIDED, 10.0)] * 2
    assert first_delays(asked, lambda: 0.5) == [2.5, 0.5 * SOON_EACH, 7.5, 1.5 * SOON_EACH]


@given(
    st.integers(1, 300), st.floats(0.1, 100.0), st.sampled_from(Standing), st.randoms(use_true_random=False)
)
def test_first_probes_are_no_burst(
    number: int, interval: float, standing: Standing, chance: random.Random
) -> None:
    delays = first_delays([(standing, interval)] * number, chance.random)
    span = min(interval, SOON, number * SOON_EACH) if standing is Standing.UNDECIDED else interval
    assert all(0 <= delay <= span for delay in delays)
    for part in range(number):  # one in each part of the span
        assert part * span / number <= delays[part] <= (part + 1) * span / number + 1e-9


def test_nothing_to_spread_is_nothing() -> None:
    assert first_delays([], random.Random(1).random) == []
