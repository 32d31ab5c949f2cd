"""Binding one address, and what is bound then: its sockets, its file, its key.

A TCP address is slotted (one socket for each slot), a Unix address is shared by all workers, and so is a
socket that whoever started lbproc has opened. Owns who may use an address: it is looked at before it is
bound, and again before it listens, because another program that starts at the same time can bind what is
bound here and not yet listened on. Waiting for a predecessor is done by a function that is passed in.

Sockets for datagrams receive from the moment when they are bound, and the first is bound alone, so these are
neither looked at again nor kept back. What of their flows ends when is the workers' part: the kernel knows no
flows, and to filter or shut such a socket would end them all.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lbproc.boot import InheritedListener
from lbproc.config.diff import AddressIdentity
from lbproc.errors import StartError
from lbproc.net import udp_listeners
from lbproc.net.listeners import (
    admit_new,
    listen,
    listen_unix,
    open_slotted,
    open_unix,
    probe_bind,
    refuse_new,
    require_name,
    steer,
)
from lbproc.net.sockaddr import address_family, bound_address
from lbproc.net.socket_file import SocketFile
from lbproc.supervisor.activation import PassedSockets
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

_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound here

Sleep = Callable[[Seconds], None]
"""Waits that long while somebody else leaves; raises to end the waiting."""


class BusyError(StartError):
    """Something is in the way that may go by itself, such as a predecessor that is about to leave."""


@dataclass(slots=True, eq=False)
class BoundAddress:
    """One bind of one listener.

    Args:
        key: names it for ever.
        identity: by what another configuration means the same address.
        listener_name: the ``[listeners.NAME]`` it belongs to; a reload may change it.
        address: with the port that the kernel chose where the configuration says 0.
        sockets: one for each slot, or a single one when the address is shared.
        file: of a Unix address that was bound here.
        is_kept: whoever started lbproc has opened the socket and holds it too, so that what is queued
            outlives us: it is closed here, and never filtered, shut down or unlinked.
        is_steered: the kernel was told which slots get new connections.
        is_datagram: datagrams come there, and no connections.
    """

    key: int
    identity: AddressIdentity
    listener_name: str
    address: Address
    sockets: list[socket.socket]
    file: SocketFile | None = None
    is_kept: bool = False
    is_steered: bool = False
    is_datagram: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether all workers serve the same socket."""
        return self.file is not None or self.is_kept

    def serves(self, slot: Slot) -> bool:
        """Whether the worker of this slot has a socket of this address."""
        return self.is_shared or slot < len(self.sockets)

    def inherited(self, slot: Slot) -> InheritedListener:
        """What the worker of this slot gets."""
        sock = self.sockets[0 if self.is_shared else slot]
        return InheritedListener(self.key, self.listener_name, self.address, sock, self.is_shared)

    def probe(self, *, is_ours: bool = False) -> None:
        """Makes sure that no other program has begun to listen there.

        Args:
            is_ours: a TCP socket of our own is in the way of looking for others.

        Raises:
            StartError: one has.
        """
        if self.file is not None:
            require_name(self.file)
        elif isinstance(self.address, TcpAddress) and not (self.is_kept or is_ours or self.is_datagram):
            probe_bind(self.address, attempts=1)

    def shut(self) -> None:
        """Lets nothing in when it listens, until `open`; a Unix socket cannot be shut so.

        Raises:
            StartError: there is no memory for it.
        """
        for sock in () if self.is_shared or self.is_datagram else self.sockets:
            try:
                refuse_new(sock)
            except OSError as error:
                raise StartError(f"cannot listen on {self.address}: {error.strerror}") from error

    def open(self) -> None:
        """Lets connections in after all. Cannot fail."""
        for sock in () if self.is_shared or self.is_datagram else self.sockets:
            admit_new(sock)

    def listen(self, sockets: Iterable[socket.socket] | None = None) -> None:
        """Lets connections come.

        Args:
            sockets: those that do not listen yet; by default all.

        Raises:
            StartError: another program has the address.
        """
        if self.is_kept or self.is_datagram:  # it listens already
            return
        for sock in self.sockets if sockets is None else sockets:
            if self.file is None:
                listen(sock)
            else:
                listen_unix(sock, self.file)

    def hold_back(self) -> None:
        """Gives new connections to the slots there are, also when sockets of more of them listen.

        Raises:
            StartError: there is no memory for it.
        """
        self.is_steered = True
        try:
            self._steer(len(self.sockets))
        except OSError as error:
            raise StartError(f"cannot listen on {self.address}: {error.strerror}") from error

    def steer(self, slots: int) -> None:
        """Gives new connections to the lowest slots only.

        Without memory for the program the queues of the others are served nevertheless, until they close.
        """
        if not self.is_shared and (self.is_steered or slots < len(self.sockets)):
            self.is_steered = True
            with contextlib.suppress(OSError):
                self._steer(slots)

    def _steer(self, slots: int) -> None:
        (udp_listeners.steer if self.is_datagram else steer)(self.sockets[0], slots)

    def open_more(self, slots: int) -> list[socket.socket]:
        """Binds sockets for so many more slots, which get nothing before the address is steered to them.

        Raises:
            StartError: one cannot be bound; none of them stays open.
        """
        assert isinstance(self.address, TcpAddress)
        if not self.is_datagram:
            return open_slotted(self.address, slots)
        self.hold_back()
        return udp_listeners.open_slotted(self.address, slots, joins=True)

    def refuse(self) -> None:
        """Keeps new connections out; what is queued stays to be accepted. Workers refuse new flows."""
        if self.file is not None:
            self.file.remove()
        for sock in () if self.is_kept or self.is_datagram else self.sockets:
            # Without memory for the filter the queue is served nevertheless.
            with contextlib.suppress(OSError):
                refuse_new(sock)

    def close(self) -> None:
        """Closes all, the highest slot first, and removes the file of a Unix socket. Idempotent."""
        if self.file is not None and self.sockets:
            self.file.remove()
        while self.sockets:
            self.sockets.pop().close()

    def close_slots_from(self, first: Slot) -> None:
        """Closes the sockets of these slots, the highest first."""
        while not self.is_shared and len(self.sockets) > first:
            self.sockets.pop().close()

    def overlaps(self, address: Address, *, is_datagram: bool = False) -> bool:
        """Whether what goes to that address may come here: same port, and one of them is any host."""
        mine = self.address
        if (
            self.is_datagram != is_datagram
            or not isinstance(mine, TcpAddress)
            or not isinstance(address, TcpAddress)
            or mine.port != address.port
        ):
            return False
        is_any = bool({mine.host, address.host} & _ANY)
        return address_family(mine) == address_family(address) and (is_any or mine.host == address.host)


