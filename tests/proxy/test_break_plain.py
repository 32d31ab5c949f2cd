"""Plain exchanges against the general path: what only the one does wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.proxy.balancer import Backend
from lbproc.proxy.connection import ClientConnection
from lbproc.shm.views import WorkerView
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def begin(rig: Rig, nursery: trio.Nursery) -> tuple[Wire, Wire]:
    """A client and the idle backend connection that its first request has left."""
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    await wait_all_tasks_blocked()
    return client, backend


@pytest.mark.parametrize("path", ["plain", "task"])
async def test_a_connection_whose_answer_ends_after_the_grace_of_a_worker_that_leaves_is_ended(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, path: str
) -> None:
    rig = make_rig(listener={"timeouts": {"idle": "75s"}})
    if path == "plain":
        client, backend = await begin(rig, nursery)
        await client.send(GET)
    else:
        client = rig.client(nursery)
        await client.send(GET)
        backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await client.read_until(b"a\r\n")
    # What a worker does that is told to stop: nothing is idle at the end of the grace.
    rig.context.draining = True
    await trio.sleep(1)
    rig.context.leaving = True
    rig.last_connection.nudge_idle()
    await wait_all_tasks_blocked()
    transport = rig.last_connection.transport
    assert isinstance(transport, MemoryTransport)
    await backend.send(b"0\r\n\r\n")
    await wait_all_tasks_blocked()
    # Without a read by the client: room to write is no event for sockets, but one for memory.
    assert transport.is_closed


async def test_an_empty_line_before_each_request_is_skipped_whether_their_heads_are_known_or_not(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    for _ in range(6):
        await client.send(b"\r\n")
        await wait_all_tasks_blocked()
        await client.send(GET)
        await wait_all_tasks_blocked()
        refusal = client.transport.recv(1000)
        assert refusal is None
        assert (await backend.read_until(END)).startswith(b"GET / ")
        await backend.send(OK)
        assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("where", ["count_answer", "checkin"])
async def test_a_defect_at_the_end_of_a_plain_exchange_gives_everything_back_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    async def serve(connection: ClientConnection) -> None:
        try:
            await connection.serve()
        except Exception as error:  # any, like the worker
            ended_with.append(error)

    ended_with: list[Exception] = []
    async with trio.open_nursery() as connections:
        theirs, ours = memory_pair()
        connection = ClientConnection(ours, rig.http(), rig.context)
        connections.start_soon(serve, connection)
        client = Wire(theirs, rig.deadlines)
        await client.send(GET)
        backend = await rig.backend()
        await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
        await wait_all_tasks_blocked()
        await client.send(GET)
        await backend.read_until(END)
        with monkeypatch.context() as patch:
            patch.setattr(WorkerView if where == "count_answer" else Backend, where, fail)
            await backend.send(OK)
            await wait_all_tasks_blocked()
        client_is_let_go = ours.is_closed
        ours.close()
        connections.cancel_scope.cancel()
    assert rig.in_flight() == 0
    assert len(rig.view.ledger) == 0
    assert client_is_let_go
    assert [type(error) for error in ended_with] == [ZeroDivisionError]


async def test_a_request_that_comes_at_the_moment_of_the_idle_deadline_is_answered(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    # The sweep and the event fall into one turn of the loop: the request is here before the task runs.
    rig.deadlines.sweep(trio.current_time() + 1000)
    client.transport.send(GET)
    await wait_all_tasks_blocked()
    assert (backend.transport.recv(1000) or b"").startswith(b"GET / ")
    await backend.send(OK)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 ")
