"""A two-way stream of bytes that never blocks: what shells read from, write to, park on and close.

Owns the calls into the socket and the mapping of its errors. Does not wait: `lbproc.net.readiness` does.
Other versions (memory, TLS) keep the same promises, so shells do not know which one they hold:

    - `recv` and `send` clear the source's bit when nothing more is to be had, and only then; after that a
      park sleeps.
    - What `send` did not take is offered again, the same bytes first, or nothing more is sent at all.
    - Every way in which the peer or the path fails is `ConnectionLost`.
    - `close` and `abort` are final, may be repeated, and wake whoever is parked.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

from lbproc.net.readiness import READ, WRITE, Source

if TYPE_CHECKING:
    from lbproc.net.readiness import Dispatcher, Waits

SocketPeer = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""A peer's address as accept returns it: host and port first, or a string for a Unix socket."""

_NOT_READ = ~READ
_NOT_WRITE = ~WRITE
_LINGER_ZERO = struct.pack("ii", 1, 0)
_CLOSED = "closed on this side"
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=8x2I4xI")
"""Of the words of SO_MEMINFO (linux/sock_diag.h): WMEM_ALLOC, which counts for Unix sockets, SNDBUF, and
WMEM_QUEUED, which counts for TCP."""

_UNKNOWN_ROOM = 65_536
_NEWS = select.POLLIN | select.POLLPRI | select.POLLRDHUP


class ConnectionLost(Exception):  # noqa: N818  it is what happened to the connection, and nobody's mistake
    """The connection broke: reset, timed out, unreachable, or closed on this side.

    Args:
        detail: The kernel's words, such as ``Connection reset by peer``.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Transport(ABC):
    """A two-way stream of bytes.

    Attributes:
        source: Where tasks park. Its bits tell whether `recv` and `send` may get anywhere.
        until_readable: What to park on to read; made once.
        until_writable: What to park on to write; made once.
        peer_ip: The peer's IP address, or "" for a Unix socket.
        peer_port: The peer's port, or 0.
        opened_at: When it was opened, for whoever cares: an instant of trio's clock, set from outside.
        is_truncated: The stream has ended, and who ended it is not known to be the peer: TLS without its
            closing word. TCP knows no such word, so there it is always False.
        alert: Why the peer broke the connection, in the words of TLS; empty if it has not said so.
    """

    is_truncated = False
    alert = ""

    __slots__ = ("opened_at", "peer_ip", "peer_port", "source", "until_readable", "until_writable")

    def __init__(self, peer_ip: str, peer_port: int, source: Source | None = None) -> None:
        self.source = source = source or Source()
        self.until_readable: Waits = ((source, READ),)
        self.until_writable: Waits = ((source, WRITE),)
        self.peer_ip = peer_ip
        self.peer_port = peer_port
        self.opened_at = 0.0

    @property
    @abstractmethod
    def local_address(self) -> tuple[str, int]:
        """The IP address and port on this side, or ("", 0). Asks the kernel: not for every request."""

    @abstractmethod
    def recv(self, max_bytes: int) -> bytes | None:
        """Reads what is there.

        Returns:
            Up to ``max_bytes``; ``b""`` at the end of the stream; None when it would block.

        Raises:
            ConnectionLost: The connection broke or is closed here.
        """

    @abstractmethod
    def recv_into(self, buffer: memoryview) -> int | None:
        """Reads what is there into ``buffer``, which spares large reads a new object each.

        Returns:
            The number of bytes read, up to the length of ``buffer``; 0 at the end of the stream; None when
            it would block.

        Raises:
            ConnectionLost: The connection broke or is closed here.
        """

    @abstractmethod
    def room(self) -> int:
        """About how many bytes `send` would take now. A hint, which costs a system call; may be wrong."""

    @abstractmethod
    def send(self, data: bytes | memoryview) -> int:
        """Writes what there is room for.

        Args:
            data: At least one byte.

        Returns:
            The number of bytes taken, 0 when it would block.

        Raises:
            ConnectionLost: The connection broke or is closed here, or this side was shut down.
        """

    def send_last(self, data: bytes | memoryview) -> int:
        """Writes what is followed by nothing but the end, which may then go along with it; see `send`.

        What was not taken is offered to `send`, and `close` or `shutdown_write` is still to come.
        """
        return self.send(data)

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing, not even the end; asked of an idle connection before reuse.

        Asks the kernel, since an event may not have been dispatched yet. After False the transport is only
        good for closing: what was read is thrown away.
        """

    @abstractmethod
    def shutdown_write(self) -> None:
        """Ends the stream towards the peer (FIN). Reading goes on, and is where errors surface."""

    @abstractmethod
    def close(self) -> None:
        """Closes both ways.

        What was sent is still delivered, unless unread bytes make the kernel reset instead.
        """

    @abstractmethod
    def abort(self) -> None:
        """Closes so that the peer sees it broke (RST); what was not yet delivered is thrown away."""


