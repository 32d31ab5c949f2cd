"""Responses that are refused, cut short, or followed by bytes that belong to nobody.

Nothing of a malformed response reaches a client. What is cut short looks cut short to the client: a reset, or
an answer that says so, never a clean end. Bytes behind a response reach neither this client nor another, also
when they come late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import END, GET, OK, POST, End, Manner, canonical
from tests.e2e.harness_wire import Reader

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n"
V10 = b"GET / HTTP/1.0\r\nHost: a\r\n"
S200 = b"HTTP/1.1 200 OK\r\n"
CHUNKED = S200 + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@dataclass(frozen=True)
class Malformed:
    """A response and the cause that the client is told with its 502.

    Args:
        name: says what is wrong.
        section: of RFC 9110 or 9112, or another document.
        sends: what the backend sends; it keeps its connection open.
        cause: in ``Proxy-Status``.
        request: what the client asked.
    """

    name: str
    section: str
    sends: bytes
    cause: str = "http_protocol_error"
    request: bytes = GET


def field(name: str, section: str, line: bytes) -> Malformed:
    return Malformed(name, section, S200 + line + b"\r\nContent-Length: 2\r\n\r\nok")


def framed(name: str, section: str, lines: bytes, body: bytes = b"ok") -> Malformed:
    return Malformed(name, section, S200 + lines + b"\r\n\r\n" + body)


LINES = [
    Malformed("another protocol", "9112 4", b"220 mail.example.com ESMTP\r\n\r\n"),
    Malformed("body without a head", "9112 4", b"<html></html>\r\n\r\n"),
    Malformed("another version", "9112 4", b"HTTP/1.2 200 OK\r\n\r\n"),
    Malformed("HTTP/2", "9112 4", b"HTTP/2 200\r\n\r\n"),
    Malformed("version in small letters", "9112 4", b"http/1.1 200 OK\r\n\r\n"),
    Malformed("a request", "9112 4", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Malformed("empty line in front", "9112 4", END + OK),
    Malformed("space in front", "9112 4", b" " + OK),
    Malformed("two spaces before the status", "9112 4", b"HTTP/1.1  200 OK\r\n\r\n"),
    Malformed("status of two digits", "9112 4", b"HTTP/1.1 20 OK\r\n\r\n"),
    Malformed("status of four digits", "9112 4", b"HTTP/1.1 2000 OK\r\n\r\n"),
    Malformed("no status", "9112 4", b"HTTP/1.1 OK\r\n\r\n"),
    Malformed("signed status", "9112 4", b"HTTP/1.1 +20 OK\r\n\r\n"),
    Malformed("status of 600", "9110 15", b"HTTP/1.1 600 Odd\r\n\r\n"),
    Malformed("status of 099", "9110 15", b"HTTP/1.1 099 Odd\r\n\r\n"),
    Malformed("NUL in the words", "9112 4", b"HTTP/1.1 200 O\0K\r\n\r\n"),
    Malformed("CR in the words", "9112 2.2", b"HTTP/1.1 200 O\rK\r\n\r\n"),
    Malformed("LF ends the status line", "9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    Malformed("LF ends every line", "9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    field("LF ends a field", "9112 2.2", b"A: b\nB: c"),
    field("LF hides a field", "9112 2.2", b"A: b\nSet-Cookie: c"),
    field("CR in a value", "9112 2.2", b"A: b\rc"),
    field("NUL in a value", "9110 5.5", b"A: b\0c"),
    field("control byte in a value", "9110 5.5", b"A: \x08"),
    field("DEL in a value", "9110 5.5", b"A: \x7f"),
    field("folded line", "9112 5.2", b"A: b\r\n c"),
    field("space before the colon", "9112 5.1", b"A : b"),
    field("space in a name", "9110 5.6.2", b"A B: c"),
    field("empty name", "9110 5.1", b": b"),
    field("line without a colon", "9112 5", b"A"),
    field("byte above 0x7F in a name", "9110 5.6.2", b"\xe4: b"),
    Malformed(
        "head above 64 KiB",
        "",
        S200 + b"A: " + b"a" * 70_000 + b"\r\n\r\n",
        "http_response_header_section_size",
    ),
    Malformed("head without an end", "", S200 + b"A: " + b"a" * 70_000, "http_response_header_section_size"),
]

FRAMING = [
    framed("length and coding", "9112 6.3", b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    framed("coding and length", "9112 6.3", b"Transfer-Encoding: chunked\r\nContent-Length: 2", b"0\r\n\r\n"),
    framed("two lengths", "9112 6.3", b"Content-Length: 2\r\nContent-Length: 3"),
    framed("two equal lengths", "9112 6.3", b"Content-Length: 2\r\nContent-Length: 2"),
    framed("list of lengths", "9112 6.3", b"Content-Length: 2, 2"),
    framed("negative length", "9110 8.6", b"Content-Length: -2"),
    framed("empty length", "9110 8.6", b"Content-Length:"),
    framed("hexadecimal length", "9110 8.6", b"Content-Length: 0x2"),
    framed("length of 19 digits", "9110 8.6", b"Content-Length: 0000000000000000002"),
    framed("unknown coding", "9112 6.1", b"Transfer-Encoding: gzip"),
    framed("coding before chunked", "9112 6.1", b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    framed("coding after chunked", "9112 6.1", b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    framed(
        "two codings", "9112 6.1", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"
    ),
    framed("empty coding", "9112 6.1", b"Transfer-Encoding:"),
    Malformed("coding on 1.0", "9112 6.1", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Malformed(
        "both framings to HEAD",
        "9112 6.3",
        S200 + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        request=HEAD,
    ),
    Malformed(
        "both framings in a 204",
        "9112 6.3",
        b"HTTP/1.1 204 No\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    Malformed(
        "two lengths in a 304",
        "9112 6.3",
        b"HTTP/1.1 304 No\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
    ),
    framed("Connection names the length", "9110 7.6.1", b"Connection: content-length\r\nContent-Length: 2"),
    framed("Connection that is no list", "9110 7.6.1", b"Connection: a b\r\nContent-Length: 2"),
    Malformed("size that is none", "9112 7.1", CHUNKED + b"-2\r\nok\r\n0\r\n\r\n"),
    Malformed("LF ends a size", "9112 7.1", CHUNKED + b"2\nok\r\n0\r\n\r\n"),
    Malformed("space after a size", "9112 7.1", CHUNKED + b"2 \r\nok\r\n0\r\n\r\n"),
    Malformed("chunk longer than its size", "9112 7.1", CHUNKED + b"2\r\nok!\r\n0\r\n\r\n"),
    Malformed("Content-Length in the trailers", "9110 6.5.1", CHUNKED + b"0\r\nContent-Length: 2\r\n\r\n"),
    Malformed("Set-Cookie in the trailers", "9110 6.5.1", CHUNKED + b"0\r\nSet-Cookie: a=b\r\n\r\n"),
]

INTERIM = [
    Malformed("malformed interim", "9112 4", b"HTTP/1.1 100 Continue\r\nA : b\r\n\r\n" + OK),
    Malformed(
        "101 that nobody asked for",
        "9110 15.2.2",
        b"HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    ),
    Malformed(
        "101 without Upgrade",
        "9110 7.8",
        b"HTTP/1.1 101 A\r\nConnection: upgrade\r\n\r\n",
        "http_upgrade_failed",
        GET + b"Connection: upgrade\r\nUpgrade: x\r\n",
    ),
    Malformed(
        "101 with an empty Upgrade",
        "9110 7.8",
        b"HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n",
        "http_upgrade_failed",
        GET + b"Connection: upgrade\r\nUpgrade: x\r\n",
    ),
    Malformed(
        "101 whose Connection does not name it",
        "9110 7.8",
        b"HTTP/1.1 101 A\r\nUpgrade: x\r\n\r\n",
        "http_upgrade_failed",
        GET + b"Connection: upgrade\r\nUpgrade: x\r\n",
    ),
    Malformed(
        "101 to an offer of h2c",
        "9113 3.1",
        b"HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        request=GET + b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
    ),
]


def assert_bad_gateway(client: Wire, cause: str, *, head_only: bool = False) -> None:
    """A 502 of lbproc's own with a body, and nothing before it."""
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 502 "), head
    assert b"\r\nProxy-Status: lbproc; error=%b; details=" % cause.encode() in head
    assert b"Connection: close" not in head
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    assert client.read_exactly(0 if head_only else length).startswith(b"" if head_only else b"502 ")


