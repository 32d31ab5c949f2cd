"""Signals become something to wait for, and are put back as they were, or ignored to the end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from lbproc.supervisor.signals import STOPPING, WATCHED, SignalQueue, StoppedEarlyError, signals_held


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    before = {number: signal.getsignal(number) for number in WATCHED}
    queue = SignalQueue()
    yield queue
    queue.close()
    for number, previous in before.items():
        signal.signal(number, previous)


def test_signals_are_queued_and_wake_a_waiting_loop(queue: SignalQueue) -> None:
    assert queue.take() == []
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert select.select([queue], [], [], 5) == ([queue], [], [])
    assert queue.take() == [signal.SIGTERM, signal.SIGUSR1]
    assert queue.take() == []


def test_a_flood_is_no_trouble(queue: SignalQueue) -> None:
    for _ in range(100_000):
        signal.raise_signal(signal.SIGHUP)
    assert set(queue.take()) == {signal.SIGHUP}


def test_afterwards_a_stop_is_ignored_and_the_rest_is_as_it_was_before() -> None:
    before = {number: signal.getsignal(number) for number in WATCHED}
    queue = SignalQueue()
    assert all(signal.getsignal(number) is not before[number] for number in WATCHED)
    queue.close()
    after = {number: signal.getsignal(number) for number in WATCHED}
    for number, previous in before.items():
        signal.signal(number, previous)
    assert after == {number: signal.SIG_IGN if number in STOPPING else before[number] for number in WATCHED}


@pytest.mark.parametrize("number", STOPPING)
def test_a_stop_ends_a_wait_of_the_start_and_stays_queued(queue: SignalQueue, number: signal.Signals) -> None:
    signal.raise_signal(signal.SIGHUP)
    queue.sleep(0.0)
    signal.raise_signal(number)
    with pytest.raises(StoppedEarlyError):
        queue.sleep(0.0)
    assert queue.take() == [signal.SIGHUP, number]


def test_signals_can_be_held_back(queue: SignalQueue) -> None:
    with signals_held():
        # To this thread: the watchdog of pytest is another one, and takes signals until it has begun.
        signal.raise_signal(signal.SIGTERM)
        assert queue.take() == []
    assert queue.take() == [signal.SIGTERM]


def test_a_child_ignores_them_and_writes_nothing_into_the_supervisors_pipe(queue: SignalQueue) -> None:
    pid = os.fork()
    if pid == 0:
        queue.close_in_child()
        for number in WATCHED:
            os.kill(os.getpid(), number)
        os._exit(0 if signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert set(queue.take()) <= {signal.SIGCHLD}
