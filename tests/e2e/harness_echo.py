"""Backends that echo bytes, and clients that talk to them: for what is relayed without being understood.

Clients are blocking sockets with a deadline on every operation, one thread for each direction of a transfer.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.echo_backend import FAREWELL
from tests.e2e.harness import Program
from tests.e2e.harness_client import RawClient
from tests.ports import free_port

if TYPE_CHECKING:
    import socket

READ_BYTES = 262_144


class EchoBackend(Program):
    """A backend in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, directory: Path, name: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        script = Path(__file__).with_name("echo_backend.py")
        super().__init__(name, [sys.executable, str(script), self.address, name], directory)
        self._environ["PYTHONPATH"] = str(Path(__file__).parents[2])

    def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            RawClient(self.address).close()
        except OSError:
            return False
        return True


class EchoClient:
    """One connection to an echo backend.

    Attributes:
        backend: the name that it said.
    """

    def __init__(self, address: str, *, receive_buffer: int | None = None) -> None:
        self._client = RawClient(address, receive_buffer=receive_buffer)
        self.socket: socket.socket = self._client.socket
        self.backend = self._read_line().decode()

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            octet = self.socket.recv(1)
            if not octet:
                raise EOFError(f"the connection ended after {line!r}")
            line += octet
        return line[:-1]

    def echo(self, word: bytes) -> bool:
        """Whether a word comes back."""
        self.socket.sendall(word)
        heard = b""
        while len(heard) < len(word):
            piece = self.socket.recv(len(word) - len(heard))
            if not piece:
                return False
            heard += piece
        return heard == word

    def is_broken(self) -> bool:
        """Whether the connection is reset, or ended before its farewell; waits for that."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def transfer(self, data: bytes) -> bool:
        """Sends it all and the end, and hears all of it back, and the farewell after that."""
        sender = threading.Thread(target=self._send, args=(data,))
        sender.start()
        heard = bytearray()
        while piece := self.socket.recv(READ_BYTES):
            heard += piece
        sender.join()
        self.close()
        return bytes(heard) == data + FAREWELL

    def stream(self, block: bytes, count: int) -> bool:
        """The same with so many blocks, of which it holds one; they come back in pieces of another size."""
        sender = threading.Thread(target=self._send_blocks, args=(block, count))
        sender.start()
        expected, heard, left = hashlib.sha256(), hashlib.sha256(), len(block) * count
        for _ in range(count):
            expected.update(block)
        while left and (piece := self.socket.recv(min(left, 9_999))):
            heard.update(piece)
            left -= len(piece)
        last = b"".join(iter(lambda: self.socket.recv(100), b""))
        sender.join()
        self.close()
        return heard.digest() == expected.digest() and last == FAREWELL

    def _send_blocks(self, block: bytes, count: int) -> None:
        for _ in range(count):
            self.socket.sendall(block)
        self.socket.shutdown(1)

    def _send(self, data: bytes) -> None:
        self.socket.sendall(data)
        self.socket.shutdown(1)

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()
