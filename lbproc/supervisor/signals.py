"""Signals of the supervisor as something to wait for, and the signals of its children.

The interpreter's own C code writes each signal's number into a pipe; no Python runs at an arbitrary moment.
Children ignore what a terminal or an init system sends to the whole group: the supervisor gets the same
signal, and tells them over their channels.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)


class SignalQueue:
    """Collects the watched signals from its making to `close`. One in a process, in the main thread."""

    __slots__ = ("_previous", "_previous_wakeup", "_read_end", "_write_end")

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, _let_it_be_queued) for number in WATCHED}

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read_end

    def take(self) -> list[signal.Signals]:
        """The signals that came since the last call. Of many equal ones some may be missing."""
        try:
            octets = os.read(self._read_end, 4096)
        except BlockingIOError:
            return []
        return [signal.Signals(octet) for octet in octets if octet in WATCHED]

    def close(self) -> None:
        """Puts back what was in force before."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._read_end)
        os.close(self._write_end)

    def close_in_child(self) -> None:
        """In a forked child: from here on the supervisor's signals are ignored."""
        signal.set_wakeup_fd(-1)
        for number in WATCHED:
            signal.signal(number, signal.SIG_DFL if number is signal.SIGCHLD else signal.SIG_IGN)
        os.close(self._read_end)
        os.close(self._write_end)


@contextmanager
def signals_held() -> Iterator[None]:
    """Holds the watched signals back, so that a child is not reached by one before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _let_it_be_queued(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: the interpreter wakes the pipe only for signals that have a handler."""
