"""A light HTTP client that loads one URL and tells exactly what went wrong: ``scripts/load-http URL``.

wrk is faster, but it does not tell a refused connection from one cut in the middle, and that is the question
when workers are killed or a program is stopped under load. One thread, one epoll, a closed loop: each
connection sends its next request when its last answer is complete.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_BYTES = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close", re.IGNORECASE)


class Results:
    """What happened so far."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.latencies: list[float] = []

    def percentile(self, share: float) -> float:
        """Milliseconds that ``share`` of the requests took at most; 0 without requests."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 if ordered else 0.0


class BadResponseError(Exception):
    """The answer is not HTTP/1.1, or ends before it is complete."""


class Answer:
    """One response on its way in."""

    __slots__ = ("_buffer", "_left", "_mode", "closes", "status")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._mode = "head"
        self.status = 0
        self.closes = False

    @property
    def has_begun(self) -> bool:
        """Whether any byte of it has come."""
        return self._mode != "head" or bool(self._buffer)

    def feed(self, received: bytes) -> bool:
        """Takes bytes; whether the response is complete."""
        if self._mode == "head":
            head, end, received = (self._buffer + received).partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return False
            self._buffer = b""
            if not self._begin(head + b"\r\n"):
                return self.feed(received) if received else False
        match self._mode:
            case "length":
                self._left -= len(received)
                if self._left < 0:
                    raise BadResponseError("surplus bytes")
                return self._left == 0
            case "chunked":
                # The last bytes tell the end, unless content imitates them right at the end of a read.
                self._buffer = (self._buffer + received)[-7:]
                return self._buffer.endswith(b"\r\n0\r\n\r\n") or self._buffer == b"0\r\n\r\n"
            case _:
                return False

    def _begin(self, head: bytes) -> bool:
        """Reads a head. False: an interim response, another one follows."""
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise BadResponseError("no status line")
        self.status = int(head[9:12])
        if self.status < 200:
            return False
        self.closes = head.startswith(b"HTTP/1.0") or _CLOSE.search(head) is not None
        length = _LENGTH.search(head)
        if length is not None or self.status in {204, 304}:
            self._mode, self._left = "length", int(length[1]) if length else 0
        else:
            self._mode = "chunked" if _CHUNKED.search(head) else "close"
            self.closes = self.closes or self._mode == "close"
        return True

    def feed_end(self) -> None:
        """The connection ended.

        Raises:
            BadResponseError: too early.
        """
        if self._mode != "close":
            raise BadResponseError("truncated" if self.has_begun else "closed before the response")


class Client:
    """One connection of the load; opens another when the last one has ended."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.socket: socket.socket | None = None
        self.answer = Answer()
        self.sent_at = 0.0

    def next_request(self) -> None:
        """Sends the next request, on the same connection if there is one."""
        self.answer = Answer()
        self.sent_at = time.perf_counter()
        if self.socket is None:
            fresh = socket.socket(self.load.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            fresh.connect_ex(self.load.address)
            self.socket = fresh
            self.load.poll.register(fresh, select.EPOLLOUT)
            self.load.clients[fresh.fileno()] = self
        else:
            self._send()

    def _send(self) -> None:
        assert self.socket is not None
        # A request is far smaller than an empty socket buffer, so it is taken whole.
        self.socket.send(self.load.request)

    def on_ready(self, events: int) -> None:
        """Goes on with what the socket is ready for; counts the request when it is done."""
        try:
            if events & select.EPOLLOUT:
                self._finish_connecting()
            elif self._receive():
                self._finish(None)
        except ConnectionRefusedError:
            self._finish("refused")
        except (ConnectionResetError, BrokenPipeError):
            self._finish("reset in the response" if self.answer.has_begun else "reset before the response")
        except BadResponseError as error:
            self._finish(str(error))
        except OSError as error:
            self._finish(error.strerror or "error")

    def _finish_connecting(self) -> None:
        assert self.socket is not None
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self.load.poll.modify(self.socket, select.EPOLLIN)
            self._send()
        elif code == 111:
            raise ConnectionRefusedError
        else:
            raise OSError(code, "cannot connect")

    def _receive(self) -> bool:
        assert self.socket is not None
        received = self.socket.recv(READ_BYTES)
        if received:
            return self.answer.feed(received)
        self.answer.feed_end()
        return True

    def _finish(self, failure: str | None) -> None:
        if failure is None:
            self.load.results.statuses[self.answer.status] += 1
            self.load.results.latencies.append(time.perf_counter() - self.sent_at)
        else:
            self.load.results.failures[failure] += 1
        if failure is not None or self.answer.closes or self.load.new_connections:
            self.close()
        if self.load.goes_on():
            self.next_request()
        else:
            self.close()

    def fail_if_late(self, now: float) -> None:
        """Gives up on an answer that does not come."""
        if self.socket is not None and now - self.sent_at > self.load.timeout:
            self._finish("no answer in time")

    def close(self) -> None:
        """Closes the connection; idempotent."""
        if self.socket is not None:
            del self.load.clients[self.socket.fileno()]
            self.socket.close()
            self.socket = None


class Load:
    """A closed loop of clients.

    Args:
        url: what to ask for, ``http://HOST[:PORT]/TARGET``.
        connections: how many at once.
        seconds: how long; requests under way then are waited for.
        requests: stop after so many, if that is sooner.
        new_connections: one request per connection.
        timeout: how long an answer may take, in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 32,
        seconds: float = 10.0,
        requests: int | None = None,
        new_connections: bool = False,
        timeout: float = 10.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is not http://HOST[:PORT]/TARGET")
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        self.family: socket.AddressFamily = found[0][0]
        self.address: tuple[Any, ...] = found[0][4]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = "Connection: close\r\n" if new_connections else ""
        self.request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{connection}\r\n".encode()
        self.connections = connections
        self.seconds = seconds
        self.new_connections = new_connections
        self.timeout = timeout
        self.results = Results()
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self._left = requests
        self._ends_at = 0.0

    def goes_on(self) -> bool:
        """Takes the right to send one more request."""
        if time.perf_counter() >= self._ends_at or self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True

    def run(self) -> float:
        """Sends the load and returns the seconds that it took."""
        started_at = time.perf_counter()
        self._ends_at = started_at + self.seconds
        looked_at = started_at
        for _ in range(self.connections):
            if self.goes_on():
                Client(self).next_request()
        while self.clients:
            for fd, events in self.poll.poll(0.1):
                client = self.clients.get(fd)
                if client is not None:
                    client.on_ready(events)
            now = time.perf_counter()
            if now - looked_at > 0.5:
                looked_at = now
                for client in list(self.clients.values()):
                    client.fail_if_late(now)
        self.poll.close()
        return time.perf_counter() - started_at


def render_results(results: Results, seconds: float) -> str:
    """The results for a person."""
    count = sum(results.statuses.values())
    statuses = "  ".join(f"{status}: {number}" for status, number in sorted(results.statuses.items()))
    failures = "  ".join(f"{cause}: {number}" for cause, number in results.failures.most_common())
    return (
        f"requests  {count} in {seconds:.1f} s, {count / seconds:.0f}/s\n"
        f"statuses  {statuses or 'none'}\n"
        f"failures  {sum(results.failures.values())}{'  ' + failures if failures else ''}\n"
        f"latency   p50 {results.percentile(0.5):.2f} ms  p99 {results.percentile(0.99):.2f} ms  "
        f"max {results.percentile(1.0):.2f} ms"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/load-http",
        description="Loads one URL and counts what happens. Exit status 1 when one fails or gets a 5xx.",
    )
    parser.add_argument("url", help="http://HOST[:PORT]/TARGET")
    parser.add_argument("--connections", "-c", type=int, default=32, help="connections at once (32)")
    parser.add_argument("--seconds", "-d", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--requests", "-n", type=int, help="stop after so many, if that is sooner")
    parser.add_argument("--new-connections", action="store_true", help="a new connection for each request")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds an answer may take (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        load = Load(
            options.url,
            connections=options.connections,
            seconds=options.seconds,
            requests=options.requests,
            new_connections=options.new_connections,
            timeout=options.timeout,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    seconds = load.run()
    results = load.results
    if options.json:
        members = {
            "seconds": seconds,
            "statuses": dict(results.statuses),
            "failures": dict(results.failures),
            "p50_ms": results.percentile(0.5),
            "p99_ms": results.percentile(0.99),
        }
        print(json.dumps(members))
    else:
        print(render_results(results, seconds))
    failed = bool(results.failures) or not results.statuses or max(results.statuses) >= 500
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
