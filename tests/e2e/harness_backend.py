"""Backends inside the test process: they record what reaches them, and answer as a test tells them to.

All backends of a stage live in one trio loop in one thread, so their common journal has a true order. What
they record may be read from the test's thread at any time; what they are told (``hold``, ``release``,
``answer``) takes effect before the call returns.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

import trio

from lbproc.types import TcpAddress, UnixAddress
from tests.e2e.harness import wait_until
from tests.e2e.harness_wire import Message, Reader

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES = 256 * 1024


class BackendConnection:
    """One connection that lbproc opened to a backend, as a script sees it."""

    def __init__(self, backend: Backend, stream: trio.SocketStream, number: int) -> None:
        self.backend = backend
        self.number = number
        self.raw = bytearray()
        """Everything that came in on this connection."""
        self.is_closed_by_peer = False
        self._stream = stream
        self._reader = Reader(responses=False)

    async def receive(self) -> bytes:
        """Some bytes; none when lbproc ended its side or reset the connection."""
        try:
            octets = bytes(await self._stream.receive_some(READ_BYTES))
        except trio.BrokenResourceError:
            octets = b""
        self.is_closed_by_peer = self.is_closed_by_peer or not octets
        if len(self.raw) < READ_BYTES:
            self.raw += octets
        self._reader.feed(octets)
        return octets

    async def read_head(self) -> bytes | None:
        """The head of a request whose body the script reads by itself, or ``None`` at the end."""
        buffer = self._reader.buffer
        while b"\r\n\r\n" not in buffer:
            if not await self.receive():
                return None
        end = buffer.index(b"\r\n\r\n") + 4
        head = bytes(buffer[:end])
        del buffer[:end]
        return head

    async def read_some(self) -> bytes:
        """Bytes that no head or request has taken: what came along with them first."""
        buffer = self._reader.buffer
        if not buffer and not await self.receive():
            return b""
        taken = bytes(buffer)
        buffer.clear()
        return taken

    async def read_request(self) -> Message | None:
        """The next whole request, which is recorded; ``None`` when the connection ends."""
        while (request := self._reader.next_message()) is None:
            if not await self.receive():
                return None
        self.backend.requests.append(request)
        self.backend.stage.journal.append(self.backend.name)
        return request

    async def wait_released(self) -> bool:
        """Waits while the backend is held. False: lbproc gave up and closed the connection."""
        if not self.backend.is_held:
            return True
        released = self.backend.released
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while await self.receive():
                    pass
                self.backend.abandoned += 1
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await released.wait()
            nursery.cancel_scope.cancel()
        return released.is_set()

    async def send(self, octets: bytes) -> None:
        """Sends all; that the peer has gone is noticed by the next read."""
        try:
            await self._stream.send_all(octets)
        except trio.BrokenResourceError:
            self.is_closed_by_peer = True

    async def half_close(self) -> None:
        """Sends FIN; that the peer has gone is noticed by the next read."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.send_eof()

    async def reset(self) -> None:
        """Ends the connection with RST."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()


Script = Callable[[BackendConnection], Awaitable[None]]
"""What a backend does with one connection; the connection is closed when it returns."""


async def serve_requests(connection: BackendConnection) -> None:
    """The ordinary script: answers each request with ``backend.response`` while the connection lasts."""
    backend = connection.backend
    while (request := await connection.read_request()) is not None:
        backend.in_flight += 1
        backend.peak_in_flight = max(backend.peak_in_flight, backend.in_flight)
        try:
            if not await connection.wait_released():
                return
        finally:
            backend.in_flight -= 1
        response = backend.response
        await connection.send(response(request) if callable(response) else response)


class Backend:
    """One listening address and what it has seen."""

    def __init__(self, stage: Stage, name: str, script: Script) -> None:
        self.stage = stage
        self.name = name
        self.script = script
        self.address = ""
        self.requests: list[Message] = []
        self.connections: list[BackendConnection] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self.abandoned = 0
        """Requests whose connection lbproc closed while they were held."""
        self.is_held = False
        self.released = trio.Event()
        self.response: bytes | Callable[[Message], bytes] = text_response(name)
        """What ``serve_requests`` answers: the bytes, or a function of the request."""
        self._scope = trio.CancelScope()
        self._listener: trio.SocketListener | None = None

    def hold(self) -> None:
        """From now on requests wait for ``release``."""
        self.stage.call(self._hold)

    def _hold(self) -> None:
        self.is_held = True
        self.released = trio.Event()

    def release(self) -> None:
        """Lets all held requests go, and later ones too."""
        self.stage.call(self._release)

    def _release(self) -> None:
        self.is_held = False
        self.released.set()

    def wait_requests(self, count: int) -> None:
        """Waits until at least so many requests have come."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests at {self.name}")

    def wait_in_flight(self, count: int) -> None:
        """Waits until exactly so many requests are in flight."""
        wait_until(lambda: self.in_flight == count, f"{count} requests in flight at {self.name}")

    def refuse(self) -> None:
        """Closes the listening socket and all connections: from now on connecting is refused."""
        self.stage.call(self._scope.cancel)
        wait_until(lambda: self._listener is None, f"{self.name} is closed")

    async def run(self, address: tuple[str, int] | str, task_status: trio.TaskStatus[None]) -> None:
        """Serves until refused or the stage closes."""
        listener = await _open_listener(address)
        self._listener = listener
        bound = listener.socket.getsockname()
        self.address = str(UnixAddress(bound) if isinstance(bound, str) else TcpAddress(*bound[:2]))
        task_status.started()
        try:
            with self._scope:
                await trio.serve_listeners(self._serve, [listener])
        finally:
            self._listener = None

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = BackendConnection(self, stream, len(self.connections))
        self.connections.append(connection)
        try:
            await self.script(connection)
        finally:
            await trio.aclose_forcefully(stream)


async def _open_listener(address: tuple[str, int] | str) -> trio.SocketListener:
    if isinstance(address, str):
        listening = trio.socket.socket(socket.AF_UNIX)
    else:
        listening = trio.socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await listening.bind(address)
    listening.listen(4096)
    return trio.SocketListener(listening)


def text_response(text: str, status: str = "200 OK") -> bytes:
    """A small keep-alive response."""
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


class Stage:
    """The loop that all backends of a test run in."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        """The names of the backends in the order in which requests reached them."""
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="backends", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10), "the backends did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._nursery.cancel_scope.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the backends did not end"

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery.start_soon(trio.sleep_forever)
            self._started.set()

    def call(self, function: Callable[[], None]) -> None:
        """Runs something in the backends' loop and waits for it."""
        trio.from_thread.run_sync(function, trio_token=self._token)

    def open(
        self,
        name: str,
        script: Script = serve_requests,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: Path | None = None,
    ) -> Backend:
        """Starts a backend on loopback, or on a Unix socket when ``path`` is given."""
        backend = Backend(self, name, script)
        address = (host, port) if path is None else str(path)
        trio.from_thread.run(self._start, backend, address, trio_token=self._token)
        return backend

    async def _start(self, backend: Backend, address: tuple[str, int] | str) -> None:
        await self._nursery.start(backend.run, address)
