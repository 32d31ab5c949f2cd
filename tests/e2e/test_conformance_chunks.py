"""Chunked request bodies that are refused: the backend may have the head, but never a whole request.

The head was good, so lbproc may have begun to send it on. Then the backend sees its connection end before
the message does, and discards it (RFC 9112 section 8); what stands behind reaches nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import POST, SMUGGLED, End, Manner, assert_refused
from tests.e2e.harness_wire import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.e2e.harness_dialogue import Proxy, Wire

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    """A chunked body and the status that it gets, sections as in RFC 9112 if not said otherwise."""

    name: str
    section: str
    body: bytes
    status: int = 400
    listener: str = "web"


def size(line: bytes) -> bytes:
    """A body of one chunk with this size line."""
    return line + b"\r\nhi\r\n0\r\n\r\n"


def trailers(lines: bytes) -> bytes:
    """A body with trailers."""
    return b"2\r\nhi\r\n0\r\n" + lines + b"\r\n\r\n"


SIZES = [
    Refused("space after the size", "7.1", size(b"2 ")),
    Refused("tab after the size", "7.1", size(b"2\t")),
    Refused("space before the size", "7.1", size(b" 2")),
    Refused("sign before the size", "7.1", size(b"+2")),
    Refused("minus before the size", "7.1", size(b"-2")),
    Refused("0x before the size", "7.1", size(b"0x2")),
    Refused("underscore in the size", "7.1", size(b"0_2")),
    Refused("no size", "7.1", size(b"")),
    Refused("extension without a size", "7.1", size(b";a")),
    Refused("letter that is no digit", "7.1", size(b"g")),
    Refused("quoted size", "7.1", size(b'"2"')),
    Refused("size of 17 digits", "7.1", size(b"00000000000000002")),
    Refused("size in digits of another script", "7.1", size("٢".encode())),
    Refused("NUL after the size", "7.1", size(b"2\0")),
    Refused("LF ends the size", "7.1", b"2\nhi\r\n0\r\n\r\n"),
    Refused("CR ends the size", "7.1", b"2\rhi\r\n0\r\n\r\n"),
    Refused("CR CR LF ends the size", "7.1", size(b"2\r")),
    Refused("LF ends the chunk", "7.1", b"2\r\nhi\n0\r\n\r\n"),
    Refused("CR ends the chunk", "7.1", b"2\r\nhi\r0\r\n\r\n"),
    Refused("nothing ends the chunk", "7.1", b"2\r\nhi0\r\n\r\n"),
    Refused("other bytes end the chunk", "7.1", b"2\r\nhiXX0\r\n\r\n"),
    Refused("chunk longer than its size", "7.1", b"2\r\nhi!\r\n0\r\n\r\n"),
    Refused("chunk shorter than its size", "7.1", b"3\r\nhi\r\n0\r\n\r\n"),
    Refused("second chunk without a size", "7.1", b"2\r\nhi\r\n\r\nhi\r\n0\r\n\r\n"),
    Refused("last chunk with a sign", "7.1", b"2\r\nhi\r\n-0\r\n\r\n"),
    Refused("LF ends the last chunk", "7.1", b"2\r\nhi\r\n0\n\r\n"),
    Refused("LF ends the body", "7.1", b"2\r\nhi\r\n0\r\n\n"),
]

EXTENSIONS = [
    Refused("LF in an extension", "7.1.1", size(b"2;a\nb")),
    Refused("CR in an extension", "7.1.1", size(b"2;a\rb")),
    Refused("NUL in an extension", "7.1.1", size(b"2;a=\0")),
    Refused("space after the semicolon", "7.1.1", size(b"2; a")),
    Refused("space before the semicolon", "7.1.1", size(b"2 ;a")),
    Refused("space around the equals sign", "7.1.1", size(b"2;a = b")),
    Refused("semicolon alone", "7.1.1", size(b"2;")),
    Refused("two semicolons", "7.1.1", size(b"2;;a")),
    Refused("extension without a name", "7.1.1", size(b"2;=b")),
    Refused("extension without a value", "7.1.1", size(b"2;a=")),
    Refused("string that does not end", "7.1.1", size(b'2;a="b')),
    Refused("byte after a string", "7.1.1", size(b'2;a="b"c')),
    Refused("line end in a string", "7.1.1", size(b'2;a="b\r\nc"')),
    Refused("byte above 0x7F in an extension", "7.1.1", size(b"2;\xe9")),
    Refused("size line above 1 KiB", "7.1.1", size(b"2;a=" + b"b" * 1020)),
    Refused("size line without an end", "7.1.1", b"2;a=" + b"b" * 2000),
    Refused(
        "many extensions on tiny chunks", "7.1.1", (b"1;a=" + b"b" * 900 + b"\r\nx\r\n") * 20 + b"0\r\n\r\n"
    ),
]

TRAILERS = [
    Refused("trailer without a colon", "7.1.2", trailers(b"A")),
    Refused("LF ends a trailer", "7.1.2", trailers(b"A: b\nC: d")),
    Refused("CR in a trailer", "7.1.2", trailers(b"A: b\rC: d")),
    Refused("NUL in a trailer", "7.1.2", trailers(b"A: \0")),
    Refused("folded trailer", "7.1.2", trailers(b"A: b\r\n c")),
    Refused("space before the colon of a trailer", "7.1.2", trailers(b"A : b")),
    Refused("empty name of a trailer", "7.1.2", trailers(b": b")),
    Refused("another request for trailers", "7.1.2", trailers(b"GET / HTTP/1.1")),
    Refused("Content-Length in the trailers", "9110 6.5.1", trailers(b"Content-Length: 2")),
    Refused("Content_Length in the trailers", "9110 6.5.1", trailers(b"Content_Length: 2")),
    Refused("Transfer-Encoding in the trailers", "9110 6.5.1", trailers(b"Transfer-Encoding: chunked")),
    Refused("Host in the trailers", "9110 6.5.1", trailers(b"A: b\r\nHost: b")),
    Refused("Connection in the trailers", "9110 6.5.1", trailers(b"Connection: close")),
    Refused("Authorization in the trailers", "9110 6.5.1", trailers(b"Authorization: x")),
    Refused("Cookie in the trailers", "9110 6.5.1", trailers(b"cookie: a=b")),
    Refused("X-Forwarded-For in the trailers", "9110 6.5.1", trailers(b"X-Forwarded-For: 1.1.1.1")),
    Refused("x_forwarded_user in the trailers", "9110 6.5.1", trailers(b"x_forwarded_user: root")),
    Refused("X-Request-Id in the trailers", "9110 6.5.1", trailers(b"X-Request-Id: 1")),
    Refused("Content-Type in the trailers", "9110 6.5.1", trailers(b"Content-Type: text/html")),
    Refused("trailers above 8 KiB", "9110 6.5", trailers(b"A: b\r\n" * 1500 + b"A: b"), 431),
    Refused("trailers without an end", "9110 6.5", b"0\r\nA: " + b"b" * 9000, 431),
]

SIZES_TOGETHER = [
    Refused(
        "one chunk above the limit", "9110 15.5.14", b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n", 413, "small"
    ),
    Refused(
        "chunks above the limit",
        "9110 15.5.14",
        (b"33\r\n" + b"x" * 51 + b"\r\n") * 2 + b"0\r\n\r\n",
        413,
        "small",
    ),
    Refused("announced chunk above the limit", "9110 15.5.14", b"ffffffff\r\n", 413, "small"),
    Refused("announced chunk above 64 bits", "9110 15.5.14", b"ffffffffffffffff\r\n", 413),
]

ALL = [*SIZES, *EXTENSIONS, *TRAILERS, *SIZES_TOGETHER]


def assert_got_no_request(backends: Iterable[Wire]) -> None:
    """Whatever lbproc sent before it saw the fault was cut off before it was a request."""
    for backend in backends:
        received, _ = backend.read_rest()
        reader = Reader(responses=False)
        reader.feed(received)
        assert reader.next_message() is None, received
        assert b"smuggled" not in received


@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_chunked_body_is_refused_and_never_complete_at_the_backend(
    proxy: Proxy, case: Refused, manner: Manner
) -> None:
    with proxy.client(case.listener) as client:
        client.send(CHUNKED)
        if manner is not Manner.AT_ONCE:
            client.wait_taken()
        client.send(case.body, manner).send(SMUGGLED)
        answer, end = client.read_rest()
    assert_refused(answer, case.status)
    assert end is End.CLOSED
    proxy.settle()
    assert_got_no_request(proxy.backends_waiting())


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_chunked_body_is_refused_in_one_segment_with_its_head(proxy: Proxy, case: Refused) -> None:
    with proxy.client(case.listener) as client:
        client.send(CHUNKED + case.body + SMUGGLED)
        answer, end = client.read_rest()
    assert_refused(answer, case.status)
    assert end is End.CLOSED
    proxy.settle()
    assert_got_no_request(proxy.backends_waiting())
