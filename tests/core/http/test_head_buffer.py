"""Collecting heads, whole and in pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.head import parse_request_head, parse_response_head
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from tests.core.http.messages import BROWSER_REQUEST, LIMITS, SERVER_RESPONSE, heads, refused

SMALL = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def outcome(pieces: list[bytes], max_size: int, *, is_response: bool = False) -> tuple[object, ...]:
    """What comes of bytes that arrive in these pieces: the parsed heads, and the refusal or what is left."""
    buffer = HeadBuffer.for_responses(max_size) if is_response else HeadBuffer(max_size)
    seen: list[object] = []
    try:
        for piece in pieces:
            buffer.feed(piece)
            while (raw := buffer.next_head()) is not None:
                assert len(raw) <= max_size
                seen.append(
                    parse_response_head(raw, b"GET") if is_response else parse_request_head(raw, LIMITS)
                )
    except Rejected as rejected:
        return (*seen, rejected.status)
    return (*seen, buffer.take_rest())


def test_one_read_is_one_head_without_a_copy() -> None:
    buffer = HeadBuffer(1000)
    assert buffer.next_head() is None
    buffer.feed(BROWSER_REQUEST)
    assert not buffer.is_empty
    assert buffer.next_head() is BROWSER_REQUEST
    assert buffer.is_empty
    assert buffer.size == 0


def test_the_rest_stays_and_may_be_taken_or_be_the_next_head() -> None:
    buffer = HeadBuffer(1000)
    buffer.feed(SMALL + SMALL + b"GET /")
    assert [buffer.next_head(), buffer.next_head(), buffer.next_head()] == [SMALL, SMALL, None]
    assert buffer.size == 5
    buffer.feed(b"x HTTP/1.1\r\n\r\nbody")
    assert buffer.next_head() == b"GET /x HTTP/1.1\r\n\r\n"
    assert buffer.take_rest() == b"body"
    assert buffer.is_empty
    assert buffer.take_rest() == b""


def test_one_empty_line_before_each_request_is_skipped() -> None:
    assert outcome([b"\r\n" + SMALL + b"\r\n" + SMALL], 1000)[2:] == (b"",)
    with refused(400, "empty line"):
        buffer = HeadBuffer(1000)
        buffer.feed(b"\r\n\r\n" + SMALL)
        buffer.next_head()


def test_an_empty_line_alone_is_nothing() -> None:
    buffer = HeadBuffer(1000)
    buffer.feed(b"\r")
    assert buffer.next_head() is None
    assert not buffer.is_empty
    buffer.feed(b"\n")
    assert buffer.next_head() is None
    assert buffer.is_empty


def test_an_empty_line_is_skipped_again_once_a_head_has_passed_by() -> None:
    buffer = HeadBuffer(1000)
    buffer.feed(b"\r\n")
    assert buffer.next_head() is None
    buffer.skip_head()
    buffer.feed(b"\r\n" + SMALL)
    assert buffer.next_head() == SMALL
    buffer.feed(b"\r\n")
    assert buffer.next_head() is None
    buffer.feed(b"\r\n" + SMALL)
    with refused(400, "empty line"):
        buffer.next_head()


def test_a_response_begins_at_once() -> None:
    assert outcome([b"\r\n" + SERVER_RESPONSE], 1000, is_response=True) == (502,)
    assert outcome([b"SSH-2.0-OpenSSH"], 1000, is_response=True) == (502,)
    assert outcome([b"HTTP/"], 1000, is_response=True) == (b"HTTP/",)
    assert outcome([b"HTTP/2 200\r\n"], 1000, is_response=True) == (502,)


@pytest.mark.parametrize(
    ("received", "words"),
    [
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"GET / HTTP/1.1\n\n", "LF without CR"),
        (b"GET / HTTP/1.1\r\r\n", "CR without LF"),
        (b"GET /\x00", "NUL"),
        (b"\rx", "CR without LF"),
        (b"\n", "LF without CR"),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(received: bytes, words: str) -> None:
    buffer = HeadBuffer(1000)
    buffer.feed(received)
    with refused(400, words):
        buffer.next_head()


def test_too_large_is_414_for_the_request_line_431_for_the_head_and_502_for_a_response() -> None:
    assert outcome([b"GET /" + b"a" * 100], 50) == (414,)
    assert outcome([b"GET / HTTP/1.1\r\nX: " + b"a" * 100], 50) == (431,)
    assert outcome([b"GET / HTTP/1.1\r\nX: " + b"a" * 100 + b"\r\n\r\n"], 50) == (431,)
    buffer = HeadBuffer.for_responses(50)
    buffer.feed(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100)
    with pytest.raises(Rejected) as caught:
        buffer.next_head()
    assert (caught.value.status, caught.value.cause) == (502, "http_response_header_section_size")
    buffer = HeadBuffer.for_responses()
    buffer.feed(b"HTTP/1.1 200 OK\n")
    with refused(502):
        buffer.next_head()


def test_a_head_of_exactly_the_limit_passes() -> None:
    assert outcome([SMALL + b"x"], len(SMALL))[1:] == (b"x",)
    assert outcome([SMALL], len(SMALL) - 1) == (431,)


def test_an_endless_head_byte_by_byte_ends_at_the_limit() -> None:
    buffer = HeadBuffer(20_000)
    buffer.feed(b"GET / HTTP/1.1\r\n")
    with refused(431):
        for _ in range(20_000):
            buffer.feed(b"a")
            assert buffer.next_head() is None
    assert buffer.size == 20_000


def test_every_fragmentation_of_a_small_head_gives_the_same() -> None:
    for stream in (
        b"\r\nG / HTTP/1.1\r\nHost:a\r\n\r\nPO",
        b"G / HTTP/1.1\r\nHost:a\n\r\n\r\n",
        SMALL + b"\r\n" + SMALL,
    ):
        whole = outcome([stream], 60)
        for first, second in itertools.combinations(range(len(stream) + 1), 2):
            pieces = [stream[:first], stream[first:second], stream[second:]]
            assert outcome([piece for piece in pieces if piece], 60) == whole
        assert outcome([stream[at : at + 1] for at in range(len(stream))], 60) == whole


@given(st.data(), st.booleans())
def test_any_fragmentation_gives_the_same(data: st.DataObject, is_response: bool) -> None:
    stream = b"".join(
        data.draw(st.lists(heads(of_responses=is_response) | st.sampled_from([b"\r\n", b"\x16"]), max_size=3))
    )
    max_size = data.draw(st.sampled_from([30, 60, 1000]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]) if a < b]
    whole = outcome([stream], max_size, is_response=is_response)
    assert outcome(pieces, max_size, is_response=is_response) == whole
    one_by_one = [stream[at : at + 1] for at in range(len(stream))]
    assert outcome(one_by_one, max_size, is_response=is_response) == whole


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_only_ever_raise_rejected(stream: bytes, is_response: bool) -> None:
    status = outcome([stream], 100, is_response=is_response)[-1]
    assert isinstance(status, bytes) or status in ({502} if is_response else {400, 414, 417, 431, 501, 505})