class SocketTransport(Transport):
    """A TCP or Unix stream socket. Takes responsibility for closing it, even if the constructor raises.

    Args:
        sock: Connected, or on its way there. It is made non-blocking, and TCP sends at once (TCP_NODELAY):
            heads and large pieces are written whole, so Nagle's algorithm could only delay the last piece.
        dispatcher: Reports the socket's events.
        peer: The peer's address, as accept returned it or connect was given it.
        connecting: The connection is still being made: the bits start clear, and WRITE comes when it is
            there or has failed.
    """

    __slots__ = ("_broken", "_dispatcher", "_fd", "_is_tcp", "_news", "_sock", "_watches_writes")

    def __init__(
        self, sock: socket.socket, dispatcher: Dispatcher, peer: SocketPeer, *, connecting: bool = False
    ) -> None:
        self._is_tcp = isinstance(peer, tuple)
        if isinstance(peer, tuple):
            super().__init__(peer[0], peer[1])
        else:
            super().__init__("", 0)
        self._sock = sock
        self._fd = sock.fileno()
        self._dispatcher = dispatcher
        self._watches_writes = connecting
        self._news: select.poll | None = None
        self._broken = ""
        if connecting:
            self.source.ready = 0
        try:
            sock.setblocking(False)
            if self._is_tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dispatcher.register(self._fd, self.source, writes=connecting)
        except BaseException:
            sock.close()
            raise

    @property
    def local_address(self) -> tuple[str, int]:
        """The IP address and port on this side; ("", 0) for a Unix socket."""
        if not self._is_tcp:
            return "", 0
        if self._fd < 0:
            raise ConnectionLost(_CLOSED)
        ip, port = self._sock.getsockname()[:2]
        return ip, port

    def recv(self, max_bytes: int) -> bytes | None:
        """Reads what is there; see `Transport.recv`.

        A read of TCP that returns less than was asked has emptied the queue (epoll(7)), so it clears READ
        without another call that would block. Not so when the source is wary. On a Unix socket descriptors
        that came along end a read early, so there only EAGAIN proves it.
        """
        source = self.source
        if not source.ready & READ:
            return None
        try:
            received = self._sock.recv(max_bytes)
        except BlockingIOError:
            source.ready &= _NOT_READ
            return None
        except OSError as error:
            raise self._lost(error) from error
        if len(received) < max_bytes and self._is_tcp and not source.wary:
            source.ready &= _NOT_READ
        if not received:
            source.wary = True
            source.ready |= READ  # the end stays the end
            if self._broken:
                raise ConnectionLost(self._broken)
        return received

    def recv_into(self, buffer: memoryview) -> int | None:
        """Reads what is there; see `Transport.recv_into`, and `recv` for what a short read says."""
        source = self.source
        if not source.ready & READ:
            return None
        try:
            count = self._sock.recv_into(buffer)
        except BlockingIOError:
            source.ready &= _NOT_READ
            return None
        except OSError as error:
            raise self._lost(error) from error
        if count < len(buffer) and self._is_tcp and not source.wary:
            source.ready &= _NOT_READ
        if not count:
            source.wary = True
            source.ready |= READ  # the end stays the end
            if self._broken:
                raise ConnectionLost(self._broken)
        return count

    def room(self) -> int:
        """What the send buffer has left (SO_MEMINFO); see `Transport.room`.

        The kernel counts the memory that a piece occupies, which was up to 1.4 times its bytes (Linux 6.18);
        hence two thirds. A connection that broke has room: the send will tell.
        """
        try:
            info = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:
            return _UNKNOWN_ROOM
        allocated, limit, queued = _MEMINFO.unpack(info)
        room: int = (limit - max(allocated, queued)) * 2 // 3
        return max(0, room)

    def send(self, data: bytes | memoryview) -> int:
        """Writes what there is room for; see `Transport.send`.

        The first time that it does not fit, the dispatcher begins to report room to write: most connections
        never come here, and are spared those events.
        """
        source = self.source
        if not source.ready & WRITE:
            return 0
        try:
            sent = self._sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost(error) from error
        if sent < len(data):
            source.ready &= _NOT_WRITE
            if not self._watches_writes:
                self._watches_writes = True
                self._dispatcher.watch_writes(self._fd)
        return sent

    def is_quiet(self) -> bool:
        """Whether a read would block; see `Transport.is_quiet`.

        Asks with poll(2), at 0.35 µs; a read that would block costs 1.2 with its exception (2026).
        """
        if self._fd < 0:
            return False
        if self._news is None:
            self._news = select.poll()
            self._news.register(self._fd, _NEWS)
        if self._news.poll(0):
            return False
        self.source.ready &= _NOT_READ
        return True

    def shutdown_write(self) -> None:
        """Sends FIN after what was sent. A connection that broke in the meantime says so at the next read."""
        with suppress(OSError):  # not connected any more, or closed here
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Unregisters and closes the socket, once."""
        if self._fd >= 0:
            self._dispatcher.unregister(self._fd)
            self._fd = -1
            self._sock.close()

    def abort(self) -> None:
        """Closes with RST (SO_LINGER of zero). A Unix socket has no RST: it is closed."""
        if self._fd >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            self.close()

    def _lost(self, error: OSError) -> ConnectionLost:
        """Says what broke, and remembers it.

        The kernel reports an error once, and after that an end which looks like the peer's FIN. After EPIPE
        it is one: a reset that follows the peer's FIN is reported so.
        """
        if self._fd < 0:
            return ConnectionLost(_CLOSED)
        detail = os.strerror(error.errno or 0)
        if error.errno != errno.EPIPE:
            self._broken = detail
        return ConnectionLost(detail)
