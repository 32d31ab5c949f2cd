"""Ends that cross each other: what was read, sent or cut when a failure comes at the worst moment."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.control.membership import Membership
from lbproc.shm.views import WorkerCounter
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import END, Rig, Wire

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve_one(rig: Rig, client: Wire) -> Wire:
    """Serves one request, so that its backend connection is idle afterwards."""
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    return backend


async def test_body_that_was_read_when_a_stale_connection_broke_is_not_left_out_of_a_retry(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = rig.client(nursery)
    stale = await serve_one(rig, client)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    await stale.read_until(END)
    await wait_all_tasks_blocked()
    stale.transport.abort()  # and at the same moment:
    await client.send(b"hello")
    head = await client.read_until(END)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert len(rig.dialled) == 1


@pytest.mark.parametrize("leaves_by", ["stalling", "half-closing"])
async def test_response_that_is_given_up_is_cut_visibly(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, leaves_by: str
) -> None:
    rig = make_rig(capacity=1024)
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    nursery.start_soon(backend.send, b"HTTP/1.1 200 OK\r\n\r\nonly the beginn")  # its end is the connection's
    if leaves_by == "stalling":
        await client.read_until(END)
        backend.transport.send(bytes(2000))
        await trio.sleep(40)
    else:
        await client.read_until(END)
        client.transport.shutdown_write()
    assert await client.is_reset()


async def test_client_that_is_lost_during_an_interim_response_is_counted_as_gone(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await wait_all_tasks_blocked()
    backend.transport.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.transport.abort()
    await wait_all_tasks_blocked()
    assert rig.reader.worker_total(WorkerCounter.RESPONSES_5XX) == 0
    assert rig.reader.worker_total(WorkerCounter.CLIENT_GONE) == 1
    assert json.loads(rig.log_lines()[0])["status"] == 499


async def test_connection_to_a_backend_that_was_removed_meanwhile_is_closed(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig()
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    rig.publish(pool={"backends": ["127.0.0.1:9002"]})
    rig.runtime.follow_membership()
    await backend.send(OK)
    await client.read_until(b"ok")
    assert await backend.receive() == b""


async def test_idle_connections_to_an_address_that_a_name_no_longer_has_are_not_used(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(pool={"backends": ["app.example:9001"]})
    membership = Membership(rig.config, rig.supervisor.ensure_row, rig.supervisor.ensure_pool)

    def resolve(address: str) -> None:
        membership.resolve({"app.example:9001": [address]})
        rig.supervisor.publish_membership(membership.encode())
        rig.runtime.follow_membership()

    resolve("127.0.0.1:9001")
    client = rig.client(nursery)
    await serve_one(rig, client)
    resolve("127.0.0.2:9001")
    await client.send(GET)
    with trio.move_on_after(5):
        await (await rig.backend()).read_until(END)
    assert rig.dialled == ["127.0.0.1:9001", "127.0.0.2:9001"]
