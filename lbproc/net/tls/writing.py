"""The half of a TLS connection that writes, and what both halves share.

Owns the bytes on their way to the inner transport, and the end of both directions after a failure. What is
promised is said in `lbproc.net.tls.transport`, which is what everybody else uses.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lbproc.net.readiness import READ, WRITE
from lbproc.net.tls.failure import describe, tls_failed
from lbproc.net.transport import ConnectionLost, Transport

if TYPE_CHECKING:
    from lbproc.net.tls.transport import TlsFacts

RECORD: Final = 16_384
"""Bytes that one record carries."""

PIECE: Final = 2 * RECORD
"""Bytes that are encrypted, or read, at once. The buffers of OpenSSL keep the size they once had: more than
this made 10 MB no cheaper, and half of it 12 % dearer (2026)."""

_RECORD_COST: Final = 29
"""By how much a record is longer than what it carries, at most, with the ciphers of today."""

MOST_UNASKED: Final = 65_536
"""Bytes that OpenSSL itself may want to say while the peer does not read: answers to requests to
renegotiate."""


class WritingHalf(Transport):
    """See `lbproc.net.tls.transport.TlsTransport`, whose arguments these are."""

    __slots__ = (
        "_can_wait", "_cannot_recv", "_cannot_send", "_has_ended", "_has_said_goodbye", "_holds",
        "_incoming", "_inner", "_is_barren", "_is_read_out", "_is_resting", "_is_server", "_outgoing",
        "_overhead", "_owed", "_plain", "_server_name", "_ssl", "_unsent", "alert", "is_truncated", "tls",
    )  # fmt: skip

    def __init__(
        self,
        inner: Transport,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
        received: bytes = b"",
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(inner.peer_ip, inner.peer_port, inner.source)
        self.opened_at = inner.opened_at
        self.is_truncated = False
        self.alert = ""
        self.tls: TlsFacts | None = None
        self._inner = inner
        self._server_name = server_name
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._is_server = is_server = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=is_server,
            server_hostname=None if is_server else server_name,
            session=session,
        )
        self._incoming.write(received)
        self._holds = bool(received)
        """OpenSSL, or ``_plain``, may have something to read without another byte from the peer."""
        self._can_wait = 0
        """Bytes in ``_outgoing`` that go with whatever is sent next."""
        self._plain = b""
        """What was decrypted before it was asked for."""
        self._unsent = b""
        """Records that the inner transport has not taken."""
        self._owed = b""
        """What is in them that was not reported as taken."""
        self._has_ended = False
        self._overhead = 0
        """Bytes that came beyond what they brought, since there was nothing more or others had their turn."""
        self._is_barren = False
        """Since then nothing was brought."""
        self._is_resting = False
        self._is_read_out = False
        """The inner transport had nothing more when the handshake was over."""
        self._cannot_recv = ""
        self._cannot_send = ""
        self._has_said_goodbye = False

    def send(self, data: bytes | memoryview) -> int:
        """Encrypts what there is room for, and sends it; see `Transport.send`.

        What was owed is to be offered first, unchanged; other bytes cannot take its place any more.
        """
        if self._cannot_send:
            raise ConnectionLost(self._cannot_send)
        if (self._unsent or self._owed) and not self._pay(data):
            return 0
        if self._owed:
            count, self._owed = len(self._owed), b""
            return count
        if not self.source.ready & WRITE:
            return 0
        if len(data) > RECORD:
            return self._send_records(memoryview(data))
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise self._break(error) from error
        return self._send_encrypted(data)

    def send_last(self, data: bytes | memoryview) -> int:
        """The same, and close_notify in one piece with it if that is simple; see `Transport.send_last`.

        To send that by itself costs a connection 10 to 15 µs, and its peer another packet.
        """
        if self._holds or self._unsent or self._owed or self._cannot_send or len(data) > RECORD:
            return self.send(data)
        if not self.source.ready & WRITE:
            return 0
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise self._break(error) from error
        try:  # noqa: SIM105  a context manager costs 0.3 µs
            self._ssl.unwrap()
        except ssl.SSLError:
            pass  # it looks for the peer's close_notify as well
        self._has_said_goodbye = True
        return self._send_encrypted(data)

    def _send_encrypted(self, data: bytes | memoryview) -> int:
        """Sends what has become of ``data``. Returns its length, or 0 when it is owed."""
        records = self._outgoing.read()
        sent = self._put(records)
        if sent == len(records):
            return len(data)
        self._unsent, self._owed = records[sent:], bytes(data)
        return 0

    def _send_records(self, data: memoryview) -> int:
        """Sends record by record, two at once. Returns how many bytes went in whole records."""
        taken = 0
        while taken < len(data):
            ends: list[tuple[int, int]] = []
            end = taken
            while end < min(len(data), taken + PIECE):
                piece = data[end : end + RECORD]
                try:
                    self._ssl.write(piece)
                except ssl.SSLError as error:
                    raise self._break(error) from error
                end += len(piece)
                ends.append((self._outgoing.pending, end))
            records = self._outgoing.read()
            sent = self._put(records)
            if sent < len(records):
                taken = max((plain for wire, plain in ends if wire <= sent), default=taken)
                self._unsent, self._owed = records[sent:], bytes(data[taken:end])
                break
            taken = end
        return taken

    def _pay(self, data: bytes | memoryview) -> bool:
        """Sends the rest of what is owed. Returns whether all of it went.

        Raises:
            ConnectionLost: Other bytes are offered than those that were encrypted already.
        """
        if not self.source.ready & WRITE:
            return False
        if data[: len(self._owed)] != self._owed:
            raise self._fail("a record that was begun was given up")
        self._flush(pays=True)
        return not self._unsent

    def _put(self, records: bytes) -> int:
        """Hands records to the inner transport. Whoever breaks there says so again."""
        try:
            return self._inner.send(records)
        except ConnectionLost as error:
            self._cannot_send = error.detail
            raise

    def _flush(self, *, pays: bool = False) -> None:
        """Sends what is unsent and what OpenSSL has to say by itself, as far as there is room.

        Args:
            pays: Also what is owed, behind which everything else waits.

        Raises:
            ConnectionLost: The connection broke, or the peer makes OpenSSL speak and does not read.
        """
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        if self._unsent and self.source.ready & WRITE and (pays or not self._owed):
            self._unsent = self._unsent[self._put(self._unsent) :]
        if len(self._unsent) > MOST_UNASKED + 2 * PIECE:
            raise self._fail("the peer asks and does not read")

    def room(self) -> int:
        """What the inner transport has room for, without what encryption adds; see `Transport.room`."""
        if self._unsent:
            return 0
        room = self._inner.room()
        return max(0, room - _RECORD_COST * (room // RECORD + 1))

    @property
    def local_address(self) -> tuple[str, int]:
        """That of the inner transport."""
        return self._inner.local_address

    def _break(self, error: ssl.SSLError) -> ConnectionLost:
        """Tells the peer, if there is a word for it, that what it sent is wrong."""
        with suppress(ConnectionLost):
            self._flush()
        failure = tls_failed(error)
        if failure.reason == "refused_by_peer":
            self.alert = failure.detail
        return self._fail(describe(error))

    def _fail(self, detail: str) -> ConnectionLost:
        """Ends both directions for good, and says why to whoever asks."""
        self._cannot_recv = self._cannot_send = detail
        self._holds = False
        self.source.ready |= READ | WRITE
        return ConnectionLost(detail)
