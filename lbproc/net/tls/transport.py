"""TLS over another transport, with the promises of `lbproc.net.transport`.

Owns the encryption of one connection: its handshake, its records, its end. Sockets are the inner
transport's, and so is the source, which both share: who parks on it is woken by the same event, and its
reflex is called by the same event.

This is the handshake and the end; `writing` and `reading` are the halves between.

Records pass through memory rather than have OpenSSL read the socket itself, because one read then takes many
records, and one write gives them: a small request cost 8.0 µs where the socket itself cost 9.5 to 12, a full
handshake 0.40 ms against 0.44, 10 MB 4.6 ms against 7.3 (server's CPU, ECDSA P-256, one core, 2026). It also
makes the bytes of the ClientHello, which were read before, nothing special.

Invariants:
    - READ stays set while whole records, or a part of one that was decrypted, are held here. When `recv` says
      that it would block, only a part of a record is. It also says so when a peer sends much that brings
      nothing: then READ is set again by itself when others have had their turn.
    - What `send` reports as taken is in whole records that the inner transport has taken. A record that did
      not fit is *owed*: its bytes count as not taken, are offered again, and are taken when its rest is. So
      whoever is told that nothing was taken can be sure that the peer can read nothing of it, and whoever
      has bytes left to send is parked on WRITE.
    - Not more than `PIECE` bytes are owed, and not more than twice `PIECE` is read ahead.
    - After a failure nothing is decrypted or encrypted any more.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lbproc.core.http.value import value
from lbproc.net.readiness import READ, park
from lbproc.net.tls.failure import TlsFailed, tls_failed
from lbproc.net.tls.reading import ReadingHalf
from lbproc.net.tls.writing import RECORD
from lbproc.net.transport import ConnectionLost

if TYPE_CHECKING:
    from lbproc.net.readiness import Deadlines, Waits

_CLOSED: Final = "closed on this side"
_SHUT: Final = "Broken pipe"


@value
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


class TlsTransport(ReadingHalf):
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

    __slots__ = ()

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
            has_waited = False
            while not self._shake_hands(has_waited=has_waited):
                await self._wait(deadlines, deadline, self.until_readable)
                has_waited = True
            while self._unsent:
                await self._wait(deadlines, deadline)
                self._flush()
        except ConnectionLost as error:
            raise TlsFailed("closed", error.detail) from error
        self._is_barren = False
        self._holds = self._incoming.pending > 0
        if self._holds:
            self._is_read_out = not self.source.ready & READ
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

    def recv_first(self, max_bytes: int) -> bytes:
        """What has come with the end of the handshake; nothing when nothing has.

        To be asked right after it, before anybody else could run: then it is still known that nothing more
        is to be had from the inner transport, and READ need not stay set until a read has found that out,
        which costs a new connection 3 to 6 µs.

        Raises:
            ConnectionLost: What came is no TLS.
        """
        if not self._holds:
            return b""
        received = self._decrypt(max_bytes)
        if self._is_read_out and not self._holds and not self._has_ended:
            self.source.ready &= ~READ
        return received

    async def _wait(self, deadlines: Deadlines, deadline: float, waits: Waits = ()) -> None:
        if self._unsent:
            waits += self.until_writable
        if not await park(waits, deadlines, deadline):
            raise TlsFailed("timeout", "the handshake was not over in time")

    def _shake_hands(self, *, has_waited: bool = False) -> bool:
        """Goes as far as possible without waiting. Returns whether that was to the end.

        Args:
            has_waited: OpenSSL has said that it wants more; it is asked again when there is more.
        """
        while True:
            is_over = False
            try:
                if has_waited:
                    has_waited = False
                else:
                    self._ssl.do_handshake()
                    is_over = True
            except ssl.SSLWantReadError:
                pass
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
            if not self._pull():
                return False
            if self._has_ended:
                raise TlsFailed("closed", "the connection ended during the handshake")

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection to this server may resume. Servers of TLS 1.3 give it with first bytes."""
        return self._ssl.session

    # The end ------------------------------------------------------------------------------------------------

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
        if self._has_said_goodbye:
            self._flush()
            return
        plain = [self._plain]
        self._plain = b""
        try:
            while self._holds:
                plain.append(self._decrypt(RECORD))
        finally:
            self._plain = b"".join(plain)
            self._holds = bool(self._plain)
            if self._holds:
                self.source.ready |= READ
        self._has_said_goodbye = True
        try:  # noqa: SIM105  a context manager costs 0.3 µs
            self._ssl.unwrap()
        except ssl.SSLError:
            pass
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
            try:  # noqa: SIM105  a context manager costs 0.3 µs
                self._say_goodbye()
            except ConnectionLost:
                pass
        self._let_go()
        self._inner.close()

    def abort(self) -> None:
        """Closes the inner transport so that the peer sees it broke."""
        self._let_go()
        self._inner.abort()

    def _let_go(self) -> None:
        self._cannot_recv = self._cannot_send = _CLOSED
        self._plain = self._unsent = self._owed = b""
        self._holds = False
        if self.source.reflex == self._on_room:
            self.source.reflex = None
