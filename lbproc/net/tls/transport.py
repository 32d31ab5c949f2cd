"""TLS over another transport, with the promises of `lbproc.net.transport`.

Owns the encryption of one connection: its handshake, its records, its end. Sockets are the inner
transport's, and so is the source, which both share: who parks on it is woken by the same event, and its
reflex is called by the same event.

Records pass through memory rather than have OpenSSL read the socket itself, because one read then takes many
records, and one write gives them: a small request cost 8.0 µs where the socket itself cost 9.5 to 12, a full
handshake 0.40 ms against 0.44, 10 MB 4.6 ms against 7.3 (server's CPU, ECDSA P-256, one core, 2026). It also
makes the bytes of the ClientHello, which were read before, nothing special.

Invariants:
    - READ stays set while whole records, or a part of one that was decrypted, are held here. When `recv` says
      that it would block, only a part of a record is.
    - What `send` reports as taken is in whole records that the inner transport has taken. A record that did
      not fit is *owed*: its bytes count as not taken, are offered again, and are taken when its rest is. So
      whoever is told that nothing was taken can be sure that the peer can read nothing of it, and whoever
      has bytes left to send is parked on WRITE.
    - Not more than `_PIECE` bytes are owed, and not more than twice `_PIECE` is read ahead.
    - After a failure nothing is decrypted or encrypted any more.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lbproc.net.readiness import READ, WRITE, park
from lbproc.net.tls.failure import TlsFailed, describe, tls_failed
from lbproc.net.transport import ConnectionLost, Transport

if TYPE_CHECKING:
    from lbproc.net.readiness import Deadlines, Waits

_RECORD: Final = 16_384
"""Bytes that one record carries."""

_PIECE: Final = 2 * _RECORD
"""Bytes that are encrypted, or read, at once. The buffers of OpenSSL keep the size they once had: more than
this made 10 MB no cheaper, and half of it 12 % dearer (2026)."""

_RECORD_COST: Final = 29
"""By how much a record is longer than what it carries, at most, with the ciphers of today."""

_MOST_EMPTY: Final = 2_097_152
"""Bytes in a row that may bring nothing for us: handshakes, records that carry nothing. Nobody honest comes
near; without a bound such a peer would have the loop for itself."""

_MOST_UNASKED: Final = 65_536
"""Bytes that OpenSSL itself may want to say while the peer does not read: answers to requests to
renegotiate."""

_CLOSED: Final = "closed on this side"
_SHUT: Final = "Broken pipe"

_SHARED: Final = memoryview(bytearray(_PIECE))
"""What all connections read into, on the way to OpenSSL."""


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a handshake has agreed on.

    Args:
        version: Such as ``TLSv1.3``.
        cipher: Its name, as OpenSSL has it.
        alpn: The protocol that both sides want, or None.
        server_name: The host that the client has named, or None.
        resumed: An earlier session goes on, so no certificate was sent.
        peer_certificate: The peer's, verified if the context verifies, in DER; or None.
    """

    version: str
    cipher: str
    alpn: str | None
    server_name: str | None
    resumed: bool
    peer_certificate: bytes | None


