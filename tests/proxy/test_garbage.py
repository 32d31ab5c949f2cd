"""Connections leave nothing to the garbage collector, however they end.

All ends are real sockets on loopback: the test is client and backend. The collector is off, so what a
connection is made of must go by itself when the connection ends. What does not is named.
"""

from __future__ import annotations

import gc
import reprlib
import socket
import struct
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.net.connect import open_transport
from lbproc.net.readiness import Dispatcher, Source
from lbproc.net.transport import SocketTransport
from lbproc.proxy.listener import StreamListener
from lbproc.types import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from lbproc.net.transport import Transport
    from lbproc.proxy.client import Client
    from lbproc.types import Address
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig

END = b"\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
PUT = b"PUT / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
UPGRADE = b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
LARGE = 1_000_000
PATIENCE = 30
_NAMED = 20


class Wire:
    """The far end of one of the proxy's connections."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._received = b""

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await self._sock.send(rest) :]

    async def read_until(self, mark: bytes) -> bytes:
        """All up to and with the mark."""
        while mark not in self._received:
            piece = await self._sock.recv(65536)
            assert piece, f"ended before {mark!r}: {self._received!r}"
            self._received += piece
        head, _, self._received = self._received.partition(mark)
        return head + mark

    async def read_exactly(self, count: int) -> None:
        while len(self._received) < count:
            piece = await self._sock.recv(65536)
            assert piece, f"ended after {len(self._received)} bytes"
            self._received += piece
        self._received = self._received[count:]

    async def read_all(self) -> bytes:
        """Everything up to the end of the connection, in order or by a reset."""
        with suppress(ConnectionResetError):
            while piece := await self._sock.recv(65536):
                self._received += piece
        return self._received

    def end(self) -> None:
        """Sends FIN; reading goes on."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class Stage:
    """A worker's data path between real sockets."""

    def __init__(self, rig: Rig, back: socket.socket, dispatcher: Dispatcher) -> None:
        self.rig = rig
        self.back = back
        self.connections: list[Client] = []
        self._dispatcher = dispatcher
        self._serving: trio.Nursery | None = None
        rig.context.connect = self._connect

    async def _connect(self, address: Address, deadline: float) -> Transport:
        return await open_transport(address, self._dispatcher, self.rig.deadlines, deadline)

    async def play(self, history: Callable[[Stage], Awaitable[None]]) -> None:
        """Plays a history to the end of all its connections, and lets go of what is kept for reuse."""
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as self._serving:
                await history(self)
            self._serving = None
        self.connections.clear()
        self.rig.runtime.close_aged(trio.current_time() + 1e6)
        self.rig.deadlines.sweep(trio.current_time())

    def client(self) -> Wire:
        """A new client connection, served at once."""
        with socket.create_server(("127.0.0.1", 0)) as front:
            theirs = socket.create_connection(front.getsockname())
            ours, peer = front.accept()
        transport = SocketTransport(ours, self._dispatcher, peer)
        listener = self.rig.runtime.listeners["web"]
        assert isinstance(listener, StreamListener)
        connection = listener.open(transport, self.rig.context)
        assert self._serving is not None
        self._serving.start_soon(connection.serve)
        self.connections.append(connection)
        return Wire(theirs)

    async def backend(self) -> Wire:
        """The next connection that the worker opens to the backend."""
        await trio.lowlevel.wait_readable(self.back)
        return Wire(self.back.accept()[0])

    def cancel(self) -> None:
        """What the drain timeout does."""
        assert self._serving is not None
        self._serving.cancel_scope.cancel()

    async def hasten(self, reading: Awaitable[bytes]) -> bytes:
        """Reads to the end of a connection on which every deadline has come."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            received = await reading
            nursery.cancel_scope.cancel()
        return received

    async def _sweep(self) -> None:
        while True:
            self.rig.deadlines.sweep(trio.current_time() + 1e6)
            await trio.lowlevel.checkpoint()


async def idle(stage: Stage) -> None:
    stage.client().close()


async def served_by_reflexes(stage: Stage) -> None:
    client = stage.client()
    await client.send(GET)
    backend = await stage.backend()
    for _ in range(3):
        await backend.read_until(END)
        await backend.send(NO_CONTENT)
        await client.read_until(END)
        await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await client.read_until(b"ok\r\n")
    await backend.send(b"0\r\n\r\n")
    await client.read_until(END)
    await client.send(LAST)
    await backend.read_until(END)
    await backend.send(NO_CONTENT)
    assert await client.read_all() == NO_CONTENT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    client.close()
    backend.close()


async def served_by_the_task(stage: Stage) -> None:
    client = stage.client()
    await client.send(HEAD)
    backend = await stage.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    await client.read_until(END)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n")
    await client.send(b"Expect: 100-continue\r\n\r\n")
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await client.read_until(END)
    await client.send(b"2\r\nok\r\n0\r\n\r\n" + LAST)
    await backend.read_until(b"0\r\n\r\n")
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))
    await client.read_until(END)
    await client.read_exactly(LARGE)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")
    backend.close()
    assert (await client.read_all()).endswith(b"until the end")
    client.close()


async def answered_by_lbproc(stage: Stage) -> None:
    with suppress(OSError):  # it was shut down before
        stage.back.shutdown(socket.SHUT_RDWR)  # keeps the port and refuses connections
    client = stage.client()
    await client.send(GET)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    client.close()


async def refused(stage: Stage) -> None:
    client = stage.client()
    await client.send(GET.replace(b"\r\n", b"\n"))
    assert (await client.read_all()).startswith(b"HTTP/1.1 400 ")
    client.close()


async def refused_after_another(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET.replace(b"Host", b"Host "))
    assert (await client.read_all()).startswith(b"HTTP/1.1 400 ")
    client.close()
    backend.close()


async def refused_body(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    assert b"HTTP/1.1 400 " in await client.read_all()
    client.close()
    backend.close()


async def client_gone(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    client.reset()
    await backend.read_all()
    backend.close()


async def client_ended(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    client.end()
    assert await client.read_all() == b""
    client.close()
    backend.close()


async def backend_lost(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    backend.close()
    other = await stage.backend()
    await other.read_until(END)
    other.reset()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    client.close()


async def malformed_response(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nfolded\r\n line: 1\r\n\r\n")
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    client.close()
    backend.close()


async def malformed_chunk(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_until(END)
    await backend.send(b"x\r\n")
    assert await client.read_all() == b""
    client.close()
    backend.close()


async def truncated_response(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")
    await client.read_until(b"ok")
    backend.close()
    assert await client.read_all() == b""
    client.close()


async def late_head(stage: Stage) -> None:
    client = stage.client()
    await client.send(GET[:-2])
    assert (await stage.hasten(client.read_all())).startswith(b"HTTP/1.1 408 ")
    client.close()


async def late_response(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(LAST)
    await backend.read_until(END)
    assert (await stage.hasten(client.read_all())).startswith(b"HTTP/1.1 504 ")
    client.close()
    backend.close()


async def tunnel(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n")
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n")
    await client.read_until(END)
    await client.send(b"up")
    await backend.read_until(b"up")
    await backend.send(b"down")
    await client.read_until(b"down")
    client.end()
    assert await backend.read_all() == b""
    backend.close()
    assert await client.read_all() == b""
    client.close()


async def cancelled(stage: Stage) -> None:
    waiting, backend = await warmed_up(stage)
    await waiting.send(GET)
    await backend.read_until(END)
    uploading = stage.client()
    await uploading.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nok")
    other = await stage.backend()
    await other.read_until(b"ok")
    stage.cancel()
    for wire in (waiting, uploading, backend, other):
        wire.close()


async def warmed_up(stage: Stage) -> tuple[Wire, Wire]:
    """A client that was served once, and the backend connection, which is idle."""
    client = stage.client()
    await client.send(GET)
    backend = await stage.backend()
    await backend.read_until(END)
    await backend.send(NO_CONTENT)
    await client.read_until(END)
    return client, backend


HISTORIES: list[Callable[[Stage], Awaitable[None]]] = [
    idle,
    served_by_reflexes,
    served_by_the_task,
    answered_by_lbproc,
    refused,
    refused_after_another,
    refused_body,
    client_gone,
    client_ended,
    backend_lost,
    malformed_response,
    malformed_chunk,
    truncated_response,
    late_head,
    late_response,
    tunnel,
    cancelled,
]


async def tried_again(stage: Stage) -> None:
    client, backend = await warmed_up(stage)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(BUSY)  # by reflexes; the only backend gets it again
    await backend.read_until(END)
    await backend.send(BUSY)
    await client.read_until(b"busy")
    await client.send(PUT)
    await backend.read_until(b"hello")
    backend.reset()
    backend = await stage.backend()
    await backend.read_until(b"hello")
    backend.reset()
    backend = await stage.backend()
    await backend.read_until(b"hello")
    await backend.send(NO_CONTENT)
    await client.read_until(END)
    client.close()
    backend.close()


async def cut(stage: Stage) -> None:
    for request in (GET, UPGRADE):
        client, backend = await warmed_up(stage)
        await client.send(request)
        await backend.read_until(END)
        if request is UPGRADE:
            await backend.send(SWITCHING)
            await client.read_until(END)
        assert [connection.cut({Row(0)}) for connection in stage.connections] == [Row(0)]
        if request is GET:
            again = await stage.backend()
            await again.read_until(END)
            await again.send(NO_CONTENT)
            await client.read_until(END)
            again.close()
        client.close()
        backend.close()
        stage.connections.clear()


@asynccontextmanager
async def open_stage(make_rig: MakeRig, protocol: str = "http", **pool: object) -> AsyncIterator[Stage]:
    """A worker with its dispatcher, and the socket of its one backend."""
    dispatcher = Dispatcher()
    with socket.create_server(("127.0.0.1", 0)) as back:
        backends = ["{}:{}".format(*back.getsockname())]
        rig = make_rig(listener={"protocol": protocol}, pool={"backends": backends} | pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.run)
            yield Stage(rig, back, dispatcher)
            nursery.cancel_scope.cancel()
    dispatcher.close()


@pytest.fixture
async def stage(make_rig: MakeRig) -> AsyncIterator[Stage]:
    async with open_stage(make_rig) as stage:
        yield stage


@pytest.fixture
async def persistent_stage(make_rig: MakeRig) -> AsyncIterator[Stage]:
    """The same with retries."""
    async with open_stage(make_rig, retries={"on": ["reset", "503"], "budget": 1.0}) as stage:
        yield stage


@pytest.fixture
async def relaying_stage(make_rig: MakeRig) -> AsyncIterator[Stage]:
    """One that relays connections as they are."""
    async with open_stage(make_rig, protocol="tcp") as stage:
        yield stage


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What the collector finds in the test, where it runs only when told to."""
    gc.collect()
    gc.freeze()  # what others have left is not found here
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    gc.unfreeze()


