"""Deadlines: what is late is answered, cut or closed, and which of them it is.

The listener and pool named "hasty" wait 0.4 s for everything. Nothing here measures how long it took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import END, GET, OK, POST, SMUGGLED, End, assert_refused

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

S200 = b"HTTP/1.1 200 OK\r\n"

MORE_THAN_FITS = 64 * 1024 * 1024
"""Bytes: more than all sockets between client and backend hold."""

pytestmark = pytest.mark.slow


HEADS_THAT_STALL = {
    "a byte": b"G",
    "lines": GET,
    "part of a line": GET[:-2],
    "behind an empty line": b"\r\nGET",
}
BODIES_THAT_STALL = {
    "length": (b"Content-Length: 5", b"hell"),
    "chunks": (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
}
ANSWERS_THAT_DO_NOT_COME = {"nothing": b"", "interim": b"HTTP/1.1 102 A\r\n\r\n", "a line": S200}
ANSWERS_THAT_STALL = {
    "length": (S200 + b"Content-Length: 5\r\n\r\n", b"hell"),
    "chunks": (S200 + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
    "by closing": (S200 + END, b"hello"),
}

both_paths = pytest.mark.parametrize("warm", [False, True], ids=["fresh", "idle"])


def ask(proxy: Proxy, request: bytes = GET + END, *, warm: bool = False) -> tuple[Wire, Wire]:
    """Client and backend after the head of a request; it came over a new connection or one that lay idle."""
    if warm:
        proxy.warm_up("hasty")
    client = proxy.client("hasty")
    client.send(request)
    backend = proxy.backend("hasty")
    backend.read_head()
    return client, backend


# All cases of a test wait for their deadline together.


def test_head_that_stalls_is_408(proxy: Proxy) -> None:
    clients = {}
    for name, sent in HEADS_THAT_STALL.items():
        clients[name] = proxy.client("hasty").send(sent)
    for name, client in clients.items():
        answer, end = client.read_rest()
        assert_refused(answer, 408)
        assert end is End.CLOSED, name
        client.send(END + SMUGGLED)
        client.close()
    proxy.settle()
    assert not proxy.backends_waiting()


def test_connection_without_a_request_is_closed_without_a_word(proxy: Proxy) -> None:
    silent = proxy.client("hasty")
    empty_line = proxy.client("hasty").send(END)
    served, backend = ask(proxy)
    backend.send(OK)
    assert silent.read_rest() == (b"", End.CLOSED)
    assert empty_line.read_rest() == (b"", End.CLOSED)
    assert served.read_rest() == (OK, End.CLOSED)


@both_paths
def test_body_that_stalls_is_408_and_cut_short_at_the_backend(proxy: Proxy, warm: bool) -> None:
    waiting = {}
    for name, (framing, body) in BODIES_THAT_STALL.items():
        waiting[name] = (*ask(proxy, POST + framing + b"\r\n\r\n" + body, warm=warm), body)
    for name, (client, backend, body) in waiting.items():
        assert backend.read_rest()[0] == body, name
        answer, end = client.read_rest()
        assert_refused(answer, 408)
        assert end is End.CLOSED, name


@both_paths
def test_answer_that_does_not_come_is_504_and_the_client_connection_stays(proxy: Proxy, warm: bool) -> None:
    waiting = {}
    for name, begun in ANSWERS_THAT_DO_NOT_COME.items():
        waiting[name] = client, backend = ask(proxy, warm=warm)
        if begun:
            backend.send(begun)
    for name, (client, backend) in waiting.items():
        if name == "interim":
            assert client.read_head() == ANSWERS_THAT_DO_NOT_COME[name]
        head = client.read_head()
        assert head.startswith(b"HTTP/1.1 504 "), name
        assert b"error=http_response_timeout;" in head, name
        assert b"Connection: close" not in head, name
        assert backend.read_rest()[0] == b"", name


@both_paths
def test_answer_that_stalls_is_cut(proxy: Proxy, warm: bool) -> None:
    waiting = {}
    for name, (head, body) in ANSWERS_THAT_STALL.items():
        waiting[name] = client, backend = ask(proxy, warm=warm)
        backend.send(head + body)
    for name, (client, backend) in waiting.items():
        assert client.read_head().startswith(S200), name
        assert client.read_rest() == (ANSWERS_THAT_STALL[name][1], End.RESET), name
        assert backend.read_rest()[0] == b"", name


@both_paths
def test_client_that_takes_nothing_of_its_answer_is_reset(proxy: Proxy, warm: bool) -> None:
    client, backend = ask(proxy, warm=warm)
    backend.send_in_background(S200 + b"Content-Length: %d\r\n\r\n" % MORE_THAN_FITS + bytes(MORE_THAN_FITS))
    assert backend.read_rest()[0] == b""  # lbproc has given up
    received, end = client.read_rest()
    assert end is End.RESET
    assert len(received) < MORE_THAN_FITS


@both_paths
def test_backend_that_takes_nothing_of_a_request_is_504(proxy: Proxy, warm: bool) -> None:
    client, backend = ask(proxy, POST + b"Content-Length: %d\r\n\r\n" % MORE_THAN_FITS, warm=warm)
    client.send_in_background(bytes(MORE_THAN_FITS))
    answer, end = client.read_rest()
    assert_refused(answer, 504, "connection_write_timeout")
    assert end is End.CLOSED
    assert len(backend.read_rest()[0]) < MORE_THAN_FITS


@both_paths
def test_client_that_waits_for_a_100_that_does_not_come_gets_504(proxy: Proxy, warm: bool) -> None:
    client, _ = ask(proxy, POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", warm=warm)
    answer, end = client.read_rest()
    assert_refused(answer, 504, "http_response_timeout")
    assert end is End.CLOSED


@both_paths
def test_tunnel_in_which_nothing_moves_is_closed(proxy: Proxy, warm: bool) -> None:
    client, backend = ask(proxy, GET + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n", warm=warm)
    backend.send(b"HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    client.read_head()
    client.send(b"a")
    assert backend.read_exactly(1) == b"a"
    assert client.read_rest()[0] == b""
    assert backend.read_rest()[0] == b""


def test_deadline_of_one_exchange_does_not_end_the_next(proxy: Proxy) -> None:
    client, backend = ask(proxy)
    for _ in range(20):
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK
        client.send(GET + END)
        backend.read_head()
    assert client.read_head().startswith(b"HTTP/1.1 504 ")
