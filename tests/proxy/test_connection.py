"""A client connection between its requests: heads, waits, answers of lbproc's own, and the end."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.proxy.connection import TURNS
from lbproc.shm.views import WorkerCounter
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import END, Rig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\n\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET /" + b"a" * 40_000, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 8_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    ],
)
async def test_bad_head_is_answered_counted_and_closed(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock, raw: bytes, status: int
) -> None:
    client = rig.client(nursery)
    await client.send(raw)
    answer = await client.read_all()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in answer
    assert rig.dialled == []
    await wait_all_tasks_blocked()
    assert rig.reader.worker_total(WorkerCounter.REJECTED) == 1
    assert json.loads(rig.log_lines()[0])["status"] == status


async def test_head_that_never_ends_is_408_from_its_first_byte_on(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = rig.client(nursery)
    await trio.sleep(5)
    began_at = trio.current_time()
    for octet in b"GET / HTT":  # a byte now and then does not put it off
        await client.send(bytes([octet]))
        await trio.sleep(1)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 408 ")
    assert 10 <= trio.current_time() - began_at < 11


async def test_connection_that_sends_nothing_is_closed_without_a_word(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = rig.client(nursery)
    assert await client.read_all() == b""
    assert rig.log_lines() == []


async def test_idle_connection_is_closed_after_the_idle_timeout(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    began_at = trio.current_time()
    assert await client.read_all() == b""
    assert 75 <= trio.current_time() - began_at < 76


async def test_no_route_is_404_and_the_connection_goes_on(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(
        listener={
            "pool": None,
            "routes": [{"match": {"path_prefix": "/v1"}, "pool": "web", "name": "api"}],
        }
    )
    client = rig.client(nursery)
    await client.send(b"GET /v10 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
    head = await client.read_until(END)
    assert head.startswith(b"HTTP/1.1 404 ")
    body = json.loads(await client.read_until(b"\n"))
    assert body["error"]["cause"] == "destination_not_found"
    await client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    await wait_all_tasks_blocked()
    assert [json.loads(line)["route"] for line in rig.log_lines()] == [None, "api"]


async def test_answer_to_a_request_with_a_body_ends_the_connection_without_a_reset(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(listener={"pool": None})
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    await client.read_until(END)
    await client.send(b"the rest")  # read and thrown away
    await client.read_all()


async def test_forwarding_headers_of_strangers_are_discarded(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"trusted_proxies": ["10.0.0.0/8"]})
    request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n"
    stranger = rig.client(nursery, peer_ip="192.0.2.1")
    await stranger.send(request)
    head = await (await rig.backend()).read_until(END)
    assert b"X-Forwarded-For: 192.0.2.1\r\n" in head
    assert b"X-Forwarded-Proto: http\r\n" in head
    proxy = rig.client(nursery, peer_ip="10.1.2.3")
    await proxy.send(request)
    head = await (await rig.backend()).read_until(END)
    assert b"X-Forwarded-For: 203.0.113.9, 10.1.2.3\r\n" in head
    assert b"X-Forwarded-Proto: https\r\n" in head


async def test_draining_worker_announces_the_end_and_idle_connections_go_after_the_grace(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    idle = rig.client(nursery)
    idle_connection = rig.last_connection
    await wait_all_tasks_blocked()
    rig.context.draining = True
    idle_connection.nudge_idle()
    await wait_all_tasks_blocked()
    assert idle.transport.is_quiet()  # the grace: a request may be on its way
    await backend.send(OK)
    assert b"Connection: close\r\n" in await client.read_all()
    rig.context.leaving = True
    idle_connection.nudge_idle()
    assert await idle.read_all() == b""


async def test_request_that_came_in_the_grace_is_answered(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    connection = rig.last_connection
    await wait_all_tasks_blocked()
    rig.context.draining = rig.context.leaving = True
    await client.send(GET)
    connection.nudge_idle()
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    assert (await client.read_all()).endswith(b"ok")


async def test_pipeliner_gives_the_others_their_turn(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(listener={"pool": None})
    turns: list[int] = []

    async def count_turns() -> None:
        while True:
            turns.append(rig.reader.worker_total(WorkerCounter.REQUESTS))
            await trio.lowlevel.checkpoint()

    client = rig.client(nursery)
    await client.send(GET * (TURNS * 4))
    nursery.start_soon(count_turns)
    while b"404" not in client.received:
        await client.receive()
    while turns[-1] < TURNS * 4:
        await trio.lowlevel.checkpoint()
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= 2 * TURNS  # trio runs what is ready in any order, so two turns may follow each other
    nursery.cancel_scope.cancel()
