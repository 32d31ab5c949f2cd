"""What lbproc says itself: that it gets through, and how the connection ends behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.proxy.balancer import Balancer
from lbproc.proxy.connection import ClientConnection
from lbproc.proxy.replying import LINGER_TIME
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BAD = b"GET / HTTP/1.1\nHost: a\n\n"
NOWHERE = {"pool": None, "routes": [{"match": {"path": "/x"}, "pool": "web"}]}


def served_end(rig: Rig) -> MemoryTransport:
    """The worker's end of the last client connection."""
    transport = rig.last_connection.transport
    assert isinstance(transport, MemoryTransport)
    return transport


async def test_answer_larger_than_the_clients_buffer_is_sent_whole(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(capacity=16)
    client = rig.client(nursery)
    await client.send(BAD)
    answer = await client.read_all()
    head, _, body = answer.partition(END)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
    line = json.loads(rig.log_lines()[0])
    assert (line["status"], line["bytes_out"]) == (400, len(answer))


async def test_client_that_takes_nothing_of_its_answer_is_given_up(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(capacity=64, listener={"timeouts": {"write": "3s"}})
    client = rig.client(nursery)
    await client.send(BAD)
    await trio.sleep(2.9)
    assert not served_end(rig).is_closed
    await trio.sleep(1)
    assert served_end(rig).is_closed
    line = json.loads(rig.log_lines()[0])
    assert (line["status"], line["bytes_out"]) == (400, 64)


async def test_client_that_left_before_its_answer_got_no_status(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=NOWHERE)
    client = rig.client(nursery)
    await client.send(GET)
    client.transport.close()
    await wait_all_tasks_blocked()
    line = json.loads(rig.log_lines()[0])
    assert (line["status"], line["cause"], line["bytes_out"]) == (499, "destination_not_found", 0)


@pytest.mark.parametrize("sends_on", [False, True])
async def test_connection_that_was_answered_early_is_read_on_for_a_bounded_time(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock, sends_on: bool
) -> None:
    client = rig.client(nursery)
    await client.send(BAD)
    assert (await client.read_all()).startswith(b"HTTP/1.1 400 ")
    for _ in range(int(LINGER_TIME)):
        if sends_on:
            client.transport.send(b"more")
        await trio.sleep(0.9)
        assert not served_end(rig).is_closed
    await trio.sleep(1)
    assert served_end(rig).is_closed


async def test_connection_that_was_answered_early_ends_with_its_client(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client = rig.client(nursery)
    await client.send(BAD)
    await client.read_all()
    assert not served_end(rig).is_closed
    client.transport.shutdown_write()
    await wait_all_tasks_blocked()
    assert served_end(rig).is_closed


async def test_request_that_meets_a_defect_in_the_task_is_recorded_as_500(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Balancer, "take", fail)
    theirs, ours = memory_pair()
    connection = ClientConnection(ours, rig.http(), rig.context)
    await Wire(theirs, rig.deadlines).send(GET.replace(b"GET", b"HEAD"))  # by the task, not by a reflex
    with pytest.raises(ZeroDivisionError):
        await connection.serve()
    assert ours.is_closed
    assert [json.loads(line)["status"] for line in rig.log_lines()] == [500]
