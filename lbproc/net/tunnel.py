"""Tunnels: two connections relayed to each other, both ways at once, to the last byte of either.

Owns when a tunnel ends and whose end it was. Moving the bytes is the pipes' (``relay``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from lbproc.net.readiness import LOST, park
from lbproc.net.relay import BUDGET, Pipe, SinkFailed, SourceFailed

if TYPE_CHECKING:
    from lbproc.net.readiness import Deadlines, Waits
    from lbproc.net.transport import Transport
    from lbproc.types import Seconds

TunnelReason = Literal["closed", "idle", "a_failed", "b_failed"]
"""How a tunnel ended.

``closed``: both sides ended their streams; ``idle``: no byte either way; ``a_failed``, ``b_failed``: that
side's connection broke.
"""


class Stream:
    """The body of a tunnel: everything, until the end of the connection."""

    lines = 0
    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        """All of it is relayed."""
        return data, b""

    def at_eof(self) -> bool:
        """The end of the connection is the end of the stream."""
        self.complete = True
        return True


class Tunnel:
    """Two connections that are relayed to each other. Neither is closed here: the caller does, or aborts.

    Args:
        a: The client side.
        b: The backend side.
        buffered_a: Bytes already read from a.
        buffered_b: Bytes already read from b.
    """

    __slots__ = ("_a", "_b", "_down", "_up")

    def __init__(self, a: Transport, b: Transport, buffered_a: bytes = b"", buffered_b: bytes = b"") -> None:
        self._a = a
        self._b = b
        self._up = Pipe(a, b, Stream(), buffered_a)
        self._down = Pipe(b, a, Stream(), buffered_b)

    @property
    def bytes_up(self) -> int:
        """Bytes that were sent from a to b."""
        return self._up.sent

    @property
    def bytes_down(self) -> int:
        """Bytes that were sent from b to a."""
        return self._down.sent

    async def relay(self, deadlines: Deadlines, idle: Seconds) -> TunnelReason:
        """Relays both ways until both sides have ended their streams, one of them breaks, or nothing moves.

        The end of one stream is passed on and the other goes on (half-close). When b no longer takes
        anything, what it sent before is still brought to a, and the other way round.

        Args:
            deadlines: The worker's sweeper.
            idle: Seconds without a byte either way that end the tunnel.
        """
        a = self._a
        going: list[_Direction] = [(self._up, self._b, "a_failed"), (self._down, a, "b_failed")]
        deadline = trio.current_time() + idle
        while going:
            most = 0
            if a.source.ready & LOST:  # also when nobody reads it, because the backend takes nothing
                return "a_failed"
            waits: Waits = ((a.source, LOST),)
            for direction in tuple(going):
                pipe, sink, source_failed = direction
                try:
                    moved = pipe.pump()
                except SourceFailed:
                    return source_failed
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
                return "idle"
        return "closed"


_Direction = tuple[Pipe, "Transport", TunnelReason]
