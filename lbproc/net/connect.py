"""Opening connections to backends: one non-blocking connect, and why it failed when it did.

Owns the connect and the classes of its failures. Which backend, how often and what then is the caller's.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import trio

from lbproc.net.readiness import WRITE, park
from lbproc.net.sockaddr import address_family, socket_address
from lbproc.net.transport import SocketTransport, Transport
from lbproc.types import Address, UnixAddress

if TYPE_CHECKING:
    from lbproc.net.readiness import Deadlines, Dispatcher

FailureKind = Literal["refused", "timeout", "unreachable", "local", "other"]
"""``refused``.

Nobody listens there. ``local``: this host lacks descriptors, ports, memory or the right to connect.
"""

Connector = Callable[[Address, float], Awaitable[Transport]]
"""Opens a connection to an address before an instant of trio's clock, or raises `ConnectFailed`."""

_KINDS: dict[int, FailureKind] = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # no such Unix socket
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EMFILE: "local",
    errno.ENFILE: "local",
    errno.ENOBUFS: "local",
    errno.ENOMEM: "local",
    errno.EADDRNOTAVAIL: "local",  # no local port left towards this address
    errno.EACCES: "local",
    errno.EPERM: "local",  # a local firewall rule
}

# What connect answers when it is asked again how it is doing.
_CONNECTED = frozenset({0, errno.EISCONN})
_CONNECTING = frozenset({errno.EINPROGRESS, errno.EALREADY})

# A full accept queue of a Unix socket answers EAGAIN and reports nothing when there is room again.
_UNIX_RETRY_DELAY = 0.01


class ConnectFailed(Exception):  # noqa: N818  it is what happened, and the caller tries another
    """No connection was made, and nothing was sent.

    Args:
        kind: The class of the failure.
        detail: The kernel's words, such as ``Connection refused``.
    """

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: FailureKind = kind
        self.detail = detail


async def open_transport(
    address: Address, dispatcher: Dispatcher, deadlines: Deadlines, deadline: float
) -> Transport:
    """Connects to a TCP address, whose host is an IP literal, or to a Unix socket.

    On loopback TCP is connected before the call returns, and so are Unix sockets: then there is no
    checkpoint. Cancellation closes the socket.

    Args:
        address: Where to.
        dispatcher: Reports the new socket's events.
        deadlines: The worker's sweeper.
        deadline: An instant of trio's clock; the failure is a ``timeout`` after it.

    Raises:
        ConnectFailed: No connection; nothing was sent.
    """
    if isinstance(address, UnixAddress):
        return await _open_unix(address.path, dispatcher, deadline)
    sock = _make_socket(address_family(address))
    try:
        target = socket_address(address)
        status = sock.connect_ex(target)
        if status == errno.EINPROGRESS:
            status = sock.connect_ex(target)  # loopback has answered by now, and this costs less than a park
    except OSError as error:
        sock.close()
        raise _failure(error.errno or 0) from error
    if status in _CONNECTED:
        return _connected(SocketTransport(sock, dispatcher, target))
    if status in _CONNECTING:
        transport = SocketTransport(sock, dispatcher, target, connecting=True)
        try:
            while status in _CONNECTING:
                transport.source.ready &= ~WRITE
                ready = await park(transport.until_writable, deadlines, deadline)
                status = sock.connect_ex(target) if ready else errno.ETIMEDOUT
        except BaseException:
            transport.close()
            raise
        if status in _CONNECTED:
            return transport
        transport.close()
    sock.close()
    raise _failure(status)


async def _open_unix(path: str, dispatcher: Dispatcher, deadline: float) -> Transport:
    sock = _make_socket(socket.AF_UNIX)
    try:
        while (status := sock.connect_ex(path)) == errno.EAGAIN:
            if trio.current_time() >= deadline:
                status = errno.ETIMEDOUT
                break
            await trio.sleep(_UNIX_RETRY_DELAY)
    except BaseException:
        sock.close()
        raise
    if status:
        sock.close()
        raise _failure(status)
    return _connected(SocketTransport(sock, dispatcher, path))


def _make_socket(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise _failure(error.errno or 0) from error


def _connected(transport: SocketTransport) -> SocketTransport:
    """Clears READ.

    The peer of a fresh connection waits for us, and registering reports what is there already.
    """
    transport.source.ready = WRITE
    return transport


def _failure(code: int) -> ConnectFailed:
    return ConnectFailed(_KINDS.get(code, "other"), os.strerror(code))
