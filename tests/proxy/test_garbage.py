"""Connections leave nothing to the garbage collector, however they end."""

from __future__ import annotations

import gc
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.readiness import Dispatcher
from lbproc.net.transport import SocketTransport
from lbproc.proxy.connection import ClientConnection
from tests.proxy.rig import END, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
PAIR = {"MemoryTransport", "Source", "tuple"}
"""The two ends of a connection in memory know each other, unlike those of a real one."""


async def idle(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await wait_all_tasks_blocked()
    client.transport.close()


async def refused_request(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET.replace(b"\r\n", b"\n"))
    await client.read_all()
    client.transport.close()


async def refused_connect(rig: Rig, nursery: trio.Nursery) -> None:
    rig.refusing["127.0.0.1:9001"] = "refused"
    client = rig.client(nursery)
    await client.send(GET)
    await client.read_until(END)
    client.transport.close()


async def client_gone(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    client.transport.abort()
    await backend.read_all()
    backend.transport.close()


async def served(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    for _ in range(2):
        await backend.read_until(END)
        await backend.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await client.read_until(END)
        await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    await client.read_until(END)
    client.transport.close()
    backend.transport.close()


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What the collector finds in the test."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("history", [idle, refused_request, refused_connect, client_gone, served])
async def test_a_connection_leaves_no_cycle(
    rig: Rig, nursery: trio.Nursery, garbage: list[object], history: object
) -> None:
    assert callable(history)
    await history(rig, nursery)
    await wait_all_tasks_blocked()
    rig.deadlines.sweep(trio.current_time())
    gc.collect()
    found = Counter(type(leaf).__name__ for leaf in garbage)
    assert set(found) <= PAIR, found


async def test_a_connection_over_a_socket_leaves_no_cycle(rig: Rig, garbage: list[object]) -> None:
    ours, theirs = socket.socketpair()
    dispatcher = Dispatcher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        transport = SocketTransport(ours, dispatcher, "")
        listener = rig.runtime.listeners["web"]
        nursery.start_soon(ClientConnection(transport, listener, rig.context).serve)
        del transport
        theirs.close()
        await wait_all_tasks_blocked(0.01)
        rig.deadlines.sweep(trio.current_time())
        gc.collect()
        assert [type(leaf).__name__ for leaf in garbage] == []
        nursery.cancel_scope.cancel()
    dispatcher.close()
