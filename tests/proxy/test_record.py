"""What the record says of an exchange that breaks off, and a request that comes at the last moment."""

from __future__ import annotations

import json
import socket

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.readiness import Dispatcher
from lbproc.net.transport import SocketTransport
from lbproc.proxy.connection import ClientConnection
from tests.proxy.rig import END, Rig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


async def test_body_that_came_before_the_client_left_is_counted(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(UPLOAD)
    backend = await rig.backend()
    await backend.read_until(END)
    client.transport.send(bytes(5000))
    client.transport.shutdown_write()
    await backend.read_all()
    await wait_all_tasks_blocked()
    assert json.loads(rig.log_lines()[0])["bytes_in"] == len(UPLOAD) + 5000


async def test_body_that_came_before_the_backend_broke_is_counted(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(UPLOAD)
    backend = await rig.backend()
    await backend.read_until(END)
    await wait_all_tasks_blocked()
    client.transport.send(bytes(5000))
    backend.transport.abort()
    assert (await client.read_all()).startswith(b"HTTP/1.1 502 ")
    assert json.loads(rig.log_lines()[0])["bytes_in"] == len(UPLOAD) + 5000


async def test_only_backend_that_refuses_is_not_a_retry(rig: Rig, nursery: trio.Nursery) -> None:
    rig.refusing["127.0.0.1:9001"] = "refused"
    client = rig.client(nursery)
    await client.send(GET)
    await client.read_until(END)
    await wait_all_tasks_blocked()
    assert len(rig.dialled) == 1
    assert json.loads(rig.log_lines()[0])["retries"] == 0


async def test_request_the_kernel_has_when_the_grace_ends_is_answered(rig: Rig) -> None:
    ours, theirs = socket.socketpair()
    dispatcher = Dispatcher()
    with ours, theirs:
        transport = SocketTransport(ours, dispatcher, "")
        connection = ClientConnection(transport, rig.http(), rig.context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            await wait_all_tasks_blocked()
            theirs.send(GET)  # its event is not dispatched: nobody runs the dispatcher
            rig.context.draining = rig.context.leaving = True
            connection.nudge_idle()
            await wait_all_tasks_blocked()
            assert rig.dialled == ["127.0.0.1:9001"]
            nursery.cancel_scope.cancel()
    dispatcher.close()
