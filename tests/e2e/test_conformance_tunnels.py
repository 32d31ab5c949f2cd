"""Tunnels (RFC 9110 section 7.8): they begin with the backend's 101, not before, and then nothing is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_dialogue import END, GET, OK, POST, SMUGGLED, End, Manner, assert_refused, canonical

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy, Wire

S101 = b"HTTP/1.1 101 Switching Protocols\r\n"
OFFER = b"Connection: upgrade\r\nUpgrade: x\r\n"
UPGRADE = GET + OFFER + END
SWITCHED = S101 + OFFER + END
S200 = b"HTTP/1.1 200 OK\r\n"


def open_tunnel(proxy: Proxy) -> tuple[Wire, Wire]:
    """Client and backend with a tunnel between them."""
    client = proxy.client()
    client.send(UPGRADE)
    backend = proxy.backend()
    backend.read_head()
    backend.send(SWITCHED)
    assert canonical(client.read_head()) == canonical(SWITCHED)
    return client, backend


@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
@pytest.mark.parametrize(
    "octets",
    [bytes(range(256)), SMUGGLED, OK + OK, b"0\r\n\r\n", b"\r\n\r\n", b"\x81\x85\x01\x02\x03\x04ignol"],
    ids=["every byte", "request", "responses", "last chunk", "empty lines", "WebSocket frame"],
)
def test_bytes_in_a_tunnel_pass_as_they_are(proxy: Proxy, octets: bytes, manner: Manner) -> None:
    client, backend = open_tunnel(proxy)
    for _ in range(2):
        client.send(octets, manner)
        assert backend.read_exactly(len(octets)) == octets
        backend.send(octets, manner)
        assert client.read_exactly(len(octets)) == octets
    proxy.settle()
    assert not proxy.backends_waiting()


@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
def test_head_of_a_101_is_rendered_like_others(proxy: Proxy, manner: Manner) -> None:
    for _ in range(3):
        client = proxy.client()
        client.send(
            GET + b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
            manner,
        )
        backend = proxy.backend()
        arrived = backend.read_head()
        assert b"\r\nSec-WebSocket-Key: a\r\n" in arrived
        assert b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" in arrived
        backend.send(
            S101 + b"Keep-Alive: 1\r\nUpgrade: websocket\r\nConnection: Upgrade, b\r\nB: c\r\n"
            b"Content-Length: 5\r\nSec-WebSocket-Accept: d\r\n\r\nhello",
            manner,
        )
        expected = S101 + b"Sec-WebSocket-Accept: d\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert canonical(client.read_head()) == canonical(expected)
        assert client.read_exactly(5) == b"hello"


@pytest.mark.usefixtures("is_warm")
def test_interim_responses_before_a_101_are_passed_on(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(UPGRADE)
    backend = proxy.backend()
    backend.read_head()
    backend.send(b"HTTP/1.1 103 A\r\nLink: b\r\n\r\n" + SWITCHED + b"hi")
    assert client.read_head() == b"HTTP/1.1 103 A\r\nLink: b\r\n\r\n"
    assert canonical(client.read_head()) == canonical(SWITCHED)
    assert client.read_exactly(2) == b"hi"


@pytest.mark.usefixtures("is_warm")
def test_bytes_behind_an_upgrade_wait_for_the_101(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(UPGRADE + SMUGGLED)
    backend = proxy.backend()
    backend.read_head()
    client.send(b"more")
    client.wait_taken()
    proxy.settle()
    backend.assert_silent()
    assert not proxy.backends_waiting()
    backend.send(SWITCHED)
    assert backend.read_exactly(len(SMUGGLED) + 4) == SMUGGLED + b"more"
    assert canonical(client.read_head()) == canonical(SWITCHED)


@pytest.mark.usefixtures("is_warm")
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"403 No", b"503 Busy"])
def test_answer_other_than_101_opens_no_tunnel(proxy: Proxy, status: bytes) -> None:
    client = proxy.client()
    client.send(UPGRADE)
    backend = proxy.backend()
    backend.read_head()
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"
    backend.send(answer)
    assert client.read_exactly(len(answer)) == answer
    client.send(b"not HTTP\r\n\r\n")
    assert_refused(client.read_rest()[0], 400)
    proxy.settle()
    backend.assert_silent()


@pytest.mark.usefixtures("is_warm")
def test_upgrade_with_a_body_becomes_a_tunnel_behind_the_body(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + OFFER + b"Content-Length: 2\r\n\r\nhi")
    backend = proxy.backend()
    backend.read_head()
    assert backend.read_exactly(2) == b"hi"
    backend.send(SWITCHED)
    assert canonical(client.read_head()) == canonical(SWITCHED)
    client.send(b"tunnel")
    assert backend.read_exactly(6) == b"tunnel"


@pytest.mark.usefixtures("is_warm")
def test_101_before_the_end_of_the_request_is_502(proxy: Proxy) -> None:
    client = proxy.client()
    client.send(POST + OFFER + b"Content-Length: 50\r\n\r\nhi")
    backend = proxy.backend()
    backend.read_head()
    backend.send(SWITCHED + b"secret")
    answer, end = client.read_rest()
    assert_refused(answer, 502, "http_protocol_error")
    assert end is End.CLOSED
    assert b"secret" not in answer


@pytest.mark.usefixtures("is_warm")
def test_client_that_ends_its_side_still_gets_the_rest(proxy: Proxy) -> None:
    client, backend = open_tunnel(proxy)
    client.send(b"question")
    client.half_close()
    assert backend.read_rest() == (b"question", End.CLOSED)
    backend.send(b"answer")
    assert client.read_exactly(6) == b"answer"
    backend.half_close()
    assert client.read_rest() == (b"", End.CLOSED)


@pytest.mark.usefixtures("is_warm")
def test_backend_that_ends_its_side_still_gets_the_rest(proxy: Proxy) -> None:
    client, backend = open_tunnel(proxy)
    backend.send(b"answer")
    backend.half_close()
    assert client.read_rest() == (b"answer", End.CLOSED)
    client.send(b"more")
    assert backend.read_exactly(4) == b"more"
    client.half_close()
    assert backend.read_rest() == (b"", End.CLOSED)


@pytest.mark.usefixtures("is_warm")
def test_reset_of_the_client_is_a_reset_for_the_backend(proxy: Proxy) -> None:
    client, backend = open_tunnel(proxy)
    client.reset()
    assert backend.read_rest() == (b"", End.RESET)


@pytest.mark.usefixtures("is_warm")
def test_reset_of_the_backend_is_a_reset_for_the_client(proxy: Proxy) -> None:
    client, backend = open_tunnel(proxy)
    backend.reset()
    assert client.read_rest() == (b"", End.RESET)


def test_connections_of_a_tunnel_serve_nothing_else(proxy: Proxy) -> None:
    client, backend = open_tunnel(proxy)
    client.half_close()
    assert backend.read_rest() == (b"", End.CLOSED)
    backend.half_close()
    assert client.read_rest() == (b"", End.CLOSED)
    other = proxy.client()
    other.send(GET + END)
    fresh = proxy.backend()
    fresh.read_head()
    fresh.send(OK)
    assert other.read_exactly(len(OK)) == OK
