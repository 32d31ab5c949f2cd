"""Heads from bytes to values, and against h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given

from lbproc.core.http.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind
from lbproc.core.http.head import RequestHead, ResponseHead, parse_request_head, parse_response_head
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.strict import HeadLimits
from tests.core.http.messages import (
    BROWSER_REQUEST,
    LIMITS,
    SERVER_RESPONSE,
    heads,
    parse,
    parse_answer,
    refused,
    request,
)


def test_reads_what_a_browser_sends() -> None:
    head = parse_request_head(BROWSER_REQUEST, LIMITS)
    assert (head.method, head.target, head.http10) == (b"GET", b"/assets/app.js?v=12", False)
    assert (head.path, head.query) == (b"/assets/app.js", b"v=12")
    assert (head.host, head.hostname) == (b"www.example.com", "www.example.com")
    assert (head.framing, head.keep_alive, head.expects_continue, head.upgrade) == (
        NO_BODY,
        True,
        False,
        None,
    )
    assert head.headers[0] == (b"host", b"Host", b"www.example.com")
    assert head.values(b"accept") == [b"*/*"]
    assert head.values(b"absent") == []
    assert head.connection_tokens == {b"keep-alive"}


def test_reads_what_a_server_sends() -> None:
    head = parse_response_head(SERVER_RESPONSE, b"GET")
    assert (head.status, head.reason, head.http10) == (200, b"OK", False)
    assert head.framing == Framing(FramingKind.LENGTH, 612)
    assert (head.keep_alive, head.upgrade) == (True, None)
    assert head.values(b"etag") == [b'"6592-264"']


def test_body_framing_of_a_request() -> None:
    assert parse(b"Content-Length: 12").framing == Framing(FramingKind.LENGTH, 12)
    assert parse(b"Transfer-Encoding: Chunked").framing is CHUNKED
    assert parse(b"Content-Length: 5").framing.length == 5  # a GET may have a body


def test_http10_needs_no_host_and_asks_for_keep_alive() -> None:
    head = parse(line=b"GET / HTTP/1.0", host=b"")
    assert (head.http10, head.host, head.hostname, head.keep_alive) == (True, b"", "", False)
    assert parse(b"Connection: keep-alive", line=b"GET / HTTP/1.0").keep_alive
    assert not parse(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0").keep_alive
    assert not parse(b"Connection: close").keep_alive


def test_absolute_form_is_taken_when_it_names_the_host() -> None:
    head = parse(line=b"GET http://A/b?c HTTP/1.1")
    assert (head.target, head.path, head.query, head.hostname) == (b"/b?c", b"/b", b"c", "a")
    head = parse(line=b"GET http://b:80/ HTTP/1.0", host=b"")
    assert (head.target, head.host, head.hostname) == (b"/", b"b:80", "b")


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        ([b"GET http://b/ HTTP/1.1", b"Host: a"], 400, "differs from Host"),
        ([b"GET http://a:80/ HTTP/1.1", b"Host: a"], 400, "differs from Host"),
        ([b"GET / HTTP/1.1"], 400, "no Host"),
        ([b"GET / HTTP/1.1", b"Host: a", b"host: a"], 400, "more than one Host"),
        ([b"GET / HTTP/1.0", b"Host: a", b"Host: b"], 400, "more than one Host"),
        ([b"GET / HTTP/1.1", b"Host: a/b@c"], 400, "Host"),
        ([b"CONNECT a:443 HTTP/1.1", b"Host: a:443"], 501, "CONNECT"),
        ([b"connect / HTTP/1.1", b"Host: a"], 501, "CONNECT"),
        ([b"GET / HTTP/1.1", b"Host: a", b"Content_Length: 3"], 400, "underscore"),
        ([b"GET / HTTP/1.1", b"Host: a", b"transfer_encoding: chunked"], 400, "underscore"),
        ([b"GET / HTTP/1.1", b"Host: a", b"Expect: 100-continue, x"], 417, "expectation"),
        (
            [b"GET / HTTP/1.1", b"Host: a", b"Expect: 100-continue", b"Expect: 100-continue"],
            417,
            "expectation",
        ),
        ([b"GET / HTTP/1.0", b"Host: a", b"Expect: x"], 417, "expectation"),
        ([b"GET / HTTP/1.1", b"Host: a", b"Connection: host"], 400, "must not remove"),
    ],
)
def test_refuses_what_could_be_read_in_two_ways(lines: list[bytes], status: int, words: str) -> None:
    with refused(status, words):
        parse(*lines[1:], line=lines[0], host=b"")


def test_the_number_of_header_fields_is_bounded() -> None:
    limits = HeadLimits(max_count=3)
    parse_request_head(request(b"A: 1", b"B: 1"), limits)
    with refused(431, "more than 3"):
        parse_request_head(request(b"A: 1", b"B: 1", b"C: 1"), limits)
    with refused(431):
        parse(*[b"a: b"] * 10_000)


def names(underscore: str) -> list[bytes]:
    lines = [b"X_A: 1", b"X-B: 2", b"X_Forwarded_For: 3", b"Proxy_Connection: 4", b"_: 5", b"X-Request_Id: 6"]
    head = parse_request_head(request(*lines), HeadLimits(underscore=underscore))
    return [lower for lower, _, _ in head.headers]


def test_other_names_with_underscores_are_dropped_forwarded_or_refused() -> None:
    assert names("drop") == [b"host", b"x-b"]
    assert names("forward") == [b"host", b"x_a", b"x-b", b"_"]
    with refused(400, "underscore"):
        names("reject")


@pytest.mark.parametrize(
    ("lines", "expects"),
    [
        ([b"Content-Length: 1", b"Expect: 100-Continue"], True),
        ([b"Transfer-Encoding: chunked", b"Expect: 100-continue"], True),
        ([b"Content-Length: 0", b"Expect: 100-continue"], False),
        ([b"Expect: 100-continue"], False),
        ([b"Content-Length: 1"], False),
    ],
)
def test_an_expectation_counts_only_before_content(lines: list[bytes], expects: bool) -> None:
    assert parse(*lines, line=b"POST / HTTP/1.1").expects_continue is expects


def test_http10_cannot_expect() -> None:
    assert not parse(b"Content-Length: 1", b"Expect: 100-continue", line=b"POST / HTTP/1.0").expects_continue


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ([b"Connection: Upgrade", b"Upgrade: websocket"], b"websocket"),
        ([b"Connection: keep-alive, upgrade", b"Upgrade: a/1, b", b"Upgrade: c"], b"a/1, b, c"),
        ([b"Upgrade: websocket"], None),
        ([b"Connection: upgrade"], None),
        ([b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"], None),
        ([b"Connection: upgrade", b"Upgrade: h2c, websocket, HTTP/2.0, TLS/1.0,"], b"websocket"),
    ],
)
def test_an_offer_to_upgrade_needs_connection_and_no_other_http_inside(
    lines: list[bytes], upgrade: bytes | None
) -> None:
    assert parse(*lines).upgrade == upgrade


def test_http10_cannot_upgrade() -> None:
    assert parse(b"Connection: upgrade", b"Upgrade: websocket", line=b"GET / HTTP/1.0").upgrade is None


@pytest.mark.parametrize(
    ("line", "lines", "method", "framing", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], b"GET", CHUNKED, True),
        (b"HTTP/1.1 200 OK", [], b"GET", UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 OK", [b"Connection: keep-alive"], b"GET", UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], b"HEAD", NO_BODY, True),
        (b"HTTP/1.1 204 No", [], b"GET", NO_BODY, True),
        (b"HTTP/1.1 304 No", [b"Connection: close"], b"GET", NO_BODY, False),
        (b"HTTP/1.0 200 OK", [b"Content-Length: 0"], b"GET", Framing(FramingKind.LENGTH, 0), False),
        (
            b"HTTP/1.0 200 OK",
            [b"Content-Length: 0", b"Connection: Keep-Alive"],
            b"GET",
            Framing(FramingKind.LENGTH, 0),
            True,
        ),
    ],
)
def test_how_a_response_ends_and_whether_its_connection_may_be_used_again(
    line: bytes, lines: list[bytes], method: bytes, framing: Framing, keep_alive: bool
) -> None:
    head = parse_answer(*lines, line=line, method=method)
    assert (head.framing, head.keep_alive) == (framing, keep_alive)


def test_interim_responses_and_switching_protocols() -> None:
    assert parse_answer(line=b"HTTP/1.1 100 Continue").framing == NO_BODY
    assert parse_answer(b"Link: x", line=b"HTTP/1.1 103 Early Hints").framing == NO_BODY
    head = parse_answer(
        b"Connection: Upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 Switching Protocols"
    )
    assert (head.upgrade, head.framing) == (b"websocket", NO_BODY)
    assert parse_answer(b"Upgrade: a", b"Upgrade: b", line=b"HTTP/1.1 426 x").upgrade == b"a, b"
    assert parse_answer(b"Upgrade: h2").upgrade is None


@pytest.mark.parametrize(
    "lines", [[], [b"Connection: upgrade"], [b"Upgrade: websocket"], [b"Connection: upgrade", b"Upgrade:"]]
)
def test_a_101_says_what_it_switches_to(lines: list[bytes]) -> None:
    with refused(502, "101"):
        parse_answer(*lines, line=b"HTTP/1.1 101 x")


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 1", b"Content-Length: 2"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Connection: content-length"],
        [b"X : a"],
    ],
)
def test_a_doubtful_response_is_a_502(lines: list[bytes]) -> None:
    with refused(502):
        parse_answer(*lines)


def as_h11_reads(raw: bytes, role: type[h11.CLIENT | h11.SERVER], method: bytes = b"") -> h11.Connection:
    connection = h11.Connection(role)
    if role is h11.CLIENT:
        offer = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "x")]
        connection.send(h11.Request(method=method, target="/", headers=offer))
        connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    return connection


def framing_h11_uses(connection: h11.Connection, fields: dict[bytes, bytes]) -> Framing:
    """Lets h11 read what follows the head, and concludes how it finds the end."""
    following = connection.next_event()
    if isinstance(following, h11.EndOfMessage):
        return (
            Framing(FramingKind.LENGTH, 0)
            if fields.get(b"content-length", b"").strip(b"0") == b""
            else NO_BODY
        )
    connection.receive_data(b"5\r\nabcde\r\n0\r\n\r\n")
    data = connection.next_event()
    assert isinstance(data, h11.Data)
    if b"transfer-encoding" in fields:
        assert data.data == b"abcde"
        return CHUNKED
    if b"content-length" in fields:
        return Framing(FramingKind.LENGTH, int(fields[b"content-length"]))
    assert data.data == b"5\r\nabcde\r\n0\r\n\r\n"
    return UNTIL_CLOSE


@given(heads())
def test_h11_reads_every_accepted_request_the_same_with_the_same_framing(raw: bytes) -> None:
    try:
        head = parse_request_head(raw, HeadLimits(underscore="forward"))
    except Rejected:
        return
    assert isinstance(head, RequestHead)
    connection = as_h11_reads(raw, h11.SERVER)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.http_version == b"1.0") == (head.method, head.http10)
    assert event.target == head.target or event.target.lower().startswith(b"http://")
    fields = dict(event.headers)
    assert fields.get(b"host", head.host) == head.host
    theirs = framing_h11_uses(connection, fields)
    ours = head.framing
    assert ours == theirs or {ours, theirs} <= {NO_BODY, Framing(FramingKind.LENGTH, 0)}


@given(heads(of_responses=True))
def test_h11_reads_every_accepted_response_the_same_with_the_same_framing(raw: bytes) -> None:
    for method in (b"GET", b"HEAD"):
        try:
            head = parse_response_head(raw, method)
        except Rejected:
            continue
        assert isinstance(head, ResponseHead)
        connection = as_h11_reads(raw, h11.CLIENT, method)
        event = connection.next_event()
        assert isinstance(event, h11.Response | h11.InformationalResponse)
        assert event.status_code == head.status
        if head.status >= 200:
            theirs = framing_h11_uses(connection, dict(event.headers))
            assert head.framing == theirs or {head.framing, theirs} <= {
                NO_BODY,
                Framing(FramingKind.LENGTH, 0),
            }
