"""What tests of the net package stand on: a running dispatcher and sweeper, and connected pairs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.net.memory import memory_pair
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.transport import SocketTransport, Transport
from tests.net.tls.pairs import tls_pair

if TYPE_CHECKING:
    from tests.net.waiting import TransportPair


@pytest.fixture
async def dispatcher(nursery: trio.Nursery) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher()
    nursery.start_soon(dispatcher.run)
    yield dispatcher
    dispatcher.close()


@pytest.fixture
async def deadlines(nursery: trio.Nursery) -> Deadlines:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    return deadlines


@pytest.fixture
def tcp_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.fixture(params=["memory", "tcp", "unix", "tls-memory", "tls-tcp"])
async def pair(
    request: pytest.FixtureRequest, dispatcher: Dispatcher, tmp_path: Path
) -> AsyncIterator[TransportPair]:
    """Two joined transports of every kind there is: what holds for one holds for all."""
    kind: str = request.param
    near: Transport
    far: Transport
    if kind.endswith("memory"):
        near, far = memory_pair()
    else:
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "s"))
            listener.listen()
            client = socket.socket(family)
            client.connect(listener.getsockname())
            accepted, peer = listener.accept()
        near = SocketTransport(client, dispatcher, listener_address(client))
        far = SocketTransport(accepted, dispatcher, peer)
    if kind.startswith("tls"):
        near, far = await tls_pair(near, far)
    yield near, far
    near.close()
    far.close()


def listener_address(client: socket.socket) -> tuple[str, int] | str:
    address: tuple[str, int] | str = client.getpeername()
    return address


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
