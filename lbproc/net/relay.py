"""Moving bytes from one transport to another, as a body allows, and whole tunnels made of two such pipes.

Owns the one read's worth of bytes that is on its way, the size of reads, and whose fault a failure was.
Where a message ends is the body's; waiting, deadlines and what to tell the client are the caller's.

Theory of operation. `Pipe.pump` moves until it is blocked, has used up its budget, or is finished; it never
waits::

    while not pipe.finished:
        if pipe.pump() >= BUDGET:
            await trio.lowlevel.checkpoint()        # let the others have their turn
        elif not await park(pipe.waits(), deadlines, deadline):
            ...                                     # pipe.is_sink_blocked tells which side was too slow

Invariant: nothing is read while something is unsent, so a slow reader holds up the writer (back-pressure),
and a pipe never holds more than one read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from lbproc.net.readiness import LOST, park
from lbproc.net.transport import ConnectionLost

if TYPE_CHECKING:
    from lbproc.net.readiness import Deadlines, Waits
    from lbproc.net.transport import Transport
    from lbproc.types import Seconds

BUDGET = 262_144
"""Bytes that one pump moves before the loop's other tasks have their turn."""

_SMALLEST_READ = 16_384
_LARGEST_READ = 262_144
_NOTHING = memoryview(b"")


class Body(Protocol):
    """Where a message ends; the bodies of ``lbproc.core.http.body`` and `Stream` are such."""

    complete: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Splits what was received into what is to be relayed and the excess after the end."""

    def at_eof(self) -> bool:
        """Whether the body may end here because the connection does; else it is cut off."""


class Stream:
    """The body of a tunnel: everything, until the end of the connection."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """All of it is relayed."""
        return data, b""

    def at_eof(self) -> bool:
        """The end of the connection is the end of the stream."""
        self.complete = True
        return True


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
        self._read_size = _SMALLEST_READ
        self._unsent = _NOTHING
        self.is_sink_blocked = False
        self.excess = b""
        self.received = 0
        self.sent = 0
        self.has_read = False
        if buffered:
            self._take(buffered)
        if prefix:
            self._unsent = memoryview(prefix + self._unsent if self._unsent else prefix)
        self.finished = body.complete and not self._unsent

    def waits(self) -> Waits:
        """What to park on after a pump that was blocked."""
        return self._sink.until_writable if self.is_sink_blocked else self._source.until_readable

    def pump(self, budget: int = BUDGET) -> int:
        """Moves bytes until blocked, finished, or ``budget`` bytes were read or sent.

        Returns:
            The number of bytes read or sent, whichever is more; at least ``budget`` when there may be more
            to do.

        Raises:
            SourceFailed: Reading failed. What was read before is sent.
            SinkFailed: Writing failed.
            Truncated: The source ended within the body.
            Exception: Whatever the body raises on bytes that it refuses.
        """
        sent_before = self.sent
        read = moved = 0
        while not self.finished and moved < budget:
            if self._unsent:
                if not self._flush():
                    break
            else:
                count = self._read()
                if not count:
                    break
                read += count
            moved = max(read, self.sent - sent_before)
        return max(read, self.sent - sent_before)

    def _read(self) -> int:
        """Reads once. Returns 0 when the source would block or has ended."""
        try:
            received = self._source.recv(self._read_size)
        except ConnectionLost as error:
            raise SourceFailed(error.detail) from error
        if received is None:
            self.is_sink_blocked = False
            return 0
        if not received:
            if not self._body.at_eof():
                raise Truncated("the connection ended within a body")
            self.finished = True
            return 0
        if len(received) == self._read_size < _LARGEST_READ:
            self._read_size *= 2
        self.has_read = True
        self._take(received)
        if not self._unsent:
            self.finished = self._body.complete
        return len(received)

    def _take(self, data: bytes) -> None:
        relayed, self.excess = self._body.take(data)
        self._unsent = memoryview(relayed)
        self.received += len(relayed)

    def _flush(self) -> bool:
        """Sends what is unsent. Returns False when the sink would block."""
        unsent = self._unsent
        try:
            count = self._sink.send(unsent)
        except ConnectionLost as error:
            raise SinkFailed(error.detail) from error
        self.sent += count
        if count == len(unsent):
            self._unsent = _NOTHING
            self.finished = self._body.complete
            return True
        self._unsent = unsent[count:]
        self._read_size = max(_SMALLEST_READ, self._read_size // 2)  # what waits for a slow reader is held
        self.is_sink_blocked = True
        return False


TunnelReason = Literal["closed", "idle", "a_failed", "b_failed"]


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """How a tunnel ended.

    Attributes:
        bytes_up: Bytes that were sent from a to b.
        bytes_down: Bytes that were sent from b to a.
        reason: ``closed``: both sides ended their streams; ``idle``: no byte either way; ``a_failed``,
            ``b_failed``: that side's connection broke.
    """

    bytes_up: int
    bytes_down: int
    reason: TunnelReason


async def relay_tunnel(
    a: Transport,
    b: Transport,
    deadlines: Deadlines,
    idle: Seconds,
    buffered_a: bytes = b"",
    buffered_b: bytes = b"",
) -> TunnelEnd:
    """Relays both ways until both sides have ended their streams, one of them breaks, or nothing moves.

    The end of one stream is passed on and the other goes on (half-close). When b no longer takes anything,
    what it sent before is still brought to a, and the other way round. Neither transport is closed here:
    the caller does, and may abort instead.

    Args:
        a: The client side.
        b: The backend side.
        deadlines: The worker's sweeper.
        idle: Seconds without a byte either way that end the tunnel.
        buffered_a: Bytes already read from a.
        buffered_b: Bytes already read from b.
    """
    up = Pipe(a, b, Stream(), buffered_a)
    down = Pipe(b, a, Stream(), buffered_b)
    going: list[_Direction] = [(up, b, "a_failed"), (down, a, "b_failed")]
    deadline = trio.current_time() + idle
    while going:
        most = 0
        if a.source.ready & LOST:  # also when nobody reads it, because the backend takes nothing
            return TunnelEnd(up.sent, down.sent, "a_failed")
        waits: Waits = ((a.source, LOST),)
        for direction in tuple(going):
            pipe, sink, source_failed = direction
            try:
                moved = pipe.pump()
            except SourceFailed:
                return TunnelEnd(up.sent, down.sent, source_failed)
            except SinkFailed:
                going.remove(direction)
                continue
            most = max(most, moved)
            if pipe.finished:
                sink.shutdown_write()
                going.remove(direction)
            else:
                waits += pipe.waits()
        if most:
            deadline = trio.current_time() + idle
        if most >= BUDGET:
            await trio.lowlevel.checkpoint()
        elif going and not await park(waits, deadlines, deadline):
            return TunnelEnd(up.sent, down.sent, "idle")
    return TunnelEnd(up.sent, down.sent, "closed")


_Direction = tuple[Pipe, "Transport", TunnelReason]
