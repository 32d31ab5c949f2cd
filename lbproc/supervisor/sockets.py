"""The listening sockets of all listeners, from the first bind to the last close.

They belong to the supervisor: workers come and go, what is queued on a socket stays. A TCP address is
slotted (one socket for each slot), a Unix address is shared by all workers. Owns their order: bound all
together, listening in slot order, closed from the highest slot down, because the kernel counts the sockets
of an address in the order of `listen` and moves the last into the hole that a close leaves.

Another program that starts at the same time can bind what is bound here and not yet listened on. So the
addresses are looked at once more when it is time to listen, and one program does so at a time.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lbproc.boot import InheritedListener
from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.net.listeners import listen, listen_unix, open_slotted, open_unix, probe_bind, refuse_new
from lbproc.net.sockaddr import bound_address
from lbproc.net.socket_file import SocketFile
from lbproc.types import Address, Seconds, Slot, TcpAddress, UnixAddress

_UNIX_MODE = 0o666
"""As nginx does: whoever may enter the directory may connect."""

_ADMIN_UNIX_MODE = 0o600

_ATTEMPTS = 10
_PAUSE: Seconds = 0.5
"""Together as long as a TCP address is probed. A look is a connection, and workers that leave wait until
for a moment none comes, so look seldom."""

_LOCK_NAME = "\0lbproc/listen"
_LOCK_ATTEMPTS = 50
_LOCK_PAUSE: Seconds = 0.02

Sleep = Callable[[Seconds], None]
"""Waits that long while somebody else leaves; raises to end the waiting."""


@dataclass(frozen=True, slots=True)
class BoundAddress:
    """One bind of one listener.

    Args:
        listener_name: the ``[listeners.NAME]`` it belongs to.
        address: with the port that the kernel chose where the configuration says 0.
        sockets: one for each slot, or a single one when the address is shared.
        file: of a Unix address.
    """

    listener_name: str
    address: Address
    sockets: tuple[socket.socket, ...]
    file: SocketFile | None = None

    @property
    def is_shared(self) -> bool:
        """Whether all workers serve the same socket."""
        return self.file is not None

    def inherited(self, slot: Slot) -> InheritedListener:
        """What the worker of this slot gets."""
        sock = self.sockets[0 if self.is_shared else slot]
        return InheritedListener(self.listener_name, self.address, sock, self.is_shared)


class ListeningSockets:
    """All sockets of all listeners; bound at once, not yet listening.

    Args:
        config: names the addresses.
        slots: how many workers there are.
        sleep: waits for a predecessor.

    Raises:
        StartError: an address cannot be bound; nothing stays open.
    """

    __slots__ = ("bound",)

    def __init__(self, config: Config, slots: int, sleep: Sleep = time.sleep) -> None:
        self.bound: list[BoundAddress] = []
        try:
            for name, listener in config.listeners.items():
                for address in listener.bind:
                    self.bound.append(_bind(name, address, slots, sleep))
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Lets connections come.

        Raises:
            StartError: another program has begun to use an address.
        """
        with _one_at_a_time():
            self._probe_and_listen()

    def _probe_and_listen(self) -> None:
        # All are looked at before the first listens, because our own addresses may overlap.
        for bound in self.bound:
            if isinstance(bound.address, TcpAddress):
                probe_bind(bound.address, attempts=1)
        for bound in self.bound:
            for sock in bound.sockets:
                if bound.file is None:
                    listen(sock)
                else:
                    listen_unix(sock, bound.file)

    def of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What the worker of a slot serves: the slot's own sockets and the shared ones."""
        return tuple(bound.inherited(slot) for bound in self.bound)

    def own_of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What a sibling adopts: without the shared ones, which it has."""
        return tuple(bound.inherited(slot) for bound in self.bound if not bound.is_shared)

    def refuse(self) -> None:
        """Keeps new connections out; what is queued stays to be accepted."""
        for bound in self.bound:
            if bound.file is not None:
                bound.file.remove()
            for sock in bound.sockets:
                # Without memory for the filter the queue is served nevertheless.
                with contextlib.suppress(OSError):
                    refuse_new(sock)

    def close(self) -> None:
        """Closes everything and removes the files of Unix sockets. Idempotent."""
        for bound in self.bound:
            if bound.file is not None:
                bound.file.remove()
            for sock in reversed(bound.sockets):
                sock.close()
        self.bound.clear()

    def close_in_child(self, slot: Slot | None) -> None:
        """Closes, in a forked child, what is not of its slot (None: everything). Files stay."""
        for bound in self.bound:
            kept = None if slot is None else bound.inherited(slot).socket
            for sock in bound.sockets:
                if sock is not kept:
                    sock.close()


@dataclass(frozen=True, slots=True)
class AdminSocket:
    """The admin listener.

    Args:
        socket: bound and listening.
        file: of a Unix address.
    """

    socket: socket.socket
    file: SocketFile | None = None

    def close(self) -> None:
        """Closes it and removes its file if it has one. Idempotent."""
        if self.file is not None and self.socket.fileno() >= 0:
            self.file.remove()
        self.socket.close()


def open_admin_socket(address: Address, sleep: Sleep = time.sleep) -> AdminSocket:
    """Binds the admin listener and listens.

    Args:
        address: where.
        sleep: waits for a predecessor.

    Raises:
        StartError: the address cannot be bound.
    """
    if isinstance(address, TcpAddress):
        probe_bind(address, sleep=sleep)
        (sock,) = open_slotted(address, 1)
        admin = AdminSocket(sock)
    else:
        admin = AdminSocket(*_bind_unix(address, _ADMIN_UNIX_MODE, sleep))
    try:
        if admin.file is None:
            listen(admin.socket)
        else:
            listen_unix(admin.socket, admin.file)
    except StartError:
        admin.close()
        raise
    return admin


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keeps two lbproc of one network namespace from looking and listening at the same moment.

    An abstract Unix name has the namespace of the addresses, leaves no file, and goes with its process. Who
    holds on to it is in the way for a second: it guards against accidents, not against enemies.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                lock.bind(_LOCK_NAME)
            except OSError:
                time.sleep(_LOCK_PAUSE)
            else:
                break
        yield


def _bind_unix(address: UnixAddress, mode: int, sleep: Sleep) -> tuple[socket.socket, SocketFile]:
    """Binds when whoever listens there has left; a predecessor that is about to leave gets some time."""
    for _ in range(_ATTEMPTS):
        if not _is_live(address):
            break
        sleep(_PAUSE)
    return open_unix(address, mode=mode)


def _is_live(address: UnixAddress) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(address.path) in {0, errno.EAGAIN}


def _bind(name: str, address: Address, slots: int, sleep: Sleep) -> BoundAddress:
    if isinstance(address, UnixAddress):
        sock, file = _bind_unix(address, _UNIX_MODE, sleep)
        return BoundAddress(name, address, (sock,), file)
    probe_bind(address, sleep=sleep)
    sockets = open_slotted(address, slots)
    return BoundAddress(name, bound_address(sockets[0]), tuple(sockets))