def living() -> Counter[str]:
    """What there is of connections and of all that belongs to them."""
    return Counter(
        kind.__name__
        for kind in map(type, gc.get_objects())
        if str(kind.__module__).startswith(("lbproc.proxy.", "lbproc.net.", "lbproc.core.http."))
    )


def named(leftovers: list[object]) -> list[str]:
    """Says what each of them is; frames and functions say where they come from."""
    return [f"{type(leftover).__name__}: {reprlib.repr(leftover)}" for leftover in leftovers[:_NAMED]]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
async def test_connections_over_sockets_leave_nothing(
    stage: Stage, garbage: list[object], history: Callable[[Stage], Awaitable[None]]
) -> None:
    for _ in range(2):  # a memo admits a head at its second sighting
        await stage.play(history)
    before = living()
    await stage.play(history)
    left = living() - before
    assert not left, left
    gc.collect()
    found = named(garbage)
    assert not found, found


@pytest.mark.parametrize("history", [tried_again, cut], ids=lambda history: history.__name__)
async def test_tries_and_cuts_leave_nothing(
    persistent_stage: Stage, garbage: list[object], history: Callable[[Stage], Awaitable[None]]
) -> None:
    await test_connections_over_sockets_leave_nothing(persistent_stage, garbage, history)


async def relayed(stage: Stage, *, large: bool = False) -> tuple[Wire, Wire]:
    client = stage.client()
    backend = await stage.backend()
    await backend.send(b"welcome\r\n")
    await client.read_until(b"\r\n")
    await client.send(b"hello\r\n")
    await backend.read_until(b"\r\n")
    if large:
        await backend.send(bytes(LARGE))
        await client.read_exactly(LARGE)
    return client, backend


