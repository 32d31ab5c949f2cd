"""Between two turns of any other connection, one connection gets a bounded amount of the worker's time.

As little as possible parks here: a backend answers inside the call that sends it the request, or in the next
pass of the loop; a client takes what it is sent inside the call that sends it; a stream never ends. So it is
the checkpoints of the data path that let others in. trio runs the tasks that are ready in rounds, and the
tasks of a round in either order: one task may have two turns between two turns of another, never three.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.net.readiness import Source
from lbproc.net.relay import BUDGET
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.connection import TURNS
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.types import Address

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TARGET = re.compile(rb"(?:GET|POST) (/\S*) HTTP/1\.1\r\n")
END_OF_BODY = b"0\r\n\r\n"
CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"

IN_A_ROW = 2 * TURNS
"""The most requests that a pipeliner is served between two turns of another connection."""

MOST_BYTES = 2 * (BUDGET + 1_048_576)
"""Two turns, in each of which a pipe uses up its budget, and the read that does so goes beyond by 1 MiB."""

PLENTY = 32 * MOST_BYTES
"""What a stream without end stops after, so that a defect is a failure and not a hang."""


class EagerSource(Source):
    """The source of an end that nobody waits for: whatever happens on it is dealt with in the same call."""

    __slots__ = ("_react",)

    def __init__(self, react: Callable[[], None]) -> None:
        super().__init__()
        self._react = react

    def notify(self, bits: int) -> bool:
        self.ready |= bits
        with suppress(ConnectionLost):  # the test is over
            self._react()
        return False


def react(end: MemoryTransport, reaction: Callable[[], None]) -> None:
    """Lets a function do all reading and writing of an end from now on."""
    end.source = EagerSource(reaction)


class Kind(Enum):
    """Requests that take the two ways through a worker, and backends as quick as each way allows."""

    PLAIN = "served by reflexes, answered in the next pass of the loop"
    CHUNKED = "served by a task, answered at once"

    def requests(self, target: str, count: int) -> bytes:
        """So many requests for a target."""
        if self is Kind.PLAIN:
            return f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * count
        head = f"POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        return (head.encode() + END_OF_BODY) * count


both_kinds = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())


def answer_quickly(rig: Rig, kind: Kind) -> list[str]:
    """Backends that answer as soon as they can; returns their journal of targets."""
    journal: list[str] = []
    mark = END if kind is Kind.PLAIN else END + END_OF_BODY
    token = trio.lowlevel.current_trio_token()

    async def connect(_address: Address, _deadline: float) -> Transport:
        ours, theirs = memory_pair(1 << 20)
        received = b""

        def answer() -> None:
            nonlocal received
            with suppress(ConnectionLost):
                while data := theirs.recv(65_536):
                    received += data
            while mark in received:
                request, _, received = received.partition(mark)
                found = TARGET.match(request)
                assert found is not None
                journal.append(found[1].decode())
                with suppress(ConnectionLost):  # the test is over
                    theirs.send(OK)

        react(theirs, answer if kind is Kind.CHUNKED else partial(token.run_sync_soon, answer))
        return ours

    rig.context.connect = connect
    return journal


def longest_run(journal: list[str], target: str, until: str) -> int:
    """The longest row of one target while another one still waited."""
    last = max(index for index, seen in enumerate(journal) if seen == until)
    return max(len(list(group)) for seen, group in groupby(journal[:last]) if seen == target)


@pytest.fixture
def large_rig(make_rig: MakeRig) -> Rig:
    """Buffers that take all requests and all answers of a test, so that nobody waits for room."""
    return make_rig(capacity=1 << 20)


@both_kinds
@pytest.mark.parametrize("others", [1, 3])
async def test_pipeliners_are_served_in_turns(
    large_rig: Rig, nursery: trio.Nursery, others: int, kind: Kind
) -> None:
    journal = answer_quickly(large_rig, kind)
    clients = {f"/{number}": large_rig.client(nursery) for number in range(others + 1)}
    for target, client in clients.items():
        await client.send(kind.requests(target, 400))
    for client in clients.values():
        while client.received.count(b"\r\n\r\nok") < 400:
            await client.receive()
    assert len(journal) == 400 * len(clients)
    for target in clients:
        for other in clients.keys() - {target}:
            assert longest_run(journal, target, until=other) <= IN_A_ROW
    nursery.cancel_scope.cancel()


@both_kinds
async def test_client_with_one_request_at_a_time_is_served_between_those_of_a_pipeliner(
    large_rig: Rig, nursery: trio.Nursery, kind: Kind
) -> None:
    journal = answer_quickly(large_rig, kind)
    pipeliner, modest = large_rig.client(nursery), large_rig.client(nursery)
    await pipeliner.send(kind.requests("/pipelined", 3000))
    for _ in range(20):
        await modest.send(kind.requests("/modest", 1))
        await modest.read_until(b"\r\n\r\nok")
    # Each request takes a turn of the modest client itself, one of its connection, and one of its backend.
    assert longest_run(journal, "/pipelined", until="/modest") <= 3 * IN_A_ROW
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("kind", "pool"),
    [(Kind.PLAIN, "web"), (Kind.CHUNKED, "web"), (Kind.PLAIN, None)],
    ids=["plain", "chunked", "answered here"],
)
async def test_pipeliner_gives_every_task_its_turn(
    make_rig: MakeRig, nursery: trio.Nursery, kind: Kind, pool: str | None
) -> None:
    rig = make_rig(listener={"pool": pool}, capacity=4 << 20)
    answer_quickly(rig, kind)
    client = rig.client(nursery)
    await client.send(kind.requests("/", 1000))
    served = [0]
    while served[-1] < 1000:
        await trio.lowlevel.checkpoint()
        client.received += client.transport.recv(4 << 20) or b""
        served.append(client.received.count(b"HTTP/1.1 "))
    assert max(after - before for before, after in pairwise(served)) <= IN_A_ROW
    nursery.cancel_scope.cancel()


@both_kinds
async def test_turns_show_in_the_access_log(large_rig: Rig, nursery: trio.Nursery, kind: Kind) -> None:
    answer_quickly(large_rig, kind)
    clients = {target: large_rig.client(nursery) for target in ("/a", "/b")}
    for target, client in clients.items():
        await client.send(kind.requests(target, 200))
    for client in clients.values():
        while client.received.count(b"\r\n\r\nok") < 200:
            await client.receive()
    logged = [json.loads(line)["target"] for line in large_rig.log_lines()]
    assert sorted(logged) == ["/a"] * 200 + ["/b"] * 200
    assert longest_run(logged, "/a", until="/b") <= IN_A_ROW
    nursery.cancel_scope.cancel()


async def watch(count: Callable[[], int], rounds: int) -> int:
    """The most that a count grows between two turns of this task."""
    seen = []
    for _ in range(rounds):
        seen.append(count())
        await trio.lowlevel.checkpoint()
    assert seen[-1] > seen[0], "nothing moved"
    return max(after - before for before, after in pairwise(seen))


def swallow(end: MemoryTransport) -> Callable[[], int]:
    """Takes what comes inside the call that sends it; returns how to ask for the count of its bytes."""
    count = 0

    def read() -> None:
        nonlocal count
        while not end.is_closed and (data := end.recv(1 << 20)):
            count += len(data)

    react(end, read)
    read()
    return lambda: count


def pour(end: MemoryTransport, piece: bytes) -> None:
    """Sends a piece again and again, whenever there is room."""
    rest = b""
    total = 0

    def write() -> None:
        nonlocal rest, total
        while not end.is_closed and total < PLENTY:
            rest = rest or piece
            sent = end.send(rest)
            rest = rest[sent:]
            total += sent
            if not sent:
                break

    react(end, write)
    write()


def feed_through(rig: Rig) -> list[MemoryTransport]:
    """Connects to backends whose far ends are left to the test."""
    ends: list[MemoryTransport] = []

    async def connect(_address: Address, _deadline: float) -> Transport:
        ours, theirs = memory_pair(1 << 20)
        ends.append(theirs)
        return ours

    rig.context.connect = connect
    return ends


async def backend_of(ends: list[MemoryTransport]) -> MemoryTransport:
    while not ends:
        await trio.lowlevel.checkpoint()
    return ends[0]


async def received_at(end: MemoryTransport) -> bytes:
    received = b""
    while END not in received:
        received += end.recv(65_536) or b""
        await trio.lowlevel.checkpoint()
    return received


@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"Content-Length: 999999999999", bytes(65_536)),
        (b"Transfer-Encoding: chunked", CHUNK),
        (b"Connection: close", bytes(65_536)),
    ],
    ids=["length", "chunked", "until close"],
)
async def test_response_without_end_gives_every_task_its_turn(
    large_rig: Rig, nursery: trio.Nursery, framing: bytes, piece: bytes
) -> None:
    ends = feed_through(large_rig)
    client = large_rig.client(nursery)
    await client.send(Kind.PLAIN.requests("/", 1))
    backend = await backend_of(ends)
    await received_at(backend)
    backend.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    await client.read_until(END)
    swallowed = swallow(client.transport)
    pour(backend, piece)
    assert await watch(swallowed, rounds=30) <= MOST_BYTES
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("framing", "piece"),
    [(b"Content-Length: 999999999", bytes(65_536)), (b"Transfer-Encoding: chunked", CHUNK)],
    ids=["length", "chunked"],
)
async def test_request_without_end_gives_every_task_its_turn(
    large_rig: Rig, nursery: trio.Nursery, framing: bytes, piece: bytes
) -> None:
    ends = feed_through(large_rig)
    client = large_rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
    backend = await backend_of(ends)
    await received_at(backend)
    swallowed = swallow(backend)
    pour(client.transport, piece)
    assert await watch(swallowed, rounds=30) <= MOST_BYTES
    nursery.cancel_scope.cancel()


async def open_tunnel(rig: Rig, nursery: trio.Nursery) -> tuple[Wire, MemoryTransport]:
    ends = feed_through(rig)
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    backend = await backend_of(ends)
    await received_at(backend)
    backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    await client.read_until(END)
    return client, backend


async def test_tunnel_that_never_blocks_gives_every_task_its_turn(
    large_rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await open_tunnel(large_rig, nursery)
    swallowed = swallow(backend)
    pour(client.transport, bytes(65_536))
    assert await watch(swallowed, rounds=30) <= MOST_BYTES
    nursery.cancel_scope.cancel()


async def test_client_that_sends_on_after_a_refusal_gives_every_task_its_turn(
    large_rig: Rig, nursery: trio.Nursery
) -> None:
    client = large_rig.client(nursery)
    await client.send(b"bad\r\n\r\n")
    await client.read_until(END)
    sent = 0

    def count() -> int:
        return sent

    def pour_more() -> None:
        nonlocal sent
        while sent < PLENTY and (accepted := client.transport.send(bytes(65_536))):
            sent += accepted

    react(client.transport, pour_more)
    pour_more()
    assert await watch(count, rounds=30) <= MOST_BYTES
    nursery.cancel_scope.cancel()
