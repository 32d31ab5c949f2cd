"""Addresses in the form that socket calls take and return. No name is ever looked up."""

from __future__ import annotations

import socket

from lbproc.types import TcpAddress

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def address_family(address: TcpAddress) -> socket.AddressFamily:
    """AF_INET6 or AF_INET, by the look of the literal."""
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def socket_address(address: TcpAddress) -> SocketAddress:
    """What bind and connect take for a TCP address whose host is an IP literal.

    A link-local literal names its interface (``fe80::1%eth0``), which only counts as a number of its own.

    Raises:
        OSError: There is no such interface.
    """
    host, percent, interface = address.host.partition("%")
    if not percent:
        return host, address.port
    scope = int(interface) if interface.isdigit() else socket.if_nametoindex(interface)
    return host, address.port, 0, scope


def bound_address(sock: socket.socket) -> TcpAddress:
    """The address that a TCP socket is bound to, with the port that the kernel chose for port 0."""
    host, port = sock.getsockname()[:2]
    return TcpAddress(host, port)
