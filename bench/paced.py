"""Requests at a fixed rate on one port, and how long each took from the moment at which it was due.

A closed loop asks less of a slow server: while an answer is awaited, nothing is sent, so the wait of those
requests that should have been sent is never seen. Here request number n is due n intervals after the start,
whatever happened to the ones before it. When every connection is busy it waits for one, and that wait counts.

One thread, one epoll; the kernel's timer wakes it at each interval.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import struct
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.load import READ_BYTES, Answer, BadResponseError
from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.rows import Row

PATIENCE = 2.0
"""Seconds after the last request was due in which answers still count."""

HEAD_START = 0.05
"""Seconds until the first request is due."""


@dataclass(frozen=True, slots=True)
class PacedTotals:
    """What one run achieved. Latencies in microseconds.

    ``client_us`` is how late our own client noticed that a request was due, at the 99th percentile: so much
    of a latency may be its own.
    """

    rate: float
    requests: int
    failures: int
    p50_us: float
    p90_us: float
    p99_us: float
    client_us: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed; 0 of none.

    Args:
        ordered: values, smallest first.
        share: from 0 to 1.
    """
    if not ordered:
        return 0.0
    return ordered[max(-int(-share * len(ordered) // 1), 1) - 1]


def run_paced(
    row: Row, requests: Sequence[bytes], port: int, rate: float, seconds: float, skip: int = 0
) -> PacedTotals:
    """Sends ``rate`` requests of a row a second to a port of 127.0.0.1.

    Raises:
        BenchError: nothing was answered.
    """
    pace = _Pace(row, requests, port, rate, int(rate * seconds), skip)
    with _without_collector():
        pace.run()
    latencies, lags = sorted(pace.latencies), sorted(pace.lags)
    if not latencies:
        raise BenchError(f"none of {pace.count} requests was answered at {rate:.0f} a second")
    p50, p90, p99 = (percentile(latencies, share) * 1e6 for share in (0.5, 0.9, 0.99))
    lag = percentile(lags, 0.99) * 1e6
    return PacedTotals(rate, len(latencies), pace.count - len(latencies), p50, p90, p99, lag)


@contextmanager
def _without_collector() -> Iterator[None]:
    # A collection in our own process would show as latency of the other.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Connection:
    """One connection of the run; opens another when it has ended."""

    __slots__ = ("answer", "due", "socket")

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.answer: Answer | None = None
        self.due = 0.0


class _Pace:
    """The state of a run."""

    def __init__(
        self, row: Row, requests: Sequence[bytes], port: int, rate: float, count: int, skip: int
    ) -> None:
        self.count = count
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self._close = row.close
        self._requests = requests
        self._next = skip
        self._port = port
        self._interval = 1 / rate
        self._free = deque(_Connection() for _ in range(row.connections))
        self._by_fd: dict[int, _Connection] = {}
        self._waiting: deque[float] = deque()
        self._left = count
        self._poll = select.epoll()

    def run(self) -> None:
        """Sends all requests and waits for their answers, but not for ever."""
        if not self._close:
            for connection in self._free:
                self._connect(connection)
        start = time.perf_counter() + HEAD_START
        timer = _start_timer(start, self._interval)
        self._poll.register(timer, select.EPOLLIN)
        give_up_at = start + self.count * self._interval + PATIENCE
        sent = 0
        try:
            while self._left > 0 and time.perf_counter() < give_up_at:
                for fd, _ in self._poll.poll(0.1):
                    if fd == timer:
                        _acknowledge(timer)
                    else:
                        self._receive(self._by_fd[fd])
                now = time.perf_counter()
                while sent < self.count and (due := start + sent * self._interval) <= now:
                    sent += 1
                    self._waiting.append(due)
                    self.lags.append(now - due)
                while self._waiting and self._free:
                    self._send(self._free.popleft(), self._waiting.popleft())
        finally:
            os.close(timer)
            self._poll.close()
            for connection in self._by_fd.values():
                if connection.socket is not None:
                    connection.socket.close()

    def _connect(self, connection: _Connection) -> socket.socket:
        # On loopback this takes as long as it takes the kernel to answer itself.
        connection.socket = fresh = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
        fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_fd[fresh.fileno()] = connection
        self._poll.register(fresh, select.EPOLLIN)
        return fresh

    def _send(self, connection: _Connection, due: float) -> None:
        connection.due = due
        connection.answer = Answer()
        self._next += 1
        try:
            (connection.socket or self._connect(connection)).sendall(
                self._requests[self._next % len(self._requests)]
            )
        except OSError:
            self._finish(connection, succeeded=False)

    def _receive(self, connection: _Connection) -> None:
        assert connection.socket is not None
        try:
            received = connection.socket.recv(READ_BYTES)
            if connection.answer is None:  # ended while idle, which is the server's right
                self._disconnect(connection)
            elif received:
                if connection.answer.feed(received):
                    self._finish(connection, succeeded=True)
            else:
                connection.answer.feed_end()
                self._finish(connection, succeeded=True)
        except (OSError, BadResponseError):
            self._finish(connection, succeeded=False)

    def _finish(self, connection: _Connection, *, succeeded: bool) -> None:
        answer, connection.answer = connection.answer, None
        if answer is not None:
            self._left -= 1
            self._free.append(connection)
            if succeeded and answer.status < 400:
                self.latencies.append(time.perf_counter() - connection.due)
            if not succeeded or self._close or answer.closes:
                self._disconnect(connection)
        else:
            self._disconnect(connection)

    def _disconnect(self, connection: _Connection) -> None:
        if connection.socket is not None:
            del self._by_fd[connection.socket.fileno()]
            connection.socket.close()
            connection.socket = None


_LIBC = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1  # the clock of perf_counter
_TFD_TIMER_ABSTIME = 1


def _start_timer(start: float, interval: float) -> int:
    """A file that becomes readable at ``start`` and after each interval; Python has none of its own yet."""
    fd = int(_LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    times = (ctypes.c_long * 4)(*_split(interval), *_split(start))
    if _LIBC.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(times), None) != 0:
        os.close(fd)
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return fd


def _split(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * 1e9)


def _acknowledge(timer: int) -> int:
    """Makes the timer unreadable until it expires again; how often it had expired."""
    return int(struct.unpack("Q", os.read(timer, 8))[0])
