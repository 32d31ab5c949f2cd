"""Plain exchanges: served while the connection's task sleeps, and handed over whenever they are not plain."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.transport import ConnectionLost
from lbproc.proxy import plain
from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.types import Row
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
EMPTY_POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Steps(trio.abc.Instrument):
    """Counts how often tasks of each name were stepped."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.rsplit(".", 1)[-1]] += 1


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


async def exchange(client: Wire, backend: Wire, request: bytes = GET) -> bytes:
    """One exchange that is answered at once. Returns what the backend got."""
    await client.send(request)
    head = await backend.read_until(END)
    await backend.send(OK)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    return head


async def settled(rig: Rig) -> None:
    """Nothing is held for anybody."""
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert len(rig.view.ledger) == 0


@pytest.mark.parametrize(
    "request_bytes",
    [GET, POST, EMPTY_POST],
    ids=["without a body", "with a small body", "with a body of length 0"],
)
async def test_no_task_of_the_worker_runs_for_a_plain_exchange(
    rig: Rig, nursery: trio.Nursery, request_bytes: bytes
) -> None:
    client, backend = await begin(rig, nursery)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(5):
        await exchange(client, backend, request_bytes)
        if request_bytes is POST:
            assert await backend.read_exactly(5) == b"hello"
    trio.lowlevel.remove_instrument(steps)
    assert "ClientConnection.serve" not in steps.of
    assert not [name for name in steps.of if "serve" in name]
    await settled(rig)
    lines = [json.loads(line) for line in rig.log_lines()]
    assert [line["status"] for line in lines] == [200] * 6
    assert len({line["request_id"] for line in lines}) == 6
    assert lines[-1]["bytes_in"] == len(request_bytes)
    assert rig.dialled == ["127.0.0.1:9001"]


