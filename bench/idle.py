"""Connections that have made one request and then stay open: what a balancer holds most of."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Self

from bench.load import Answer, BadResponseError
from bench.process import BenchError

if TYPE_CHECKING:
    from types import TracebackType

AT_ONCE = 32
"""Connections that are being opened at a time: requests under way are not what is measured."""

PER_SOURCE = 5000
"""Connections from one address of ours, far below the number of local ports."""

GIVE_UP_AFTER = 60.0

IP_BIND_ADDRESS_NO_PORT = 24


class IdleConnections:
    """Opens ``count`` connections to a port of 127.0.0.1, each with one request, and holds them."""

    def __init__(self, port: int, count: int, request: bytes) -> None:
        self._port = port
        self._count = count
        self._request = request
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._close()

    def _open(self) -> None:
        deadline = time.perf_counter() + GIVE_UP_AFTER
        under_way: dict[int, tuple[socket.socket, Answer]] = {}
        with select.epoll() as poll:
            while under_way or len(self._held) < self._count:
                while len(under_way) < AT_ONCE and len(self._held) < self._count:
                    fresh = self._connect()
                    under_way[fresh.fileno()] = fresh, Answer()
                    poll.register(fresh, select.EPOLLIN)
                for fd, _ in poll.poll(1.0):
                    if self._is_answered(*under_way[fd]):
                        poll.unregister(fd)
                        del under_way[fd]
                if time.perf_counter() > deadline:
                    raise BenchError(f"{len(under_way)} connections to be held were not answered")

    def _connect(self) -> socket.socket:
        number = len(self._held)
        fresh = socket.socket()
        self._held.append(fresh)
        try:
            fresh.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            fresh.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
            fresh.connect(("127.0.0.1", self._port))
            fresh.sendall(self._request)
        except OSError as error:
            raise BenchError(f"connection {number} could not be opened: {error}") from error
        return fresh

    @staticmethod
    def _is_answered(connection: socket.socket, answer: Answer) -> bool:
        try:
            received = connection.recv(65536)
            if not received:
                answer.feed_end()
            return answer.feed(received)
        except (OSError, BadResponseError) as error:
            raise BenchError(f"a connection to be held was not answered: {error}") from error

    def _close(self) -> None:
        while self._held:
            self._held.pop().close()

    def lost(self) -> int:
        """How many have been closed by the other side meanwhile."""
        poll = select.poll()
        for connection in self._held:
            poll.register(connection, select.POLLIN)
        return len(poll.poll(0))
