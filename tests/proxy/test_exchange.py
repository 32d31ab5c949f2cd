"""One request and its response over memory transports: what each side sees, and what is left afterwards."""

from __future__ import annotations

import contextlib
import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.transport import ConnectionLost
from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.types import Row
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import END, Rig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_request_and_response_pass_and_nothing_stays_taken(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    head = await backend.read_until(END)
    assert head.startswith(b"GET / HTTP/1.1\r\nHost: example.com\r\n")
    assert rig.in_flight() == 1
    await backend.send(OK)
    assert await client.read_until(b"ok") == OK
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0


async def test_both_connections_serve_the_next_request(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    for _ in range(3):
        await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
        await client.send(GET)
    assert len(rig.dialled) == 1


async def test_pipelined_requests_are_answered_in_order(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + GET.replace(b"/ ", b"/3 "))
    backend = await rig.backend()
    for number in (b"/1", b"/2", b"/3"):
        assert (await backend.read_until(END)).split()[1] == number
        await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + number)
    answers = [await client.read_until(number) for number in (b"\r\n\r\n/1", b"\r\n\r\n/2", b"\r\n\r\n/3")]
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 5", b"hello"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ],
)
async def test_body_is_relayed_as_it_came_and_the_next_request_is_found(
    rig: Rig, nursery: trio.Nursery, headers: bytes, body: bytes
) -> None:
    client = rig.client(nursery)
    message = b"POST / HTTP/1.1\r\nHost: a\r\n" + headers + END + body
    for octet in message + GET:  # the worst fragmentation there is
        await client.send(bytes([octet]))
        await wait_all_tasks_blocked()
    backend = await rig.backend()
    await backend.read_until(END)
    assert await backend.read_exactly(len(body)) == body
    await backend.send(OK)
    await client.read_until(b"ok")
    assert (await backend.read_until(END)).startswith(b"GET / ")
    assert json.loads(rig.log_lines()[0])["bytes_in"] == len(message)


