"""Two transports joined in memory, for tests of shells: no kernel, no dispatcher, only the test's clock.

Keeps the promises of `lbproc.net.transport` with the same readiness bits: a bounded buffer each way, so
that a slow reader holds up the writer; half-close; abort as a reset that throws away what was not yet read.
"""

from __future__ import annotations

# ruff: noqa: SLF001  the two ends of a pair are one thing
from lbproc.net.readiness import LOST, READ, WRITE
from lbproc.net.transport import ConnectionLost, Transport


class MemoryTransport(Transport):
    """One end of a pair. Make it with `memory_pair`."""

    __slots__ = ("_capacity", "_end_received", "_inbox", "_is_closed", "_peer", "_shut", "_was_reset")

    def __init__(self, peer_ip: str, peer_port: int, capacity: int) -> None:
        super().__init__(peer_ip, peer_port)
        self._capacity = capacity
        self._inbox = bytearray()
        self._peer: MemoryTransport = self
        self._end_received = False
        self._shut = False
        self._was_reset = False
        self._is_closed = False

    @property
    def local_address(self) -> tuple[str, int]:
        """Where the other end believes to be connected to."""
        return self._peer.peer_ip, self._peer.peer_port

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed or aborted."""
        return self._is_closed

    def recv(self, max_bytes: int) -> bytes | None:
        """Takes from what the peer has sent; see `Transport.recv`."""
        self._check()
        if self._inbox:
            received = bytes(self._inbox[:max_bytes])
            del self._inbox[:max_bytes]
            self._peer.source.notify(WRITE)
            return received
        if self._end_received:
            return b""
        self.source.ready &= ~READ
        return None

    def recv_into(self, buffer: memoryview) -> int | None:
        """Takes from what the peer has sent; see `Transport.recv_into`."""
        received = self.recv(len(buffer))
        if received is None:
            return None
        buffer[: len(received)] = received
        return len(received)

    def room(self) -> int:
        """What the peer's buffer has left; see `Transport.room`."""
        return self._capacity - len(self._peer._inbox)

    def send(self, data: bytes | memoryview) -> int:
        """Puts into the peer's bounded buffer; see `Transport.send`."""
        self._check()
        if self._shut or self._peer._is_closed:
            raise ConnectionLost("Broken pipe")
        accepted = data[: self._capacity - len(self._peer._inbox)]
        if len(accepted) < len(data):
            self.source.ready &= ~WRITE
        if accepted:
            self._peer._inbox += accepted
            self._peer.source.notify(READ)
        return len(accepted)

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing; see `Transport.is_quiet`."""
        return not (self._inbox or self._end_received or self._was_reset or self._is_closed)

    def shutdown_write(self) -> None:
        """Lets the peer read to the end."""
        if not self._shut:
            self._shut = True
            self._peer._end_received = True
            self._peer.source.notify(READ)

    def close(self) -> None:
        """Ends both ways. Bytes that were not read here become a reset for the peer, as TCP does it."""
        if self._inbox:
            self.abort()
        elif not self._is_closed:
            self.shutdown_write()
            self._finish()

    def abort(self) -> None:
        """Resets the connection."""
        if not self._is_closed:
            self._peer._was_reset = True
            self._peer._inbox.clear()
            self._peer.source.notify(LOST)
            self._finish()

    def _finish(self) -> None:
        self._is_closed = True
        self._inbox.clear()
        self._peer.source.notify(READ | WRITE)
        self.source.notify(READ | WRITE)

    def _check(self) -> None:
        if self._is_closed:
            raise ConnectionLost("closed on this side")
        if self._was_reset:
            raise ConnectionLost("Connection reset by peer")


def memory_pair(capacity: int = 65536) -> tuple[MemoryTransport, MemoryTransport]:
    """Two joined transports: what one sends, the other receives.

    Args:
        capacity: Bytes that each direction holds before `send` would block; at least 1.
    """
    client_end = MemoryTransport("192.0.2.1", 80, capacity)
    server_end = MemoryTransport("192.0.2.9", 40000, capacity)
    client_end._peer, server_end._peer = server_end, client_end
    return client_end, server_end
