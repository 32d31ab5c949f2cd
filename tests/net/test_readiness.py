"""Parking, waking, deadlines and the dispatcher, trap by trap."""

from __future__ import annotations

import itertools
import math
import socket
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.readiness import READ, WRITE, Deadlines, Source, park
from tests.net.parked import Parked, blocked_source, park_task

SocketPair = tuple[socket.socket, socket.socket]


# Source and park


async def test_park_returns_at_once_without_a_checkpoint_when_something_is_ready() -> None:
    blocked, ready = blocked_source(), Source()
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await park(((blocked, READ), (ready, WRITE)), Deadlines(), 0.0)
    assert not scope.cancelled_caught
    assert not blocked.is_parked


async def test_a_new_source_is_taken_to_be_ready() -> None:
    assert Source().ready == READ | WRITE
    assert not Source().wary


@pytest.mark.parametrize("bits", [READ, WRITE, READ | WRITE])
async def test_notify_of_a_bit_waited_for_wakes(nursery: trio.Nursery, bits: int) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, bits),))
    assert source.is_parked
    source.notify(READ | WRITE)
    assert not source.is_parked
    await wait_all_tasks_blocked()
    assert parked.result is True


async def test_notify_of_another_bit_is_remembered_and_does_not_wake(nursery: trio.Nursery) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, READ),))
    source.notify(WRITE)
    await wait_all_tasks_blocked()
    assert source.is_parked
    assert source.ready == WRITE
    source.notify(READ)
    await wait_all_tasks_blocked()
    assert parked.result is True


async def test_an_edge_between_would_block_and_park_is_not_lost() -> None:
    source = Source()
    source.ready &= ~READ  # the transport's recv would block
    await trio.lowlevel.checkpoint()
    source.notify(READ)  # the event comes while the task is busy elsewhere
    assert await park(((source, READ),), Deadlines(), math.inf)


async def test_nudge_wakes_and_makes_nothing_ready(nursery: trio.Nursery) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, READ),))
    source.nudge()
    await wait_all_tasks_blocked()
    assert parked.result is True
    assert source.ready == 0


async def test_a_nudge_that_meets_nobody_is_forgotten(nursery: trio.Nursery) -> None:
    source = blocked_source()
    source.nudge()
    parked = await park_task(nursery, ((source, READ),))
    assert parked.result == "parked"
    parked.scope.cancel()


async def test_a_task_on_several_sources_is_woken_once_by_the_first(nursery: trio.Nursery) -> None:
    one, two, three = blocked_source(), blocked_source(), blocked_source()
    parked = await park_task(nursery, ((one, READ), (two, WRITE), (three, READ)))
    two.notify(WRITE)
    one.notify(READ)  # before the task has run: a second wake-up would crash trio
    three.nudge()
    assert [one.is_parked, two.is_parked, three.is_parked] == [False] * 3
    await wait_all_tasks_blocked()
    assert parked.result is True
    assert (one.ready, two.ready, three.ready) == (READ, WRITE, 0)


@pytest.mark.parametrize("bits", [READ, WRITE])
async def test_a_source_may_stand_twice_in_one_park(nursery: trio.Nursery, bits: int) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, READ), (source, WRITE)))
    source.notify(bits)
    await wait_all_tasks_blocked()
    assert parked.result is True


async def test_interest_of_an_earlier_park_does_not_linger(nursery: trio.Nursery) -> None:
    source = blocked_source()
    first = await park_task(nursery, ((source, READ), (source, WRITE)))
    source.nudge()
    await wait_all_tasks_blocked()
    assert first.result is True
    second = await park_task(nursery, ((source, READ),))
    source.notify(WRITE)
    await wait_all_tasks_blocked()
    assert second.result == "parked"
    second.scope.cancel()


async def test_a_second_task_is_refused_and_disturbs_nothing(nursery: trio.Nursery) -> None:
    shared, other = blocked_source(), blocked_source()
    first = await park_task(nursery, ((shared, READ),))
    with pytest.raises(trio.BusyResourceError):
        await park(((other, READ), (shared, WRITE)), Deadlines(), math.inf)
    assert not other.is_parked
    shared.notify(READ)
    await wait_all_tasks_blocked()
    assert first.result is True


