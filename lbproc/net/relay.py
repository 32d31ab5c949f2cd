"""Moving bytes from one transport to another, as a body allows.

Owns what was read and not yet sent, the size of reads, and whose fault a failure was.
Where a message ends is the body's; waiting, deadlines and what to tell the client are the caller's.

Theory of operation. `Pipe.pump` moves until it is blocked, has used up its budget, or is finished; it never
waits::

    while not pipe.finished:
        if pipe.pump() >= BUDGET:
            await trio.lowlevel.checkpoint()        # let the others have their turn
        elif not await park(pipe.waits(), deadlines, deadline):
            ...                                     # pipe.is_sink_blocked tells which side was too slow

All pipes of a process read into one buffer, and what a read brought is sent before anything else is read.
Only what the sink did not take is copied out and held by its pipe. So bytes move in large pieces without a
new object for each, and thousands of pipes need no memory but for what their slow readers leave. To keep that
small, a large read asks for no more than the sink has room for.

Invariants:
    - Nothing is read while something is unsent, so a slow reader holds up the writer (back-pressure).
    - The shared buffer holds nothing between two reads: no pipe, body or caller keeps a view of it.
    - A pipe holds at most about `_SMALL_READ` bytes: a small read that the full sink refused, or by how much
      the sink's room was overrated. Where room is always overrated, because of a limit that the kernel does
      not tell (tcp_notsent_lowat), reads shrink to what the sink takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lbproc.net.readiness import LOST, READ
from lbproc.net.transport import ConnectionLost

if TYPE_CHECKING:
    from lbproc.net.readiness import Waits
    from lbproc.net.transport import Transport

BUDGET = 262_144
"""Bytes after which a pump ends, so that the loop's other tasks have their turn. Its last read may go beyond
by as much as a large read: some 0.4 ms (one core, 2026)."""

_SMALL_READ = 16_384
_LARGE_READ = 1_048_576
"""10 MB through both workers cost 4.9 ms in reads of up to 1 MiB, 5.8 of 512 KiB, 6.7 of 256 KiB, where
HAProxy cost 7.3: large pieces wake backend and client less often. 2 MiB gave little more (loopback, 2026)."""

_GROWTH = 4

_READS_OF_A_REFLEX = 4

_LINE_COST = 512
"""Bytes of budget that a line of framing counts for: 0.35 µs to scan it, 0.05 µs to relay 100 bytes (2026).
Without it a sender of one-byte chunks would have the loop for 60 ms in one turn."""

_SHARED = memoryview(bytearray(_LARGE_READ))
"""What all pipes read into. Its pages are the process's own, and only there once they are used."""

_NOTHING = memoryview(b"")


