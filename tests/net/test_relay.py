"""Pipes over memory and sockets.

Whole, in order, bounded, and with the blame where it belongs.
"""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.body import Body, ChunkedBody, DechunkedBody, LengthBody
from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.net.readiness import READ, WRITE, Deadlines, park
from lbproc.net.relay import (
    BUDGET,
    Pipe,
    SinkFailed,
    SourceFailed,
    Truncated,
)
from lbproc.net.tunnel import Stream
from tests.net.waiting import (
    TransportPair,
    fill,
    receive_exactly,
    send_all,
)


class CountedBody:
    """A body of a known length, as Content-Length gives it."""

    lines = 0

    def __init__(self, length: int) -> None:
        self.left = length
        self.complete = length == 0

    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        relayed, excess = data[: self.left], bytes(data[self.left :])
        self.left -= len(relayed)
        self.complete = self.left == 0
        return relayed, excess

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        return False


class SilentBody:
    """A body of which nothing is relayed, until it ends with a dot."""

    complete = False
    lines = 0

    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        _, dot, excess = bytes(data).partition(b".")
        self.complete = bool(dot)
        return data[:0], excess

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        return False


class RefusingBody(SilentBody):
    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        raise ValueError(bytes(data))


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
    assert max(sizes) == 1_048_576
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


class Course:
    """A pipe that relays ``payload``, bit by bit, with a head before it."""

    def __init__(self, payload: bytes, coding: str, chunk_size: int, capacity: int, buffered: int) -> None:
        steps = range(0, len(payload), chunk_size)
        chunks = [payload[at : at + chunk_size] for at in steps]
        coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        body: Body
        if coding == "length":
            coded, body, relayed = payload, LengthBody(len(payload)), payload
        elif coding == "chunked":
            body, relayed = ChunkedBody(None), coded
        else:
            body, relayed = DechunkedBody(), payload
        self.relay = Relay(300, capacity)
        self.pipe = Pipe(self.relay.source, self.relay.sink, body, coded[:buffered], b"head")
        self.rest = coded[buffered:]
        self.expected = b"head" + relayed
        self.arrived = b""

    def step(self, count: int) -> None:
        self.rest = self.rest[self.relay.sender.send(self.rest) :] if self.rest else b""
        self.pipe.pump()
        self.arrived += self.relay.receiver.recv(count) or b""

    def finish(self) -> None:
        while not self.pipe.finished or len(self.arrived) < self.pipe.sent:
            self.step(80)


courses = st.tuples(
    st.integers(1, 400),
    st.sampled_from(["length", "chunked", "dechunked"]),
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 100),
)


@given(
    st.lists(courses, min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 80)), max_size=40),
)
def test_pipes_that_take_turns_never_mix_their_bytes(
    drawn: list[tuple[int, str, int, int, int]], turns: list[tuple[int, int]]
) -> None:
    running = [
        Course(bytes([65 + number]) * size, coding, chunk_size, capacity, buffered)
        for number, (size, coding, chunk_size, capacity, buffered) in enumerate(drawn)
    ]
    for number, count in turns:
        running[number % len(running)].step(count)
    for course in running:
        course.finish()
    assert [course.arrived for course in running] == [course.expected for course in running]


def test_what_is_there_is_sent_at_once() -> None:
    relay = Relay()
    pipe = Pipe(relay.source, relay.sink, ChunkedBody(None))
    for piece in (b"5\r\n", b"tok", b"en\r", b"\n", b"0\r\n\r\n"):
        relay.sender.send(piece)
        pipe.pump()
        assert relay.receiver.recv(100) == piece
    assert pipe.finished


def test_much_that_came_with_the_head_lets_reads_begin_larger() -> None:
    relay = Relay(capacity=1 << 20)
    pipe = relay.pipe(1 << 20, buffered=bytes(16_000))
    relay.sender.send(bytes(1 << 19))
    pipe.pump(budget=1)
    pipe.pump(budget=1)
    assert pipe.received == 16_000 + 65_536


def test_a_large_read_is_no_larger_than_the_sinks_room() -> None:
    relay = Relay(capacity=1 << 23, sink_capacity=1 << 20)
    pipe = relay.pipe(1 << 23)
    relay.sender.send(bytes(1 << 23))
    while not pipe.finished:
        pipe.pump()
        assert pipe.received - pipe.sent <= 16_384
        relay.receiver.recv(300_000)


class BoastfulTransport(MemoryTransport):
    """Overrates its room."""

    def room(self) -> int:
        return 1 << 30


def test_reads_shrink_to_what_a_sink_takes_that_overrates_its_room() -> None:
    source, sender = memory_pair(1 << 23)
    sink = BoastfulTransport("192.0.2.1", 80, 20_000)
    receiver, _ = memory_pair(20_000)
    sink._peer, receiver._peer = receiver, sink
    sender.send(bytes(1 << 23))
    pipe = Pipe(source, sink, Stream())
    held = []
    for _ in range(20):
        pipe.pump()
        held.append(pipe.received - pipe.sent)
        receiver.recv(20_000)
    assert max(held) <= 65_536


async def test_a_pipe_over_real_connections_waits_as_documented(
    pair: TransportPair, deadlines: Deadlines, nursery: trio.Nursery
) -> None:
    near, far = pair
    sender, source = memory_pair()
    data = bytes(range(256)) * 20_000
    nursery.start_soon(send_all, sender, data)
    refused = b"f" * 65536  # by a full connection, which is offered it again
    pipe = Pipe(source, near, CountedBody(len(data)), prefix=refused)

    async def relay() -> None:
        while not pipe.finished:
            if pipe.pump() >= BUDGET:
                await trio.lowlevel.checkpoint()
            else:
                assert await park(pipe.waits(), deadlines, math.inf)

    fill_size = fill(near)
    nursery.start_soon(relay)
    assert (await receive_exactly(far, fill_size + len(refused))).strip(b"f") == b""
    assert await receive_exactly(far, len(data)) == data


def test_lines_of_framing_use_up_the_budget_sooner_than_bytes() -> None:
    sender, source = memory_pair(2_000_000)
    sink, receiver = memory_pair(2_000_000)
    chunks = b"1\r\nx\r\n" * 200_000
    sender.send(chunks)
    pipe = Pipe(source, sink, ChunkedBody(None))
    turns = 0
    while pipe.sent < len(chunks):
        sent_before = pipe.sent
        moved = pipe.pump()
        assert pipe.sent - sent_before <= 65_536
        assert moved >= BUDGET or pipe.sent == len(chunks)
        turns += 1
        receiver.recv(2_000_000)
    assert turns > 60
