"""The listening sockets that a service manager has opened for lbproc (sd_listen_fds(3)).

Owns which descriptors these are, what each is bound to, and which addresses of a configuration they serve.
Whoever passed them keeps them: what is queued on them outlives this process, so nothing here or elsewhere
may filter, shut down or unlink them, only close our copy.

Invariant: every socket that was passed is named by a listener when lbproc starts. One that nobody accepts
from would let clients wait for ever. A reload may drop such a listener: that is said on purpose.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from lbproc.errors import StartError
from lbproc.net.sockaddr import listening_address
from lbproc.types import Address, TcpAddress

FIRST_DESCRIPTOR: Final = 3
VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """One listening socket from outside.

    Args:
        name: as the service manager calls it, for messages.
        address: what it is bound to.
        socket: bound, listening, non-blocking. Also held by whoever passed it.
    """

    name: str
    address: Address
    socket: socket.socket


class PassedSockets:
    """All of them, by address. They stay open here until the end, used or not.

    Args:
        passed: with different addresses.
    """

    __slots__ = ("_by_address",)

    def __init__(self, passed: Iterable[PassedSocket] = ()) -> None:
        self._by_address = {item.address: item for item in passed}

    @classmethod
    def take_from(
        cls, environ: MutableMapping[str, str], pid: int, first_descriptor: int = FIRST_DESCRIPTOR
    ) -> Self:
        """Those that the environment announces, which then announces them no more.

        Args:
            environ: of this process.
            pid: this process. What was passed to another one is not ours.
            first_descriptor: where they begin.

        Raises:
            StartError: one is not a listening stream socket; all are closed then.
        """
        count, addressee, names = (environ.pop(name, "") for name in VARIABLES)
        if addressee != str(pid) or not (count.isascii() and count.isdigit()):
            return cls()
        descriptors = range(first_descriptor, first_descriptor + int(count))
        found: list[PassedSocket] = []
        named = dict(zip(descriptors, names.split(":"), strict=False))
        try:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            found.extend(_adopt(descriptor, named.get(descriptor, "")) for descriptor in descriptors)
            _refuse_doubles([item.address for item in found])
        except (OSError, StartError) as error:
            for item in found:
                item.socket.close()
            if isinstance(error, OSError):
                raise StartError(f"a socket that was passed cannot be used: {error.strerror}") from error
            raise
        return cls(found)

    def __len__(self) -> int:
        return len(self._by_address)

    @property
    def addresses(self) -> frozenset[Address]:
        """What they are bound to."""
        return frozenset(self._by_address)

    def find(self, address: Address) -> socket.socket | None:
        """A copy of the socket for an address, which belongs to the caller; None: we bind it ourselves.

        Raises:
            StartError: no descriptor is left for it.
        """
        passed = self._by_address.get(address)
        if passed is None:
            return None
        try:
            copy = passed.socket.dup()
        except OSError as error:
            raise StartError(f"{address}: {error.strerror}; raise the limit on open files") from error
        copy.setblocking(False)
        return copy

    def require_named(self, addresses: Iterable[Address]) -> None:
        """Makes sure that each is served by somebody.

        Args:
            addresses: of all listeners, as configured.

        Raises:
            StartError: a socket has no listener.
        """
        named = set(addresses)
        unnamed = [item for item in self._by_address.values() if item.address not in named]
        if unnamed:
            raise StartError("\n".join(map(_explain, unnamed)))

    def close(self) -> None:
        """Closes our copies; whoever passed them keeps theirs, and what is queued."""
        for item in self._by_address.values():
            item.socket.close()


def _refuse_doubles(addresses: Sequence[Address]) -> None:
    for address in addresses:
        if addresses.count(address) > 1:
            raise StartError(f"two sockets for {address} were passed; leave one of them out of the units")


def _adopt(descriptor: int, name: str) -> PassedSocket:
    title = f"{name or 'a socket'} (descriptor {descriptor})"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise
        raise StartError(
            f"{title} was passed and is not a socket; the unit may hold ListenStream= only"
        ) from None
    try:
        _require_listening(sock, title)
        sock.setblocking(False)
        return PassedSocket(name or f"descriptor {descriptor}", _address_of(sock, title), sock)
    except (OSError, StartError):
        sock.close()
        raise


def _require_listening(sock: socket.socket, title: str) -> None:
    is_stream = sock.type == socket.SOCK_STREAM
    if not is_stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise StartError(
            f"{title} was passed and does not listen for connections; "
            "the .socket unit needs ListenStream= and Accept=no"
        )


def _address_of(sock: socket.socket, title: str) -> Address:
    address = listening_address(sock)
    if address is None:
        raise StartError(f"{title} was passed and is neither a TCP socket nor a Unix socket with a path")
    return address


def _explain(passed: PassedSocket) -> str:
    address = passed.address
    other = ""
    if isinstance(address, TcpAddress) and address.host == "::":
        other = f"; a unit that is to listen on IPv4 alone has ListenStream=0.0.0.0:{address.port}"
    return (
        f"the socket {address} ({passed.name}) was passed to lbproc and no listener binds it; "
        f'write bind = "{address}" into a listener, or take it out of the .socket unit{other}'
    )