async def test_cancellation_leaves_every_source(nursery: trio.Nursery) -> None:
    one, two = blocked_source(), blocked_source()
    parked = await park_task(nursery, ((one, READ), (two, READ)))
    parked.scope.cancel()
    await wait_all_tasks_blocked()
    assert parked.result == "cancelled"
    assert [one.is_parked, two.is_parked] == [False] * 2
    one.notify(READ)
    two.nudge()
    assert (one.ready, two.ready) == (READ, 0)


async def test_after_cancellation_the_task_parks_elsewhere_and_the_old_source_leaves_it_alone(
    nursery: trio.Nursery,
) -> None:
    old, new = blocked_source(), blocked_source()
    woken_by: list[str] = []

    async def run() -> None:
        with trio.move_on_at(-math.inf):
            await park(((old, READ),), Deadlines(), math.inf)
        await park(((new, READ),), Deadlines(), math.inf)
        woken_by.append("new")

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    old.notify(READ)
    await wait_all_tasks_blocked()
    assert woken_by == []
    new.notify(READ)
    await wait_all_tasks_blocked()
    assert woken_by == ["new"]


async def test_a_task_woken_and_cancelled_in_the_same_instant_keeps_its_result(nursery: trio.Nursery) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, READ),))
    source.notify(READ)
    parked.scope.cancel()
    await wait_all_tasks_blocked()
    assert parked.result is True


async def test_a_task_cancelled_and_notified_in_the_same_instant_is_cancelled(nursery: trio.Nursery) -> None:
    source = blocked_source()
    parked = await park_task(nursery, ((source, READ),))
    parked.scope.cancel()
    source.notify(READ)
    await wait_all_tasks_blocked()
    assert parked.result == "cancelled"
    assert source.ready == READ


# Deadlines


