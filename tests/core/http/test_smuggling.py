"""Attacks as tables: what becomes of raw bytes that two hops could read in two ways.

The bytes go the whole way through the core, as the shell drives it: buffer, head, body, rendered head.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.body import make_request_body, make_response_body
from lbproc.core.http.head import parse_request_head, parse_response_head
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.render import render_request_start
from tests.core.http.messages import LIMITS, heads


def forwarded(stream: bytes) -> list[bytes | int]:
    """What goes to the backend of each request; last the status of a refusal, or b"" when cut short."""
    buffer = HeadBuffer(LIMITS.max_size)
    buffer.feed(stream)
    sent: list[bytes | int] = []
    try:
        while (raw := buffer.next_head()) is not None:
            head = parse_request_head(raw, LIMITS)
            body = make_request_body(head.framing, 2**30)
            relayed, excess = body.take(buffer.take_rest())
            if not body.complete:
                return [*sent, b""]
            sent.append(render_request_start(head, trusted=False) + b"\r\n" + relayed)
            buffer.feed(excess)
    except Rejected as rejected:
        sent.append(rejected.status)
    return sent


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    ("length and chunked", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked and length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    ("chunked on 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("same length twice", POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", 400),
    ("two lengths", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("list of lengths", POST + b"Content-Length: 2, 2\r\n\r\nab", 400),
    ("signed length", POST + b"Content-Length: +2\r\n\r\nab", 400),
    ("negative length", POST + b"Content-Length: -2\r\n\r\nab", 400),
    ("empty length", POST + b"Content-Length:\r\n\r\nab", 400),
    ("hexadecimal length", POST + b"Content-Length: 0x2\r\n\r\nab", 400),
    ("spaced length", POST + b"Content-Length: 1 2\r\n\r\nab", 400),
    ("huge length", POST + b"Content-Length: 18446744073709551618\r\n\r\nab", 400),
    ("too large length", POST + b"Content-Length: 1073741825\r\n\r\nab", 413),
    ("bare LF in head", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare LF on one line", b"GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n", 400),
    ("LF hides chunked", POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("bare CR hides chunked", POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n", 400),
    ("LF ends the head", GET + b"\n\r\n", 400),
    ("space before colon", POST + b"Content-Length : 2\r\n\r\nab", 400),
    ("tab before colon", POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    ("folded line", GET + b"X: a\r\n b\r\n\r\n", 400),
    ("folded framing", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("fold before the first header", b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400),
    ("space after chunk size", CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", 400),
    ("tab after chunk size", CHUNKED + b"2\t\r\nab\r\n0\r\n\r\n", 400),
    ("LF after chunk size", CHUNKED + b"2\nab\r\n0\r\n\r\n", 400),
    ("LF in chunk extension", CHUNKED + b"2;a\nb\r\nab\r\n0\r\n\r\n", 400),
    ("CR in chunk extension", CHUNKED + b"2;a\rb\r\nab\r\n0\r\n\r\n", 400),
    ("bad end of chunk", CHUNKED + b"2\r\nabXX0\r\n\r\n", 400),
    ("LF ends a chunk", CHUNKED + b"2\r\nab\n0\r\n\r\n", 400),
    ("0x2 as chunk size", CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", 400),
    ("overlong chunk size", CHUNKED + b"00000000000000002\r\nab\r\n0\r\n\r\n", 400),
    ("length in trailers", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    ("host in trailers", CHUNKED + b"0\r\nHost: b\r\n\r\n", 400),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("chunked, identity", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
    ("gzip, chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("quoted chunked", POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    ("vertical tab and chunked", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("two codings", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("empty coding", POST + b"Transfer-Encoding:\r\n\r\n", 400),
    ("missing chunked", POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    ("two hosts", GET + b"Host: b\r\n\r\n", 400),
    ("same host twice", GET + b"host: a\r\n\r\n", 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("host with path and user", b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
    ("list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("absolute-form and another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL in value", GET + b"X: a\x00b\r\n\r\n", 400),
    ("CR in value", GET + b"X: a\rb\r\n\r\n", 400),
    ("control in value", GET + b"X: a\x08b\r\n\r\n", 400),
    ("underscored length", POST + b"Content_Length: 2\r\n\r\nab", 400),
    ("underscored coding", POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (
        "Connection names the length",
        POST + b"Connection: close, Content-Length\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    ("Connection names the coding", CHUNKED[:-2] + b"Connection: Transfer-Encoding\r\n\r\n0\r\n\r\n", 400),
    ("Connection names Host", GET + b"Connection: Host\r\n\r\n", 400),
    ("Connection names forwarding", GET + b"Connection: X-Forwarded-For\r\n\r\n", 400),
    ("Connection names authorization", GET + b"Connection: Authorization\r\nAuthorization: x\r\n\r\n", 400),
    ("another expectation", POST + b"Expect: 100-continue, x\r\nContent-Length: 2\r\n\r\nab", 417),
    ("fragment in target", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("8-bit in target", b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("control in target", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("HTTP/1.9", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    ("empty header name", GET + b": x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("header without colon", GET + b"X\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("10 000 headers", GET + b"a: b\r\n" * 10_000 + b"\r\n", 431),
    ("101 headers", GET + b"a: b\r\n" * 100 + b"\r\n", 431),
    ("endless target", b"GET /" + b"a" * 100_000, 414),
    ("endless head", GET + b"X: " + b"a" * 100_000, 431),
]


@pytest.mark.parametrize(("name", "stream", "status"), REFUSED, ids=[row[0] for row in REFUSED])
def test_is_refused_and_nothing_after_it_is_read(name: str, stream: bytes, status: int) -> None:
    assert forwarded(stream) == [status], name
    assert forwarded(GET + b"\r\n" + stream)[1:] == [status]
    assert forwarded(stream + b"\r\n\r\n" + GET + b"\r\n")[-1] == status


def test_a_get_with_a_body_goes_on_with_it() -> None:
    (sent,) = forwarded(GET + b"Content-Length: 3\r\n\r\nabc")
    assert isinstance(sent, bytes)
    assert sent.endswith(b"\r\n\r\nabc")
    assert b"\r\nContent-Length: 3\r\n" in sent


def test_pipelined_requests_stay_apart() -> None:
    sent = forwarded(CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + POST + b"Content-Length: 1\r\n\r\nx" + GET + b"\r\n")
    assert [isinstance(each, bytes) and each.split(b" ", 1)[0] for each in sent] == [b"POST", b"POST", b"GET"]


def test_a_request_behind_an_offer_to_upgrade_is_a_request_of_its_own() -> None:
    sent = forwarded(GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + GET + b"\r\n")
    assert len(sent) == 2


def test_an_offer_of_clear_text_http2_never_reaches_a_backend() -> None:
    (sent,) = forwarded(
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    )
    assert isinstance(sent, bytes)
    assert b"h2c" not in sent
    assert b"HTTP2-Settings" not in sent


def test_underscored_names_are_dropped() -> None:
    (sent,) = forwarded(GET + b"X_A: 1\r\nX_Forwarded_For: 9.9.9.9\r\n\r\n")
    assert isinstance(sent, bytes)
    assert b"X_" not in sent


RESPONSES = [
    ("length and chunked", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    ("chunked on 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("another coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("NUL", b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n"),
    ("control", b"HTTP/1.1 200 OK\r\nX: \x1b\r\n\r\n"),
    ("folded", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
    ("space before colon", b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n"),
    ("no status line", b"Content-Length: 0\r\n\r\n"),
    ("HTTP/0.9", b"<html>"),
    ("HTTP/2", b"HTTP/2 200\r\n\r\n"),
    ("status 99", b"HTTP/1.1 099 x\r\n\r\n"),
    ("status 1000", b"HTTP/1.1 1000 x\r\n\r\n"),
    (
        "Connection names the length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: content-length\r\n\r\n",
    ),
    ("endless head", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
    ("a 101 of nothing", b"HTTP/1.1 101 Switching\r\n\r\n"),
]


@pytest.mark.parametrize(("name", "stream"), RESPONSES, ids=[row[0] for row in RESPONSES])
def test_a_response_that_could_be_read_in_two_ways_is_a_502(name: str, stream: bytes) -> None:
    buffer = HeadBuffer.for_responses()
    buffer.feed(stream)
    with pytest.raises(Rejected) as caught:
        parse_response_head(buffer.next_head() or b"", b"GET")
    assert caught.value.status == 502, name


def test_bytes_after_a_complete_response_are_excess() -> None:
    buffer = HeadBuffer.for_responses()
    buffer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n")
    head = parse_response_head(buffer.next_head() or b"", b"GET")
    body = make_response_body(head.framing, dechunk=False)
    assert body.take(buffer.take_rest()) == (b"ab", b"HTTP/1.1 200 OK\r\n\r\n")


@given(st.binary(max_size=300) | st.lists(heads() | st.binary(max_size=20), max_size=4).map(b"".join))
def test_whatever_goes_on_is_read_the_same_by_a_second_proxy(stream: bytes) -> None:
    sent = forwarded(stream)
    for each in sent:
        if isinstance(each, int):
            assert each in {400, 413, 414, 417, 431, 501, 505}
        elif each:  # an HTTP/1.0 request without a Host is given one by the shell
            again = forwarded(each.replace(b"\r\nHost: \r\n", b"\r\nHost: x\r\n", 1))
            assert len(again) == 1
            assert isinstance(again[0], bytes)
            assert again[0].partition(b"\r\n\r\n")[2] == each.partition(b"\r\n\r\n")[2]
