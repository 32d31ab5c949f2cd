"""Clients that send exactly the bytes they are told to.

Blocking sockets with a deadline on every operation, so that a proxy that hangs fails the test. Many requests
at once need no threads: send on many connections, then read from each.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Self

from lbproc.types import TcpAddress, UnixAddress, parse_address
from tests.e2e.harness import PATIENCE
from tests.e2e.harness_wire import Message, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbproc.types import Seconds

READ_BYTES = 256 * 1024


class RawClient:
    """One connection.

    Args:
        address: ``host:port`` or ``unix:PATH``.
        patience: the longest that one read or write may take.
        receive_buffer: the socket's receive buffer, for clients that read slowly.
    """

    def __init__(
        self, address: str, *, patience: Seconds = PATIENCE, receive_buffer: int | None = None
    ) -> None:
        match parse_address(address):
            case TcpAddress(host, port):
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                target: tuple[str, int] | str = (host, port)
            case UnixAddress(path):
                family, target = socket.AF_UNIX, path
        self.socket = socket.socket(family)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patience)
        try:
            self.socket.connect(target)
        except BaseException:
            self.socket.close()
            raise
        self._reader = Reader(responses=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A test that fails leaves its clients behind; their warnings must not fail the next test as well.
        if hasattr(self, "socket"):
            self.socket.close()

    def send(self, octets: bytes) -> None:
        """Sends all of ``octets``."""
        self.socket.sendall(octets)

    def request(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[str] = (),
        body: bytes | None = None,
    ) -> Message:
        """Sends a plain request and reads its response."""
        self.send(render_request(target, method=method, headers=headers, body=body))
        return self.read_response(head_only=method == "HEAD")

    def read_response(self, *, head_only: bool = False) -> Message:
        """Reads the next response, interim ones too.

        Raises:
            AssertionError: the connection ended before the response was complete.
        """
        self._reader.bodiless = head_only
        while (message := self._reader.next_message()) is None:
            assert not self._reader.at_eof, (
                f"the connection ended inside a response: {self._reader.partial!r}"
            )
            self._reader.feed(self.socket.recv(READ_BYTES))
        return message

    def read_until_close(self) -> bytes:
        """Everything up to the end of the connection, in order or by reset."""
        received = [bytes(self._reader.buffer)]
        self._reader.buffer.clear()
        try:
            while octets := self.socket.recv(READ_BYTES):
                received.append(octets)
        except ConnectionResetError:
            pass
        return b"".join(received)

    def read_exactly(self, size: int) -> bytes:
        """The next ``size`` bytes, for tunnels."""
        while len(self._reader.buffer) < size:
            octets = self.socket.recv(READ_BYTES)
            assert octets, f"the connection ended after {len(self._reader.buffer)} of {size} bytes"
            self._reader.feed(octets)
        taken = bytes(self._reader.buffer[:size])
        del self._reader.buffer[:size]
        return taken

    def half_close(self) -> None:
        """Sends FIN; reading goes on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Closes the connection; idempotent."""
        self.socket.close()


def render_request(
    target: str = "/", *, method: str = "GET", headers: Iterable[str] = (), body: bytes | None = None
) -> bytes:
    """A request with Host and, with a body, Content-Length; ``headers`` are lines without line ends."""
    lines = [f"{method} {target} HTTP/1.1", "Host: example.com", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def fetch(
    address: str,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Iterable[str] = (),
    body: bytes | None = None,
) -> Message:
    """One request on a connection of its own."""
    with RawClient(address) as client:
        return client.request(target, method=method, headers=[*headers, "Connection: close"], body=body)
