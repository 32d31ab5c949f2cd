"""Signals become something to wait for, and are put back as they were."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from lbproc.supervisor.signals import WATCHED, SignalQueue, signals_held


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    queue = SignalQueue()
    yield queue
    queue.close()


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


def test_what_was_in_force_before_comes_back() -> None:
    before = {number: signal.getsignal(number) for number in WATCHED}
    queue = SignalQueue()
    assert all(signal.getsignal(number) is not before[number] for number in WATCHED)
    queue.close()
    assert {number: signal.getsignal(number) for number in WATCHED} == before


def test_signals_can_be_held_back(queue: SignalQueue) -> None:
    with signals_held():
        os.kill(os.getpid(), signal.SIGTERM)
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
