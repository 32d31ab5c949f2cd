"""Much goes through a relay, intact and at the pace of its reader; a worker keeps next to nothing of it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Authority
from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient
from tests.e2e.harness_secure import TlsClient, client_context
from tests.e2e.memory import Growth
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import StartLbproc

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
STALLS = 3
"""How often a reader stops until everybody who sends has to stop too."""
STILL = 60
"""So many looks in a row at a sender that sends nothing."""
ALLOWED_GROWTH = 8 * MEBIBYTE
"""Of one worker, with two connections on which nothing moves any more, or as fast as it can."""

_FILLING = Random(5).randbytes(MEBIBYTE - 8)


def block(number: int) -> bytes:
    """A mebibyte that is like no other."""
    return number.to_bytes(8) + _FILLING


class Sender(threading.Thread):
    """Sends so many blocks, and the end."""

    def __init__(self, sock: socket.socket, blocks: int) -> None:
        super().__init__(daemon=True)
        self._socket = sock
        self._blocks = blocks
        self.sent = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(self._blocks):
                self._send(block(number))
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()  # the end, as TLS says it; returns when the other side has said it too
            else:
                self._socket.shutdown(socket.SHUT_WR)
        except BaseException as error:
            self.failure = error

    def _send(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            count = self._socket.send(rest[:65_536])
            self.sent += count
            rest = rest[count:]


class Reader(threading.Thread):
    """Compares what comes with what was sent. Stops some times, until told to go on.

    Attributes:
        stalled: it has stopped.
        read: how many good blocks.
        is_whole: there was nothing else, up to the end.
    """

    def __init__(self, sock: socket.socket, blocks: int) -> None:
        super().__init__(daemon=True)
        self._socket = sock
        self._blocks = blocks
        self._going_on = threading.Event()
        self.stalled = threading.Event()
        self.read = 0
        self.is_whole = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        buffer = bytearray(MEBIBYTE)
        try:
            for number in range(self._blocks):
                if number * STALLS % self._blocks < STALLS:
                    self._stall()
                self._fill(memoryview(buffer))
                assert buffer == block(number), f"block {number} is another one"
                self.read += 1
            self.is_whole = self._socket.recv(1) == b""
            self._socket.close()
        except BaseException as error:
            self.failure = error

    def _stall(self) -> None:
        self.stalled.set()
        assert self._going_on.wait(60)
        self._going_on.clear()

    def _fill(self, room: memoryview) -> None:
        while room:
            count = self._socket.recv_into(room)
            assert count, "the end comes too early"
            room = room[count:]

    def go_on(self) -> None:
        """Lets it read again."""
        self.stalled.clear()
        self._going_on.set()


@pytest.mark.parametrize("blocks", [96, pytest.param(1024, marks=pytest.mark.soak)])
@pytest.mark.parametrize("is_secure", [False, True], ids=["tcp", "tls"])
def test_what_is_relayed_arrives_intact_at_the_pace_of_its_reader_and_memory_stays_bounded(
    blocks: int, is_secure: bool, tmp_path: Path, start_lbproc: StartLbproc
) -> None:
    authority = Authority()
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        backend = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        backend.settimeout(20)
        pair = authority.issue("relay.test").toml(tmp_path, "relay")
        tls = f"[listeners.relay.tls]\ncertificates = [{pair}]\n" if is_secure else ""
        server = start_lbproc(
            f'[listeners.relay]\nbind = "{address}"\nprotocol = "tcp"\npool = "relay"\n{tls}'
            f'[pools.relay]\nbackends = ["127.0.0.1:{backend.getsockname()[1]}"]\n',
            workers=1,
        )
        growth = Growth(server)

        def both_ends() -> tuple[socket.socket, socket.socket]:
            """A connection: the client's end, the backend's end."""
            client = (
                TlsClient(address, client_context(authority), "relay.test", receive_buffer=65_536)
                if is_secure
                else RawClient(address, receive_buffer=65_536)
            )
            stack.enter_context(client)
            there = stack.enter_context(backend.accept()[0])
            for sock in (client.socket, there):
                sock.settimeout(60)
            return client.socket, there

        # A connection for each direction: one object of Python's ssl is nothing for two threads.
        (hearer, teller), (asker, listener) = both_ends(), both_ends()
        senders = [Sender(teller, blocks), Sender(asker, blocks)]
        readers = [Reader(hearer, blocks), Reader(listener, blocks)]
        for thread in (*senders, *readers):
            thread.start()
        for _ in range(STALLS):
            wait_until(lambda: all(one.stalled.is_set() for one in readers), "the readers have stopped", 120)
            wait_until_still(senders)
            assert all(sender.sent < blocks * MEBIBYTE for sender in senders)
            growth.look()
            for reader in readers:
                reader.go_on()
        while any(reader.is_alive() for reader in readers):
            growth.look()
            for reader in readers:
                reader.join(0.1)
        for sender in senders:
            sender.join(60)
            assert not sender.is_alive(), "a sender hears no end"
    assert [sender.failure for sender in senders] == [None] * 2
    assert [reader.failure for reader in readers] == [None] * 2
    assert [reader.read for reader in readers] == [blocks] * 2
    assert all(reader.is_whole for reader in readers)
    assert growth.most < ALLOWED_GROWTH


def wait_until_still(senders: list[Sender]) -> None:
    """Until none has sent anything for a while."""
    seen: list[int] = []
    looks = 0

    def is_still() -> bool:
        nonlocal seen, looks
        sent = [sender.sent for sender in senders]
        looks = looks + 1 if sent == seen else 0
        seen = sent
        return looks >= STILL

    wait_until(is_still, "the senders have stopped", 60)
