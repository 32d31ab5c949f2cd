"""Connections that change hands: an accepted socket goes to a sibling's inbox, before a byte is read.

An inbox is one end of a pair of Unix sockets (SEQPACKET) that belongs to a worker slot. The supervisor makes
the pairs and keeps both ends, so what is in an inbox outlives the worker that it was meant for: the slot's
next worker takes it, or the sibling that adopts the slot. Every worker has its own inbox to read from, and
the other ends of all others'. Owns how a connection travels. Does not own who gives what to whom.

Theory of operation. A message carries one descriptor, and a few bytes that say at which address it was
accepted, and from whom. Once it is sent the giver closes its own descriptor; nothing is lost then unless the
last inbox closes. Sending never waits: a giver whom the kernel refuses keeps the connection.

The end is the kernel's. A shutdown of the inbox's receiving side (`lbproc.net.listeners.refuse_new`) refuses
all further sends, from every process at once, and lets what is there be read; then reads give the end. So
whoever reads to the end has all that was ever sent, however late a giver was.

A socket must never have been registered with the giver's epoll, which would go on reporting it. A receiver
without a free descriptor would lose the connection, because the kernel discards what it cannot install
(MSG_CTRUNC). So it makes sure that one is free before it reads, and else leaves the inbox for later.
"""

from __future__ import annotations

import array
import errno
import math
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lbproc.core.control.handover import MAX_HAND_OVER_BYTES, decode_hand_over, encode_hand_over
from lbproc.errors import ControlError
from lbproc.net.accept import EXHAUSTED
from lbproc.net.readiness import READ, Source, park

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lbproc.net.readiness import Deadlines, Dispatcher, Waits
    from lbproc.net.transport import SocketPeer
    from lbproc.types import Seconds

_BATCH = 16
"""Connections taken in a row; each becomes a task, and the others have their turn in between."""

_DESCRIPTOR_BYTES = array.array("i").itemsize
_SPACE = socket.CMSG_SPACE(_DESCRIPTOR_BYTES)


def open_inbox() -> tuple[socket.socket, socket.socket]:
    """A new inbox: the end to read from and the end to send to. Neither ever blocks."""
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socketpair(socket.AF_UNIX, kind)


def hand_over(outbox: socket.socket, key: int, sock: socket.socket, peer: SocketPeer) -> bool:
    """Sends an accepted socket to an inbox, and closes it here.

    Args:
        outbox: the sending end.
        key: of the bound address that it came to.
        sock: nothing was read from it, and no epoll has ever watched it.
        peer: as accept returned it.

    Returns:
        False if it could not be sent: the inbox is full or at its end. The socket is as it was.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))
    try:
        outbox.sendmsg([encode_hand_over(key, peer)], [rights], socket.MSG_NOSIGNAL)
    except (OSError, ControlError):
        return False
    sock.close()
    return True


class Inbox:
    """Takes connections out of one inbox.

    Args:
        sock: The receiving end; not closed here.
        dispatcher: Reports its events.
        deadlines: The worker's sweeper.
        on_take: Gets the key of the bound address, the socket, for which it takes responsibility, and the
            peer's address. It must not wait; what it raises ends the loop.
        on_empty: Told when nothing is in the inbox.
        on_exhausted: Told the error when no descriptor is free, once each time the loop has to rest.
        on_nonsense: Told of a message that cannot be understood; what came along is closed.
        rest: How long to rest when no descriptor is free.
    """

    __slots__ = (
        "_deadlines", "_dispatcher", "_exhaustion", "_has_ended", "_on_empty", "_on_exhausted",
        "_on_nonsense", "_on_take", "_rest", "_sock", "_source",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        dispatcher: Dispatcher,
        deadlines: Deadlines,
        on_take: Callable[[int, socket.socket, SocketPeer], None],
        *,
        on_empty: Callable[[], None],
        on_exhausted: Callable[[OSError], None],
        on_nonsense: Callable[[ControlError], None],
        rest: Seconds = 0.1,
    ) -> None:
        self._sock = sock
        self._dispatcher = dispatcher
        self._deadlines = deadlines
        self._on_take = on_take
        self._on_empty = on_empty
        self._on_exhausted = on_exhausted
        self._on_nonsense = on_nonsense
        self._rest = rest
        self._source = Source()
        self._exhaustion: OSError | None = None
        self._has_ended = False

    def stop(self) -> None:
        """Refuses what is not yet sent, in every process; `run` takes what was, and returns."""
        with suppress(OSError):  # not connected: the other end is gone, which is the end as well
            self._sock.shutdown(socket.SHUT_RD)
        self._source.nudge()

    def look(self) -> None:
        """Lets `run` look into the inbox although nothing told of a message."""
        self._source.notify(READ)

    async def run(self) -> None:
        """Takes what comes until the end of the inbox, or until cancelled."""
        self._source = Source()
        waits: Waits = ((self._source, READ),)
        self._dispatcher.register(self._sock.fileno(), self._source)
        try:
            while True:
                taken = self._take_batch()
                if self._has_ended:
                    return
                if self._exhaustion is not None:
                    self._on_exhausted(self._exhaustion)
                    await trio.sleep(self._rest)
                elif taken == _BATCH:
                    await trio.lowlevel.checkpoint()
                else:
                    await park(waits, self._deadlines, math.inf)
        finally:
            self._dispatcher.unregister(self._sock.fileno())

    def _take_batch(self) -> int:
        """Takes a bounded number; returns how many, all of them if there may be more."""
        self._exhaustion = None
        for count in range(_BATCH):
            try:
                os.close(os.dup(self._sock.fileno()))  # is a descriptor free?
                octets, ancillary, flags, _ = self._sock.recvmsg(
                    MAX_HAND_OVER_BYTES, _SPACE, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                self._source.ready &= ~READ
                self._on_empty()
                return count
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._exhaustion = error
                return count
            if not octets:
                self._has_ended = True
                self._on_empty()
                return count
            self._take(octets, _descriptors_in(ancillary), flags)
        return _BATCH

    def _take(self, octets: bytes, descriptors: Sequence[int], flags: int) -> None:
        try:
            key, peer = decode_hand_over(octets)
            if flags & socket.MSG_CTRUNC and not descriptors:
                # Another thread was quicker to take the free descriptor. The connection is closed.
                lost = OSError(
                    errno.EMFILE, f"{os.strerror(errno.EMFILE)}; a connection from a sibling was lost"
                )
                self._on_exhausted(lost)
                return
            sock = _only_stream(descriptors)
        except ControlError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            self._on_nonsense(error)
            return
        self._on_take(key, sock, peer)


def _only_stream(descriptors: Sequence[int]) -> socket.socket:
    """The one stream socket that came along.

    Raises:
        ControlError: it is something else; nothing is closed.
    """
    if len(descriptors) != 1:
        raise ControlError(f"a hand-over came with {len(descriptors)} descriptors")
    try:
        sock = socket.socket(fileno=descriptors[0])
    except OSError:
        raise ControlError("a hand-over came with something else than a socket") from None
    if sock.type is not socket.SOCK_STREAM:
        sock.detach()
        raise ControlError("a hand-over came with a socket of another type")
    return sock


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return found.tolist()