async def test_a_deadline_is_met_late_by_at_most_the_resolution_and_never_early(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    deadlines = Deadlines(resolution=0.25)
    nursery.start_soon(deadlines.run)
    for deadline in [10.0, 20.1, 30.25, 40.26, 75.0]:
        parked = Parked(((blocked_source(), READ),), deadlines, deadline)
        nursery.start_soon(parked.run)
        await trio.sleep_until(deadline - 0.001)
        assert parked.waits[0][0].is_parked
        await trio.sleep_until(deadline + 0.26)
        assert parked.result is False
        assert deadline <= parked.woken_at <= deadline + 0.251


async def test_a_deadline_that_has_passed_already_ends_the_park_at_the_next_sweep(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    assert not await park(((blocked_source(), READ),), deadlines, -1.0)


async def test_an_infinite_deadline_never_comes(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    parked = Parked(((blocked_source(), READ),), deadlines)
    nursery.start_soon(parked.run)
    await trio.sleep(1_000)
    assert parked.result == "parked"
    parked.scope.cancel()


async def test_the_deadline_of_an_earlier_park_does_not_end_a_later_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    one, two = blocked_source(), blocked_source()
    results: list[tuple[bool, float]] = []

    async def run() -> None:
        for waits, deadline in (
            (((one, READ), (two, READ)), 1.0),
            (((one, READ),), 20.0),  # still known to the sweeper from the first park
            (((two, READ), (one, READ)), math.inf),
            (((two, WRITE), (one, WRITE)), 50.0),
        ):
            result = await park(waits, deadlines, deadline)
            results.append((result, trio.current_time()))
            one.ready = two.ready = 0

    nursery.start_soon(run)
    await trio.sleep_until(0.3)
    two.notify(READ)
    await trio.sleep_until(25.1)
    assert results[0] == (True, 0.3)
    assert results[1] == (False, 20.0)
    await trio.sleep_until(30.1)
    one.nudge()
    await trio.sleep_until(60.0)
    assert results[2:] == [(True, 30.1), (False, 50.0)]


async def test_the_sweeper_wakes_all_whose_deadline_came_and_forgets_who_is_not_parked(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    parked = [Parked(((blocked_source(), READ),), deadlines, 5.0 + n % 3) for n in range(30)]
    for one in parked:
        nursery.start_soon(one.run)
    await trio.sleep(1.1)
    assert deadlines.watched == 30
    for one in parked[:10]:
        one.waits[0][0].notify(READ)
    await trio.sleep(1.1)
    assert deadlines.watched == 20
    await trio.sleep(10)
    assert [one.result for one in parked] == [True] * 10 + [False] * 20
    assert deadlines.watched == 0


async def test_wake_up_and_deadline_in_the_same_instant_wake_once(nursery: trio.Nursery) -> None:
    deadlines = Deadlines()
    first, second = blocked_source(), blocked_source()
    one = await park_task(nursery, ((first, READ),), deadlines, 5.0)
    two = await park_task(nursery, ((second, READ),), deadlines, 5.0)
    first.notify(READ)
    deadlines.sweep(6.0)
    second.notify(READ)
    await wait_all_tasks_blocked()
    assert (one.result, two.result) == (True, False)


# Every short history of a park on two sources, against the rule: the first event that matters decides.

_STEPS: dict[str, tuple[Callable[[Parked, Deadlines, Source, Source], object], bool | str | None]] = {
    "a readable": (lambda _p, _d, a, _b: a.notify(READ), True),
    "a writable": (lambda _p, _d, a, _b: a.notify(WRITE), None),
    "b readable": (lambda _p, _d, _a, b: b.notify(READ), None),
    "b writable": (lambda _p, _d, _a, b: b.notify(WRITE), True),
    "nudge b": (lambda _p, _d, _a, b: b.nudge(), True),
    "cancel": (lambda p, _d, _a, _b: p.scope.cancel(), "cancelled"),
    "swept early": (lambda _p, d, _a, _b: d.sweep(9.9), None),
    "swept late": (lambda _p, d, _a, _b: d.sweep(10.0), False),
}


@pytest.mark.parametrize("yields", [False, True])
async def test_the_first_event_that_matters_decides(nursery: trio.Nursery, yields: bool) -> None:
    for history in itertools.permutations(_STEPS, 3):
        deadlines = Deadlines()
        a, b = blocked_source(), blocked_source()
        parked = Parked(((a, READ), (b, WRITE)), deadlines, 10.0)
        nursery.start_soon(parked.run)
        while not a.is_parked:
            await trio.lowlevel.checkpoint()
        expected: bool | str = "parked"
        for name in history:
            step, outcome = _STEPS[name]
            step(parked, deadlines, a, b)
            if expected == "parked" and outcome is not None:
                expected = outcome
            assert a.is_parked is b.is_parked is (expected == "parked"), history
            if yields:
                await trio.lowlevel.checkpoint()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert parked.result == expected, history
        assert bool(a.ready & READ) is ("a readable" in history)
        assert bool(b.ready & WRITE) is ("b writable" in history)
        parked.scope.cancel()


async def test_a_reflex_is_called_in_place_of_waking(nursery: trio.Nursery) -> None:
    source = blocked_source()
    seen: list[int] = []

    def reflex() -> bool:
        seen.append(source.ready)
        return False

    parked = await park_task(nursery, ((source, READ),))
    source.reflex = reflex
    assert not source.notify(READ)
    assert seen == [READ]
    await wait_all_tasks_blocked()
    assert parked.result == "parked"
    parked.scope.cancel()


async def test_a_reflex_can_wake_the_task_and_says_so(nursery: trio.Nursery) -> None:
    source = blocked_source()

    def reflex() -> bool:
        source.nudge()
        return True

    parked = await park_task(nursery, ((source, READ),))
    source.reflex = reflex
    assert source.notify(READ)
    await wait_all_tasks_blocked()
    assert parked.result is True


async def test_a_reflex_moves_the_deadline_of_the_sleeper(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source, deadlines = blocked_source(), Deadlines()
    nursery.start_soon(deadlines.run)
    parked = await park_task(nursery, ((source, READ),), deadlines, trio.current_time() + 5)
    source.deadline += 10
    await trio.sleep(14)
    assert source.is_parked
    await trio.sleep(2)
    assert parked.result is False
