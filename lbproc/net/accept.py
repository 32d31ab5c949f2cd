"""The workers' accept loop: takes connections from one listening socket and hands each to a function.

Owns when to accept, when to rest, and what an error of accept means. Does not own the listening socket,
which belongs to the supervisor's slot and outlives this worker, nor what becomes of a connection.

Theory of operation. The listening socket is watched edge-triggered, so it is accepted from until the kernel
has no more. Three things need care:

    - When descriptors or memory run out, what is queued stays queued and *no new edge comes for it*. The
      loop rests and tries again by itself.
    - An edge may wake the workers of several processes. All but one find nothing, which is harmless.
    - A flood of connections must not starve those that are here already: after a batch the others have
      their turn.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lbproc.net.readiness import READ, Source, park

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.net.readiness import Deadlines, Dispatcher, Waits
    from lbproc.net.transport import SocketPeer
    from lbproc.types import Seconds

_BATCH = 64

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The host has no room for another connection right now."""

# accept(2): errors of the network that belong to the one connection which would have been next.
_CONNECTION_GONE = frozenset({
    errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET, errno.EOPNOTSUPP, errno.ETIMEDOUT,
})  # fmt: skip


_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    """Closes a connection that is not wanted: a TCP peer sees a reset, and nothing of it is left here."""
    with suppress(OSError):  # it is gone already, or a Unix socket that does not linger
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


class Acceptor:
    """Accepts from one listening socket.

    Args:
        sock: Listening; made non-blocking here, not closed.
        dispatcher: Reports its events.
        deadlines: The worker's sweeper.
        on_accept: Gets each connection's socket, for which it takes responsibility, and the peer's address
            as accept returned it. It must not wait; what it raises ends the loop.
        on_exhausted: Told the error when descriptors or memory ran out, once each time the loop has to rest.
        rest: How long to rest then.
        quiet: How long nothing may come before a stopped loop ends. Handshakes that began before new
            connections were refused still complete within a round trip.
    """

    __slots__ = (
        "_deadlines", "_dispatcher", "_exhaustion", "_is_stopping", "_on_accept", "_on_exhausted", "_quiet",
        "_rest", "_sock", "_source",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        dispatcher: Dispatcher,
        deadlines: Deadlines,
        on_accept: Callable[[socket.socket, SocketPeer], None],
        *,
        on_exhausted: Callable[[OSError], None] | None = None,
        rest: Seconds = 0.1,
        quiet: Seconds = 0.3,
    ) -> None:
        self._sock = sock
        self._dispatcher = dispatcher
        self._deadlines = deadlines
        self._on_accept = on_accept
        self._on_exhausted = on_exhausted
        self._rest = rest
        self._quiet = quiet
        self._source = Source()
        self._exhaustion: OSError | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """Lets `run` go on until nothing has come for a while, and then return.

        Before, new connections are refused or steered elsewhere, or it may never become quiet.
        """
        self._is_stopping = True
        self._source.nudge()

    async def run(self) -> None:
        """Accepts until stopped and quiet, or cancelled.

        Afterwards the socket may be closed, or run again.
        """
        self._sock.setblocking(False)
        self._source = Source()
        waits: Waits = ((self._source, READ),)
        self._dispatcher.register(self._sock.fileno(), self._source)
        try:
            quiet_at = math.inf
            while True:
                accepted = self._accept_batch()
                if self._is_stopping and (accepted or quiet_at == math.inf):
                    quiet_at = trio.current_time() + self._quiet
                if self._exhaustion is not None:
                    await self._rest_awhile(self._exhaustion)
                elif accepted == _BATCH:
                    await trio.lowlevel.checkpoint()
                elif not await park(waits, self._deadlines, quiet_at):
                    return
        finally:
            self._dispatcher.unregister(self._sock.fileno())

    def _accept_batch(self) -> int:
        """Accepts a bounded number.

        Returns how many were taken from the queue; all of them means there may be more.
        """
        self._exhaustion = None
        for count in range(_BATCH):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                self._source.ready &= ~READ
                return count
            except OSError as error:
                if error.errno == errno.EINVAL and self._sock.family is socket.AF_UNIX:
                    self._source.ready &= ~READ  # shut down, and nothing is queued any more
                    return count
                if error.errno in _CONNECTION_GONE:
                    continue
                if error.errno in EXHAUSTED:
                    self._exhaustion = error
                    return count
                raise
            self._on_accept(sock, peer)
        return _BATCH

    async def _rest_awhile(self, exhaustion: OSError) -> None:
        """Waits for others to give something back.

        READ is still set, so the next round tries without an edge.
        """
        if self._on_exhausted is not None:
            self._on_exhausted(exhaustion)
        await trio.sleep(self._rest)