async def test_a_body_of_length_0_is_announced_to_the_backend_as_it_was(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    for _ in range(3):  # as it is new, as it is remembered, and as it is known
        head = await exchange(client, backend, EMPTY_POST)
        assert head.count(b"\r\nContent-Length: 0\r\n") == 1
        assert backend.received == b""
    await settled(rig)


@pytest.mark.parametrize("request_bytes", [EMPTY_POST, CHUNKED_POST], ids=["length 0", "chunked"])
async def test_what_is_sent_behind_a_body_without_content_is_the_next_request(
    rig: Rig, nursery: trio.Nursery, request_bytes: bytes
) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(request_bytes * 2 + GET)
    for method in (b"POST", b"POST", b"GET"):
        assert (await backend.read_until(END)).startswith(method)
        if method == b"POST" and request_bytes is CHUNKED_POST:
            assert await backend.read_until(END) == b"0\r\n\r\n"
        await wait_all_tasks_blocked()
        assert backend.transport.recv(100) is None
        await backend.send(OK)
        await client.read_until(b"ok")
    await settled(rig)


async def test_each_request_has_ids_of_its_own_whether_its_head_is_known_or_not(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    heads = [await exchange(client, backend) for _ in range(4)]
    lines = [line for head in heads for line in head.split(b"\r\n")]
    seen = {line for line in lines if line.startswith((b"X-Req", b"traceparent"))}
    assert len(seen) == 8
    other = await exchange(client, backend, GET.replace(b"GET /", b"GET /other"))
    assert other.startswith(b"GET /other HTTP/1.1\r\n")


async def test_a_known_head_names_the_client_that_sent_it(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(listener={"trusted_proxies": ["198.51.100.0/24"]})
    _, backend = await begin(rig, nursery)
    request = GET[:-2] + b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
    for peer_ip, told in [
        ("192.0.2.7", b"192.0.2.7"),
        ("198.51.100.1", b"203.0.113.9, 198.51.100.1"),
        ("192.0.2.8", b"192.0.2.8"),
        ("198.51.100.2", b"203.0.113.9, 198.51.100.2"),
    ] * 3:
        client = rig.client(nursery, peer_ip=peer_ip)
        head = await exchange(client, backend, request)
        assert b"\r\nX-Forwarded-For: " + told + b"\r\n" in head
        client.transport.close()
        await wait_all_tasks_blocked()


async def test_a_known_answer_has_no_body_when_it_answers_head(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    for _ in range(3):
        await exchange(client, backend)
    for _ in range(3):
        await client.send(GET.replace(b"GET", b"HEAD"))
        await backend.read_until(END)
        await backend.send(OK.removesuffix(b"ok"))
        assert b"\r\nContent-Length: 2\r\n" in await client.read_until(END)
        await exchange(client, backend)


async def test_a_body_that_comes_in_pieces_is_passed_on_piece_by_piece(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    steps = Steps()
    await client.send(GET)
    await backend.read_until(END)
    trio.lowlevel.add_instrument(steps)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_until(END)
    for piece in (b"5\r\nhel", b"lo\r\n", b"1\r\n!\r\n"):
        await backend.send(piece)
        assert await client.read_exactly(len(piece)) == piece
        await wait_all_tasks_blocked()
    assert rig.in_flight() == 1
    await backend.send(b"0\r\n\r\n")
    await client.read_until(b"0\r\n\r\n")
    trio.lowlevel.remove_instrument(steps)
    assert not [name for name in steps.of if "serve" in name]
    await settled(rig)
    await exchange(client, backend)


async def test_a_large_answer_is_handed_over_and_arrives_whole(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    body = bytes(range(256)) * 4096
    await client.send(GET)
    await backend.read_until(END)
    nursery.start_soon(backend.send, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await client.read_until(END)
    assert await client.read_exactly(len(body)) == body
    await exchange(client, backend)
    await settled(rig)


async def test_an_answer_that_the_client_takes_slowly_arrives_whole(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(capacity=600)
    client, backend = await begin(rig, nursery)
    body = bytes(range(250)) * 8
    await client.send(GET)
    await backend.read_until(END)
    nursery.start_soon(backend.send, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 1
    await client.read_until(END)
    assert await client.read_exactly(len(body)) == body
    await settled(rig)


async def test_a_request_that_the_backend_takes_slowly_arrives_whole(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(capacity=500)
    client, backend = await begin(rig, nursery)
    padding = b"X-Padding: " + b"a" * 1500 + b"\r\n\r\n"
    for _ in range(3):
        nursery.start_soon(client.send, GET[:-2] + padding)
        head = await backend.read_until(END)
        assert padding[:-4] in head
        await backend.send(OK)
        await client.read_until(b"ok")
    await settled(rig)


async def test_a_client_that_leaves_is_noticed_and_the_backend_connection_ends(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    client.transport.close()
    assert await backend.read_all() == b""
    await settled(rig)
    assert [json.loads(line)["status"] for line in rig.log_lines()] == [200, 499]


async def test_a_request_sent_ahead_waits_for_its_turn(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    await client.send(POST + GET)
    await wait_all_tasks_blocked()
    for request in (None, b"POST", b"GET"):
        if request is not None:
            assert (await backend.read_until(END)).startswith(request)
            if request == b"POST":
                assert await backend.read_exactly(5) == b"hello"
        assert backend.received == b""
        await backend.send(OK)
        await client.read_until(b"ok")
    await settled(rig)


async def test_a_backend_that_never_answers_is_504_at_the_deadline(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(pool={"timeouts": {"response": "7s"}})
    client, backend = await begin(rig, nursery)
    began_at = trio.current_time()
    await client.send(GET)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 504 ")
    assert 7 <= trio.current_time() - began_at <= 7.5
    assert (await backend.read_all()).endswith(END)
    await settled(rig)


async def test_a_body_that_stops_coming_is_cut_at_the_deadline(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(pool={"timeouts": {"response": "60s", "read": "5s"}})
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
    began_at = trio.current_time()
    assert await client.is_reset()
    assert 5 <= trio.current_time() - began_at <= 5.5
    await settled(rig)


async def test_an_idle_client_is_let_go_after_its_last_plain_exchange_and_not_before(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(listener={"timeouts": {"idle": "10s"}})
    client, backend = await begin(rig, nursery)
    for _ in range(3):
        await trio.sleep(8)
        await exchange(client, backend)
    began_at = trio.current_time()
    assert await client.read_all() == b""
    assert 10 <= trio.current_time() - began_at <= 10.5


@pytest.mark.parametrize("ends", ["close", "abort"])
async def test_a_stale_backend_connection_is_replaced_for_a_request_that_may_be_sent_twice(
    rig: Rig, nursery: trio.Nursery, ends: str
) -> None:
    client, stale = await begin(rig, nursery)
    await client.send(GET)
    await stale.read_until(END)
    getattr(stale.transport, ends)()
    fresh = await rig.backend()
    first = await fresh.read_until(END)
    await fresh.send(OK)
    await client.read_until(b"ok")
    await settled(rig)
    line = json.loads(rig.log_lines()[1])
    assert (line["status"], line["retries"]) == (200, 1)
    assert line["request_id"].encode() in first


@pytest.mark.parametrize(
    "request_bytes", [POST, EMPTY_POST], ids=["with a small body", "with a body of length 0"]
)
async def test_a_request_that_may_not_be_sent_twice_is_502_on_a_stale_connection(
    rig: Rig, nursery: trio.Nursery, request_bytes: bytes
) -> None:
    client, stale = await begin(rig, nursery)
    await client.send(request_bytes)
    await stale.read_until(b"hello" if request_bytes is POST else END)
    stale.transport.close()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    assert len(rig.dialled) == 1
    await settled(rig)


@pytest.mark.parametrize(
    ("answer", "passed_on"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\nexcess", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nexcess", b"0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
async def test_a_backend_connection_with_excess_bytes_or_that_closes_is_not_used_again(
    rig: Rig, nursery: trio.Nursery, answer: bytes, passed_on: bytes
) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(answer)
    await client.read_until(END)
    assert await client.read_exactly(len(passed_on)) == passed_on
    await wait_all_tasks_blocked()
    assert client.received == b""
    await client.send(GET)
    fresh = await rig.backend()
    await fresh.read_until(END)
    await fresh.send(OK)
    await client.read_until(b"ok")
    await settled(rig)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n", b"nonsense\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n"],
)
async def test_an_answer_that_is_not_http_is_502(rig: Rig, nursery: trio.Nursery, answer: bytes) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(answer)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    await settled(rig)


@pytest.mark.parametrize("breaks", ["nonsense", "close", "abort"])
async def test_a_body_that_breaks_off_is_cut_visibly(rig: Rig, nursery: trio.Nursery, breaks: str) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await client.read_until(b"abc\r\n")
    if breaks == "nonsense":
        await backend.send(b"zz\r\n")
    else:
        getattr(backend.transport, breaks)()
    assert await client.is_reset()
    await settled(rig)


async def test_the_last_answer_of_a_worker_that_leaves_says_so(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    rig.context.draining = True
    await backend.send(OK)
    assert b"\r\nConnection: close\r\n" in await client.read_until(END)
    assert await client.read_all() == b"ok"
    await settled(rig)


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the answer"])
async def test_a_worker_that_is_cancelled_gives_everything_back(make_rig: MakeRig, begun: bool) -> None:
    rig = make_rig()
    async with trio.open_nursery() as connections:
        client, backend = await begin(rig, connections)
        await client.send(GET)
        await backend.read_until(END)
        if begun:
            await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
            await client.read_until(b"123")
        connections.cancel_scope.cancel()
    if begun:
        with pytest.raises(ConnectionLost):
            client.transport.recv(1)
    assert backend.transport.recv(1) == b""
    await settled(rig)
    assert json.loads(rig.log_lines()[1])["bytes_out"] == (0 if not begun else 42)


@pytest.mark.parametrize("where", ["begin", "answer"])
async def test_a_defect_in_a_reflex_is_the_connections_and_nothing_leaks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as connections:
            client, backend = await begin(rig, connections)
            if where == "begin":
                monkeypatch.setattr(rig.view.__class__, "count_pick", fail)
                client.transport.send(GET)
            else:
                monkeypatch.setattr(plain, "read_answer", fail)
                client.transport.send(GET)
                await backend.read_until(END)
                backend.transport.send(OK.replace(b"200", b"201"))
            await wait_all_tasks_blocked()
    await settled(rig)
    assert json.loads(rig.log_lines()[1])["status"] == 500


async def test_reuses_and_requests_are_counted_once(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    for _ in range(4):
        await exchange(client, backend)
    await wait_all_tasks_blocked()
    counted = rig.reader.backend_totals(Row(0))
    assert counted[BackendCounter.REQUESTS] == 5
    assert counted[BackendCounter.REUSES] == 4
    assert counted[BackendCounter.CONNECTS] == 1
    assert counted[BackendCounter.RESPONSES_2XX] == 5
    assert rig.reader.worker_total(WorkerCounter.REQUESTS) == 5
