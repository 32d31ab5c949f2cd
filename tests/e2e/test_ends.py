"""How connections end: nothing that was answered is lost, and whoever is gone holds no place."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import struct
import termios
from typing import TYPE_CHECKING

import pytest
import trio

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, render_request

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import BackendConnection, Stage

pytestmark = pytest.mark.slow

LARGE = 1_000_000
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
UPGRADE = render_request(headers=["Connection: upgrade", "Upgrade: x"])


def fill(client: RawClient, octets: bytes) -> None:
    """Sends until nobody takes any more."""
    client.socket.settimeout(0.3)
    try:
        while True:
            client.socket.send(octets)
    except TimeoutError:
        pass


def is_delivered(connection: BackendConnection) -> bool:
    """Whether the peer's kernel has everything, so that no reset can destroy it on the way."""
    unsent = fcntl.ioctl(connection._stream.socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return not any(unsent)


def holds_nothing(server: LbprocServer) -> bool:
    return set(server.in_flight().values()) == {0}


def test_response_arrives_whole_when_more_was_sent_ahead_than_is_read(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    backend.response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE)
    server, address = start_web([backend], workers=1)
    client = connect(address)
    client.send(render_request(headers=["Connection: close"]) + render_request() * 2000)
    server.access_log(1)  # the connection has ended for lbproc; the client only now begins to read
    assert client.read_response().size == LARGE


def test_last_words_of_a_tunnel_reach_a_client_that_is_still_talking(
    stage: Stage, start_web: StartWeb
) -> None:
    async def say_and_close(connection: BackendConnection) -> None:
        await connection.read_head()
        await connection.send(SWITCHING + bytes(LARGE))
        wait_until(lambda: is_delivered(connection), "everything is delivered")
        await connection.half_close()  # an orderly end, and only then the end of reading

    server, address = start_web([stage.open("a", say_and_close)], workers=1)
    with RawClient(address, receive_buffer=4096) as client:
        client.send(UPGRADE)
        assert client.read_response().status == 101
        with contextlib.suppress(ConnectionError):
            while not server.access_log(0):  # lbproc learns that the backend takes no more
                client.send(b"?")
        assert len(client.read_until_close()) == LARGE


@pytest.mark.parametrize("waiting", ["in a tunnel", "with a body", "with requests ahead"])
def test_client_that_resets_gives_its_place_back_although_nobody_reads_it(
    stage: Stage, start_web: StartWeb, waiting: str
) -> None:
    async def read_no_further(connection: BackendConnection) -> None:
        await connection.read_head()
        if waiting == "in a tunnel":
            await connection.send(SWITCHING)
        await stage_is_over.wait()

    stage_is_over = trio.Event()
    server, address = start_web([stage.open("a", read_no_further)], workers=1)
    client = RawClient(address)
    if waiting == "in a tunnel":
        client.send(UPGRADE)
        assert client.read_response().status == 101
        fill(client, bytes(65536))
    elif waiting == "with a body":
        client.send(render_request(method="POST", headers=["Content-Length: 1000000000"]))
        fill(client, bytes(65536))
    else:
        fill(client, render_request() * 1000)
    assert not holds_nothing(server)
    client.reset()
    wait_until(lambda: holds_nothing(server), "the place is given back", within=5)


def test_body_that_ends_by_closing_is_not_ended_by_a_stop(stage: Stage, start_web: StartWeb) -> None:
    async def begin(connection: BackendConnection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nonly the begin")
        while await connection.receive():
            pass

    server, address = start_web([stage.open("a", begin)], workers=1)
    with RawClient(address) as client:
        client.send(render_request())
        while not client.socket.recv(1000).endswith(b"begin"):
            pass
        server.send_signal(signal.SIGQUIT)
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1000)