def assert_serves(proxy: Proxy, client: Wire) -> Wire:
    """The client's connection serves another request, over a fresh backend connection, which is returned."""
    client.send(GET + END)
    backend = proxy.backend()
    assert backend.read_head().startswith(b"GET / ")
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK
    return backend


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("case", [*LINES, *FRAMING, *INTERIM], ids=lambda case: case.name)
def test_malformed_response_is_502_and_nothing_of_it_reaches_the_client(
    proxy: Proxy, case: Malformed
) -> None:
    client = proxy.client()
    for _ in range(2):
        client.send(case.request + END)
        backend = proxy.backend()
        backend.read_head()
        backend.send(case.sends)
        assert_bad_gateway(client, case.cause, head_only=case.request is HEAD)
        assert backend.read_rest()[0] == b""  # lbproc has closed it
    assert_serves(proxy, client)


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize(
    "case",
    [case for case in [*LINES, *FRAMING, *INTERIM] if not case.sends.startswith(CHUNKED)],
    ids=lambda case: case.name,
)
def test_malformed_response_is_502_byte_by_byte_too(proxy: Proxy, case: Malformed) -> None:
    client = proxy.client()
    client.send(case.request + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(case.sends, Manner.BYTE_BY_BYTE)
    assert_bad_gateway(client, case.cause, head_only=case.request is HEAD)
    assert_serves(proxy, client)


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
@pytest.mark.parametrize(
    "case", [case for case in FRAMING if case.sends.startswith(CHUNKED)], ids=lambda case: case.name
)
def test_chunks_that_break_after_the_head_went_out_cut_the_client(
    proxy: Proxy, case: Malformed, manner: Manner
) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(CHUNKED)
    assert canonical(client.read_head()) == canonical(CHUNKED)
    backend.send(case.sends.removeprefix(CHUNKED), manner)
    received, end = client.read_rest()
    assert end is End.RESET
    assert_incomplete(CHUNKED + received)


@pytest.mark.usefixtures("is_warm")
def test_one_interim_response_too_many_is_502(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(b"HTTP/1.1 102 A\r\n\r\n" * 101 + OK)
    for _ in range(100):
        assert client.read_head() == b"HTTP/1.1 102 A\r\n\r\n"
    assert_bad_gateway(client, "http_protocol_error")


# Truncated --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truncated:
    """A response that breaks off behind its head.

    Args:
        name: says where.
        head: of the response.
        body: as far as it goes.
        request: what the client asked.
        only_by_reset: an end in order would be right.
    """

    name: str
    head: bytes
    body: bytes
    request: bytes = GET
    only_by_reset: bool = False


LENGTH_5 = S200 + b"Content-Length: 5\r\n\r\n"
TRUNCATED = [
    Truncated("before the first byte of a length", LENGTH_5, b""),
    Truncated("one byte before the end of a length", LENGTH_5, b"hell"),
    Truncated("in a length to 1.0", LENGTH_5, b"hell", V10),
    Truncated("before the first chunk", CHUNKED, b""),
    Truncated("in a size", CHUNKED, b"5"),
    Truncated("between CR and LF of a size", CHUNKED, b"5\r"),
    Truncated("in an extension", CHUNKED, b"5;a"),
    Truncated("before a chunk", CHUNKED, b"5\r\n"),
    Truncated("in a chunk", CHUNKED, b"5\r\nhell"),
    Truncated("behind a chunk", CHUNKED, b"5\r\nhello"),
    Truncated("between CR and LF of a chunk", CHUNKED, b"5\r\nhello\r"),
    Truncated("between two chunks", CHUNKED, b"5\r\nhello\r\n"),
    Truncated("in the last size", CHUNKED, b"5\r\nhello\r\n0"),
    Truncated("behind the last size", CHUNKED, b"5\r\nhello\r\n0\r\n"),
    Truncated("in the last CRLF", CHUNKED, b"5\r\nhello\r\n0\r\n\r"),
    Truncated("in the trailers", CHUNKED, b"5\r\nhello\r\n0\r\nA: b"),
    Truncated("behind the trailers", CHUNKED, b"5\r\nhello\r\n0\r\nA: b\r\n"),
    Truncated("in a chunk to 1.0", CHUNKED, b"5\r\nhell", V10),
    Truncated("between two chunks to 1.0", CHUNKED, b"5\r\nhello\r\n", V10),
    Truncated("behind the last size to 1.0", CHUNKED, b"5\r\nhello\r\n0\r\n", V10),
    Truncated("without a length", S200 + END, b"hello", only_by_reset=True),
    Truncated("without a length, before the first byte", S200 + END, b"", only_by_reset=True),
    Truncated("without a length to 1.0", S200 + END, b"hello", V10, only_by_reset=True),
    Truncated("without a length on 1.0", b"HTTP/1.0 200 OK\r\n\r\n", b"hello", only_by_reset=True),
]


def assert_incomplete(received: bytes) -> None:
    """No client could take this for a whole response, if it looks at the framing."""
    reader = Reader(responses=True)
    reader.feed(received)
    assert reader.next_message() is None, received


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("case", TRUNCATED, ids=lambda case: case.name)
def test_truncation_shows_when_the_head_was_out(proxy: Proxy, case: Truncated, by_reset: bool) -> None:
    client = proxy.client()
    client.send(case.request + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(case.head)
    assert client.read_head().startswith(S200)
    backend.send(case.body)
    backend.wait_taken()
    if by_reset or case.only_by_reset:
        backend.reset()
    else:
        backend.half_close()
    received, end = client.read_rest()
    assert end is End.RESET, received
    assert case.body.startswith(received) or case.request is V10


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("case", TRUNCATED, ids=lambda case: case.name)
def test_truncation_shows_when_all_comes_at_once(proxy: Proxy, case: Truncated, by_reset: bool) -> None:
    client = proxy.client()
    client.send(case.request + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(case.head + case.body)
    if by_reset or case.only_by_reset:
        backend.wait_taken()  # a reset can destroy what is still in the socket
        backend.reset()
    else:
        backend.half_close()
    received, end = client.read_rest()
    assert end is End.RESET, received


BEFORE_THE_END_OF_A_HEAD = {
    "a byte": (b"H", "http_response_incomplete"),
    "a status line": (S200, "http_response_incomplete"),
    "all but the empty line": (S200 + b"Content-Length: 0\r\n", "http_response_incomplete"),
    "all but the last byte": (OK[: -len(b"\nok")], "http_response_incomplete"),
    "an interim response": (b"HTTP/1.1 102 A\r\n\r\n", "http_response_incomplete"),
}


@pytest.mark.parametrize("name", BEFORE_THE_END_OF_A_HEAD)
@pytest.mark.usefixtures("is_warm")
def test_head_that_ends_early_is_502_and_nothing_of_it_goes_on(proxy: Proxy, name: str) -> None:
    sends, cause = BEFORE_THE_END_OF_A_HEAD[name]
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(sends)
    backend.half_close()
    if name == "an interim response":
        assert client.read_head() == sends
    assert_bad_gateway(client, cause)
    assert_serves(proxy, client)


@pytest.mark.usefixtures("is_warm")
def test_backend_that_resets_before_the_end_of_a_head_is_502(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(S200)
    backend.wait_taken()
    backend.reset()
    assert_bad_gateway(client, "connection_terminated")
    assert_serves(proxy, client)


# Excess -----------------------------------------------------------------------------------------------------

COMPLETE = {
    "length": (GET, OK),
    "length of 0": (GET, S200 + b"Content-Length: 0\r\n\r\n"),
    "chunks": (GET, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"),
    "trailers": (GET, CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n\r\n"),
    "HEAD": (HEAD, S200 + b"Content-Length: 4\r\n\r\n"),
    "HEAD without a length": (HEAD, S200 + END),
    "HEAD with a coding": (HEAD, S200 + b"Transfer-Encoding: chunked\r\n\r\n"),
    "204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n"),
    "304": (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "304 with a length": (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
    "304 with a coding": (GET, b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "1.0 that stays": (GET, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
}

EXCESS = {"a response": EVIL, "a body": b"evil", "a byte": b"\0", "an empty line": END}

BEHIND = [(name, "a response") for name in COMPLETE] + [("length", excess) for excess in list(EXCESS)[1:]]


def read_answer(client: Wire, sent: bytes) -> None:
    """Reads exactly the response that the backend sent; what stands behind it is left."""
    head = client.read_head()
    assert head.split(b" ")[1] == sent.split(b" ")[1]
    body = sent.partition(b"\r\n\r\n")[2]
    assert client.read_exactly(len(body)) == body


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize(("name", "excess"), BEHIND)
def test_bytes_behind_a_response_reach_nobody(proxy: Proxy, name: str, excess: str) -> None:
    request, response = COMPLETE[name]
    client = proxy.client()
    client.send(request + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(response + EXCESS[excess])
    read_answer(client, response)
    assert backend.read_rest()[0] == b""  # closed, not kept
    proxy.settle()
    client.assert_silent()
    fresh = assert_serves(proxy, client)
    other = proxy.client()
    other.send(GET + END)
    assert fresh.read_head().startswith(b"GET / ")  # the good connection was kept
    fresh.send(OK)
    assert other.read_exactly(len(OK)) == OK


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("by_same_client", [True, False], ids=["same client", "another client"])
@pytest.mark.parametrize(("name", "excess"), BEHIND)
def test_bytes_that_come_late_while_the_connection_is_idle_reach_nobody(
    proxy: Proxy, name: str, excess: str, by_same_client: bool
) -> None:
    request, response = COMPLETE[name]
    client = proxy.client()
    client.send(request + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(response)
    read_answer(client, response)
    proxy.settle()  # the connection lies in the pool
    backend.send(EXCESS[excess])
    assert_serves(proxy, client if by_same_client else proxy.client())
    assert backend.read_rest()[0] == b""
    proxy.settle()
    client.assert_silent()


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("excess", EXCESS.values(), ids=EXCESS)
def test_bytes_that_come_between_pipelined_requests_reach_nobody(proxy: Proxy, excess: bytes) -> None:
    client = proxy.client()
    client.send(GET + END + GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send(OK + excess)
    assert client.read_exactly(len(OK)) == OK
    fresh = proxy.backend()
    assert fresh.read_head().startswith(b"GET / ")
    assert backend.read_rest()[0] == b""
    fresh.send(OK)
    assert client.read_exactly(len(OK)) == OK


def test_idle_connection_that_was_spoiled_is_passed_over_and_the_next_one_used(proxy: Proxy) -> None:
    clients = [proxy.client(), proxy.client()]
    backends = []
    for client in clients:
        client.send(GET + END)
        backends.append(proxy.backend())
        backends[-1].read_head()
    for client, backend in zip(clients, backends, strict=True):
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK
    proxy.settle()
    clean, spoiled = backends  # the one that became idle last is used first
    spoiled.send(EVIL)
    clients[0].send(GET + END)
    assert clean.read_head().startswith(b"GET / ")
    clean.send(OK)
    assert clients[0].read_exactly(len(OK)) == OK
    assert spoiled.read_rest()[0] == b""


@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
def test_idle_connection_that_has_ended_is_not_used(proxy: Proxy, by_reset: bool) -> None:
    client = proxy.client()
    client.send(POST + b"Content-Length: 0\r\n\r\n")
    backend = proxy.backend()
    backend.read_head()
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK
    proxy.settle()
    if by_reset:
        backend.reset()
    else:
        backend.half_close()
    client.send(POST + b"Content-Length: 0\r\n\r\n")  # a POST would not be sent again
    fresh = proxy.backend()
    assert fresh.read_head().startswith(b"POST / ")
    fresh.send(OK)
    assert client.read_exactly(len(OK)) == OK


@pytest.mark.usefixtures("is_warm")
def test_bytes_behind_a_response_that_the_client_takes_late_reach_nobody(proxy: Proxy) -> None:
    size = 8_000_000  # more than the sockets on the way hold
    client = proxy.client()
    client.send(GET + END)
    backend = proxy.backend()
    backend.read_head()
    backend.send_in_background(S200 + b"Content-Length: %d\r\n\r\n" % size + bytes(size) + EVIL)
    head = client.read_head()
    assert b"Content-Length: %d" % size in head
    assert client.read_exactly(size) == bytes(size)
    assert_serves(proxy, client)
    assert backend.read_rest()[0] == b""


@pytest.mark.usefixtures("is_warm")
def test_response_before_the_end_of_the_request_leaves_no_connection_in_use(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + b"Content-Length: 5\r\n\r\nhe")
    backend = proxy.backend()
    backend.read_head()
    backend.send(OK)
    assert canonical(client.read_head()) == canonical(
        S200 + b"Content-Length: 2\r\nConnection: close\r\n\r\n"
    )
    assert client.read_rest() == (b"ok", End.CLOSED)
    client.send(b"llo" + GET + END)
    assert b"GET" not in backend.read_rest()[0]
    proxy.settle()
    assert not proxy.backends_waiting()
