"""The grammar of heads on raw bytes."""

from __future__ import annotations

import pytest
from hypothesis import given

from lbproc.core.http.rejected import Rejected
from lbproc.core.http.strict import match_request, match_response, split_fields, stray_byte
from tests.core.http.messages import BROWSER_REQUEST, SERVER_RESPONSE, heads, refused, request, response

REQUESTS = [
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "LF without CR"),
    (b"GET / HTTP/1.1\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n", 400, "LF without CR"),
    (b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", 400, "CR without LF"),
    (b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400, "NUL"),
    (b"GET / HTTP/2.0\r\nX: a\x00b\r\n\r\n", 400, "NUL"),
    (b"GET / HTTP/2.0\r\n\r\n", 505, "version"),
    (b"GET / HTTP/1.9\r\n\r\n", 505, "version"),
    (b"GET / HTTP/3\r\n\r\n", 505, "version"),
    (b"GET / HTTP/11\r\n\r\n", 505, "version"),
    (b"PRI * HTTP/2.0\r\n\r\n", 505, "version"),
    (b"GET / http/1.1\r\n\r\n", 400, "request line"),
    (b"GET / HTTP/1.1 \r\n\r\n", 400, "request line"),
    (b"GET /\r\n\r\n", 400, "request line"),
    (b"GET /a b HTTP/1.1\r\n\r\n", 400, "request line"),
    (b"GET  / HTTP/1.1\r\n\r\n", 400, "request line"),
    (b"GET\t/ HTTP/1.1\r\n\r\n", 400, "method"),
    (b" GET / HTTP/1.1\r\n\r\n", 400, "method"),
    (b"G(T / HTTP/1.1\r\n\r\n", 400, "method"),
    (b"\r\n\r\n", 400, "empty line"),
    (b"GET /#a HTTP/1.1\r\n\r\n", 400, "target"),
    (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "target"),
    (b"GET /\x7f HTTP/1.1\r\n\r\n", 400, "target"),
    (b"GET /a\tb HTTP/1.1\r\n\r\n", 400, "target"),
    (request(b" folded"), 400, "folded"),
    (request(b"X: a", b"\tfolded"), 400, "folded"),
    (request(b"X"), 400, "colon"),
    (request(b": a"), 400, "empty header name"),
    (request(b"X : a"), 400, "white space"),
    (request(b"X\t: a"), 400, "white space"),
    (request(b"X Y: a"), 400, "a header name"),
    (request(b"X\xe9: a"), 400, "a header name"),
    (request(b'"X": a'), 400, "a header name"),
    (request(b"X: \x01"), 400, "control byte"),
    (request(b"X: a\x0bb"), 400, "control byte"),
    (request(b"X: \x7f"), 400, "control byte"),
    (b"GET / HTTP/1.1\r\nX: a", 400, "does not end"),
    (b"GET / HTTP/1.1\r\n\r\nX: a\r\n\r\n", 400, "colon"),
]


@pytest.mark.parametrize(("raw", "status", "words"), REQUESTS)
def test_a_malformed_request_head_is_refused_with_the_reason(raw: bytes, status: int, words: str) -> None:
    with refused(status, words):
        match_request(raw)


RESPONSES = [
    (response(line=b"HTTP/1.1 200 OK\nX: a"), "LF without CR"),
    (response(b"X: \x00"), "NUL"),
    (response(line=b"HTTP/2 200 OK"), "status line"),
    (response(line=b"HTTP/1.2 200 OK"), "status line"),
    (response(line=b"HTTP/1.1 099 OK"), "status line"),
    (response(line=b"HTTP/1.1 600 OK"), "status line"),
    (response(line=b"HTTP/1.1 20 OK"), "status line"),
    (response(line=b"HTTP/1.1 2000"), "status line"),
    (response(line=b"HTTP/1.1  200 OK"), "status line"),
    (response(line=b"HTTP/1.1 200 O\x1bK"), "status line"),
    (response(line=b"SSH-2.0-x"), "status line"),
    (response(line=b""), "status line"),
    (response(b" folded"), "folded"),
    (response(b"X : a"), "white space"),
    (response(b"X"), "colon"),
]


@pytest.mark.parametrize(("raw", "words"), RESPONSES)
def test_a_malformed_response_head_is_a_502_with_the_reason(raw: bytes, words: str) -> None:
    with refused(502, words):
        match_response(raw)


@pytest.mark.parametrize(
    ("target", "method"),
    [(b"/", b"GET"), (b"*", b"OPTIONS"), (b'/a|b"{}^\\`<>', b"X-Y_Z"), (b"http://a", b"!#$%&'*+-.^_`|~")],
)
def test_ordinary_and_odd_request_lines_pass(target: bytes, method: bytes) -> None:
    found = match_request(request(line=method + b" " + target + b" HTTP/1.0"))
    assert found.groups() == (method, target, b"0")


@pytest.mark.parametrize(
    ("line", "groups"),
    [
        (b"HTTP/1.1 200 OK", (b"1", b"200", b"OK")),
        (b"HTTP/1.0 404 Not Found", (b"0", b"404", b"Not Found")),
        (b"HTTP/1.1 200 ", (b"1", b"200", b"")),
        (b"HTTP/1.1 200", (b"1", b"200", None)),
        (b"HTTP/1.1 599 \xc3\xa9\tx", (b"1", b"599", b"\xc3\xa9\tx")),
    ],
)
def test_status_lines_that_pass(line: bytes, groups: tuple[bytes | None, ...]) -> None:
    assert match_response(response(line=line)).groups() == groups


def test_fields_come_out_in_order_without_the_white_space_around_values() -> None:
    raw = request(b"X:", b"X-A:b", b"x-a: \t b c \t ", b"Y: \xff", b"Z:   ", host=b"")
    match_request(raw)
    assert split_fields(raw) == [(b"X", b""), (b"X-A", b"b"), (b"x-a", b"b c"), (b"Y", b"\xff"), (b"Z", b"")]
    assert split_fields(b"GET / HTTP/1.1\r\n\r\n") == []
    assert split_fields(SERVER_RESPONSE)[0] == (b"Server", b"nginx")
    assert split_fields(BROWSER_REQUEST)[-1] == (b"Cookie", b"session=0123; _ga=GA1.2.3.4")


def test_a_stray_byte_is_named_and_a_last_cr_waits() -> None:
    assert stray_byte(b"ab\r", 0, 3) is None
    assert stray_byte(b"ab\r\n", 0, 4) is None
    assert stray_byte(b"ab\r\n", 3, 4) is None
    assert stray_byte(b"ab\n", 0, 3) == "a line that ends in LF without CR"
    assert stray_byte(b"ab\rc", 0, 4) == "a CR without LF"
    assert stray_byte(b"a\x00", 0, 2) == "a NUL byte"
    assert stray_byte(b"a\x00", 0, 1) is None


@given(heads())
def test_what_passes_has_no_doubtful_byte(raw: bytes) -> None:
    try:
        match_request(raw)
    except Rejected:
        return
    assert raw.endswith(b"\r\n\r\n")
    assert raw.index(b"\r\n\r\n") == len(raw) - 4
    assert raw.count(b"\n") == raw.count(b"\r") == raw.count(b"\r\n")
    for line in raw[:-4].split(b"\r\n")[1:]:
        name, colon, _ = line.partition(b":")
        assert colon
        assert name
        assert not set(name) & set(b" \t")


def test_many_headers_and_long_values_take_linear_time() -> None:
    raw = request(*[b"a: " + b" " * 50 + b"x"] * 20_000)
    match_request(raw)
    with refused(400):
        match_request(raw[:-2] + b" x\r\n\r\n")
