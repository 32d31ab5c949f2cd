"""The memos of whole heads: what gets in, and how much memory it takes at most, whoever sends what."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lbproc.core.memo import Memo
from lbproc.proxy.answer import Answer, read_answer
from lbproc.proxy.known import KNOWN_HEAD_PIECES, KNOWN_HEAD_SIZE, KNOWN_HEADS
from tests.proxy.conftest import MakeRig
from tests.proxy.rig import Rig

MEBIBYTE = 1 << 20

MOST_OF_PLANS = 9 * MEBIBYTE
MOST_OF_ANSWERS = 7 * MEBIBYTE
"""Of one full memo each: what the threat model states."""

Head = Callable[[int], bytes]
"""A head by its number, always in bytes of its own, as from a socket."""


@dataclass
class Known:
    """What one memo knows, as those who use it see it."""

    see: Callable[[bytes], object]
    find: Callable[[bytes], object]
    start: bytes
    long_start: bytes
    """Of which everything is kept several times, and some in a longer spelling."""
    most: int

    def send(self, head: bytes, times: int = 1) -> None:
        """Lets a head come so many times, unless it is known."""
        for _ in range(times):
            if self.find(head) is None:
                self.see(head)

    def count(self, head: Head, number: int) -> int:
        """How many of the first heads are known."""
        return sum(self.find(head(each)) is not None for each in range(number))


def plans(rig: Rig, *, trusted: bool = False) -> Known:
    listener = rig.http()
    planner = listener.trusted_planner if trusted else listener.planner
    return Known(
        planner.plan,
        planner.find,
        b"GET /%d HTTP/1.1\r\nHost: a\r\n",
        b"GET /?" + b'"' * 1600 + b"%d HTTP/1.1\r\nHost: a\r\n",
        MOST_OF_PLANS,
    )


def trusted_plans(rig: Rig) -> Known:
    return plans(rig, trusted=True)


def answers(rig: Rig) -> Known:
    known: Memo[Answer] = rig.context.answers
    return Known(
        lambda raw: read_answer(raw, b"GET", known),
        known.get,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n",
        b"HTTP/1.1 200 " + b"O" * 1600 + b"\r\nContent-Length: %d\r\n",
        MOST_OF_ANSWERS,
    )


@pytest.fixture(params=[plans, trusted_plans, answers])
async def known(request: pytest.FixtureRequest, make_rig: MakeRig) -> Known:
    made = request.param(
        make_rig(listener={"trusted_proxies": ["127.0.0.1"], "underscore_headers": "forward"})
    )
    assert isinstance(made, Known)
    return made


def with_fields(known: Known, count: int, size: int) -> Head:
    """Heads of so many fields that are filled evenly up to so many bytes, each with pieces of its own."""

    def make(number: int) -> bytes:
        head = known.start % number
        for left in range(count - head.count(b"\r\n") + 1, 0, -1):
            name = b"A%d" % left
            length = (size - 2 - len(head)) // left - len(name) - 4
            head += b"%b: %b\r\n" % (name, (b"%d" % number).rjust(length, b"v"))
        return head + b"\r\n"

    return make


def with_options(known: Known, count: int) -> Head:
    """Heads that name so many options in ``Connection``, ``Upgrade`` not among them."""
    options = b",".join(b"o%x" % option for option in range(count))
    return lambda number: known.start % number + b"Connection: " + options + b"\r\n\r\n"


def pieces_of(head: bytes) -> int:
    return head.count(b"\r\n") - 2


async def test_who_never_repeats_a_head_leaves_the_memo_as_it_was(known: Known) -> None:
    head = with_fields(known, 8, 300)
    known.send(head(0), times=2)
    for number in range(1, 2000):
        known.send(head(number))
    assert known.count(head, 2000) == 1
    assert known.find(head(0)) is not None


async def test_who_sends_each_head_twice_fills_the_memo_up_to_its_bound_and_no_more(known: Known) -> None:
    head = with_fields(known, 8, 300)
    for number in range(KNOWN_HEADS):
        known.send(head(number), times=2)
    assert known.count(head, KNOWN_HEADS) == KNOWN_HEADS
    known.send(head(KNOWN_HEADS), times=2)
    assert known.count(head, KNOWN_HEADS + 1) == 1
    assert known.find(head(KNOWN_HEADS)) is not None


async def test_a_head_of_the_largest_size_and_number_of_fields_is_known_and_one_beyond_is_not(
    known: Known,
) -> None:
    head = with_fields(known, KNOWN_HEAD_PIECES, KNOWN_HEAD_SIZE)
    largest = head(1)
    assert (len(largest), pieces_of(largest)) == (KNOWN_HEAD_SIZE, KNOWN_HEAD_PIECES)
    longer = largest[:-4] + b"v\r\n\r\n"
    further = with_fields(known, KNOWN_HEAD_PIECES + 1, 1000)(1)
    assert pieces_of(further) == KNOWN_HEAD_PIECES + 1
    for each in (largest, longer, further):
        known.send(each, times=10)
    assert known.find(largest) is not None
    assert known.find(longer) is None
    assert known.find(further) is None


async def test_options_of_connection_count_as_fields_do(known: Known) -> None:
    fields = pieces_of(with_options(known, 1)(1))
    fitting = with_options(known, KNOWN_HEAD_PIECES - fields)(1)
    further = with_options(known, KNOWN_HEAD_PIECES - fields + 1)(1)
    for each in (fitting, further):
        known.send(each, times=10)
    assert known.find(fitting) is not None
    assert known.find(further) is None


@pytest.mark.slow
@pytest.mark.parametrize("is_long", [False, True], ids=["many fields", "many fields and a long first line"])
async def test_a_full_memo_takes_no_more_memory_than_is_stated(known: Known, is_long: bool) -> None:
    if is_long:
        known.start = known.long_start
    head = with_fields(known, KNOWN_HEAD_PIECES, KNOWN_HEAD_SIZE)
    for number in range(2):
        known.send(head(KNOWN_HEADS + number))  # so that what is made only once is there
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(KNOWN_HEADS):
            known.send(head(number))
            known.send(head(number))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert known.count(head, KNOWN_HEADS) == KNOWN_HEADS
    assert after - before < known.most
