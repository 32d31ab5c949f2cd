"""Responses that go on: the very bytes that the client gets for the bytes that the backend sent.

Each row of "Responses that go on" in docs/http-behaviour.md has its cases here. Each response is sent several
times, whole and in pieces, because lbproc remembers heads. After each it shows whether the client's
connection serves another request, and whether the backend's does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import END, GET, End, Manner, canonical

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n"
V10 = b"GET / HTTP/1.0\r\nHost: a\r\n"
V10_STAYING = V10 + b"Connection: keep-alive\r\n"
S200 = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Answer:
    """A response and what becomes of it.

    Args:
        name: says what it is about.
        section: of RFC 9110 or 9112, or another document.
        sends: what the backend sends.
        gets: the head that the client gets. Where a line of framing, Connection or Upgrade stands among the
            others does not matter.
        body: what the client gets behind it.
        request: what the client asked.
        backend_closes: after the response.
        client_stays: the client's connection serves another request.
        backend_stays: the backend's connection does.
    """

    name: str
    section: str
    sends: bytes
    gets: bytes
    body: bytes = b""
    request: bytes = GET
    backend_closes: bool = False
    client_stays: bool = True
    backend_stays: bool = True


def same(name: str, section: str, head: bytes, body: bytes = b"", *, request: bytes = GET) -> Answer:
    """A response that goes on as it is."""
    return Answer(name, section, head + END + body, head, body, request)


def field(name: str, section: str, sent: bytes, got: bytes | None = None) -> Answer:
    """A field line that goes on, the same or changed."""
    got = sent if got is None else got
    length = b"Content-Length: 0\r\n"
    return Answer(name, section, S200 + sent + END + length + END, S200 + got + END + length)


def dropped(name: str, section: str, lines: bytes, *, backend_stays: bool = True) -> Answer:
    """Fields that do not go on, between two that do."""
    sent = S200 + b"A: 1\r\n" + lines + b"\r\nZ: 2\r\nContent-Length: 0\r\n\r\n"
    return Answer(
        name, section, sent, S200 + b"A: 1\r\nZ: 2\r\nContent-Length: 0\r\n", backend_stays=backend_stays
    )


def closing(
    name: str, section: str, head: bytes, gets: bytes, body: bytes, *, request: bytes = GET
) -> Answer:
    """A response that ends by closing."""
    return Answer(name, section, head + END + body, gets, body, request, True, False, False)


STATUS_LINES = [
    same("HTTP/1.1", "9112 4", S200 + b"Content-Length: 2\r\n", b"ok"),
    Answer(
        "HTTP/1.0",
        "9112 2.3",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\n",
        b"ok",
        backend_stays=False,
    ),
    Answer(
        "HTTP/1.0 that stays",
        "9112 9.3",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\n",
        b"ok",
    ),
    same("no words", "9112 4", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n"),
    Answer(
        "no words and no space",
        "9112 4",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n",
    ),
    same("other words", "9112 4", b"HTTP/1.1 200 All is: \tfine\r\nContent-Length: 0\r\n"),
    same("words above 0x7F", "9112 4", b"HTTP/1.1 200 \xc3\xa4\r\nContent-Length: 0\r\n"),
    same("status that nobody knows", "9110 15", b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n", b"ok"),
    same("highest status", "9110 15", b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n"),
    same("redirect", "9110 15.4", b"HTTP/1.1 302 Found\r\nLocation: http://b:1/c\r\nContent-Length: 0\r\n"),
    same(
        "error of the backend's",
        "9110 15.6",
        b"HTTP/1.1 503 No\r\nRetry-After: 5\r\nContent-Length: 2\r\n",
        b"no",
    ),
    same(
        "part",
        "9110 15.3.7",
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n",
        b"ok",
    ),
    same("reset content", "9110 15.3.6", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n"),
]

FIELDS = [
    field(
        "order, spelling and repetitions",
        "9110 5.3",
        b"Set-Cookie: a\r\nDATE: x\r\nset-cookie: b\r\nSet-Cookie: a",
    ),
    field("white space around a value", "9112 5.1", b"A:\t b \t", b"A: b"),
    field("empty value", "9110 5.5", b"A:", b"A: "),
    field("bytes above 0x7F in a value", "9110 5.5", b"A: \xc3\xa4\xff"),
    field("names with underscores", "", b"X_A: b"),
    field("Server, Via and Date", "9110 7.6.3", b"Server: x\r\nVia: 1.1 y\r\nDate: z"),
    field(
        "fields that only requests know",
        "9110 5.1",
        b"X-Forwarded-For: 1\r\nX-Request-Id: 2\r\nHost: b\r\nExpect: c",
    ),
    field("status of another proxy", "9209 2", b"Proxy-Status: other; error=dns_timeout"),
    field("many fields", "9110 5.4", b"\r\n".join(b"A%d: b" % number for number in range(500))),
    dropped("Connection", "9110 7.6.1", b"Connection: keep-alive"),
    dropped("close", "9112 9.6", b"Connection: close", backend_stays=False),
    dropped("close among others", "9112 9.6", b"Connection: x, Close\r\nX: 1", backend_stays=False),
    dropped("fields that Connection names", "9110 7.6.1", b"B: 1\r\nConnection: b, C\r\nc: 1"),
    dropped("Keep-Alive", "9110 7.6.1", b"Keep-Alive: timeout=5"),
    dropped("Proxy-Connection", "9110 7.6.1", b"Proxy-Connection: close"),
    dropped("TE", "9110 10.1.4", b"TE: trailers"),
    dropped("Proxy-Authenticate", "9110 11.7.1", b"Proxy-Authenticate: Basic"),
    dropped("Upgrade", "9110 7.8", b"Upgrade: h2c, websocket"),
    dropped("Upgrade that Connection names", "9110 7.8", b"Connection: upgrade\r\nUpgrade: h2"),
    Answer(
        "Upgrade with a 426",
        "9110 15.5.22",
        b"HTTP/1.1 426 No\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 426 No\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    ),
]

FRAMING = [
    same("length of 0", "9112 6.3", S200 + b"Content-Length: 0\r\n"),
    same("body of every byte", "9112 6.3", S200 + b"Content-Length: 256\r\n", bytes(range(256))),
    same(
        "body that looks like a response",
        "9112 6.3",
        S200 + b"Content-Length: 19\r\n",
        b"HTTP/1.1 404 No\r\n\r\n",
    ),
    Answer(
        "zeros before a length",
        "9110 8.6",
        S200 + b"Content-Length: 002\r\n\r\nok",
        S200 + b"Content-Length: 2\r\n",
        b"ok",
    ),
    same("chunks", "9112 7.1", S200 + b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"),
    same("no chunk but the last", "9112 7.1", S200 + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    same(
        "chunk extensions",
        "9112 7.1.1",
        S200 + b"Transfer-Encoding: chunked\r\n",
        b'2;a="b"\r\nok\r\n0;c\r\n\r\n',
    ),
    same(
        "trailers",
        "9112 7.1.2",
        S200 + b"Trailer: A\r\nTransfer-Encoding: chunked\r\n",
        b"2\r\nok\r\n0\r\nA: b\r\n\r\n",
    ),
    Answer(
        "transfer coding in another case",
        "9112 7",
        S200 + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
        S200 + b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
    ),
    Answer(
        "chunks and close",
        "9112 9.6",
        S200 + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        S200 + b"Transfer-Encoding: chunked\r\n",
        b"2\r\nok\r\n0\r\n\r\n",
        backend_stays=False,
    ),
    Answer(
        "length, and the backend closes",
        "9112 9.6",
        S200 + b"Content-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\n",
        b"ok",
        backend_closes=True,
        backend_stays=False,
    ),
    closing("end by closing", "9112 6.3", S200, S200 + b"Connection: close\r\n", b"ok"),
    closing(
        "end by closing on 1.0", "9112 6.3", b"HTTP/1.0 200 OK\r\n", S200 + b"Connection: close\r\n", b"ok"
    ),
    closing("no body, by closing", "9112 6.3", S200, S200 + b"Connection: close\r\n", b""),
    closing(
        "keep-alive without an end",
        "9112 6.3",
        S200 + b"Connection: keep-alive\r\n",
        S200 + b"Connection: close\r\n",
        b"ok",
    ),
    closing(
        "426 that ends by closing",
        "9110 15.5.22",
        b"HTTP/1.1 426 No\r\nUpgrade: x\r\n",
        b"HTTP/1.1 426 No\r\nConnection: close, upgrade\r\nUpgrade: x\r\n",
        b"no",
    ),
]

OLD_CLIENTS = [
    Answer(
        "length to 1.0",
        "9112 9.3",
        S200 + b"Content-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\nConnection: close\r\n",
        b"ok",
        V10,
        client_stays=False,
    ),
    Answer(
        "length to 1.0 that stays",
        "9112 9.3",
        S200 + b"Content-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\nConnection: keep-alive\r\n",
        b"ok",
        V10_STAYING,
    ),
    Answer(
        "chunks to 1.0",
        "9112 7.1",
        S200 + b"Transfer-Encoding: chunked\r\n\r\n2;a\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
        S200 + b"Connection: close\r\n",
        b"ok!",
        V10,
        client_stays=False,
    ),
    Answer(
        "chunks to 1.0 that would stay",
        "9112 7.1",
        S200 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        S200 + b"Connection: close\r\n",
        b"ok",
        V10_STAYING,
        client_stays=False,
    ),
    Answer(
        "trailers to 1.0",
        "9112 7.1.2",
        S200 + b"Trailer: A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
        S200 + b"Connection: close\r\n",
        b"ok",
        V10,
        client_stays=False,
    ),
    closing("end by closing to 1.0", "9112 6.3", S200, S200 + b"Connection: close\r\n", b"ok", request=V10),
    Answer(
        "interim to 1.0",
        "9110 15.2",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        + S200
        + b"Content-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 2\r\nConnection: keep-alive\r\n",
        b"ok",
        V10_STAYING,
    ),
]

BODILESS = [
    same("HEAD", "9110 9.3.2", S200 + b"Content-Length: 1000\r\n", request=HEAD),
    same("HEAD without a length", "9110 9.3.2", S200 + b"A: b\r\n", request=HEAD),
    Answer(
        "HEAD with a transfer coding",
        "9112 6.1",
        S200 + b"Transfer-Encoding: chunked\r\nA: b\r\n\r\n",
        S200 + b"A: b\r\n",
        request=HEAD,
    ),
    same(
        "HEAD of something missing", "9110 9.3.2", b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n", request=HEAD
    ),
    Answer(
        "HEAD on 1.0",
        "9110 9.3.2",
        S200 + b"Content-Length: 9\r\n\r\n",
        S200 + b"Content-Length: 9\r\nConnection: close\r\n",
        b"",
        b"HEAD / HTTP/1.0\r\nHost: a\r\n",
        client_stays=False,
    ),
    same("204", "9110 15.3.5", b"HTTP/1.1 204 No Content\r\nA: b\r\n"),
    Answer(
        "204 with a length",
        "9110 8.6",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204 No\r\n",
    ),
    Answer(
        "204 with a coding",
        "9112 6.1",
        b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\n",
    ),
    same("304", "9110 15.4.5", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n'),
    same("304 with a length", "9110 8.6", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n"),
    Answer(
        "304 with a coding",
        "9112 6.1",
        b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 No\r\n",
    ),
]

INTERIM = [
    Answer(
        "100 that nobody asked for",
        "9110 15.2.1",
        b"HTTP/1.1 100 Continue\r\n\r\n" + S200 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + S200 + b"Content-Length: 0\r\n",
    ),
    Answer(
        "103 with its fields",
        "8297 2",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + S200 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + S200 + b"Content-Length: 0\r\n",
    ),
    Answer(
        "several",
        "9110 15.2",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + S200 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + S200 + b"Content-Length: 0\r\n",
    ),
    Answer(
        "hop-by-hop and framing fields of an interim response",
        "9110 7.6.1",
        b"HTTP/1.1 103 A\r\nConnection: b\r\nB: 1\r\nKeep-Alive: 1\r\nContent-Length: 5\r\nC: d\r\n\r\n"
        + S200
        + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 A\r\nC: d\r\n\r\n" + S200 + b"Content-Length: 0\r\n",
    ),
    Answer(
        "interim before a HEAD response",
        "9110 15.2",
        b"HTTP/1.1 100 A\r\n\r\n" + S200 + b"Content-Length: 9\r\n\r\n",
        b"HTTP/1.1 100 A\r\n\r\n" + S200 + b"Content-Length: 9\r\n",
        request=HEAD,
    ),
    Answer(
        "as many as may be",
        "9110 15.2",
        b"HTTP/1.1 102 A\r\n\r\n" * 100 + S200 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 102 A\r\n\r\n" * 100 + S200 + b"Content-Length: 0\r\n",
    ),
]

ALL = [*STATUS_LINES, *FIELDS, *FRAMING, *OLD_CLIENTS, *BODILESS, *INTERIM]


class Exchanges:
    """Has one response given again and again, and checks each time what the client gets."""

    def __init__(self, proxy: Proxy, case: Answer, *, warm: bool) -> None:
        self._is_warm = warm
        self._proxy = proxy
        self._case = case
        self._client: Wire | None = None
        self._backend: Wire | None = None

    def run(self, manner: Manner) -> None:
        case = self._case
        if self._is_warm and self._backend is None:
            self._proxy.warm_up()
        client = self._client or self._proxy.client()
        client.send(case.request + END)
        backend = self._backend or self._proxy.backend()
        assert backend.read_head().startswith(case.request.split(b" ")[0] + b" ")
        backend.send(case.sends, manner)
        if case.backend_closes:
            backend.half_close()
        for expected in (case.gets + END).split(b"\r\n\r\n")[:-1]:
            assert canonical(client.read_head()) == canonical(expected)
        if case.client_stays:
            assert client.read_exactly(len(case.body)) == case.body
            self._client = client
        else:
            assert client.read_rest() == (case.body, End.CLOSED)
        if case.backend_stays:
            self._backend = backend
        elif not (case.backend_closes and case.client_stays):  # lbproc closes it when it looks at it again
            assert backend.read_rest()[0] == b""

    def assert_over(self) -> None:
        """Nobody has got anything more than was asked for."""
        self._proxy.settle()
        for wire in (self._client, self._backend):
            if wire is not None:
                wire.assert_silent()
        assert not self._proxy.backends_waiting()


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "idle"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_response_goes_on_as_documented_every_time(proxy: Proxy, case: Answer, warm: bool) -> None:
    exchanges = Exchanges(proxy, case, warm=warm)
    for _ in range(4):
        exchanges.run(Manner.AT_ONCE)
    exchanges.assert_over()


@pytest.mark.parametrize(
    "manner", [Manner.LINE_BY_LINE, Manner.BYTE_BY_BYTE], ids=lambda manner: manner.name.lower()
)
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_response_goes_on_the_same_in_whatever_pieces_it_comes(
    proxy: Proxy, case: Answer, manner: Manner
) -> None:
    exchanges = Exchanges(proxy, case, warm=True)
    exchanges.run(manner)
    exchanges.run(Manner.AT_ONCE)
    exchanges.run(manner)
    exchanges.assert_over()


def test_same_response_head_is_rendered_for_each_request_as_that_needs(proxy: Proxy) -> None:
    length, chunked = S200 + b"Content-Length: 2\r\n", S200 + b"Transfer-Encoding: chunked\r\n"
    chunks = b"2\r\nok\r\n0\r\n\r\n"
    close, keep = b"Connection: close\r\n", b"Connection: keep-alive\r\n"
    conversations = [
        # request, response head, body, head and body that the client gets, whether its connection stays
        (GET, length, b"ok", length, b"ok", True),
        (HEAD, length, b"", length, b"", True),
        (GET + close, length, b"ok", length + close, b"ok", False),
        (V10, length, b"ok", length + close, b"ok", False),
        (V10_STAYING, length, b"ok", length + keep, b"ok", True),
        (GET, chunked, chunks, chunked, chunks, True),
        (HEAD, chunked, b"", S200, b"", True),
        (GET + close, chunked, chunks, chunked + close, chunks, False),
        (V10, chunked, chunks, S200 + close, b"ok", False),
        (V10_STAYING, chunked, chunks, S200 + close, b"ok", False),
    ]
    proxy.warm_up()
    backend = proxy.backend()
    for lap in range(6):
        for request, head, body, seen_head, seen_body, stays in conversations[:: -1 if lap % 2 else 1]:
            client = proxy.client()
            client.send(request + END)
            backend.read_head()
            backend.send(head + END + body)
            assert canonical(client.read_head()) == canonical(seen_head)
            if stays:
                assert client.read_exactly(len(seen_body)) == seen_body
            else:
                assert client.read_rest() == (seen_body, End.CLOSED)
    proxy.settle()
    assert not proxy.backends_waiting()


def test_response_heads_that_differ_in_one_byte_are_told_apart(proxy: Proxy) -> None:
    answers = [
        S200 + b"Content-Length: 2\r\n\r\nok",
        S200 + b"Content-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 201 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 304 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 Ok\r\nContent-Length: 2\r\n\r\nok",
        S200 + b"A: 1\r\nContent-Length: 2\r\n\r\nok",
        S200 + b"A: 2\r\nContent-Length: 2\r\n\r\nok",
        S200 + b"a: 2\r\nContent-Length: 2\r\n\r\nok",
    ]
    proxy.warm_up()
    client, backend = proxy.client(), proxy.backend()
    for lap in range(6):
        for answer in answers[:: -1 if lap % 2 else 1]:
            client.send(GET + END)
            backend.read_head()
            backend.send(answer)
            assert client.read_exactly(len(answer)) == answer


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"A: b\r\nContent-Length: 0", b"A: \0\r\nContent-Length: 0"),
        (b"AB: c\r\nContent-Length: 0", b"A : c\r\nContent-Length: 0"),
        (b"Content-Length: 0", b"Content-Length: x"),
        (b"A: b\r\nX: c\r\nContent-Length: 0", b"A: b\r\n : c\r\nContent-Length: 0"),
        (b"Content-Length: 0\r\nContent-Length-: 0", b"Content-Length: 0\r\nContent-Length : 0"),
    ],
    ids=["NUL", "space", "length", "fold", "two lengths"],
)
def test_good_response_head_does_not_vouch_for_a_bad_one_that_differs_in_one_byte(
    proxy: Proxy, good: bytes, bad: bytes
) -> None:
    client = proxy.client()
    for _ in range(5):
        proxy.warm_up()
        backend = proxy.backend()
        for _ in range(2):
            client.send(GET + END)
            backend.read_head()
            backend.send(S200 + good + b"\r\n\r\n")
            assert client.read_head().startswith(S200)
        client.send(GET + END)
        backend.read_head()
        backend.send(S200 + bad + b"\r\n\r\n")
        head = client.read_head()
        assert head.startswith(b"HTTP/1.1 502 ")
        client.read_exactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
        assert backend.read_rest()[0] == b""
