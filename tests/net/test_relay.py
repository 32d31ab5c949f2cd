"""Pipes over memory and sockets.

Whole, in order, bounded, and with the blame where it belongs.
"""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lbproc.net.memory import memory_pair
from lbproc.net.readiness import READ, WRITE, Deadlines, park
from lbproc.net.relay import (
    BUDGET,
    Pipe,
    SinkFailed,
    SourceFailed,
    Stream,
    Truncated,
)
from tests.net.waiting import (
    TransportPair,
    fill,
    receive_exactly,
    send_all,
)


class CountedBody:
    """A body of a known length, as Content-Length gives it."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.complete = length == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        relayed, excess = data[: self.left], data[self.left :]
        self.left -= len(relayed)
        self.complete = self.left == 0
        return relayed, excess

    def at_eof(self) -> bool:
        return False


class SilentBody:
    """A body of which nothing is relayed, until it ends with a dot."""

    complete = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        _, dot, excess = data.partition(b".")
        self.complete = bool(dot)
        return b"", excess

    def at_eof(self) -> bool:
        return False


class RefusingBody(SilentBody):
    def take(self, data: bytes) -> tuple[bytes, bytes]:
        raise ValueError(data)


class Relay:
    """A sender and a receiver with a pipe between them."""

    def __init__(self, capacity: int = 65536, sink_capacity: int | None = None) -> None:
        self.sender, self.source = memory_pair(capacity)
        self.sink, self.receiver = memory_pair(sink_capacity or capacity)

    def pipe(self, length: int, buffered: bytes = b"") -> Pipe:
        return Pipe(self.source, self.sink, CountedBody(length), buffered)


def test_a_body_is_relayed_and_what_follows_it_is_excess() -> None:
    relay = Relay()
    pipe = relay.pipe(5)
    relay.sender.send(b"helloGET / HTTP/1.1")
    assert pipe.pump() == 19
    assert pipe.finished
    assert relay.receiver.recv(100) == b"hello"
    assert pipe.excess == b"GET / HTTP/1.1"
    assert (pipe.received, pipe.sent) == (5, 5)
    assert pipe.pump() == 0


def test_a_complete_body_is_finished_without_a_read() -> None:
    relay = Relay()
    relay.sender.send(b"the next request")
    pipe = relay.pipe(0)
    assert pipe.finished
    assert pipe.pump() == 0
    assert relay.source.recv(100) == b"the next request"


def test_buffered_bytes_come_first_and_may_hold_excess() -> None:
    relay = Relay()
    pipe = relay.pipe(4, buffered=b"abcdNEXT")
    assert not pipe.finished
    assert pipe.excess == b"NEXT"
    assert pipe.pump() == 4
    assert pipe.finished
    assert relay.receiver.recv(100) == b"abcd"


def test_buffered_bytes_after_an_empty_body_are_excess() -> None:
    pipe = Relay().pipe(0, buffered=b"NEXT")
    assert pipe.finished
    assert pipe.excess == b"NEXT"


def test_a_prefix_goes_first_in_one_piece_with_what_is_there() -> None:
    relay = Relay()
    pipe = Pipe(relay.source, relay.sink, CountedBody(9), b"body", b"head;")
    pipe.pump()
    assert relay.receiver.recv(100) == b"head;body"
    relay.sender.send(b"-rest")
    pipe.pump()
    assert pipe.finished
    assert relay.receiver.recv(100) == b"-rest"
    assert (pipe.received, pipe.sent) == (9, 14)


def test_a_prefix_alone_is_sent_before_the_pipe_is_finished() -> None:
    relay = Relay(sink_capacity=3)
    pipe = Pipe(relay.source, relay.sink, CountedBody(0), prefix=b"head")
    assert not pipe.finished
    assert pipe.pump() == 3
    assert not pipe.finished
    assert relay.receiver.recv(100) == b"hea"
    assert pipe.pump() == 1
    assert pipe.finished


def test_a_pipe_tells_whether_it_has_read() -> None:
    relay = Relay()
    pipe = relay.pipe(6, buffered=b"abc")
    pipe.pump()
    assert not pipe.has_read
    relay.sender.send(b"def")
    pipe.pump()
    assert pipe.has_read


def test_a_source_that_has_nothing_is_what_the_pipe_waits_for() -> None:
    relay = Relay()
    pipe = relay.pipe(5)
    assert pipe.pump() == 0
    assert pipe.waits() == ((relay.source.source, READ),)
    assert not pipe.is_sink_blocked


def test_a_sink_that_is_full_is_what_the_pipe_waits_for_and_nothing_more_is_read() -> None:
    relay = Relay(capacity=100, sink_capacity=10)
    pipe = relay.pipe(100)
    relay.sender.send(b"x" * 60)
    assert pipe.pump() == 60
    assert pipe.waits() == ((relay.sink.source, WRITE),)
    assert pipe.is_sink_blocked
    assert (pipe.received, pipe.sent) == (60, 10)
    relay.sender.send(b"y" * 40)
    assert pipe.pump() == 0
    assert pipe.received == 60  # back-pressure: the rest stays where it is
    arrived = b""
    while not pipe.finished:
        arrived += relay.receiver.recv(100) or b""
        pipe.pump()
    arrived += relay.receiver.recv(100) or b""
    assert arrived == b"x" * 60 + b"y" * 40


def test_after_the_sink_took_all_the_pipe_waits_for_the_source_again() -> None:
    relay = Relay(capacity=100, sink_capacity=10)
    pipe = relay.pipe(50)
    relay.sender.send(b"x" * 15)
    pipe.pump()
    assert pipe.is_sink_blocked
    relay.receiver.recv(100)
    pipe.pump()
    assert pipe.waits() == ((relay.source.source, READ),)


def test_the_end_within_a_body_is_a_truncation_after_everything_was_sent() -> None:
    relay = Relay()
    pipe = relay.pipe(10)
    relay.sender.send(b"12345")
    relay.sender.shutdown_write()
    with pytest.raises(Truncated):
        pipe.pump()
    assert relay.receiver.recv(100) == b"12345"
    assert pipe.sent == 5


def test_the_end_completes_a_body_that_may_end_so() -> None:
    relay = Relay()
    pipe = Pipe(relay.source, relay.sink, Stream())
    relay.sender.send(b"12345")
    relay.sender.shutdown_write()
    assert pipe.pump() == 5
    assert pipe.finished


def test_a_broken_source_and_a_broken_sink_are_told_apart() -> None:
    relay = Relay()
    pipe = relay.pipe(10)
    relay.sender.abort()
    with pytest.raises(SourceFailed, match="reset by peer"):
        pipe.pump()
    relay = Relay()
    pipe = relay.pipe(10)
    relay.sender.send(b"12345")
    relay.receiver.abort()
    with pytest.raises(SinkFailed, match="reset by peer"):
        pipe.pump()


def test_what_the_body_refuses_is_the_callers_to_judge() -> None:
    relay = Relay()
    pipe = Pipe(relay.source, relay.sink, RefusingBody())
    relay.sender.send(b"nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        pipe.pump()


def test_a_body_may_end_without_anything_to_relay() -> None:
    relay = Relay()
    pipe = Pipe(relay.source, relay.sink, SilentBody())
    relay.sender.send(b"framing only.NEXT")
    assert pipe.pump() == 17
    assert pipe.finished
    assert (pipe.sent, pipe.excess) == (0, b"NEXT")


def test_a_pump_stops_at_its_budget() -> None:
    relay = Relay(capacity=1 << 22)
    pipe = relay.pipe(1 << 22)
    relay.sender.send(bytes(1 << 22))
    assert BUDGET <= pipe.pump() <= 2 * BUDGET
    assert not pipe.finished
    before = pipe.sent
    assert pipe.pump(budget=1) >= 1
    assert before < pipe.sent < 1 << 22


def test_what_is_read_and_not_relayed_counts_towards_the_budget() -> None:
    relay = Relay(capacity=1 << 22)
    pipe = Pipe(relay.source, relay.sink, SilentBody())
    relay.sender.send(bytes(1 << 22))
    assert BUDGET <= pipe.pump() <= 2 * BUDGET


def test_a_pipe_never_holds_more_than_a_read() -> None:
    relay = Relay(capacity=1 << 22, sink_capacity=1)
    pipe = relay.pipe(1 << 22)
    relay.sender.send(bytes(1 << 22))
    held = 0
    for _ in range(3):
        pipe.pump()
        held = max(held, pipe.received - pipe.sent)
        relay.receiver.recv(1)
    assert 0 < held < 65536


def test_reads_grow_with_what_comes_and_stay_bounded() -> None:
    relay = Relay(capacity=1 << 23)
    pipe = relay.pipe(1 << 23)
    relay.sender.send(bytes(1 << 23))
    sizes = []
    while not pipe.finished:
        before = pipe.received
        pipe.pump(budget=1)
        if pipe.received > before:
            sizes.append(pipe.received - before)
    assert sizes[0] == 16384
    assert max(sizes) == 262_144
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 40), st.integers(0, 300), st.data())
def test_any_way_of_arriving_gives_the_same_bytes(
    data: bytes, capacity: int, sink_capacity: int, length: int, draw: st.DataObject
) -> None:
    relay = Relay(capacity, sink_capacity)
    length = min(length, len(data))
    head = draw.draw(st.integers(0, len(data)))
    pipe = relay.pipe(length, buffered=data[:head])
    rest = data[head:]
    arrived = b""
    while not pipe.finished:
        step = draw.draw(st.sampled_from(["send", "pump", "receive"]))
        if step == "send" and rest:
            rest = rest[relay.sender.send(rest) :]
        elif step == "pump":
            pipe.pump(draw.draw(st.integers(1, 50)))
        else:
            arrived += relay.receiver.recv(draw.draw(st.integers(1, 50))) or b""
            # so that it comes to an end whatever is drawn
            rest = rest[relay.sender.send(rest) :] if rest else rest
            pipe.pump()
    while piece := relay.receiver.recv(1000):
        arrived += piece
    assert arrived == data[:length]
    assert pipe.received == pipe.sent == length
    left = relay.source.recv(1000) or b""
    assert (pipe.excess + left + rest) == data[length:]


async def test_a_pipe_over_real_connections_waits_as_documented(
    pair: TransportPair, deadlines: Deadlines, nursery: trio.Nursery
) -> None:
    near, far = pair
    sender, source = memory_pair()
    data = bytes(range(256)) * 20_000
    nursery.start_soon(send_all, sender, data)
    pipe = Pipe(source, near, CountedBody(len(data)))

    async def relay() -> None:
        while not pipe.finished:
            if pipe.pump() >= BUDGET:
                await trio.lowlevel.checkpoint()
            else:
                assert await park(pipe.waits(), deadlines, math.inf)

    fill_size = fill(near)
    nursery.start_soon(relay)
    assert (await receive_exactly(far, fill_size)).strip(b"f") == b""
    assert await receive_exactly(far, len(data)) == data
