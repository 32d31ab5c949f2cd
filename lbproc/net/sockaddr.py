"""Addresses in the form that socket calls take and return. No name is ever looked up."""

from __future__ import annotations

import socket

from lbproc.types import Address, TcpAddress, UnixAddress

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


def listening_address(sock: socket.socket) -> Address | None:
    """The address of a listening TCP or Unix socket; None: it has none that can be written down."""
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        return bound_address(sock)
    path = sock.getsockname() if sock.family is socket.AF_UNIX else b""
    return UnixAddress(path) if isinstance(path, str) and path else None


def takes_both_families(sock: socket.socket) -> bool:
    """Whether IPv4 clients come to an IPv6 socket, with addresses such as ``::ffff:192.0.2.1``."""
    return sock.family is socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
