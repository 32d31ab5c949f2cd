"""WebSockets through the proxy, with a real client and server library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, open_websocket_url, serve_websocket

from tests.e2e.harness_client import RawClient

if TYPE_CHECKING:
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import BackendConnection, Stage

pytestmark = pytest.mark.slow

MEGABYTE = 1024 * 1024


async def echo(request: WebSocketRequest) -> None:
    socket = await request.accept()
    try:
        while True:
            await socket.send_message(await socket.get_message())
    except ConnectionClosed:
        pass


@pytest.fixture
async def echo_server(nursery: trio.Nursery) -> str:
    server = await nursery.start(serve_websocket, echo, "127.0.0.1", 0, None)
    return f"127.0.0.1:{server.port}"


async def test_messages_of_a_megabyte_pass_both_ways(
    start_web: StartWeb, echo_server: str, nursery: trio.Nursery
) -> None:
    server, address = await trio.to_thread.run_sync(lambda: start_web([echo_server]))
    async with open_websocket_url(f"ws://{address}/chat", max_message_size=2 * MEGABYTE) as socket:
        for number in range(5):
            message = bytes([number]) * MEGABYTE
            async with trio.open_nursery() as both:
                both.start_soon(socket.send_message, message)
                assert await socket.get_message() == message
        await socket.send_message("text")
        assert await socket.get_message() == "text"
        assert sum(server.in_flight().values()) == 1
    await trio.to_thread.run_sync(lambda: server.access_log(1))
    assert server.access_log(1)[0]["status"] == 101
    nursery.cancel_scope.cancel()


async def test_many_websockets_at_once(start_web: StartWeb, echo_server: str, nursery: trio.Nursery) -> None:
    _, address = await trio.to_thread.run_sync(lambda: start_web([echo_server], workers=4))

    async def chat(name: str) -> None:
        async with open_websocket_url(f"ws://{address}/{name}") as socket:
            for number in range(20):
                await socket.send_message(f"{name} {number}")
                assert await socket.get_message() == f"{name} {number}"

    async with trio.open_nursery() as chats:
        for number in range(50):
            chats.start_soon(chat, str(number))
    nursery.cancel_scope.cancel()


def test_raw_tunnel_keeps_half_close(start_web: StartWeb, stage: Stage) -> None:
    async def shout(connection: BackendConnection) -> None:
        await connection.read_head()
        await connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n"
        )
        said = b""
        while octets := await connection.read_some():
            said += octets
        await connection.send(said.upper())

    server, address = start_web([stage.open("shouter", shout)])
    with RawClient(address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n")
        assert client.read_response().status == 101
        client.send(b"one ")
        client.send(b"two")
        client.half_close()  # the answer comes only after the end of the question
        assert client.read_until_close() == b"ONE TWO"
    assert server.access_log(1)[0]["status"] == 101