async def both_end(stage: Stage) -> None:
    client, backend = await relayed(stage, large=True)
    client.end()
    assert await backend.read_all() == b""
    backend.close()
    assert await client.read_all() == b""
    client.close()


async def one_breaks(stage: Stage) -> None:
    for number in range(2):
        wires = await relayed(stage)
        wires[number].reset()
        await wires[1 - number].read_all()
        wires[1 - number].close()


async def nothing_moves(stage: Stage) -> None:
    client, backend = await relayed(stage)
    await stage.hasten(client.read_all())
    client.close()
    backend.close()


async def cut_off(stage: Stage) -> None:
    client, backend = await relayed(stage)
    client.close()
    backend.close()
    stage.cancel()


async def nobody_there(stage: Stage) -> None:
    with suppress(OSError):
        stage.back.shutdown(socket.SHUT_RDWR)
    client = stage.client()
    assert await client.read_all() == b""
    client.close()


@pytest.mark.parametrize(
    "history",
    [both_end, one_breaks, nothing_moves, cut_off, nobody_there],
    ids=lambda history: history.__name__,
)
async def test_connections_that_are_relayed_leave_nothing(
    relaying_stage: Stage, garbage: list[object], history: Callable[[Stage], Awaitable[None]]
) -> None:
    await test_connections_over_sockets_leave_nothing(relaying_stage, garbage, history)


async def test_an_open_connection_is_seen(stage: Stage, garbage: list[object]) -> None:
    seen = Counter[str]()

    async def look(stage: Stage) -> None:
        client, backend = await warmed_up(stage)
        await client.send(GET)
        await backend.read_until(END)
        seen.update(living())
        client.close()
        backend.close()

    await stage.play(look)
    one = {"ClientConnection": 1, "PlainExchange": 1, "Lease": 1, "Record": 1, "SocketTransport": 2}
    assert one.items() <= seen.items()


def test_a_cycle_is_named(garbage: list[object]) -> None:
    source = Source()
    source.reflex = source.nudge  # type: ignore[assignment]
    del source
    gc.collect()
    assert [name.partition(":")[0] for name in named(garbage)] == ["Source", "method"]
