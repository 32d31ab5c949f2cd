"""A closed loop of connections over TLS that resume nothing: a full handshake, a request, its answer.

wrk resumes a session wherever the one before ended well, so with it the proxies would not do the same work.
This client is slower, which does not matter to what a connection costs a proxy.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from bench.process import BenchError
from bench.wrk import Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rows import Row

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Connection:
    """One connection, from its beginning to its end."""

    def __init__(self, context: ssl.SSLContext, port: int, request: bytes) -> None:
        self.began = time.perf_counter()
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as browsers do
        self.sock = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
        self._request = request
        self._is_sent = False
        self.received = bytearray()

    def go_on(self) -> bool:
        """Goes as far as it can without waiting. Returns whether that was to the end."""
        try:
            if not self._is_sent:
                self.sock.do_handshake()
                self.sock.send(self._request)
                self._is_sent = True
            while piece := self.sock.recv(16_384):
                self.received += piece
        except _WANTS:
            return False
        except OSError:
            pass
        return True


def run_handshakes(row: Row, requests: Sequence[bytes], port: int, seconds: float) -> Totals:
    """Loads ``port`` with a row whose requests ask to close.

    Raises:
        BenchError: nothing was answered.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    under_way: dict[int, _Connection] = {}
    latencies: list[float] = []
    failures = 0
    started = time.perf_counter()
    with select.epoll() as epoll:

        def begin() -> None:
            connection = _Connection(context, port, requests[len(latencies) % len(requests)])
            under_way[connection.sock.fileno()] = connection
            epoll.register(connection.sock.fileno(), select.EPOLLIN)
            connection.go_on()  # says hello

        for _ in range(row.connections):
            begin()
        while under_way:
            if not (ready := epoll.poll(10)):
                raise BenchError("no answer for 10 s")
            for fd, _ in ready:
                if not under_way[fd].go_on():
                    continue
                connection = under_way.pop(fd)
                epoll.unregister(fd)
                connection.sock.close()
                latencies.append(time.perf_counter() - connection.began)
                failures += not connection.received.startswith(b"HTTP/1.1 200 ")
                if time.perf_counter() - started < seconds:
                    begin()
    elapsed = time.perf_counter() - started
    if failures == len(latencies):
        raise BenchError("nothing was answered")
    latencies.sort()
    p50, p90, p99 = (round(latencies[int(len(latencies) * share)] * 1e6) for share in (0.5, 0.9, 0.99))
    return Totals(len(latencies), len(latencies), elapsed, failures, p50, p90, p99)
