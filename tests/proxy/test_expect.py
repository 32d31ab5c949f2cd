"""Expectations (RFC 9110 section 10.1.1): who waits for whom, for how long, and who is blamed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.shm.views import BackendCounter
from lbproc.types import Row
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

BODY, RESPONSE = 7, 50
TIMEOUTS: dict[str, Any] = {
    "listener": {"timeouts": {"body": f"{BODY}s"}},
    "pool": {"timeouts": {"response": f"{RESPONSE}s"}},
}

both_paths = pytest.mark.parametrize("idle", [False, True], ids=["fresh", "idle"])


async def ask(rig: Rig, nursery: trio.Nursery, request: bytes, *, idle: bool) -> tuple[Wire, Wire]:
    """Client and backend after the head of a request, which came over a new connection or an idle one."""
    client = rig.client(nursery)
    if idle:
        await client.send(GET)
        backend = await rig.backend()
        await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
        await wait_all_tasks_blocked()
    await client.send(request)
    if not idle:
        backend = await rig.backend()
    await backend.read_until(END)
    return client, backend


async def outcome(rig: Rig, client: Wire) -> tuple[int, str | None, int, float]:
    """Status and cause of the client's last answer, failures that the backend is blamed for, and when."""
    await client.read_all()
    now = trio.current_time()
    client.transport.close()
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    line = json.loads(rig.log_lines()[-1])
    return line["status"], line["cause"], rig.reader.backend_total(Row(0), BackendCounter.FAILURES), now


def is_due(now: float, begun_at: float, span: float) -> bool:
    """Whether a deadline passed and its sweep came, and not later."""
    return begun_at + span <= now < begun_at + span + 1


@both_paths
@pytest.mark.parametrize(
    "request_head",
    [
        GET[:-2] + b"Expect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n",
    ],
    ids=["GET", "POST", "length of 0", "1.0"],
)
async def test_request_without_content_waits_for_nothing(
    rig: Rig, nursery: trio.Nursery, request_head: bytes, idle: bool
) -> None:
    client, backend = await ask(rig, nursery, request_head, idle=idle)
    for _ in range(3):  # no clock runs here: nobody could wait for a deadline
        await backend.send(OK)
        assert (await client.read_until(END)).startswith(b"HTTP/1.1 200 ")
        assert await client.read_exactly(2) == b"ok"
        await client.send(request_head)
        assert b"xpect" not in await backend.read_until(END)
    assert len(rig.dialled) == 1


@both_paths
async def test_backend_that_owes_a_100_is_blamed_when_none_comes(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, idle: bool
) -> None:
    rig = make_rig(**TIMEOUTS)
    client, backend = await ask(rig, nursery, EXPECTING, idle=idle)
    begun_at = trio.current_time()
    status, cause, failures, now = await outcome(rig, client)
    assert (status, cause, failures) == (504, "http_response_timeout", 1)
    assert is_due(now, begun_at, RESPONSE)  # however long a body may take: the client owes none yet
    assert await backend.read_all() == b""


@both_paths
async def test_other_interim_answers_are_no_100(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, idle: bool
) -> None:
    rig = make_rig(**TIMEOUTS)
    client, backend = await ask(rig, nursery, EXPECTING, idle=idle)
    await trio.sleep(30)
    await backend.send(EARLY_HINTS)
    await client.read_until(END)
    begun_at = trio.current_time()
    status, cause, failures, now = await outcome(rig, client)
    assert (status, cause, failures) == (504, "http_response_timeout", 1)
    assert is_due(now, begun_at, RESPONSE)


@both_paths
@pytest.mark.parametrize("sent", [CONTINUE, EARLY_HINTS + CONTINUE, CONTINUE + EARLY_HINTS])
async def test_client_that_got_its_100_and_sends_nothing_is_to_blame(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, idle: bool, sent: bytes
) -> None:
    rig = make_rig(**TIMEOUTS)
    client, backend = await ask(rig, nursery, EXPECTING, idle=idle)
    await trio.sleep(30)
    await backend.send(sent)
    assert await client.read_exactly(len(sent)) == sent
    begun_at = trio.current_time()
    status, cause, failures, now = await outcome(rig, client)
    assert (status, cause, failures) == (408, "http_request_error", 0)
    assert is_due(now, begun_at, BODY)


@both_paths
async def test_client_that_sends_its_body_after_a_while_is_served(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, idle: bool
) -> None:
    rig = make_rig(**TIMEOUTS)
    client, backend = await ask(rig, nursery, EXPECTING, idle=idle)
    await trio.sleep(RESPONSE - 10)  # more than it may take between two pieces of the body
    await client.send(b"hi")
    assert await backend.read_exactly(2) == b"hi"
    await trio.sleep(RESPONSE - 10)  # the backend's time begins anew
    await backend.send(OK)
    assert await client.read_until(b"ok") == OK
    await client.send(GET)
    await backend.read_until(END)


@both_paths
@pytest.mark.parametrize("with_head", [False, True], ids=["after the head", "with the head"])
async def test_client_that_begins_its_body_unasked_has_to_go_on(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, idle: bool, with_head: bool
) -> None:
    rig = make_rig(**TIMEOUTS)
    client, backend = await ask(rig, nursery, EXPECTING + (b"h" if with_head else b""), idle=idle)
    if not with_head:
        await client.send(b"h")
    assert await backend.read_exactly(1) == b"h"
    begun_at = trio.current_time()
    status, cause, failures, now = await outcome(rig, client)
    assert (status, cause, failures) == (408, "http_request_error", 0)
    assert is_due(now, begun_at, BODY)


async def test_backend_that_does_not_take_the_head_owes_no_100_but_is_blamed_for_that(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(**TIMEOUTS, capacity=64)
    client = rig.client(nursery)
    await client.send(EXPECTING)
    await rig.backend()
    status, cause, failures, _ = await outcome(rig, client)
    assert (status, cause, failures) == (504, "connection_write_timeout", 1)


@both_paths
async def test_client_that_leaves_while_it_waits_is_to_blame(
    rig: Rig, nursery: trio.Nursery, idle: bool
) -> None:
    client, backend = await ask(rig, nursery, EXPECTING, idle=idle)
    client.transport.close()
    assert await backend.read_all() == b""
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert rig.reader.backend_total(Row(0), BackendCounter.FAILURES) == 0
    assert json.loads(rig.log_lines()[-1])["status"] == 499


@pytest.mark.parametrize(
    ("listener", "status"),
    [
        ({"max_body_size": 1}, 413),
        ({"pool": None, "routes": [{"match": {"path": "/x"}, "pool": "web"}]}, 404),
    ],
)
async def test_answer_of_lbprocs_own_does_not_wait_for_the_body(
    make_rig: MakeRig, nursery: trio.Nursery, listener: dict[str, Any], status: int
) -> None:
    rig = make_rig(listener=listener)
    client = rig.client(nursery)
    await client.send(EXPECTING)
    head = await client.read_until(END)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in head
    assert rig.dialled == []


async def test_request_that_waits_for_a_100_is_tried_again_where_the_idle_connection_was_stale(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, stale = await ask(rig, nursery, EXPECTING.replace(b"POST", b"PUT"), idle=True)
    stale.transport.close()
    fresh = await rig.backend()
    assert b"\r\nExpect: 100-continue\r\n" in await fresh.read_until(END)
    await fresh.send(CONTINUE)
    assert await client.read_until(END) == CONTINUE
    await client.send(b"hi")
    assert await fresh.read_exactly(2) == b"hi"
    await fresh.send(OK)
    assert await client.read_until(b"ok") == OK
