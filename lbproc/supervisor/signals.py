"""Signals of the supervisor as something to wait for, and the signals of its children.

The interpreter's own C code writes each signal's number into a pipe; Python that runs at an arbitrary moment
does no more than to note that a stop was asked for, which ends the waits of a start.

The signals are watched from before anything is opened until everything is closed. Afterwards those that
stop are ignored: the process is about to exit with a status that means something.
Children ignore what a terminal or an init system sends to the whole group: the supervisor gets the same
signal, and tells them over their channels.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lbproc.types import Seconds

WATCHED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)

STOPPING = {signal.SIGTERM: False, signal.SIGINT: False, signal.SIGQUIT: True}
"""Those that end the service; whether at once."""


class StoppedEarlyError(Exception):
    """A stop was asked for before there was anything to stop."""


class SignalQueue:
    """Collects the watched signals from its making to `close`. One in a process, in the main thread."""

    __slots__ = ("_is_stop_asked", "_previous", "_previous_wakeup", "_read_end", "_write_end")

    def __init__(self) -> None:
        self._is_stop_asked = False
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._note) for number in WATCHED}

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

    def sleep(self, seconds: Seconds) -> None:
        """Waits during the start; what has come stays queued.

        Raises:
            StoppedEarlyError: there was a signal that stops.
        """
        time.sleep(seconds)
        if self._is_stop_asked:
            raise StoppedEarlyError

    def close(self) -> None:
        """Ignores what stops, because the process ends by itself; puts back what was in force of the rest."""
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_IGN if number in STOPPING else previous)
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

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # Besides: the interpreter wakes the pipe only for signals that have a handler.
        self._is_stop_asked = self._is_stop_asked or number in STOPPING


@contextmanager
def signals_held() -> Iterator[None]:
    """Holds the watched signals back, so that a child is not reached by one before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
