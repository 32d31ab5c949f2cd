"""The admin HTTP server over streams in memory: whatever comes in, an answer or a close."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.admin.server import (
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    REQUEST_TIMEOUT,
    AdminServer,
    Request,
    Response,
    serve_connection,
)
from lbproc.telemetry.log import open_error_log

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def echo(request: Request) -> Response:
    """Answers with what was asked."""
    return Response(200, "text/plain", request.method + b" " + request.target + b" " + request.authorization)


def ignore(_: int) -> None:
    """Nobody asks about refusals here."""


async def talk(sent: bytes, *, end: bool = True) -> bytes:
    """Everything that comes back for these bytes."""
    client, server = trio.testing.memory_stream_pair()
    received = bytearray()

    async def serve() -> None:
        async with server:
            await serve_connection(server, echo, ignore)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.send_all(sent)
        if end:
            await client.send_eof()
        try:
            async for octets in client:
                received += octets
        except trio.BrokenResourceError:
            pass
    return bytes(received)


async def test_a_request_is_answered_with_its_length() -> None:
    answer = await talk(b"GET /a?b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 17" in head.lower()
    assert b"cache-control: no-store" in head.lower()
    assert body == b"GET /a?b Bearer t"


async def test_a_connection_is_kept_and_requests_may_be_pipelined() -> None:
    answer = await talk(GET + b"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + GET)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert b"POST /2" in answer


async def test_head_has_the_length_and_no_body() -> None:
    answer = await talk(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 7" in answer.lower()


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"],
)
async def test_a_client_that_wants_to_close_is_closed(request_bytes: bytes) -> None:
    with trio.fail_after(5):
        answer = await talk(request_bytes + GET, end=False)
    assert answer.count(b"200") == 1


async def test_expect_continue_is_answered() -> None:
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, echo, ignore)
        await client.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await client.receive_some()).startswith(b"HTTP/1.1 100")
        await client.send_all(b"x")
        assert b"200" in bytes(await client.receive_some())
        await client.aclose()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100, b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (MAX_HEAD_BYTES + 100), b"431"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"y" * (MAX_BODY_BYTES + 1),
            b"413",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
    ],
)
async def test_what_cannot_be_served_is_refused_and_closed(
    request_bytes: bytes, status: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    answer = await talk(request_bytes, end=False)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer.lower()


async def test_a_refused_client_that_goes_on_sending_is_not_read_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def flood() -> None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await client.send_all(b"nonsense\r\n\r\n")
                    await trio.sleep(0.1)

        async with server:
            await serve_connection(server, echo, ignore)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", GET[:-1], b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"]
)
async def test_a_client_that_stops_in_the_middle_is_closed(
    sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    started_at = trio.current_time()
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(sent)
    async with server:
        with pytest.raises(trio.TooSlowError):
            await serve_connection(server, echo, ignore)
    assert trio.current_time() - started_at == REQUEST_TIMEOUT


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    octets=st.binary(max_size=200)
    | st.builds(lambda a, b: GET[:a] + b, st.integers(0, 27), st.binary(max_size=60))
)
def test_random_bytes_get_an_answer_or_a_close(octets: bytes) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    answer = trio.run(talk, octets, clock=clock)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


class Served:
    """A server on a real socket."""

    def __init__(
        self, answer: Callable[[Request], Response], log_path: Path, unix: Path | None = None
    ) -> None:
        if unix is None:
            listening = socket.create_server(("127.0.0.1", 0))
        else:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(unix))
            listening.listen()
        listening.setblocking(False)
        self.unix = unix
        self.address = listening.getsockname()
        self.log_path = log_path
        self._log = open_error_log(log_path, "info", "controller")
        self._server = AdminServer(trio.socket.from_stdlib_socket(listening), answer, self._log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._server.run)
            yield
            nursery.cancel_scope.cancel()
        self._log.close()

    async def connect(self) -> trio.SocketStream:
        if self.unix is not None:
            return await trio.open_unix_socket(self.unix)
        return await trio.open_tcp_stream(*self.address)

    async def ask(self, request_bytes: bytes = GET) -> bytes:
        async with await self.connect() as stream:
            await stream.send_all(request_bytes)
            return bytes(await stream.receive_some())


async def test_it_serves_on_a_socket(tmp_path: Path) -> None:
    served = Served(echo, tmp_path / "log")
    async with served.running():
        assert b"200" in await served.ask()


async def test_a_defect_costs_one_connection_and_is_logged(tmp_path: Path) -> None:
    def defect(_: Request) -> Response:
        raise RuntimeError("boom")

    served = Served(defect, tmp_path / "log")
    async with served.running():
        for _ in range(3):
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                assert await served.ask()
    assert served.log_path.read_text().count("connection_crashed listener=admin") == 3


async def test_refused_requests_are_logged(tmp_path: Path) -> None:
    def forbid(_: Request) -> Response:
        return Response(401, "text/plain", b"", is_refusal=True)

    served = Served(forbid, tmp_path / "log")
    async with served.running():
        assert b"401" in await served.ask()
        assert b"400" in await served.ask(b"nonsense\r\n\r\n")
        assert b"413" in await served.ask(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"y" * 70_000
        )
    log = served.log_path.read_text()
    for status in (401, 400, 413):
        assert f"admin_request_refused client_ip=127.0.0.1 status={status}\n" in log


async def test_a_client_on_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    served = Served(echo, tmp_path / "log", tmp_path / "admin.sock")
    async with served.running():
        assert b"400" in await served.ask(b"nonsense\r\n\r\n")
    assert "admin_request_refused status=400\n" in served.log_path.read_text()


async def test_there_are_only_so_many_connections(tmp_path: Path) -> None:
    served = Served(echo, tmp_path / "log")
    async with served.running():
        streams = []
        for _ in range(MAX_CONNECTIONS):
            stream = await trio.open_tcp_stream(*served.address)
            await stream.send_all(GET)
            assert await stream.receive_some()
            streams.append(stream)
        surplus = await trio.open_tcp_stream(*served.address)
        assert await surplus.receive_some() == b""
        await surplus.aclose()
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(5):
            while True:
                try:
                    if await served.ask():
                        break
                except trio.BrokenResourceError:
                    continue


def test_what_the_server_sends_is_read_by_h11() -> None:
    answer = trio.run(talk, GET)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == 200
