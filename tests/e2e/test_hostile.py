"""Hostile bytes from either side against real processes: a status or a close, never a dead worker.

What the grammar refuses is tested exhaustively beside it; here stand the cases in which a proxy and its
backend could disagree, each with what the backend received.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.harness import LbprocServer, free_port, web_config
from tests.e2e.harness_backend import Backend, BackendConnection, Stage
from tests.e2e.harness_client import RawClient, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED = {
    "both framings": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "transfer coding on 1.0": (
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "two equal lengths": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", {400}),
    "list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\nhi", {400}),
    "signed length": (POST + b"Content-Length: +2\r\n\r\nhi", {400}),
    "empty length": (POST + b"Content-Length: \r\n\r\n", {400}),
    "bare LF in the head": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", {400}),
    "LF that hides a field": (POST + b"A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "space before the colon": (HEAD + b"A : b\r\n\r\n", {400}),
    "folded line": (HEAD + b"A: b\r\n c\r\n\r\n", {400}),
    "space after the chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n", {400}),
    "tab after the chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\t\r\nhi\r\n0\r\n\r\n", {400}),
    "LF after the chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n", {400}),
    "LF in a chunk extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\nhi\r\n0\r\n\r\n", {400}),
    "bad end of a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n", {400}),
    "hex prefix": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", {400}),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", {400, 501}),
    "coding after chunked": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", {400, 501}),
    "two hosts": (HEAD + b"Host: b\r\n\r\n", {400}),
    "invalid host": (b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n", {400}),
    "other authority": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "NUL in a value": (HEAD + b"A: b\0c\r\n\r\n", {400}),
    "CR in a value": (HEAD + b"A: b\rc\r\n\r\n", {400}),
    "Content_Length": (POST + b"Content_Length: 5\r\n\r\nhello", {400}),
    "Transfer_Encoding": (POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "Connection names framing": (
        POST + b"Connection: close, Content-Length\r\nContent-Length: 2\r\n\r\nhi",
        {400},
    ),
    "two expectations": (POST + b"Expect: 100-continue, x\r\nContent-Length: 2\r\n\r\nhi", {417}),
    "fragment in the target": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "HTTP/1.9": (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", {505}),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", {400}),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", {501}),
    "ten thousand headers": (HEAD + b"A: b\r\n" * 10_000 + b"\r\n", {431}),
    "head without an end": (HEAD + b"A: " + b"b" * 200_000, {431}),
    "request line without an end": (b"GET /" + b"a" * 200_000, {414}),
    "TLS": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", {400}),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def backend(stage: Stage) -> Backend:
    return stage.open("good")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[LbprocServer]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    address = f"127.0.0.1:{free_port()}"
    listener = '[listeners.web.timeouts]\nheader = "1s"\n'
    with LbprocServer(directory, web_config(address, [backend.address], listener=listener)) as server:
        server.address = address  # type: ignore[attr-defined]
        pids = server.worker_pids()
        yield server
        server.assert_clean()
        assert server.worker_pids() == pids


@pytest.fixture(scope="module")
def address(server: LbprocServer) -> str:
    return str(server.address)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_message_is_refused_and_nothing_behind_it_is_served(
    address: str, backend: Backend, name: str
) -> None:
    payload, statuses = REFUSED[name]
    before = len(backend.requests)
    with RawClient(address) as client:
        client.send(payload + SECOND)
        answer = client.read_until_close()
    assert int(answer[9:12]) in statuses
    assert len(re.findall(rb"^HTTP/1\.1 \d", answer, re.MULTILINE)) == 1
    assert b"Connection: close\r\n" in answer
    assert len(backend.requests) == before
    assert not any(b"/smuggled" in connection.raw for connection in backend.connections)


def test_names_with_underscores_are_dropped(address: str, backend: Backend) -> None:
    fetch(address, headers=["X_A: 1", "X-B: 2"])
    request = backend.requests[-1]
    assert request.get("x_a") is None
    assert request.get("x-b") == "2"


def test_get_with_a_body_passes_whole(address: str, backend: Backend) -> None:
    fetch(address, body=b"hello")
    assert backend.requests[-1].body == b"hello"


def test_upgrade_with_a_second_request_behind_it_is_two_requests(address: str, backend: Backend) -> None:
    with RawClient(address) as client:
        client.send(HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + HEAD + b"\r\n")
        assert client.read_response().status == 200
        assert client.read_response().status == 200
    first, second = backend.requests[-2:]
    assert first.get("upgrade") == "websocket"
    assert second.get("upgrade") is None


def test_connection_that_sends_nothing_is_closed(address: str) -> None:
    with RawClient(address) as client:
        assert client.read_until_close() == b""


def test_head_that_stalls_is_408(address: str) -> None:
    with RawClient(address) as client:
        client.send(HEAD)
        assert client.read_until_close().startswith(b"HTTP/1.1 408 ")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(min_size=1, max_size=300))
def test_random_bytes_get_a_status_or_a_close(address: str, octets: bytes) -> None:
    with RawClient(address) as client:
        client.send(octets)
        client.half_close()
        answer = client.read_until_close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 60),
    octets=st.binary(min_size=1, max_size=4),
    name=st.sampled_from(sorted(REFUSED)),
)
def test_mutated_attacks_never_kill_a_worker(address: str, name: str, position: int, octets: bytes) -> None:
    payload = REFUSED[name][0][:4000]
    with RawClient(address) as client:
        client.send(payload[:position] + octets + payload[position:])
        client.half_close()
        answer = client.read_until_close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


MALFORMED = {
    "nothing": b"",
    "another protocol": b"220 mail.example.com ESMTP\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of 600": b"HTTP/1.1 600 Odd\r\n\r\n",
    "space in a name": b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "folded line": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "conflicting lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    "endless head": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 300_000,
    "bad first chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
}


def test_malformed_responses_are_502_and_never_forwarded(stage: Stage, tmp_path: Path) -> None:
    async def misbehave(connection: BackendConnection) -> None:
        head = await connection.read_head()
        if head is not None:
            name = head.split()[1].decode().removeprefix("/").replace("%20", " ")
            await connection.send(MALFORMED[name])
            await connection.half_close()
            while await connection.receive():
                pass

    backend = stage.open("bad", misbehave)
    address = f"127.0.0.1:{free_port()}"
    with LbprocServer(tmp_path, web_config(address, [backend.address])) as server:
        for name in MALFORMED:
            with RawClient(address) as client:
                client.send(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % name.replace(" ", "%20").encode())
                response = client.read_response()
                while response.status < 200:
                    response = client.read_response()
            assert response.status == 502, name
            assert "lbproc; error=" in (response.get("proxy-status") or ""), name
        assert set(server.in_flight().values()) == {0}
        server.assert_clean()
