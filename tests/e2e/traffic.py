"""Clients of all kinds in one trio loop, which note whatever goes wrong while a proxy is changed under them.

A connection that completed its handshake is to be answered, so everything after it counts. That an address
refuses connections counts only where it is meant to be there all the time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from tests.e2e.harness_client import READ_BYTES, render_request
from tests.e2e.harness_wire import Message, Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketRequest

    from tests.e2e.harness_backend import BackendConnection

PACE = 0.02
"""Seconds between two messages of a WebSocket and two chunks of a stream."""

PATIENCE = 20.0

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def stream_numbers(connection: BackendConnection) -> None:
    """A backend's script: a response of numbers, one in each chunk, until the client leaves."""
    await connection.read_head()
    await connection.send(CHUNKED)
    number = 0
    while not connection.is_closed_by_peer:
        text = b"%d\n" % number
        await connection.send(b"%x\r\n%s\r\n" % (len(text), text))
        number += 1
        await trio.sleep(PACE)


async def echo(request: WebSocketRequest) -> None:
    """A backend for WebSockets."""
    socket = await request.accept()
    try:
        while True:
            await socket.send_message(await socket.get_message())
    except ConnectionClosed:
        pass


class Connection:
    """A client connection that completed its handshake."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = Reader(responses=True)

    async def request(self, target: str) -> Message:
        """One request and its response.

        Raises:
            EOFError: the connection ended before the response was complete.
            OSError, trio.BrokenResourceError: it broke.
        """
        await self._stream.send_all(render_request(target))
        with trio.fail_after(PATIENCE):
            while (message := self._reader.next_message()) is None:
                octets = bytes(await self._stream.receive_some(READ_BYTES))
                if not octets:
                    raise EOFError(f"the connection ended with {self._reader.partial!r}")
                self._reader.feed(octets)
        return message


@asynccontextmanager
async def connection_to(port: int) -> AsyncIterator[Connection]:
    """A connection to a port on loopback."""
    with trio.fail_after(PATIENCE):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        yield Connection(stream)


class Traffic:
    """Load that goes on until the nursery is cancelled.

    Attributes:
        answered: requests with the response they should have.
        lives: WebSockets and streams, each with how many messages came.
        troubles: what went wrong, each as one line.
        latencies: of every request on a connection that was there: when it ended, and seconds.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.lives: dict[str, int] = {}
        self.troubles: list[str] = []
        self.latencies: list[tuple[float, float]] = []

    async def keep_alive(self, port: int, target: str) -> None:
        """Requests over one connection, and over another one when the proxy ends it in order."""
        while True:
            try:
                await self._use(port, target, requests=1_000_000)
            except OSError as error:
                self.troubles.append(f"no connection to {port}: {error!r}")
                return

    async def come_and_go(self, port: int, target: str, *, is_optional: bool = False) -> None:
        """A connection for each request. An optional address may refuse connections."""
        while True:
            try:
                await self._use(port, target, requests=1)
            except (OSError, trio.TooSlowError) as error:
                if not is_optional:
                    self.troubles.append(f"no connection to {port}: {error!r}")
                    return
                await trio.sleep(PACE)

    async def _use(self, port: int, target: str, requests: int) -> None:
        async with connection_to(port) as connection:
            for number in range(requests):
                began_at = trio.current_time()
                try:
                    message = await connection.request(target)
                except (EOFError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                    self.troubles.append(f"request {number} of a connection to {port}{target}: {error!r}")
                    return
                if message.status != 200:
                    self.troubles.append(f"{port}{target}: {message.start_line} {message.body!r}")
                else:
                    self.answered += 1
                    if number:
                        now = trio.current_time()
                        self.latencies.append((now, now - began_at))
                if message.get("connection") == "close":
                    return

    async def websocket(self, port: int, name: str) -> None:
        """One WebSocket that never ends; every message comes back."""
        try:
            async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as socket:
                number = 0
                while True:
                    await socket.send_message(f"{name} {number}")
                    with trio.fail_after(PATIENCE):
                        assert await socket.get_message() == f"{name} {number}"
                    number += 1
                    self.lives[name] = number
                    await trio.sleep(PACE)
        except (ConnectionClosed, HandshakeError, trio.TooSlowError, OSError, AssertionError) as error:
            self.troubles.append(f"{name}: {error!r}")

    async def stream(self, port: int, name: str) -> None:
        """One response that never ends; every number comes, in order."""
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(render_request("/stream"))
            received = bytearray()
            number = -1
            has_begun = False
            try:
                while True:
                    with trio.fail_after(PATIENCE):
                        octets = await stream.receive_some(READ_BYTES)
                    assert octets, "the stream ended"
                    received += octets
                    has_begun = has_begun or _take_head(received)
                    if has_begun:
                        number = _take_numbers(received, number)
                        self.lives[name] = number + 1
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, AssertionError) as error:
                self.troubles.append(f"{name} after {number}: {error!r}")


def _take_head(received: bytearray) -> bool:
    """Removes the response's head, which may come without any chunk. Returns whether it was whole."""
    head, mark, rest = bytes(received).partition(b"\r\n\r\n")
    if not mark:
        return False
    assert head.startswith(b"HTTP/1.1 200"), head
    received[:] = rest
    return True


def _take_numbers(received: bytearray, number: int) -> int:
    """Removes whole chunks, which count on from a number. Returns the last number."""
    while (end := received.find(b"\n\r\n")) >= 0:
        size, _, text = bytes(received[:end]).partition(b"\r\n")
        number += 1
        assert int(size, 16) == len(text) + 1, bytes(received)
        assert int(text) == number, f"{text!r} instead of {number}"
        del received[: end + 3]
    return number
