"""Requests that go on: the very bytes that the backend gets for the bytes that the client sent.

Each row of docs/http-behaviour.md that changes or passes on a request has its cases here. Each head is sent
several times over one connection where that stays open, between heads that differ from it in one byte,
because lbproc remembers heads: the third sighting must come out like the first, and none for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import (
    END,
    GET,
    OK,
    POST,
    End,
    Manner,
    assert_refused,
    canonical,
    fresh_ids,
    without_fresh_ids,
)

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Passes:
    """A request and what becomes of it.

    Args:
        name: says what it is about.
        section: of RFC 9110 or 9112, or another document.
        sent: the bytes.
        arrives: the head that the backend gets, without what lbproc adds to every request. Where a line of
            framing, Connection, Upgrade or Expect stands among the others does not matter.
        body: the bytes that follow it.
        stays: the client's connection serves another request.
        listener: which of the shared lbproc's.
        via: the version in ``Via``.
        host: what ``X-Forwarded-Host`` says; None for no such line.
    """

    name: str
    section: str
    sent: bytes
    arrives: bytes
    body: bytes = b""
    stays: bool = True
    listener: str = "web"
    via: bytes = b"1.1"
    host: bytes | None = b"a"


def same(name: str, section: str, request: bytes, body: bytes = b"") -> Passes:
    """A request whose head goes on as it is."""
    return Passes(name, section, request + END + body, request, body)


def target(name: str, section: str, sent: bytes, arrives: bytes | None = None) -> Passes:
    arrives = sent if arrives is None else arrives
    line = b" HTTP/1.1\r\nHost: a\r\n"
    return Passes(name, section, b"GET " + sent + line + END, b"GET " + arrives + line)


def host(name: str, octets: bytes) -> Passes:
    line = b"GET / HTTP/1.1\r\nHost: " + octets + END
    return Passes(name, "9110 7.2", line + END, line, host=octets)


def dropped(name: str, section: str, lines: bytes) -> Passes:
    """Fields that do not go on, between two that do."""
    sent = GET + b"A: 1\r\n" + lines + b"\r\nZ: 2\r\n\r\n"
    return Passes(name, section, sent, GET + b"A: 1\r\nZ: 2\r\n")


def field(name: str, section: str, sent: bytes, arrives: bytes | None = None) -> Passes:
    """A field line that goes on, the same or changed."""
    arrives = sent if arrives is None else arrives
    return Passes(name, section, GET + sent + b"\r\n\r\n", GET + arrives + END)


V10 = b"GET / HTTP/1.0\r\nHost: a\r\n"

VERSIONS = [
    same("HTTP/1.1", "9112 2.3", GET),
    Passes("HTTP/1.0", "9112 2.3", V10 + END, GET, stays=False, via=b"1.0"),
    Passes(
        "HTTP/1.0 that asks to stay", "9112 9.3", V10 + b"Connection: keep-alive\r\n\r\n", GET, via=b"1.0"
    ),
    Passes(
        "HTTP/1.0 that asks to stay in capitals",
        "9112 9.3",
        V10 + b"CONNECTION: Keep-Alive\r\n\r\n",
        GET,
        via=b"1.0",
    ),
    Passes(
        "HTTP/1.0 that asks for both",
        "9112 9.3",
        V10 + b"Connection: keep-alive, close\r\n\r\n",
        GET,
        stays=False,
        via=b"1.0",
    ),
    Passes("close", "9112 9.3", GET + b"Connection: close\r\n\r\n", GET, stays=False),
    Passes("close in capitals", "9112 9.3", GET + b"Connection: CLOSE\r\n\r\n", GET, stays=False),
    Passes(
        "close among other options",
        "9112 9.3",
        GET + b"Connection: keep-alive , ,close\r\n\r\n",
        GET,
        stays=False,
    ),
    Passes(
        "close in a second field",
        "9112 9.3",
        GET + b"Connection: keep-alive\r\nConnection: close\r\n\r\n",
        GET,
        stays=False,
    ),
    Passes("keep-alive", "9112 9.3", GET + b"Connection: keep-alive\r\n\r\n", GET),
    Passes("empty Connection", "9110 7.6.1", GET + b"Connection:\r\n\r\n", GET),
    Passes("one empty line before the request line", "9112 2.2", END + GET + END, GET),
    Passes(
        "HTTP/1.0 with a body",
        "9112 6.2",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        POST + b"Content-Length: 2\r\n",
        b"hi",
        stays=False,
        via=b"1.0",
    ),
]

METHODS = [
    same(method.decode(), "9110 9.3", method + b" / HTTP/1.1\r\nHost: a\r\n")
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH")
] + [
    same("method that nobody knows", "9110 9.1", b"PURGE / HTTP/1.1\r\nHost: a\r\n"),
    same("method in small letters", "9110 9.1", b"get / HTTP/1.1\r\nHost: a\r\n"),
    same("method of odd letters", "9110 9.1", b"M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: a\r\n"),
]

TARGETS = [
    target("path", "9112 3.2.1", b"/a/b"),
    target("path and query", "9112 3.2.1", b"/a?b=c&d"),
    target("empty query", "9112 3.2.1", b"/a?"),
    target("question marks in the query", "9112 3.2.1", b"/a?b?c"),
    target("dots and escapes", "9112 3.2.1", b"/a/../b/%2e%2E/./%2F"),
    target("two slashes in front", "9112 3.2.1", b"//a//b/"),
    target("backslash", "9112 3.2.1", b"/a\\..\\b"),
    target("letters that no path should have", "9112 3.2.1", b'/<>"{}|^`[]'),
    target("address in a query", "9112 3.2.1", b"/?u=http://b/"),
    target("bad escape", "9112 3.2.1", b"/%zz%"),
    target("http address", "9112 3.2.2", b"http://a/b?c", b"/b?c"),
    target("http address without a path", "9112 3.2.2", b"http://a", b"/"),
    target("http address with a query only", "9112 3.2.2", b"http://a?b", b"/?b"),
    target("http address with a slash in the query only", "9112 3.2.2", b"http://a?b/c", b"/?b/c"),
    target("http address with two slashes in the path", "9112 3.2.2", b"http://a//b", b"//b"),
    target("http address in capitals", "9112 3.2.2", b"HTTP://a/b", b"/b"),
    Passes(
        "http address whose host differs in case",
        "9112 3.2.2",
        b"GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: A\r\n",
        host=b"A",
    ),
    Passes(
        "http address with the same port",
        "9112 3.2.2",
        b"GET http://a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:80\r\n",
        host=b"a:80",
    ),
    Passes(
        "http address on 1.0 without Host",
        "9112 3.2.2",
        b"GET http://b/c HTTP/1.0\r\n\r\n",
        b"GET /c HTTP/1.1\r\nHost: b\r\n",
        stays=False,
        via=b"1.0",
        host=b"b",
    ),
    same("* with OPTIONS", "9112 3.2.4", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n"),
    Passes(
        "http address without a path and OPTIONS",
        "9112 3.2.4",
        b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n",
    ),
    Passes(
        "http address with a path and OPTIONS",
        "9112 3.2.4",
        b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nHost: a\r\n",
    ),
]

HOSTS = [
    host("host and port", b"a.example.com:8080"),
    host("capitals in the host", b"A.Example.COM"),
    host("IPv4 address", b"127.0.0.1:80"),
    host("IPv6 address", b"[::1]"),
    host("IPv6 address and port", b"[2001:db8::1]:443"),
    host("dot behind the host", b"a.example.com."),
    host("underscore, tilde and hyphen in the host", b"a_b~c-d"),
    host("colon without a port", b"a:"),
    host("highest port", b"a:65535"),
    Passes(
        "Host in the last place",
        "9110 7.2",
        b"GET / HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n",
    ),
    Passes("HOST", "9110 5.1", b"GET / HTTP/1.1\r\nHOST: a\r\n\r\n", GET),
    Passes("white space around the host", "9110 5.5", b"GET / HTTP/1.1\r\nHost:\t a \t\r\n\r\n", GET),
    Passes(
        "HTTP/1.0 without Host",
        "9112 3.2",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %(backend)b\r\n",
        stays=False,
        via=b"1.0",
        host=None,
    ),
]

FIELDS = [
    same("order, spelling and repetitions", "9110 5.3", GET + b"B: 1\r\na: 2\r\nB: 3\r\nX-Odd-CASE: 4\r\n"),
    field("no white space", "9112 5.1", b"A:b", b"A: b"),
    field("white space around a value", "9112 5.1", b"A: \t b \t", b"A: b"),
    field("white space in a value", "9110 5.5", b"A: b \t  c"),
    field("empty value", "9110 5.5", b"A:", b"A: "),
    field("value of white space", "9110 5.5", b"A: \t", b"A: "),
    field("colons in a value", "9110 5.5", b"A: b: c:d"),
    field("bytes above 0x7F in a value", "9110 5.5", b"A: \xc3\xa4\xff\x80"),
    field("every byte that a name may have", "9110 5.6.2", b"!#$%&'*+-.^`|~09azAZ: b"),
    field("long value", "9110 5.4", b"A: " + b"b" * 5000),
    same(
        "Authorization and cookies",
        "9110 11.6.2",
        GET + b"Authorization: Basic eA==\r\nCookie: a=b; c\r\nCookie: d\r\n",
    ),
    same("conditions and ranges", "9110 13", GET + b'If-None-Match: "a", W/"b"\r\nRange: bytes=0-1,5-\r\n'),
    same("cache directives and dates", "9111 5.2", GET + b"Cache-Control: no-cache\r\nDate: yesterday\r\n"),
    same("100 fields", "6585 5", GET + b"".join(b"A%d: b\r\n" % number for number in range(99))),
]

HOP_BY_HOP = [
    dropped("field that Connection names", "9110 7.6.1", b"Connection: X-Hop\r\nX-Hop: 1"),
    dropped("field that Connection names, in capitals", "9110 7.6.1", b"x-hop: 1\r\nConnection: X-HOP"),
    dropped(
        "fields that two Connections name",
        "9110 7.6.1",
        b"Connection: B\r\nB: 1\r\nConnection: C,, D\r\nC: 1\r\nD: 1",
    ),
    dropped("repeated field that Connection names", "9110 7.6.1", b"B: 1\r\nConnection: b\r\nB: 2"),
    dropped("Keep-Alive", "9110 7.6.1", b"Keep-Alive: timeout=5"),
    dropped("Proxy-Connection", "9110 7.6.1", b"Proxy-Connection: keep-alive"),
    dropped("TE", "9110 10.1.4", b"TE: trailers\r\nConnection: TE"),
    dropped("TE that Connection does not name", "9110 10.1.4", b"TE: gzip"),
    dropped("Proxy-Authorization", "9110 11.7.2", b"Proxy-Authorization: Basic eA=="),
    dropped("Proxy-Authenticate", "9110 11.7.1", b"Proxy-Authenticate: Basic"),
    dropped("Proxy", "3875 4.1.18", b"Proxy: http://evil/"),
    dropped("Upgrade that Connection does not name", "9110 7.8", b"Upgrade: websocket"),
    dropped("Connection that names an Upgrade that is not there", "9110 7.8", b"Connection: upgrade"),
    dropped(
        "h2c", "9113 3.1", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
    ),
    dropped("h2c in capitals", "9113 3.1", b"Connection: Upgrade\r\nUpgrade: H2C"),
    dropped("upgrade to HTTP", "9110 7.8", b"Connection: upgrade\r\nUpgrade: HTTP/2.0, http/1.1, h2"),
    dropped("upgrade to TLS", "2817", b"Connection: upgrade\r\nUpgrade: TLS/1.0"),
    dropped("HTTP2-Settings that Connection does not name", "9113 3.1", b"HTTP2-Settings: AAMAAABk"),
    Passes(
        "upgrade",
        "9110 7.8",
        GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        GET + b"Sec-WebSocket-Key: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    ),
    Passes(
        "upgrade to one of several",
        "9110 7.8",
        GET + b"Connection: upgrade\r\nUpgrade: a/1, h2c,b\r\nUpgrade: TLS/1.3, c\r\n\r\n",
        GET + b"Connection: upgrade\r\nUpgrade: a/1, b, c\r\n",
    ),
    Passes(
        "upgrade on 1.0",
        "9110 7.8",
        V10 + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        GET,
        stays=False,
        via=b"1.0",
    ),
    Passes(
        "trailing request behind an upgrade is no tunnel",
        "9110 7.8",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n",
        b"hi",
    ),
]

UNDERSCORES = [
    dropped("name with an underscore", "", b"X_A: b"),
    dropped("underscore alone", "", b"_: b"),
    dropped("X_Forwarded_For", "", b"X_Forwarded_For: 1.1.1.1"),
    Passes(
        "names with underscores where they pass",
        "",
        GET + b"X_A: b\r\nContent-Type: text/plain\r\n_: c\r\n\r\n",
        GET + b"X_A: b\r\nContent-Type: text/plain\r\n_: c\r\n",
        listener="underscores_forwarded",
    ),
    Passes(
        "underscored twins where names with underscores pass",
        "",
        GET + b"X_Forwarded_For: 1.1.1.1\r\nx-forwarded_proto: https\r\nX_Request_Id: 1\r\nX_Real_IP: 1\r\n"
        b"Keep_Alive: 1\r\nProxy_Connection: 1\r\nHTTP2_Settings: 1\r\n\r\n",
        GET,
        listener="underscores_forwarded",
    ),
    Passes(
        "hyphens where underscores are refused",
        "",
        GET + b"X-A: b\r\n\r\n",
        GET + b"X-A: b\r\n",
        listener="underscores_rejected",
    ),
]

BODIES = [
    same("length", "9112 6.2", POST + b"Content-Length: 5\r\n", b"hello"),
    same("length of 0", "9110 8.6", POST + b"Content-Length: 0\r\n"),
    Passes(
        "zeros before a length",
        "9110 8.6",
        POST + b"Content-Length: 005\r\n\r\nhello",
        POST + b"Content-Length: 5\r\n",
        b"hello",
    ),
    Passes(
        "length of 18 digits",
        "9110 8.6",
        POST + b"content-length:000000000000000002 \r\n\r\nhi",
        POST + b"Content-Length: 2\r\n",
        b"hi",
    ),
    same(
        "body that looks like a request",
        "9112 6.2",
        POST + b"Content-Length: 30\r\n",
        b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
    ),
    same("body of every byte", "9112 6.2", POST + b"Content-Length: 256\r\n", bytes(range(256))),
    same("body of line ends", "9112 6.2", POST + b"Content-Length: 8\r\n", b"\r\n\r\n\n\n\r\r"),
    same("largest body allowed", "9110 15.5.14", POST + b"Content-Length: 100\r\n", b"x" * 100),
    same("GET with a body", "9110 9.3.1", GET + b"Content-Length: 2\r\n", b"hi"),
    same("DELETE with a body", "9110 9.3.5", b"DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n", b"hi"),
    same("HEAD with a body", "9110 9.3.2", b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n", b"hi"),
    same(
        "OPTIONS with a body", "9110 9.3.7", b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n", b"hi"
    ),
    same("chunks", "9112 7.1", CHUNKED[:-2], b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    same("no chunk but the last", "9112 7.1", CHUNKED[:-2], b"0\r\n\r\n"),
    same("last chunk of many zeros", "9112 7.1", CHUNKED[:-2], b"0000000000000000\r\n\r\n"),
    same(
        "hexadecimal sizes in both cases",
        "9112 7.1",
        CHUNKED[:-2],
        b"a\r\n0123456789\r\n0B\r\n01234567890\r\n0\r\n\r\n",
    ),
    same(
        "chunk that looks like chunks", "9112 7.1", CHUNKED[:-2], b"f\r\n0\r\n\r\nGET /x\r\n\r\n\r\n0\r\n\r\n"
    ),
    same("chunk extensions", "9112 7.1.1", CHUNKED[:-2], b'2;a;b=c;d="e; \\" f"\r\nhi\r\n0;z\r\n\r\n'),
    same("trailers", "9112 7.1.2", CHUNKED[:-2], b"2\r\nhi\r\n0\r\nDigest: x\r\nA:\r\n\r\n"),
    Passes(
        "transfer coding in another case",
        "9112 7",
        POST + b"TRANSFER-ENCODING:\t Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        CHUNKED[:-2],
        b"2\r\nhi\r\n0\r\n\r\n",
    ),
    same("GET in chunks", "9112 6.3", GET + b"Transfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n"),
    Passes(
        "Trailer announces trailers",
        "9110 6.6.2",
        POST + b"Trailer: Digest\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nDigest: x\r\n\r\n",
        POST + b"Trailer: Digest\r\nTransfer-Encoding: chunked\r\n",
        b"0\r\nDigest: x\r\n\r\n",
    ),
]

EXPECTATIONS = [
    Passes("expectation without a body", "9110 10.1.1", GET + b"Expect: 100-continue\r\n\r\n", GET),
    Passes(
        "expectation with a length of 0",
        "9110 10.1.1",
        POST + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        POST + b"Content-Length: 0\r\n",
    ),
    Passes(
        "expectation on 1.0",
        "9110 10.1.1",
        b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        POST + b"Content-Length: 2\r\n",
        b"hi",
        stays=False,
        via=b"1.0",
    ),
    Passes(
        "expectation of one who does not wait",
        "9110 10.1.1",
        POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi",
        POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n",
        b"hi",
    ),
]

ALL = [*VERSIONS, *METHODS, *TARGETS, *HOSTS, *FIELDS, *HOP_BY_HOP, *UNDERSCORES, *BODIES, *EXPECTATIONS]


class Exchanges:
    """Sends one case again and again, as it is or with one field more, and checks each time what arrives."""

    def __init__(self, proxy: Proxy, case: Passes) -> None:
        self._proxy = proxy
        self._case = case
        self._client: Wire | None = None
        self._backend: Wire | None = None
        self._ids: list[bytes] = []

    def run(self, manner: Manner, extra: bytes = b"") -> None:
        case = self._case
        client = self._client or self._proxy.client(case.listener)
        client.send(case.sent.replace(b"\r\n\r\n", b"\r\n" + extra + b"\r\n", 1), manner)
        backend = self._backend = self._backend or self._proxy.backend()
        arrived = backend.read_head()
        assert canonical(without_fresh_ids(arrived)) == canonical(self._expected(extra))
        assert backend.read_exactly(len(case.body)) == case.body
        ids = fresh_ids(arrived)
        assert len(ids) == 2
        assert not set(ids) & set(self._ids), "an id was given twice"
        self._ids += ids
        self._answer(client, backend)

    def assert_over(self) -> None:
        """The backend has got nothing more than was asked for, and nobody else has got anything."""
        self._proxy.settle()
        assert self._backend is not None
        self._backend.assert_silent()
        assert not self._proxy.backends_waiting()

    def _expected(self, extra: bytes) -> bytes:
        case = self._case
        arrives = case.arrives.replace(b"%(backend)b", self._proxy.pools["web"].encode())
        said_host = b"" if case.host is None else b"X-Forwarded-Host: " + case.host + END
        return (
            arrives + extra + b"Via: " + case.via + b" lbproc\r\nX-Forwarded-For: 127.0.0.1\r\n" + said_host
            + b"X-Forwarded-Proto: http\r\nX-Request-Id: *\r\ntraceparent: *\r\n\r\n"
        )  # fmt: skip

    def _answer(self, client: Wire, backend: Wire) -> None:
        case = self._case
        bodiless = case.sent.startswith(b"HEAD ")
        backend.send(OK[: -len(b"ok")] if bodiless else OK)
        head = client.read_head()
        connection = b""
        if not case.stays:
            connection = b"Connection: close\r\n"
        elif case.via == b"1.0":
            connection = b"Connection: keep-alive\r\n"
        assert canonical(head) == canonical(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + connection + END)
        body = b"" if bodiless else b"ok"
        if case.stays:
            assert client.read_exactly(len(body)) == body
            self._client = client
        else:
            assert client.read_rest() == (body, End.CLOSED)
            client.close()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_request_goes_on_as_documented_every_time(proxy: Proxy, case: Passes) -> None:
    exchanges = Exchanges(proxy, case)
    for extra in (b"", b"", b"", b"Lap: 1\r\n", b"Lap: 2\r\n", b"Lap: 1\r\n", b"Lap: 1\r\n", b""):
        # A hundred fields is the most that a head may have.
        exchanges.run(Manner.AT_ONCE, b"" if case.name == "100 fields" else extra)
    exchanges.assert_over()


@pytest.mark.parametrize(
    "manner", [Manner.LINE_BY_LINE, Manner.BYTE_BY_BYTE], ids=lambda manner: manner.name.lower()
)
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_request_goes_on_the_same_in_whatever_pieces_it_comes(
    proxy: Proxy, case: Passes, manner: Manner
) -> None:
    exchanges = Exchanges(proxy, case)
    exchanges.run(manner)
    exchanges.run(Manner.AT_ONCE)
    exchanges.run(manner)


def test_heads_that_differ_in_one_byte_are_told_apart(proxy: Proxy) -> None:
    heads = [
        b"GET /a HTTP/1.1\r\nHost: a\r\nB: c\r\n",
        b"PET /a HTTP/1.1\r\nHost: a\r\nB: c\r\n",
        b"GET /b HTTP/1.1\r\nHost: a\r\nB: c\r\n",
        b"GET /a HTTP/1.1\r\nHost: b\r\nB: c\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nb: c\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nB: d\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nB: c\r\nB: c\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\n",
    ]
    client = proxy.client()
    backend = None
    for lap in range(4):
        for head in [*heads, *reversed(heads)] if lap % 2 else heads:
            client.send(head + END)
            backend = backend or proxy.backend()
            assert backend.read_head().startswith(head)
            backend.send(OK)
            assert client.read_exactly(len(OK)) == OK


@pytest.mark.parametrize("good_first", [True, False], ids=["good first", "bad first"])
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (GET + b"A: b\r\n\r\n", GET + b"A: \0\r\n\r\n"),
        (GET + b"AB: c\r\n\r\n", GET + b"A : c\r\n\r\n"),
        (GET + b"A: b\r\nB: c\r\n\r\n", GET + b"A: b\r\n : c\r\n\r\n"),
        (GET + b"Hose: a\r\n\r\n", GET + b"Host: a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (GET + b"Content-Length: 0\r\n\r\n", GET + b"Content-Length: x\r\n\r\n"),
        (GET + b"Content-Lengt: 0\r\n\r\n", GET + b"Content_Length: 0\r\n\r\n"),
        (GET + b"Connection: hosT-\r\n\r\n", GET + b"Connection: host,\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ],
    ids=["NUL", "space", "fold", "host", "slash", "length", "underscore", "connection", "version", "target"],
)
def test_good_head_does_not_vouch_for_a_bad_one_that_differs_in_one_byte(
    proxy: Proxy, good: bytes, bad: bytes, good_first: bool
) -> None:
    backend = None
    for lap in range(6):
        if lap or good_first:
            client = proxy.client()
            client.send(good)
            backend = backend or proxy.backend()
            assert backend.read_head()
            backend.send(OK)
            assert client.read_exactly(len(OK)) == OK
        client = proxy.client()
        client.send(bad)
        answer, _ = client.read_rest()
        assert answer[9:12] in {b"400", b"505"}
    proxy.settle()
    assert backend is not None
    backend.assert_silent()


def test_same_head_of_other_peers_is_forwarded_with_their_addresses(proxy: Proxy) -> None:
    backend = None
    for _ in range(4):
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            client = proxy.client(source=address)
            client.send(GET + END)
            backend = backend or proxy.backend()
            assert b"\r\nX-Forwarded-For: %b\r\n" % address.encode() in backend.read_head()
            backend.send(OK)
            assert client.read_exactly(len(OK)) == OK


def test_same_head_on_listeners_with_other_rules_is_treated_by_the_rules_of_its_own(proxy: Proxy) -> None:
    head = GET + b"X_A: b\r\nX-Forwarded-For: 9.9.9.9\r\n"
    lines = {
        "web": (False, b"127.0.0.1"),
        "underscores_forwarded": (True, b"127.0.0.1"),
        "trusting": (False, b"9.9.9.9, 127.0.0.1"),
    }
    backend = None
    for _ in range(4):
        for listener, (is_kept, forwarded_for) in lines.items():
            client = proxy.client(listener)
            client.send(head + END)
            backend = backend or proxy.backend()
            arrived = backend.read_head()
            assert (b"\r\nX_A: b\r\n" in arrived) == is_kept
            assert b"\r\nX-Forwarded-For: %b\r\n" % forwarded_for in arrived
            backend.send(OK)
            assert client.read_exactly(len(OK)) == OK
        client = proxy.client("underscores_rejected")
        client.send(head + END)
        assert client.read_rest()[0].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"A: b\r\n" * 10 + END, 431),
        (GET + b"A: " + b"b" * 1100 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (POST + b"Content-Length: 101\r\n\r\n" + b"x" * 101, 413),
    ],
    ids=["count", "size", "target", "body"],
)
def test_head_that_is_good_on_one_listener_is_held_to_the_limits_of_another(
    proxy: Proxy, request_bytes: bytes, status: int
) -> None:
    client = proxy.client()
    backend = None
    for _ in range(4):
        client.send(request_bytes)
        backend = backend or proxy.backend()
        backend.read_head()
        backend.read_exactly(101 if status == 413 else 0)
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK
        small = proxy.client("small")
        small.send(request_bytes)
        assert_refused(small.read_rest()[0], status)


def test_same_head_in_two_pools_names_the_backend_of_its_own_when_it_names_no_host(proxy: Proxy) -> None:
    backends: dict[str, Wire] = {}
    for _ in range(4):
        for pool in ("web", "elsewhere"):
            client = proxy.client(pool)
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            backend = backends[pool] = backends.get(pool) or proxy.backend(pool)
            assert backend.read_head().startswith(
                b"GET / HTTP/1.1\r\nHost: %b\r\n" % proxy.pools[pool].encode()
            )
            backend.send(OK)
            assert client.read_head()


@pytest.mark.slow
def test_more_heads_than_are_remembered_come_out_right_in_every_round(proxy: Proxy) -> None:
    client = proxy.client()
    backend = None
    for _ in range(3):
        for number in range(600):
            client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            backend = backend or proxy.backend()
            assert backend.read_head().startswith(b"GET /%d HTTP/1.1\r\nHost: a\r\n" % number)
            answer = b"HTTP/1.1 200 OK\r\nA: %d\r\nContent-Length: 0\r\n\r\n" % number
            backend.send(answer)
            assert client.read_exactly(len(answer)) == answer
