"""A backend that is asked by datagrams, in the shape of a stream, so that probes treat all backends alike.

Owns the socket of one probe, and the words for what its errors mean. One piece sent is one datagram, one
piece received another. The port is a fresh one each time, so answers to earlier probes do not come here.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

import trio
from trio.abc import Stream

from lbproc.health.wire import ProbeFailed, ProbeImpossible
from lbproc.net.udp import open_upstream
from lbproc.types import Address

_OURS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN}
)


class DatagramStream(Stream):
    """Datagrams to one backend and back.

    Args:
        sock: connected, non-blocking; closed with this.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = trio.socket.from_stdlib_socket(sock)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends one datagram.

        Raises:
            ProbeFailed: the backend's host, or one on the way, has turned it away.
        """
        try:
            await self._sock.send(data)
        except OSError as error:
            raise failure(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Does not wait: a datagram either goes or is lost."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next datagram, or as much of it as is wanted.

        Raises:
            ProbeFailed: the backend's host, or one on the way, has turned ours away.
        """
        try:
            return await self._sock.recv(65536 if max_bytes is None else max_bytes)
        except OSError as error:
            raise failure(error) from error

    async def aclose(self) -> None:
        """Closes the socket."""
        self._sock.close()
        await trio.lowlevel.checkpoint()


def open_datagrams(addresses: Sequence[Address]) -> Stream:
    """A way to the first of these addresses that there is one to.

    Raises:
        ProbeFailed: there is none to any.
        ProbeImpossible: this host has no room for a socket.
    """
    error = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for address in addresses:
        try:
            return DatagramStream(open_upstream(address))
        except OSError as refused:
            error = refused
    raise failure(error) from error


def failure(error: OSError) -> ProbeFailed | ProbeImpossible:
    """What an error says of a backend."""
    if error.errno in _OURS:
        return ProbeImpossible(os.strerror(error.errno or 0))
    if error.errno == errno.ECONNREFUSED:
        return ProbeFailed("nobody listens there (ICMP port unreachable)")
    return ProbeFailed(os.strerror(error.errno) if error.errno else str(error))
