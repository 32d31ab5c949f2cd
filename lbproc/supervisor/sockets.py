"""The listening sockets of all listeners, from the first bind to the last close.

They belong to the supervisor: workers come and go, what is queued on a socket stays. A TCP address is
slotted (one socket for each slot), a Unix address is shared by all workers. Owns their order: bound all
together, listening in slot order, closed from the highest slot down, because the kernel counts the sockets
of an address in the order of `listen` and moves the last into the hole that a close leaves.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass

from lbproc.boot import InheritedListener
from lbproc.config.model import Config
from lbproc.net.listeners import listen, open_slotted, open_unix, probe_bind, refuse_new, remove_unix
from lbproc.net.sockaddr import bound_address
from lbproc.types import Address, Seconds, Slot, TcpAddress, UnixAddress

_UNIX_MODE = 0o666
"""As nginx does: whoever may enter the directory may connect."""

_ADMIN_UNIX_MODE = 0o600

_ATTEMPTS = 10
_PAUSE: Seconds = 0.5
"""Together as long as a TCP address is probed. A look is a connection, and workers that leave wait until
for a moment none comes, so look seldom."""


@dataclass(frozen=True, slots=True)
class BoundAddress:
    """One bind of one listener.

    Args:
        listener_name: the ``[listeners.NAME]`` it belongs to.
        address: with the port that the kernel chose where the configuration says 0.
        sockets: one for each slot, or a single one when the address is shared.
    """

    listener_name: str
    address: Address
    sockets: tuple[socket.socket, ...]

    @property
    def is_shared(self) -> bool:
        """Whether all workers serve the same socket."""
        return isinstance(self.address, UnixAddress)

    def inherited(self, slot: Slot) -> InheritedListener:
        """What the worker of this slot gets."""
        sock = self.sockets[0 if self.is_shared else slot]
        return InheritedListener(self.listener_name, self.address, sock, self.is_shared)


class ListeningSockets:
    """All sockets of all listeners; bound at once, not yet listening.

    Args:
        config: names the addresses.
        slots: how many workers there are.

    Raises:
        StartError: an address cannot be bound; nothing stays open.
    """

    __slots__ = ("_refusing", "bound")

    def __init__(self, config: Config, slots: int) -> None:
        self.bound: list[BoundAddress] = []
        self._refusing = False
        try:
            for name, listener in config.listeners.items():
                for address in listener.bind:
                    self.bound.append(_bind(name, address, slots))
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Lets connections come."""
        for bound in self.bound:
            for sock in bound.sockets:
                listen(sock)

    def of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What the worker of a slot serves: the slot's own sockets and the shared ones."""
        return tuple(bound.inherited(slot) for bound in self.bound)

    def own_of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What a sibling adopts: without the shared ones, which it has."""
        return tuple(bound.inherited(slot) for bound in self.bound if not bound.is_shared)

    def refuse(self) -> None:
        """Keeps new connections out; what is queued stays to be accepted."""
        self._refusing = True
        for bound in self.bound:
            if isinstance(bound.address, UnixAddress):
                remove_unix(bound.address)
            for sock in bound.sockets:
                refuse_new(sock)

    def close(self) -> None:
        """Closes everything and removes the files of Unix sockets. Idempotent."""
        for bound in self.bound:
            for sock in reversed(bound.sockets):
                sock.close()
            # Once refused the file is gone, and a successor may have put its own there.
            if isinstance(bound.address, UnixAddress) and not self._refusing:
                remove_unix(bound.address)
        self.bound.clear()

    def close_in_child(self, slot: Slot | None) -> None:
        """Closes, in a forked child, what is not of its slot (None: everything). Files stay."""
        for bound in self.bound:
            kept = None if slot is None else bound.inherited(slot).socket
            for sock in bound.sockets:
                if sock is not kept:
                    sock.close()


def open_admin_socket(address: Address) -> socket.socket:
    """Binds the admin listener and listens.

    Raises:
        StartError: the address cannot be bound.
    """
    if isinstance(address, TcpAddress):
        probe_bind(address)
        (sock,) = open_slotted(address, 1)
    else:
        sock = open_unix(address, mode=_ADMIN_UNIX_MODE)
    listen(sock)
    return sock


def close_admin_socket(sock: socket.socket) -> None:
    """Closes the admin listener and removes its file if it has one."""
    path = sock.getsockname()
    sock.close()
    if isinstance(path, str):
        remove_unix(UnixAddress(path))


def _bind_unix(address: UnixAddress) -> socket.socket:
    """Binds when whoever listens there has left; a predecessor that is about to leave gets some time."""
    for _ in range(_ATTEMPTS):
        if not _is_live(address):
            break
        time.sleep(_PAUSE)
    return open_unix(address, mode=_UNIX_MODE)


def _is_live(address: UnixAddress) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(address.path) in {0, errno.EAGAIN}


def _bind(name: str, address: Address, slots: int) -> BoundAddress:
    if isinstance(address, UnixAddress):
        return BoundAddress(name, address, (_bind_unix(address),))
    probe_bind(address)
    sockets = open_slotted(address, slots)
    return BoundAddress(name, bound_address(sockets[0]), tuple(sockets))
