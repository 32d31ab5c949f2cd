"""Message heads for tests: a browser's, a server's, and a strategy for heads that are nearly right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from lbproc.core.http.head import RequestHead, ResponseHead, parse_request_head, parse_response_head
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.strict import HeadLimits

LIMITS = HeadLimits()

BROWSER_REQUEST = (
    b"GET /assets/app.js?v=12 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="124"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n'
    b"Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123; _ga=GA1.2.3.4\r\n\r\n"
)
SERVER_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 612\r\n"
    b'Connection: keep-alive\r\nETag: "6592-264"\r\n\r\n'
)


def request(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    """A request head with these header lines."""
    return line + b"\r\n" + host + b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def response(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response head with these header lines."""
    return line + b"\r\n" + b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def parse(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n") -> RequestHead:
    """Parses a request head with these header lines."""
    return parse_request_head(request(*lines, line=line, host=host), LIMITS)


def parse_answer(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    """Parses a response head with these header lines."""
    return parse_response_head(response(*lines, line=line), method)


@contextlib.contextmanager
def refused(status: int, words: str = "") -> Iterator[None]:
    """Expects a rejection with this status and these words in its detail."""
    with pytest.raises(Rejected) as caught:
        yield
    assert caught.value.status == status
    assert words in caught.value.detail


_LINES = st.sampled_from([
    b"Host: a", b"host:b", b"Host: a:80", b"Host:", b"Content-Length: 3", b"content-length: 03",
    b"Content-Length: 3, 3", b"Content-Length: +3", b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:",
    b"Content_Length: 3", b"X_A: 1", b"Connection: close", b"Connection: keep-alive, X-A",
    b"Connection: Content-Length", b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Expect: 100-continue", b"Expect: x", b"X-A:  b c \t", b"X-A:", b"X-A : b", b" folded", b"X-A: \xff",
    b"X-A: \x00", b"X-A: \x0b", b": empty", b"no colon", b"X-Forwarded-For: 1.2.3.4", b"Via: 1.0 x",
    b"Cookie: a=b", b"TE: trailers", b"Trailer: x",
])  # fmt: skip
_STARTS = st.sampled_from([
    b"GET / HTTP/1.1", b"GET /a?b=c HTTP/1.0", b"POST / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET * HTTP/1.1",
    b"GET http://a/x HTTP/1.1", b"GET http://a HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /#x HTTP/1.1",
    b"GET  / HTTP/1.1", b"GET / HTTP/2.0", b"GET /\xff HTTP/1.1", b"GET /", b"", b"HEAD / HTTP/1.1",
    b"g\x01t / HTTP/1.1",
])  # fmt: skip
_STATUS_LINES = st.sampled_from([
    b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 ",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 200", b"HTTP/1.1 600 x",
    b"HTTP/2 200", b"HTTP/1.1  200 OK", b"",
])  # fmt: skip
_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])


@st.composite
def heads(draw: st.DrawFn, *, of_responses: bool = False) -> bytes:
    """A head that is right, or wrong in a place or two."""
    parts = [draw(_STATUS_LINES if of_responses else _STARTS), draw(_ENDS)]
    for line in draw(st.lists(_LINES, max_size=5)):
        parts += [line, draw(_ENDS)]
    parts.append(b"\r\n")
    raw = b"".join(parts)
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + draw(st.binary(max_size=2)) + raw[place + draw(st.integers(0, 1)) :]
    return raw