@pytest.mark.parametrize(
    ("response", "seen"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"Content-Length: 9\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"2\r\nok\r\n0\r\n\r\n",
        ),
    ],
)
async def test_every_delimited_response_leaves_both_connections_usable(
    rig: Rig, nursery: trio.Nursery, response: bytes, seen: bytes
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(response)
    await client.read_until(seen)
    await client.send(GET)
    await backend.read_until(END)


async def test_head_response_has_a_length_and_no_body(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n")
    assert b"Content-Length: 700" in await client.read_until(END)
    await client.send(GET)
    await backend.read_until(END)


async def test_response_that_ends_by_closing_closes_the_client_too(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    backend.transport.close()
    answer = await client.read_all()
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"all of it")


async def test_http10_client_gets_no_chunks(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    backend = await rig.backend()
    assert (await backend.read_until(END)).startswith(b"GET / HTTP/1.1\r\n")
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await backend.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    answer = await client.read_all()
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\nabcde")


async def test_http10_client_that_asks_keeps_its_connection(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    backend = await rig.backend()
    for _ in range(2):
        await backend.read_until(END)
        await backend.send(OK)
        assert b"Connection: keep-alive" in await client.read_until(b"ok")
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")


async def test_interim_responses_pass_before_the_final_one(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    backend = await rig.backend()
    assert b"Expect: 100-continue\r\n" in await backend.read_until(END)
    await backend.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    assert b"Link: </a>" in await client.read_until(END)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 100 ")
    await client.send(b"hi")
    assert await backend.read_exactly(2) == b"hi"
    await backend.send(OK)
    await client.read_until(b"ok")


async def test_endless_interim_responses_are_502(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 101)
    while (head := await client.read_until(END)).startswith(b"HTTP/1.1 102"):
        pass
    assert head.startswith(b"HTTP/1.1 502 ")


async def test_early_response_reaches_the_client_and_ends_the_connection(
    rig: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nonly a part")
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    answer = await client.read_all()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer
    assert (await backend.read_all()) == b"only a part"


async def test_slow_reader_holds_up_the_backend(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(capacity=4096)
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    sent = backend.transport.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await wait_all_tasks_blocked()
        count = backend.transport.send(bytes(4096))
        if not count:
            break
        sent += count
    assert sent < 100_000  # two buffers and one read, not the body


async def test_client_that_leaves_cancels_the_backend_request(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    client.transport.close()
    assert await backend.read_all() == b""
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert rig.reader.worker_total(WorkerCounter.CLIENT_GONE) == 1
    assert rig.reader.backend_total(Row(0), BackendCounter.FAILURES) == 0
    assert json.loads(rig.log_lines()[0])["status"] == 499


async def test_refused_connect_is_redispatched(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(pool={"backends": ["127.0.0.1:9001", "127.0.0.1:9002"], "policy": "first_available"})
    rig.refusing["127.0.0.1:9001"] = "refused"
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    backend = await rig.backend()
    await backend.read_until(END)
    assert await backend.read_exactly(2) == b"hi"
    await backend.send(OK)
    await client.read_until(b"ok")
    assert rig.dialled == ["127.0.0.1:9001", "127.0.0.1:9002"]
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert json.loads(rig.log_lines()[0])["retries"] == 1


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        ("refused", 502, "connection_refused"),
        ("timeout", 504, "connection_timeout"),
        ("unreachable", 502, "destination_ip_unroutable"),
        ("other", 502, "destination_unavailable"),
    ],
)
async def test_the_last_failed_connect_is_the_answer(
    rig: Rig,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    kind: str,
    status: int,
    cause: str,
) -> None:
    rig.refusing["127.0.0.1:9001"] = kind
    client = rig.client(nursery)
    for _ in range(2):  # the client's connection stays usable
        await client.send(GET)
        head = await client.read_until(END)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Proxy-Status: lbproc; error=" + cause.encode() in head
        await client.read_until(b"request id: ")
        await client.read_until(b"\n")
    assert rig.in_flight() == 0


async def test_stale_connection_is_retried_once_on_a_fresh_one(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    stale = await rig.backend()
    await stale.read_until(END)
    await stale.send(OK)
    await client.read_until(b"ok")
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" + GET)
    await stale.read_until(b"hi")
    stale.transport.close()
    fresh = await rig.backend()
    await fresh.read_until(END)
    assert await fresh.read_exactly(2) == b"hi"
    await fresh.send(OK)
    await client.read_until(b"ok")
    assert (await fresh.read_until(END)).startswith(b"GET ")  # the pipelined one, once


async def test_request_that_may_have_had_an_effect_is_not_sent_twice(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    stale = await rig.backend()
    await stale.read_until(END)
    await stale.send(OK)
    await client.read_until(b"ok")
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
    await stale.read_until(END)
    stale.transport.close()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    assert len(rig.dialled) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + bytes(100_000).replace(b"\0", b"a"),
    ],
)
async def test_bad_response_is_502_and_never_forwarded(
    rig: Rig, nursery: trio.Nursery, response: bytes
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    with contextlib.suppress(ConnectionLost):  # it may be cut off before it has said everything
        await backend.send(response)
    backend.transport.shutdown_write()
    head = await client.read_until(END)
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"Proxy-Status: lbproc; error=" in head
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert rig.reader.backend_total(Row(0), BackendCounter.FAILURES) == 1


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nonly",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_truncation_is_never_hidden(rig: Rig, nursery: trio.Nursery, begin: bytes) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(begin)
    await client.read_until(END)
    backend.transport.close()
    assert await client.is_reset()


async def test_chunk_syntax_that_breaks_late_cuts_the_client(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await client.read_until(b"hello\r\n")
    await backend.send(b"5 \r\nworld\r\n0\r\n\r\n")
    assert await client.is_reset()


async def test_bytes_after_a_response_reach_nobody(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert await client.read_until(b"ok") == OK
    await client.send(GET)
    fresh = await rig.backend()
    await fresh.read_until(END)
    await fresh.send(OK)
    assert await client.read_until(b"ok") == OK


async def test_bad_chunk_in_a_request_is_400_and_the_backend_is_cut_off(
    rig: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    backend = await rig.backend()
    await backend.read_until(b"hello\r\n")
    await client.send(b"0x5\r\nhello\r\n0\r\n\r\n")
    assert (await client.read_all()).startswith(b"HTTP/1.1 400 ")
    assert await backend.read_all() == b""


async def test_body_larger_than_allowed_is_413(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    rig = make_rig(listener={"max_body_size": 4})
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    assert (await client.read_all()).startswith(b"HTTP/1.1 413 ")
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert (await client.read_all()).startswith(b"HTTP/1.1 413 ")


async def test_full_pool_answers_503_with_retry_after(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(pool={"backends": [{"address": "127.0.0.1:9001", "max_connections": 1}]})
    first = rig.client(nursery)
    await first.send(GET)
    await rig.backend()
    second = rig.client(nursery)
    await second.send(GET)
    head = await second.read_until(END)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in head
    assert b"connection_limit_reached" in head


async def test_response_timeout_is_504(
    rig: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = rig.client(nursery)
    began_at = trio.current_time()
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    head = await client.read_until(END)
    assert head.startswith(b"HTTP/1.1 504 ")
    assert 60 <= trio.current_time() - began_at < 61
    assert await backend.read_all() == b""


async def test_stalled_response_body_is_cut(
    rig: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nonly")
    assert await client.is_reset()


async def test_stalled_request_body_is_408(
    rig: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nonly")
    assert (await client.read_all()).startswith(b"HTTP/1.1 408 ")


async def test_client_that_takes_nothing_is_dropped(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    rig = make_rig(capacity=1024)
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    with pytest.raises(ConnectionLost):
        await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0


async def test_tunnel_opens_after_101_and_keeps_half_close(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.send(b"early")
    backend = await rig.backend()
    head = await backend.read_until(END)
    assert b"Upgrade: websocket" in head
    await wait_all_tasks_blocked()
    assert backend.transport.is_quiet()  # nothing of the other protocol before the backend agreed
    await backend.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
    )
    assert b"Upgrade: websocket\r\n" in await client.read_until(END)
    assert await client.read_exactly(5) == b"hello"
    assert await backend.read_exactly(5) == b"early"
    client.transport.shutdown_write()
    assert await backend.read_all() == b""
    await backend.send(b"still here")
    backend.transport.shutdown_write()
    assert await client.read_all() == b"still here"
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    line = json.loads(rig.log_lines()[0])
    assert (line["status"], line["bytes_out"] > 10) == (101, True)


async def test_refused_upgrade_is_an_ordinary_response(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    assert (await backend.read_until(END)).startswith(b"GET / ")
