"""Datagrams of clients: taken from one socket with the address that they came to, answered from that address.

Owns the control data of the kernel that tells and sets the local address, and the buffer. Does not own the
socket, which belongs to a slot and outlives this worker, nor what becomes of a datagram.

A socket that is bound to any address (``0.0.0.0``, ``[::]``) would answer from the address of whichever
interface the route leads over, and clients drop what comes from an address that they have not asked. So there
the kernel tells of each datagram which address it was sent to, and is told of each answer which to use.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from lbproc.net.accept import EXHAUSTED
from lbproc.net.sockaddr import address_family, bound_address, socket_address
from lbproc.net.udp_listeners import IP_PKTINFO
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.types import Address

MAX_DATAGRAM: Final = 65_535
"""More than UDP can carry over either family of IP, so nothing is ever cut off."""

BATCH: Final = 64
"""Datagrams that are taken in a row before others have their turn."""

_PKTINFO4: Final = struct.Struct("=i4s4s")  # struct in_pktinfo: interface, local address, destination
_PKTINFO6: Final = struct.Struct("=16si")  # struct in6_pktinfo: destination, interface
_CONTROL_SIZE: Final = socket.CMSG_SPACE(_PKTINFO6.size)

Peer = tuple[Any, ...]
"""A client's address as the kernel gives it."""

Local = bytes
"""The address that a datagram came to, packed, with a number behind it where that belongs to it (IPv6, link
local: the interface); b"": the one that the socket is bound to."""

# Of a backend that was sent to: nobody there listens, or no way leads there. What else a send meets is ours.
REFUSED: Final = frozenset({errno.ECONNREFUSED})
UNREACHABLE: Final = frozenset({
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ETIMEDOUT,
    errno.ENOPROTOOPT, errno.EPROTO, errno.EACCES,
})  # fmt: skip
"""What an ICMP message, or the lack of a route, becomes. ip(7) and icmp(7)."""


NO_ROOM: Final = EXHAUSTED | {errno.EAGAIN}
"""What `open_upstream` meets when this host is at its end, of descriptors, memory or ports."""


class DatagramPort:
    """One socket that clients send to.

    Args:
        sock: bound, non-blocking.

    Attributes:
        address: that it is bound to.
        is_any: it is bound to every address of the host.
    """

    __slots__ = ("_buffer", "_control", "_is_six", "_sock", "_view", "address", "is_any")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_six = sock.family == socket.AF_INET6
        self.address = bound_address(sock)
        self.is_any = self.address.host in {"0.0.0.0", "::"}  # noqa: S104  compared with, not bound here
        self._control: Callable[[Local], list[tuple[int, int, bytes]]] = (
            (_control6 if self._is_six else _control4) if self.is_any else _no_control
        )
        self._buffer = bytearray(MAX_DATAGRAM + 1)
        self._view = memoryview(self._buffer)

    def receive(self) -> tuple[memoryview | None, Peer, Local]:
        """The next datagram, its sender, and where it came to.

        The bytes are good until the next call. None in their place: it was cut off, and is lost.

        Raises:
            OSError: there is none (BlockingIOError), or the kernel cannot.
        """
        size, control, flags, peer = self._sock.recvmsg_into(
            (self._buffer,), _CONTROL_SIZE if self.is_any else 0
        )
        local = b""
        for level, kind, data in control:
            if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= _PKTINFO4.size:
                local = data[4:8]
            elif (
                level == socket.IPPROTO_IPV6
                and kind == socket.IPV6_PKTINFO
                and len(data) >= _PKTINFO6.size
                and data[0] != 0xFF  # nobody can answer from a group's address
            ):
                is_link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
                local = data[: _PKTINFO6.size] if is_link_local else data[:16]
        return None if flags & socket.MSG_TRUNC else self._view[:size], peer, local

    def answer(self, octets: memoryview, peer: Peer, local: Local) -> bool:
        """Sends a datagram to a client, from the address that he had sent to.

        Returns:
            Whether it went: where there is no room, or no way, it is lost as datagrams are.
        """
        try:
            self._sock.sendmsg((octets,), self._control(local), 0, peer)
        except OSError:
            return False
        return True

    def local_address(self, local: Local) -> TcpAddress:
        """Where a datagram came to, as an address."""
        if not local:
            return self.address
        family = socket.AF_INET6 if self._is_six else socket.AF_INET
        return TcpAddress(socket.inet_ntop(family, local[:16]), self.address.port)


def open_upstream(address: Address) -> socket.socket:
    """A socket for datagrams to one backend, and from it.

    Raises:
        OSError: this host has no room for it, or no way leads there.
    """
    assert isinstance(address, TcpAddress)
    sock = socket.socket(address_family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(socket_address(address))
    except BlockingIOError as error:
        sock.close()
        raise BlockingIOError(errno.EAGAIN, "no port is free (net.ipv4.ip_local_port_range)") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _no_control(_local: Local) -> list[tuple[int, int, bytes]]:
    return []


def _control4(local: Local) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO4.pack(0, local, bytes(4)))] if local else []


def _control6(local: Local) -> list[tuple[int, int, bytes]]:
    if not local:
        return []
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local.ljust(_PKTINFO6.size, b"\0"))]
