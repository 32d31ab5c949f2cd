"""The half of a TLS connection that reads.

Owns what was read from the inner transport and not yet asked for. What is promised is said in
`lbproc.net.tls.transport`, which is what everybody else uses.
"""

from __future__ import annotations

import ssl
from typing import Final

import trio

from lbproc.net.readiness import READ
from lbproc.net.tls.writing import MOST_UNASKED, PIECE, WritingHalf
from lbproc.net.transport import ConnectionLost

MOST_OVERHEAD: Final = 32_768
"""Bytes beyond what they brought, after which others have their turn, and in a row without a byte for us half
of what ends the connection. An update of keys costs 5 to 25 µs and has 27 bytes, a record of one byte 1.2 µs
and 23 (2026): peers that send them without end would have the loop for themselves. Ordinary records bring
this much in 24 MB, small ones of 1400 bytes in 2."""

_SHARED: Final = memoryview(bytearray(PIECE))
"""What all connections read into, on the way to OpenSSL."""


class ReadingHalf(WritingHalf):
    """See `lbproc.net.tls.transport.TlsTransport`."""

    __slots__ = ()

    def recv(self, max_bytes: int) -> bytes | None:
        """Reads from one record; see `Transport.recv`."""
        if not self._may_recv():
            return b"" if self._has_ended else None
        while True:
            if self._holds:
                received = self._decrypt(max_bytes)
                if received:
                    return received
            if self._has_ended:
                return b""
            if not self._pull():
                return None

    def recv_into(self, buffer: memoryview) -> int | None:
        """Reads as many records as there are and fit; see `Transport.recv_into`."""
        if not self._may_recv():
            return 0 if self._has_ended else None
        size, filled = len(buffer), 0
        try:
            while True:
                while self._holds and filled < size:
                    filled += self._decrypt_into(buffer[filled:] if filled else buffer)
                if filled == size or self._has_ended or self._cannot_recv:
                    return filled
                if not self._pull():
                    return filled or None
        except ConnectionLost:
            if not filled:
                raise
            self.source.ready |= READ  # it is said again when it is its turn
        return filled

    def _may_recv(self) -> bool:
        """Whether there may be something to read.

        Raises:
            ConnectionLost: There is not, because the connection broke or is closed.
        """
        if self._plain:
            return True
        if self._cannot_recv:
            raise ConnectionLost(self._cannot_recv)
        return not self._has_ended and self.source.ready & READ != 0

    def _decrypt(self, max_bytes: int) -> bytes:
        """Reads from what is held. Returns nothing when that is not a whole record, or is the end.

        Raises:
            ConnectionLost: What came is no TLS, or was tampered with.
        """
        if self._plain:
            received, self._plain = self._plain[:max_bytes], self._plain[max_bytes:]
            self._holds = bool(self._plain)
            return received
        try:
            received = self._ssl.read(max_bytes)
        except ssl.SSLWantReadError:
            self._holds = False
            return b""
        except ssl.SSLZeroReturnError:
            received = b""
        except ssl.SSLError as error:
            raise self._break(error) from error
        self._overhead -= len(received)
        self._is_barren = False
        self._look_behind(has_ended=not received)
        return received

    def _decrypt_into(self, buffer: memoryview) -> int:
        """The same into a buffer. Returns how many bytes."""
        if self._plain:
            received = self._decrypt(len(buffer))
            buffer[: len(received)] = received
            return len(received)
        try:
            count: int = self._ssl.read(len(buffer), buffer)  # type: ignore[assignment]  # typeshed: bytes
        except ssl.SSLWantReadError:
            self._holds = False
            return 0
        except ssl.SSLZeroReturnError:
            count = 0
        except ssl.SSLError as error:
            raise self._break(error) from error
        self._overhead -= count
        self._is_barren = False
        self._look_behind(has_ended=not count)
        return count

    def _look_behind(self, *, has_ended: bool) -> None:
        """Finds out whether more is held behind what was read, and keeps READ set then."""
        self._has_ended = has_ended
        self._holds = not has_ended and (self._incoming.pending > 0 or self._ssl.pending() > 0)
        if self._holds or has_ended:
            self.source.ready |= READ
        if self._outgoing.pending > MOST_UNASKED:
            self._flush()

    def _pull(self) -> int:
        """Fetches what has come. Returns how many bytes; 1 for the end; 0 when nothing has, or has to wait.

        Raises:
            ConnectionLost: The connection broke, or brings nothing without end.
        """
        if self._overhead > MOST_OVERHEAD:
            self._rest()
            return 0
        count = self._inner.recv_into(_SHARED)
        if count:
            self._overhead += count
            self._incoming.write(_SHARED[:count])
            self._holds = True
            return count
        if count is None:
            self._overhead = 0
            if self._outgoing.pending > self._can_wait:
                self._flush()
            return 0
        self._has_ended = self.is_truncated = True
        return 1

    def _rest(self) -> None:
        """Leaves what has come where it is until all others have had their turn.

        Raises:
            ConnectionLost: Nothing has come for us since the last time.
        """
        if self._outgoing.pending > self._can_wait:
            self._flush()
        if not self._is_resting:
            if self._is_barren and self.tls is not None:
                raise self._fail("no end of empty records")
            self._is_resting = self._is_barren = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._go_on)
        self.source.ready &= ~READ

    def _go_on(self) -> None:
        self._is_resting = False
        self._overhead = 0
        self.source.notify(READ)

    def is_quiet(self) -> bool:
        """Whether no byte is to be read, nor the end; see `Transport.is_quiet`.

        Records without a byte for us are none: servers send tickets when they like.
        """
        if self._cannot_recv or self._has_ended:
            return False
        if not self._holds and self._inner.is_quiet():
            return True
        self.source.ready |= READ
        try:
            return self.recv(1) is None and self._inner.is_quiet()
        except ConnectionLost:
            return False