class Body(Protocol):
    """Where a message ends; the bodies of ``lbproc.core.http.body`` and the stream of a tunnel are such."""

    complete: bool

    @property
    def lines(self) -> int:
        """Lines of framing read so far, which cost more than bytes do."""

    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        """Splits what was received into what is to be relayed and the excess after the end.

        What is to be relayed may be a view of ``data``, which changes later; nothing else may keep one.
        """

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Whether the body may end here because the connection does; else it is cut off.

        Args:
            is_truncated: The connection ended in a way that anybody on the path could have brought about.
        """


class SourceFailed(Exception):  # noqa: N818  what happened, told apart by whose it was
    """The connection that was read broke."""


class SinkFailed(Exception):  # noqa: N818
    """The connection that was written broke."""


class Truncated(Exception):  # noqa: N818
    """The connection that was read ended within a body."""


class Pipe:
    """One direction of a relay.

    Args:
        source: Read from.
        sink: Written to.
        body: Knows the end.
        buffered: Bytes that were already read from the source, after the head.
        prefix: Bytes that are sent before the body and are not part of it: a rendered head, which then goes
            in one piece with the beginning of the body.

    Attributes:
        finished: The body is complete and all of it was sent.
        is_sink_blocked: The sink takes no more; otherwise it is the source that has nothing.
        excess: Bytes that were read after the end of the body.
        has_read: Bytes were read from the source, beyond those that were buffered.
        received: Bytes that were read of the body.
        sent: Bytes that were written, the prefix among them.
    """

    __slots__ = (
        "_body", "_read_size", "_sink", "_source", "_unsent",
        "excess", "finished", "has_read", "is_sink_blocked", "received", "sent",
    )  # fmt: skip

    def __init__(
        self, source: Transport, sink: Transport, body: Body, buffered: bytes = b"", prefix: bytes = b""
    ) -> None:
        self._source = source
        self._sink = sink
        self._body = body
        self._read_size = _SMALL_READ
        self._unsent = _NOTHING
        self.is_sink_blocked = False
        self.excess = b""
        self.received = 0
        self.sent = 0
        self.has_read = False
        if buffered:
            self._unsent = self._take(memoryview(buffered))
            if len(buffered) >= _SMALL_READ // 2:  # a head that came in a full read has more behind it
                self._read_size *= _GROWTH
        if prefix:
            self._unsent = memoryview(prefix + self._unsent)
        self.finished = body.complete and not self._unsent

    @property
    def holds(self) -> bool:
        """Whether something was read that the sink has not taken."""
        return len(self._unsent) > 0

    def waits(self) -> Waits:
        """What to park on after a pump that was blocked."""
        return self._sink.until_writable if self.is_sink_blocked else self._source.until_readable

    def pump(self, budget: int = BUDGET) -> int:
        """Moves bytes until blocked, finished, or ``budget`` bytes were read or sent.

        Returns:
            What it cost: the number of bytes read or sent, whichever is more, and what lines of framing count
            for; at least ``budget`` when there may be more to do.

        Raises:
            SourceFailed: Reading failed. What was read before is sent.
            SinkFailed: Writing failed.
            Truncated: The source ended within the body.
            Exception: Whatever the body raises on bytes that it refuses.
        """
        sent_before, lines_before = self.sent, self._body.lines
        read = moved = 0
        goes_on = True
        while goes_on and not self.finished and moved < budget:
            if self._unsent:
                goes_on = self._send(self._unsent, is_held=True)
            else:
                count = self._move()
                goes_on = count > 0
                read += count
            lines = self._body.lines - lines_before
            moved = max(read, self.sent - sent_before) + _LINE_COST * lines
        return moved

    def pass_on(self) -> bool:
        """Moves what few small reads bring, for a reflex. Returns whether that was all there is to do.

        Else it is `pump` that goes on. What a failed sink did not take is kept, so that `pump` meets that.

        Raises:
            SourceFailed, SinkFailed: as `pump` does, and will again.
        """
        if self._unsent or self._read_size > _SMALL_READ:
            return False
        source = self._source.source
        for _ in range(_READS_OF_A_REFLEX):
            if not self._move() or not source.ready & READ:
                break
            if self._unsent or self._read_size > _SMALL_READ:
                return False
        return not (
            self._unsent or self.finished or self._read_size > _SMALL_READ or source.ready & (READ | LOST)
        )

    def _move(self) -> int:
        """Reads once and sends it. Returns how much was read: 0 when the source would block or has ended."""
        size = self._read_size
        if size > _SMALL_READ:
            size = max(_SMALL_READ, min(size, self._sink.room()))
        try:
            count = self._source.recv_into(_SHARED[:size])
        except ConnectionLost as error:
            raise SourceFailed(error.detail) from error
        if count is None:
            self.is_sink_blocked = False
            return 0
        if not count:
            if not self._body.at_eof(is_truncated=self._source.is_truncated):
                raise Truncated("the connection ended within a body")
            self.finished = True
            return 0
        if count == size:
            self._read_size = min(self._read_size * _GROWTH, _LARGE_READ)
        elif count < _SMALL_READ:
            self._read_size = _SMALL_READ  # small pieces that come one by one need no look at the room
        self.has_read = True
        lines_before = self._body.lines
        relayed = self._take(_SHARED[:count])
        if _LINE_COST * (self._body.lines - lines_before) > count:
            self._read_size = _SMALL_READ
        if relayed:
            self._send(relayed)
        else:
            self.finished = self._body.complete
        return count

    def _take(self, data: memoryview) -> memoryview:
        relayed, self.excess = self._body.take(data)
        self.received += len(relayed)
        return relayed

    def _send(self, data: memoryview, *, is_held: bool = False) -> bool:
        """Sends, and holds what the sink does not take. Returns whether it took all."""
        try:
            count = self._sink.send(data)
        except ConnectionLost as error:
            if not is_held:
                self._unsent = memoryview(bytes(data))
            raise SinkFailed(error.detail) from error
        self.sent += count
        if count == len(data):
            self._unsent = _NOTHING
            self.finished = self._body.complete
            return True
        rest = data[count:]
        if not is_held:
            rest = memoryview(bytes(rest))
            if len(rest) > _SMALL_READ:  # the room was overrated
                self._read_size = max(_SMALL_READ, count)
        self._unsent = rest
        self.is_sink_blocked = True
        return False