def bind(
    key: int,
    identity: AddressIdentity,
    listener_name: str,
    address: Address,
    slots: int,
    *,
    sleep: Sleep,
    passed: PassedSockets | None,
    is_probed: bool = True,
    is_datagram: bool = False,
) -> BoundAddress:
    """Binds an address. It does not listen yet.

    Args:
        key: see `BoundAddress`.
        identity: likewise.
        listener_name: likewise.
        address: as configured.
        slots: how many workers there are.
        sleep: waits for a predecessor.
        passed: sockets that are used instead where an address is theirs.
        is_probed: False where a socket of our own is in the way of looking for others.
        is_datagram: for datagrams. No passed socket is.

    Raises:
        StartError: it cannot be bound.
    """
    if is_datagram and isinstance(address, TcpAddress):
        if is_probed:
            sockets = udp_listeners.open_first(address, slots, sleep=sleep)
        else:
            sockets = udp_listeners.open_slotted(address, slots, joins=True)
        local = bound_address(sockets[0])
        return BoundAddress(key, identity, listener_name, local, sockets, is_datagram=True)
    kept = None if passed is None else passed.find(address)
    if kept is not None:
        return BoundAddress(key, identity, listener_name, address, [kept], is_kept=True)
    if isinstance(address, UnixAddress):
        sock, file = _bind_unix(address, _UNIX_MODE, sleep)
        return BoundAddress(key, identity, listener_name, address, [sock], file)
    if is_probed:
        probe_bind(address, sleep=sleep)
    sockets = open_slotted(address, slots)
    return BoundAddress(key, identity, listener_name, bound_address(sockets[0]), sockets)


def never_wait(address: Address) -> Sleep:
    """A function for ``sleep`` that does not wait.

    Raises:
        BusyError: when it is called.
    """

    def give_up(_: Seconds) -> None:
        raise BusyError(
            f"cannot listen on {address}: another program listens there; stop it or choose another address"
        )

    return give_up


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


def open_admin_socket(
    address: Address, sleep: Sleep = time.sleep, passed: PassedSockets | None = None
) -> AdminSocket:
    """Binds the admin listener and listens.

    Args:
        address: where.
        sleep: waits for a predecessor.
        passed: as in `bind`.

    Raises:
        StartError: the address cannot be bound.
    """
    kept = None if passed is None else passed.find(address)
    if kept is not None:
        return AdminSocket(kept)
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
def one_at_a_time(attempts: int = _LOCK_ATTEMPTS) -> Iterator[None]:
    """Keeps two lbproc of one network namespace from looking and listening at the same moment.

    An abstract Unix name has the namespace of the addresses, leaves no file, and goes with its process. Who
    holds on to it is in the way for a second: it guards against accidents, not against enemies.

    Args:
        attempts: how often it is tried before it is done without.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        for attempt in range(attempts):
            if attempt:
                time.sleep(_LOCK_PAUSE)
            try:
                lock.bind(_LOCK_NAME)
            except OSError:
                continue
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