class TlsTransport(Transport):
    """TLS over another transport. Takes responsibility for closing that.

    Args:
        inner: Connected. Nobody else reads, writes or closes it from now on.
        context: For servers or for clients, which makes this end one or the other.
        server_name: At a client, the host that is asked for and that the certificate has to name; at a
            server, the host that the ClientHello has named.
        received: What was read from ``inner`` already: at a server, the ClientHello and what came with it.
        session: Of an earlier connection with the same context, to be resumed; for clients.

    Attributes:
        tls: What the handshake has agreed on; None before it is over.
        is_truncated: The stream ended without the peer's word that it is the end.
        alert: What the peer has said when it broke the connection.
    """

    __slots__ = (
        "_can_wait", "_cannot_recv", "_cannot_send", "_has_ended", "_holds", "_incoming", "_inner",
        "_is_server", "_outgoing", "_owed", "_plain", "_server_name", "_ssl", "_unsent", "alert",
        "is_truncated", "tls",
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
        super().__init__(inner.peer_ip, inner.peer_port)
        self.source = inner.source
        self.until_readable = inner.until_readable
        self.until_writable = inner.until_writable
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
        self._cannot_recv = ""
        self._cannot_send = ""

    # The handshake ------------------------------------------------------------------------------------------

    async def handshake(self, deadlines: Deadlines, deadline: float) -> TlsFacts:
        """Agrees with the peer. Before this nothing can be sent or received.

        Args:
            deadlines: The worker's sweeper.
            deadline: An instant of trio's clock.

        Raises:
            TlsFailed: There will be no TLS connection; the peer was told why, if there is a word for it. The
                transport is left to be closed by the caller.
        """
        try:
            while not self._shake_hands():
                await self._wait(deadlines, deadline, self.until_readable)
            while self._unsent:
                await self._wait(deadlines, deadline)
                self._flush()
        except ConnectionLost as error:
            raise TlsFailed("closed", error.detail) from error
        self._holds = self._incoming.pending > 0
        if self._holds:
            self.source.ready |= READ
        cipher = self._ssl.cipher()
        self.tls = TlsFacts(
            version=self._ssl.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=self._ssl.selected_alpn_protocol(),
            server_name=self._server_name,
            resumed=bool(self._ssl.session_reused),
            peer_certificate=self._ssl.getpeercert(binary_form=True),
        )
        return self.tls

    async def _wait(self, deadlines: Deadlines, deadline: float, waits: Waits = ()) -> None:
        if self._unsent:
            waits += self.until_writable
        if not await park(waits, deadlines, deadline):
            raise TlsFailed("timeout", "the handshake was not over in time")

    def _shake_hands(self) -> bool:
        """Goes as far as possible without waiting. Returns whether that was to the end."""
        fetched = 0
        while fetched < _MOST_EMPTY:
            try:
                self._ssl.do_handshake()
                is_over = True
            except ssl.SSLWantReadError:
                is_over = False
            except ssl.SSLError as error:
                with suppress(ConnectionLost):
                    self._flush()  # the alert
                failure = tls_failed(error)
                self._fail(failure.detail)
                try:
                    raise failure from error
                finally:
                    del failure  # it holds this frame
            if is_over and self._is_server and self._incoming.pending and self._ssl.version() == "TLSv1.3":
                # Tickets, which go with the answer to what is here already: their own packet costs 12 µs.
                # If nothing is here, a client with Nagle's algorithm waits for one before it asks.
                self._can_wait = self._outgoing.pending
                return True
            self._flush()
            if is_over:
                return True
            count = self._pull()
            if not count:
                return False
            if self._has_ended:
                raise TlsFailed("closed", "the connection ended during the handshake")
            fetched += count
        raise TlsFailed("malformed", "the handshake has no end")

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection to this server may resume. Servers of TLS 1.3 give it with first bytes."""
        return self._ssl.session

    # Reading ------------------------------------------------------------------------------------------------

    def recv(self, max_bytes: int) -> bytes | None:
        """Reads from one record; see `Transport.recv`."""
        if not self._may_recv():
            return b"" if self._has_ended else None
        fetched = 0
        while fetched < _MOST_EMPTY:
            if self._holds:
                received = self._decrypt(max_bytes)
                if received:
                    return received
            if self._has_ended:
                return b""
            count = self._pull()
            if not count:
                return None
            fetched += count
        raise self._fail("no end of empty records")

    def recv_into(self, buffer: memoryview) -> int | None:
        """Reads as many records as there are and fit; see `Transport.recv_into`."""
        if not self._may_recv():
            return 0 if self._has_ended else None
        size, filled, fetched = len(buffer), 0, 0
        try:
            while fetched < _MOST_EMPTY + filled:
                while self._holds and filled < size:
                    filled += self._decrypt_into(buffer[filled:] if filled else buffer)
                if filled == size or self._has_ended or self._cannot_recv:
                    return filled
                count = self._pull()
                if not count:
                    return filled or None
                fetched += count
        except ConnectionLost:
            if not filled:
                raise
            self.source.ready |= READ  # it is said again when it is its turn
        if not filled:
            raise self._fail("no end of empty records")
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
        self._look_behind(has_ended=not count)
        return count

    def _look_behind(self, *, has_ended: bool) -> None:
        """Finds out whether more is held behind what was read, and keeps READ set then."""
        self._has_ended = has_ended
        self._holds = not has_ended and (self._incoming.pending > 0 or self._ssl.pending() > 0)
        if self._holds or has_ended:
            self.source.ready |= READ
        if self._outgoing.pending > _MOST_UNASKED:
            self._flush()

    def _pull(self) -> int:
        """Fetches what has come. Returns how many bytes; 1 for the end; 0 when nothing has.

        Raises:
            ConnectionLost: The connection broke.
        """
        count = self._inner.recv_into(_SHARED)
        if count:
            self._incoming.write(_SHARED[:count])
            self._holds = True
            return count
        if count is None:
            if self._outgoing.pending > self._can_wait:
                self._flush()
            return 0
        self._has_ended = self.is_truncated = True
        return 1

    # Writing ------------------------------------------------------------------------------------------------

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
        if len(data) > _RECORD:
            return self._send_records(memoryview(data))
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise self._break(error) from error
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
            while end < min(len(data), taken + _PIECE):
                piece = data[end : end + _RECORD]
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
        if len(self._unsent) > _MOST_UNASKED + 2 * _PIECE:
            raise self._fail("the peer asks and does not read")

    # The end ------------------------------------------------------------------------------------------------

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

    def shutdown_write(self) -> None:
        """Sends close_notify and the end of the inner stream; reading goes on. See `Transport`.

        Where there is no room for it, it goes when there is. Behind a record that was begun and given up
        there is none: the peer sees that the stream was cut.
        """
        if self._cannot_send:
            return
        self._cannot_send = _SHUT
        with suppress(ConnectionLost):  # it is where errors surface that reads do
            self._say_goodbye()
        if self._unsent and not self._owed and self.source.reflex is None:
            self.source.reflex = self._on_room
        else:
            self._inner.shutdown_write()

    def _on_room(self) -> bool:
        """The reflex of a connection whose last word did not fit."""
        source = self.source
        source.reflex = None
        try:
            self._flush()
        except ConnectionLost:
            self._unsent = b""  # the next read says why
        if not self._unsent:
            self._inner.shutdown_write()
        woke = source.notify(source.ready)
        if self._unsent:
            source.reflex = self._on_room
        return woke

    def _say_goodbye(self) -> None:
        """Sends close_notify, as far as there is room.

        OpenSSL then looks for the peer's, and what it finds in its place would be lost: so everything that
        is held is decrypted before.
        """
        if self.tls is None or self._owed:
            return
        plain = [self._plain]
        self._plain = b""
        try:
            while self._holds:
                plain.append(self._decrypt(_RECORD))
        finally:
            self._plain = b"".join(plain)
            self._holds = bool(self._plain)
            if self._holds:
                self.source.ready |= READ
        with suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._flush()

    def close(self) -> None:
        """Sends close_notify if there is room for it, and closes the inner transport.

        What has come to a client is read before: tickets that nobody has read yet would make the kernel send
        a reset, which may destroy what was sent last.
        """
        if self.tls is not None and not self._is_server and not self._cannot_recv:
            self.source.ready |= READ
            with suppress(ConnectionLost):
                self.recv(1)
        if not self._cannot_send:
            with suppress(ConnectionLost):
                self._say_goodbye()
        self._let_go()
        self._inner.close()

    def abort(self) -> None:
        """Closes the inner transport so that the peer sees it broke."""
        self._let_go()
        self._inner.abort()

    def room(self) -> int:
        """What the inner transport has room for, without what encryption adds; see `Transport.room`."""
        if self._unsent:
            return 0
        room = self._inner.room()
        return max(0, room - _RECORD_COST * (room // _RECORD + 1))

    @property
    def local_address(self) -> tuple[str, int]:
        """That of the inner transport."""
        return self._inner.local_address

    def _let_go(self) -> None:
        self._cannot_recv = self._cannot_send = _CLOSED
        self._plain = self._unsent = self._owed = b""
        self._holds = False
        if self.source.reflex == self._on_room:
            self.source.reflex = None

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
