"""What is tried again on another backend, and what is not: each row of the decision, over memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.retry import BUCKET, RETRY, credit, has_credit, withdrawn
from lbproc.errors import CapacityError
from lbproc.net.transport import ConnectionLost
from lbproc.shm.views import BackendCounter, WorkerView
from lbproc.types import Row
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

THREE = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
EVERYTHING = ["reset", "timeout", "malformed", "503"]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


def failing_over(make_rig: MakeRig, *, backends: list[Any] | None = None, **retries: Any) -> Rig:
    """A rig that picks the first backend that it may, and tries again on the next one."""
    return make_rig(
        pool={
            "backends": THREE if backends is None else backends,
            "policy": "first_available",
            "retries": {"on": EVERYTHING, **retries},
        }
    )


async def warm_up(client: Wire, rig: Rig) -> Wire:
    """Serves one request, so that the first backend has an idle connection, which is returned."""
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    return backend


async def begin(client: Wire, rig: Rig, *, warm: bool, request: bytes = GET) -> Wire:
    """Sends a request, over a fresh connection or an idle one; returns the backend that has got it."""
    idle = await warm_up(client, rig) if warm else None
    await client.send(request)
    backend = idle or await rig.backend()
    await backend.read_until(END)
    return backend


def total(rig: Rig, counter: BackendCounter, row: int = 0) -> int:
    return rig.reader.backend_total(Row(row), counter)


def spend(rig: Rig, *, leave: int = 0) -> None:
    """Takes retries out of the full bucket until so many are left."""
    for _ in range(BUCKET // RETRY - leave):
        word = rig.view.retry_credit(0)
        assert rig.view.swap_retry_credit(0, word, withdrawn(word))


def last_line(rig: Rig) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(rig.log_lines()[-1])
    return line


warm_or_not = pytest.mark.parametrize("warm", [False, True], ids=["fresh", "idle"])


# Conditions -------------------------------------------------------------------------------------------------


@warm_or_not
@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", True, id="head breaks off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", False, id="malformed"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, id="another protocol"),
        pytest.param(BUSY, False, id="503"),
        pytest.param(BUSY[:20], False, id="503 in pieces"),
    ],
)
async def test_a_failed_try_is_repeated_on_another_backend(
    make_rig: MakeRig, nursery: trio.Nursery, answer: bytes, *, ends: bool, warm: bool
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    await first.send(answer)
    if ends:
        first.transport.close()
    elif answer == BUSY[:20]:
        await wait_all_tasks_blocked()
        await first.send(BUSY[20:])
    second = await rig.backend()
    await second.read_until(END)
    assert rig.in_flight() == 1
    await second.send(OK)
    assert await client.read_until(b"ok") == OK
    await client.send(GET)  # the client's connection goes on
    await wait_all_tasks_blocked()
    assert rig.dialled[:2] == THREE[:2]
    assert total(rig, BackendCounter.RETRIES) == 1
    assert total(rig, BackendCounter.REDISPATCHES) == 0
    assert total(rig, BackendCounter.FAILURES) == (0 if answer.startswith(b"HTTP/1.1 503") else 1)
    lines = [json.loads(line) for line in rig.log_lines()]
    assert [(line["status"], line["backend"], line["retries"], line["cause"]) for line in lines[warm:]] == [
        (200, THREE[1], 1, None)
    ]


async def test_a_reset_on_a_fresh_connection_is_repeated_elsewhere(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    first.transport.abort()
    second = await rig.backend()
    await second.send(OK)
    await client.read_until(b"ok")
    assert rig.dialled == THREE[:2]


async def test_a_stale_connection_is_replaced_first_and_that_costs_no_budget(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    spend(rig)
    client = rig.client(nursery)
    idle = await begin(client, rig, warm=True)
    idle.transport.close()
    again = await rig.backend()
    await again.send(OK)
    await client.read_until(b"ok")
    assert rig.dialled == [THREE[0], THREE[0]]
    assert total(rig, BackendCounter.RETRIES) == 0


@warm_or_not
async def test_a_silent_backend_is_left_at_the_response_timeout(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, *, warm: bool
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    sent_at = trio.current_time()
    second = await rig.backend()
    assert 60 <= trio.current_time() - sent_at < 60.5
    assert await first.read_all() == b""
    await second.send(OK)
    await client.read_until(b"ok")


@warm_or_not
async def test_per_try_timeout_bounds_each_try_and_the_last_one_is_504(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, *, warm: bool
) -> None:
    rig = failing_over(make_rig, per_try_timeout="2s", attempts=2)
    client = rig.client(nursery)
    await begin(client, rig, warm=warm)
    sent_at = trio.current_time()
    for number in (1, 2):
        backend = await rig.backend()
        assert 2 * number <= trio.current_time() - sent_at < 2.5 * number
        await backend.send(b"HTTP/1.1 200 OK\r\nX-Slow")  # a part of a head is no answer
    answer = await client.read_until(END)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"error=http_response_timeout" in answer
    assert 6 <= trio.current_time() - sent_at < 7.5
    assert rig.dialled == THREE


async def test_a_connect_that_takes_longer_than_a_try_may_is_redispatched(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = failing_over(make_rig, per_try_timeout="0.5s")
    rig.refusing[THREE[0]] = "timeout"
    client = rig.client(nursery)
    await client.send(GET)
    began_at = trio.current_time()
    backend = await rig.backend()
    assert trio.current_time() - began_at < 1
    await backend.send(OK)
    await client.read_until(b"ok")


async def test_a_client_that_sends_slowly_uses_up_no_try(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = failing_over(make_rig, per_try_timeout="2s")
    client = rig.client(nursery)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    backend = await rig.backend()
    await backend.read_until(END)
    for octet in b"hello":
        await trio.sleep(1.5)
        await client.send(bytes([octet]))
    assert await backend.read_exactly(5) == b"hello"
    await trio.sleep(1.5)
    await backend.send(OK)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 ")
    assert len(rig.dialled) == 1


@pytest.mark.parametrize(
    ("on", "answer"),
    [
        (["503"], b"HTTP/1.1 200 OK\r\nContent-"),
        (["503"], b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        (["reset", "timeout", "malformed", "500"], BUSY),
    ],
)
@warm_or_not
async def test_what_is_not_named_is_not_repeated(
    make_rig: MakeRig, nursery: trio.Nursery, on: list[str], answer: bytes, *, warm: bool
) -> None:
    rig = failing_over(make_rig, on=on)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    await first.send(answer)
    if answer.endswith(b"-"):
        first.transport.close()
    assert (await client.read_until(END)).split()[1] in {b"502", b"503"}
    await wait_all_tasks_blocked()
    assert rig.dialled == THREE[:1]
    assert total(rig, BackendCounter.RETRIES) == 0


# How often, and where ---------------------------------------------------------------------------------------


@warm_or_not
async def test_the_last_answer_reaches_the_client_as_it_is(
    make_rig: MakeRig, nursery: trio.Nursery, *, warm: bool
) -> None:
    rig = failing_over(make_rig, attempts=2)
    client = rig.client(nursery)
    backend = await begin(client, rig, warm=warm)
    for number in range(3):
        await backend.send(BUSY.replace(b"busy", b"bsy%d" % number))
        if number < 2:
            backend = await rig.backend()
            await backend.read_until(END)
    assert (await client.read_until(b"bsy2")).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    await wait_all_tasks_blocked()
    assert rig.dialled == THREE  # no backend twice while another is left
    assert [total(rig, BackendCounter.RESPONSES_5XX, row) for row in range(3)] == [1, 1, 1]
    assert [total(rig, BackendCounter.RETRIES, row) for row in range(3)] == [1, 1, 0]
    line = last_line(rig)
    assert (line["status"], line["retries"], line["cause"], line["backend"]) == (503, 2, None, THREE[2])


async def test_when_all_had_their_turn_another_round_begins_elsewhere(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig, backends=THREE[:2], attempts=3)
    client = rig.client(nursery)
    await client.send(GET)
    for _ in range(4):
        backend = await rig.backend()
        await backend.read_until(END)
        backend.transport.abort()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    assert rig.dialled == [THREE[0], THREE[1], THREE[0], THREE[1]]


async def test_a_single_backend_is_asked_again_though_it_is_full_with_this_request(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig, backends=[{"address": THREE[0], "max_connections": 1}])
    client = rig.client(nursery)
    backend = await begin(client, rig, warm=False)
    await backend.send(BUSY)
    await backend.read_until(END)  # on the same connection, which is free
    assert rig.in_flight() == 1
    await backend.send(OK)
    await client.read_until(b"ok")
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert total(rig, BackendCounter.REQUESTS) == 2


@pytest.mark.parametrize("reset", [False, True])
async def test_when_the_others_are_full_the_answer_stands_and_no_credit_is_taken(
    make_rig: MakeRig, nursery: trio.Nursery, *, reset: bool
) -> None:
    capped = [{"address": address, "max_connections": 1} for address in THREE[:2]]
    rig = failing_over(make_rig, backends=capped)
    held, client = rig.client(nursery), rig.client(nursery)
    first = await begin(held, rig, warm=False)
    second = await begin(client, rig, warm=False)
    before = rig.view.retry_credit(0)
    if reset:
        second.transport.abort()
        assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    else:
        await second.send(BUSY)
        await client.read_until(b"busy")
    assert rig.view.retry_credit(0) == before
    await first.send(OK)
    await held.read_until(b"ok")


async def test_backends_that_refuse_are_passed_over_without_counting_as_tries(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    spend(rig, leave=1)
    rig.refusing[THREE[1]] = "refused"
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    first.transport.abort()
    third = await rig.backend()
    await third.send(OK)
    await client.read_until(b"ok")
    assert rig.dialled == THREE
    assert total(rig, BackendCounter.RETRIES, 0) == 1
    assert total(rig, BackendCounter.REDISPATCHES, 1) == 1


async def test_retry_goes_nowhere_when_the_rest_refuses(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = failing_over(make_rig)
    rig.refusing = {THREE[1]: "refused", THREE[2]: "refused"}
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    await first.send(BUSY)
    answer = await client.read_until(END)
    assert b"error=connection_refused" in answer
    assert last_line(rig)["first_byte_ms"] is None


# Safety -----------------------------------------------------------------------------------------------------


@warm_or_not
@pytest.mark.parametrize("outcome", ["reset", "503"])
async def test_what_is_not_idempotent_is_sent_once(
    make_rig: MakeRig, nursery: trio.Nursery, outcome: str, *, warm: bool
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    first = await begin(client, rig, warm=warm, request=post)
    await first.read_exactly(2)
    if outcome == "503":
        await first.send(BUSY)
    else:
        first.transport.abort()
    assert (await client.read_until(END)).split()[1] in {b"502", b"503"}
    await wait_all_tasks_blocked()
    assert rig.dialled == THREE[:1]


@warm_or_not
async def test_nothing_is_repeated_once_the_response_has_begun(
    make_rig: MakeRig, nursery: trio.Nursery, *, warm: bool
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    await first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await client.read_until(b"half")
    first.transport.abort()
    assert await client.is_reset()
    assert rig.dialled == THREE[:1]
    assert last_line(rig)["cause"] == "http_response_incomplete"


BODIES = [
    pytest.param(b"Content-Length: 5", [b"hel", b"lo"], id="length"),
    pytest.param(
        b"Transfer-Encoding: chunked", [b"3\r\nhel\r\n2;a=b\r\nl", b"o\r\n0\r\nX: 1\r\n\r\n"], id="chunked"
    ),
]


@pytest.mark.parametrize(("framing", "pieces"), BODIES)
@pytest.mark.parametrize("sent_before", [0, 1, 2], ids=["before it", "within it", "behind it"])
@pytest.mark.parametrize("behind", [b"", GET], ids=["alone", "with the next request"])
async def test_a_body_is_sent_again_from_its_beginning(
    make_rig: MakeRig,
    nursery: trio.Nursery,
    framing: bytes,
    pieces: list[bytes],
    sent_before: int,
    behind: bytes,
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing + END)
    first = await rig.backend()
    await first.read_until(END)
    todo = [pieces[0], pieces[1] + behind]
    for piece in todo[:sent_before]:
        await client.send(piece)
        await wait_all_tasks_blocked()
    first.transport.abort()
    second = await rig.backend()
    await wait_all_tasks_blocked()
    for piece in todo[sent_before:]:
        await client.send(piece)
        await wait_all_tasks_blocked()
    body = b"".join(pieces)
    await second.read_until(END)
    assert await second.read_exactly(len(body)) == body
    await second.send(OK)
    await client.read_until(b"ok")
    if behind:
        next_one = await rig.backend()  # the first backend's turn again
        assert (await next_one.read_until(END)).startswith(b"GET / ")
        await next_one.send(OK)
        await client.read_until(b"ok")
    sizes = [json.loads(line)["bytes_in"] for line in rig.log_lines()]
    assert sizes[0] == len(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing + END + body)


@pytest.mark.parametrize("early", [True, False], ids=["with its head", "later"])
async def test_a_body_that_is_too_large_to_keep_is_sent_once(
    make_rig: MakeRig, nursery: trio.Nursery, *, early: bool
) -> None:
    rig = failing_over(make_rig, max_body="100B")
    client = rig.client(nursery)
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"60\r\n" + bytes(0x60) + b"\r\n"
    await client.send(head + (body if early else b""))
    first = await rig.backend()
    await first.read_until(END)
    if not early:
        await client.send(body)
    await first.read_exactly(len(body))
    first.transport.abort()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    assert rig.dialled == THREE[:1]


async def test_a_body_of_which_nothing_was_taken_yet_need_not_be_kept(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig, max_body="10B")
    client = rig.client(nursery)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    first = await rig.backend()
    await first.read_until(END)
    first.transport.abort()
    second = await rig.backend()
    await second.read_until(END)
    await client.send(bytes(1000))
    assert await second.read_exactly(1000) == bytes(1000)
    await second.send(OK)
    await client.read_until(b"ok")


async def test_body_that_waits_for_a_100_is_asked_for_once(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    first = await rig.backend()
    await first.read_until(END)
    await first.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await client.read_until(END)
    await client.send(b"hi")
    assert await first.read_exactly(2) == b"hi"
    first.transport.abort()
    second = await rig.backend()
    await second.read_until(END)
    assert await second.read_exactly(2) == b"hi"
    await second.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert await client.read_until(b"ok") == OK


async def test_a_100_that_never_came_may_come_from_the_next_backend(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    first = await rig.backend()
    await first.read_until(END)
    await first.send(BUSY)
    second = await rig.backend()
    await second.read_until(END)
    await second.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 100 ")
    await client.send(b"hi")
    assert await second.read_exactly(2) == b"hi"
    await second.send(OK)
    await client.read_until(b"ok")


async def test_other_interim_answers_that_the_client_has_seen_settle_it(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    await first.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    await client.read_until(END)
    first.transport.abort()
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
    assert rig.dialled == THREE[:1]


async def test_an_upgrade_may_be_refused_by_one_and_granted_by_the_next(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    first = await begin(client, rig, warm=False, request=upgrade)
    await first.send(BUSY)
    second = await rig.backend()
    assert b"Upgrade: x\r\n" in await second.read_until(END)
    await second.send(SWITCHING + b"hello")
    await client.read_until(b"hello")
    second.transport.abort()  # a tunnel is never tried again
    assert await client.is_reset()
    assert rig.dialled == THREE[:2]


async def test_client_that_leaves_during_the_second_try_ends_it(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    await first.send(BUSY)
    second = await rig.backend()
    await second.read_until(END)
    client.transport.close()
    assert await second.read_all() == b""
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    line = last_line(rig)
    assert (line["status"], line["retries"], line["first_byte_ms"]) == (499, 1, None)


@warm_or_not
@pytest.mark.parametrize("whole", [True, False])
async def test_connection_of_a_declined_answer_is_used_again_only_if_it_came_whole(
    make_rig: MakeRig, nursery: trio.Nursery, *, warm: bool, whole: bool
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    await first.send(BUSY if whole else BUSY[:-2])
    second = await rig.backend()
    await second.send(OK)
    await client.read_until(b"ok")
    if whole:
        await client.send(GET)
        await first.read_until(END)
        await first.send(OK)
        assert await client.read_until(b"ok") == OK
    else:
        with pytest.raises(ConnectionLost):
            await first.send(b"sy")


# The budget -------------------------------------------------------------------------------------------------


async def test_each_request_deposits_its_share_once(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = failing_over(make_rig, budget=0.2)
    spend(rig)
    client = rig.client(nursery)
    backend = await warm_up(client, rig)  # by the task
    for _ in range(3):  # by reflexes
        await client.send(GET)
        await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
    await client.send(GET)
    await backend.read_until(END)
    assert has_credit(rig.view.retry_credit(0))
    await backend.send(BUSY)
    second = await rig.backend()
    await second.send(OK)
    await client.read_until(b"ok")
    assert credit(rig.view.retry_credit(0)) == 0  # retries deposit nothing


@warm_or_not
async def test_an_answer_stands_when_the_budget_is_spent(
    make_rig: MakeRig, nursery: trio.Nursery, *, warm: bool
) -> None:
    rig = failing_over(make_rig, budget=0.001)
    spend(rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=warm)
    await first.send(BUSY)
    await client.read_until(b"busy")
    await wait_all_tasks_blocked()
    assert rig.dialled == THREE[:1]
    assert total(rig, BackendCounter.RETRIES_DENIED) == 1
    assert total(rig, BackendCounter.RETRIES) == 0
    line = last_line(rig)
    assert (line["status"], line["cause"], line["retries"]) == (503, "retry_budget_spent", 0)


async def test_a_failure_says_that_the_budget_is_spent(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = failing_over(make_rig, budget=0.001)
    spend(rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    first.transport.abort()
    answer = await client.read_until(END)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"error=connection_terminated" in answer
    assert b"the retry budget is spent" in answer
    assert last_line(rig)["cause"] == "retry_budget_spent"


async def test_the_budget_is_that_of_all_workers(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = failing_over(make_rig, budget=0.001)
    rig.sibling()
    spend(rig, leave=1)
    first_client, second_client = rig.client(nursery), rig.client(nursery)
    for client, status in ((first_client, b"200"), (second_client, b"503")):
        backend = await begin(client, rig, warm=False)
        await backend.send(BUSY.replace(b"Content", b"Connection: close\r\nContent"))
        if status == b"200":
            other = await rig.backend()
            await other.send(OK.replace(b"Content", b"Connection: close\r\nContent"))
        assert (await client.read_until(END)).split()[1] == status


@pytest.mark.parametrize("backends", [THREE, THREE[:1]], ids=["another backend", "the same backend"])
@pytest.mark.parametrize(("left", "status"), [(1, 503), (2, 200)], ids=["the last retry", "one of two"])
async def test_a_sibling_that_is_quicker_takes_its_retry_and_no_more(
    make_rig: MakeRig,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    backends: list[str],
    left: int,
    status: int,
) -> None:
    rig = failing_over(make_rig, backends=backends, budget=0.001)
    spend(rig, leave=left)
    swap = WorkerView.swap_retry_credit

    def outrun(view: WorkerView, pool: int, word: int, following: int) -> bool:
        monkeypatch.undo()
        assert swap(view, pool, word, following)  # the sibling's, between our look and our swap
        return swap(view, pool, word, following)

    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    monkeypatch.setattr(WorkerView, "swap_retry_credit", outrun)
    await first.send(BUSY.replace(b"Content", b"Connection: close\r\nContent"))
    if status == 200:
        second = await rig.backend()
        await second.send(OK)
    assert (await client.read_until(END)).split()[1] == b"%d" % status
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert not has_credit(rig.view.retry_credit(0))
    assert total(rig, BackendCounter.RETRIES) == left - 1
    assert total(rig, BackendCounter.RETRIES_DENIED) == 2 - left


async def test_an_answer_stands_when_this_worker_can_hold_nothing_more(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = failing_over(make_rig)
    client = rig.client(nursery)
    first = await begin(client, rig, warm=False)
    with pytest.raises(CapacityError):
        while True:
            rig.view.take(Row(2))
    await first.send(BUSY)
    await client.read_until(b"busy")
    await wait_all_tasks_blocked()
    assert rig.dialled == THREE[:1]
    assert last_line(rig)["status"] == 503
    assert credit(rig.view.retry_credit(0)) == BUCKET
