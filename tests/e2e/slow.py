"""Clients that take their time: thousands in one thread, each with its account of how it ended.

A client that trickles a head sends bytes for ever and only an answer or a close ends it. One that trickles a
body does so for a while and then sends nothing more. One that reads nothing asks for a large response. Some
are stubborn: an answer is no reason for them to close.
"""

from __future__ import annotations

import enum
import resource
import select
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest

from lbproc.types import TcpAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.types import Seconds

TICK: Seconds = 0.02
NEW_A_TICK = 10
"""Connections opened in a row: no flood, in which the first bytes would wait for their accept."""

SMALL_BUFFER = 4096
"""Receive buffer of those that read nothing, so that little of a response fits on its way to them."""

SEGMENT = 1400
"""As on a real network: the kernel sizes send buffers by segments, and those of loopback have 64 KiB."""

_GONE = select.EPOLLHUP | select.EPOLLERR


class Kind(enum.Enum):
    """What a client is slow at; the value is what it sends at once, and what it trickles then."""

    HEAD = (b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"z")
    LENGTH = (b"PUT /files/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab", b"z")
    CHUNKS = (b"PUT /files/slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n")
    READS_NOTHING = (b"GET /files/large HTTP/1.1\r\nHost: a\r\n\r\n", b"")


@dataclass(eq=False, slots=True)
class SlowClient:
    """One of them. Times are instants of ``time.perf_counter``.

    Attributes:
        kind: what it is slow at.
        is_stubborn: goes on sending after it was answered, and never closes by itself.
        began_at: when it had sent its first bytes.
        moved_at: when it sent something last.
        cut_after: seconds from the first byte of a head, or else from the last one sent, to the answer, or to
            the end where none came; 0 before.
        ended_at: when the connection was over.
        answer: what it received.
    """

    kind: Kind
    is_stubborn: bool
    socket: socket.socket
    began_at: float = 0.0
    moved_at: float = 0.0
    cut_after: Seconds = 0.0
    ended_at: float = 0.0
    answer: bytes = b""
    is_stalled: bool = False

    @property
    def status(self) -> int:
        """Of the answer; 0 without one."""
        return int(self.answer[9:12]) if self.answer.startswith(b"HTTP/1.1 ") else 0

    def note_cut(self) -> None:
        """The first sign of the end has come."""
        if not self.cut_after:
            began_at = self.began_at if self.kind is Kind.HEAD else self.moved_at
            self.cut_after = time.perf_counter() - began_at


@dataclass
class SlowClients:
    """Runs slow clients in a thread of its own while the context lasts.

    Args:
        address: whom they connect to.
        count: how many; a third each trickles heads, trickles bodies, reads nothing.
        interval: between two bytes of one client.
        bodies_for: how long bodies are trickled before they stall.
        stubborn_share: of every so many clients one is stubborn; 0: none.
    """

    address: str
    count: int
    interval: Seconds
    bodies_for: Seconds
    stubborn_share: int = 0
    clients: list[SlowClient] = field(default_factory=list)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._poll = select.epoll()
        self._by_fd: dict[int, SlowClient] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="slow clients", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join(30)
        for client in self.clients:
            client.socket.close()
        self._poll.close()
        assert not self._thread.is_alive(), "the slow clients hang"

    @property
    def connected(self) -> int:
        """How many have sent their first bytes."""
        return sum(client.began_at > 0 for client in tuple(self.clients))

    @property
    def is_over(self) -> bool:
        """Every client's connection has ended."""
        assert self.failure is None, self.failure
        return len(self.clients) == self.count and all(client.ended_at for client in self.clients)

    def of(self, *kinds: Kind) -> list[SlowClient]:
        """The clients of some kinds."""
        return [client for client in self.clients if client.kind in kinds]

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # shown where it is waited for
            self.failure = error

    def _run(self) -> None:
        opening = self._open_all()
        while not self._leaving.is_set():
            for _ in range(NEW_A_TICK):
                next(opening, None)
            for fd, events in self._poll.poll(TICK):
                self._hear(self._by_fd[fd], events)
            now = time.perf_counter()
            for client in tuple(self._by_fd.values()):
                if not client.is_stalled and now - client.moved_at >= self.interval:
                    self._trickle(client, now)

    def _open_all(self) -> Iterator[SlowClient]:
        target = parse_address(self.address)
        assert isinstance(target, TcpAddress)
        kinds = (Kind.HEAD, Kind.LENGTH, Kind.READS_NOTHING, Kind.HEAD, Kind.CHUNKS, Kind.READS_NOTHING)
        for number in range(self.count):
            kind = kinds[number % len(kinds)]
            fresh = socket.socket()
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            if kind is Kind.READS_NOTHING:
                fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            fresh.settimeout(20)
            fresh.connect((target.host, target.port))
            fresh.setblocking(False)
            is_stubborn = self.stubborn_share > 0 and number % self.stubborn_share == 0
            client = SlowClient(kind, is_stubborn, fresh)
            self.clients.append(client)
            self._by_fd[fresh.fileno()] = client
            # A client that reads nothing hears of nothing but a reset.
            self._poll.register(fresh, 0 if kind is Kind.READS_NOTHING else select.EPOLLIN)
            self._trickle(client, time.perf_counter())
            yield client

    def _trickle(self, client: SlowClient, now: float) -> None:
        piece = client.kind.value[1] if client.began_at else client.kind.value[0]
        if client.kind in {Kind.LENGTH, Kind.CHUNKS} and client.began_at:
            client.is_stalled = now - client.began_at >= self.bodies_for and not client.cut_after
        if client.is_stalled or not piece:
            return
        client.began_at = client.began_at or now
        client.moved_at = now
        try:
            client.socket.send(piece)
        except OSError:
            self._end(client)

    def _hear(self, client: SlowClient, events: int) -> None:
        try:
            received = client.socket.recv(65_536) if events & select.EPOLLIN else b""
        except OSError:
            received = b""
        if received:
            client.note_cut()
            client.answer += received
            return
        if client.is_stubborn and client.cut_after and not events & _GONE:
            self._poll.modify(client.socket, 0)  # it heard the end and does not care
            client.is_stalled = False
            return
        self._end(client)

    def _end(self, client: SlowClient) -> None:
        client.note_cut()
        client.ended_at = time.perf_counter()
        del self._by_fd[client.socket.fileno()]
        client.socket.close()


@contextmanager
def descriptors(needed: int) -> Iterator[None]:
    """Lets this process and its children have so many open files; the test is skipped where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files in one process, and the system allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
