"""Defects that the machine has found, and stories that chance seldom tells it, each as short as can be."""

from __future__ import annotations

import json

import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.memory import MemoryTransport
from lbproc.shm.views import WorkerCounter
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import END, Rig, Wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


async def test_client_that_resets_during_our_own_answer_is_no_defect(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"pool": None}, capacity=10)
    client = rig.client(nursery)
    nursery.start_soon(client.send, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # no route: 404
    await wait_all_tasks_blocked()  # of which ten bytes fit
    client.transport.abort()
    await wait_all_tasks_blocked()
    assert rig.reader.worker_total(WorkerCounter.RESPONSES_5XX) == 0
    assert json.loads(rig.log_lines()[0])["status"] in {404, 499}


async def test_tunnel_that_is_stopped_is_logged_with_what_went_through(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig()
    async with trio.open_nursery() as worker:
        client = rig.client(worker)
        await client.send(UPGRADE)
        backend = await rig.backend()
        await backend.read_until(END)
        await backend.send(SWITCHED)
        head = await client.read_until(END)
        await client.send(b"ping!")
        await backend.read_exactly(5)
        await backend.send(b"pong")
        await client.read_exactly(4)
        worker.cancel_scope.cancel()
    line = json.loads(rig.log_lines()[0])
    assert line["status"] == 101
    assert (line["bytes_in"], line["bytes_out"]) == (len(UPGRADE) + 5, len(head) + 4)
    assert rig.reader.worker_total(WorkerCounter.TUNNELS) == 0


async def test_connection_whose_answer_was_under_way_when_the_worker_left_ends_with_it(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    for _ in range(3):
        await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
        await wait_all_tasks_blocked()
        await client.send(GET)
    await backend.read_until(END)
    await backend.send(OK[:-1])
    await wait_all_tasks_blocked()
    rig.context.draining = rig.context.leaving = True
    rig.last_connection.nudge_idle()
    await wait_all_tasks_blocked()
    await backend.send(OK[-1:])
    await wait_all_tasks_blocked()  # the client does not read yet: room to write is no event for a socket
    ours = rig.last_connection.transport
    assert isinstance(ours, MemoryTransport)
    assert ours.is_closed


async def serve_one(rig: Rig, client: Wire) -> Wire:
    """Serves one request, so that the next one finds an idle backend connection."""
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    await wait_all_tasks_blocked()
    return backend


async def test_answer_that_is_under_way_when_the_worker_is_stopped_does_not_look_complete(rig: Rig) -> None:
    async with trio.open_nursery() as worker:
        client = rig.client(worker)
        backend = await serve_one(rig, client)
        await client.send(GET)
        await backend.read_until(END)
        await backend.send(OK[:-1])
        await client.read_until(END)
        worker.cancel_scope.cancel()
    assert await client.is_reset()
    assert rig.in_flight() == 0
    assert backend.transport.recv(1) == b""


async def test_answer_that_breaks_the_rules_in_its_middle_is_cut(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    backend = await serve_one(rig, client)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await client.read_until(b"ok\r\n")
    await backend.send(b"-1\r\n0\r\n\r\n")
    assert await client.is_reset()
