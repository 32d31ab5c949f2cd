"""What happens to a connection before its protocol begins: the PROXY header, TLS. Then it is its protocol's.

Owns the order of these steps and their ends. What each listener asks for is its ``proxy.door``'s; the reading
is done by ``core.proxy_protocol`` and ``core.tls``, the encryption by ``net.tls``::

    PROXY header ──▶ limits of clients ──▶ ClientHello ──▶ handshake ──▶ the protocol, inside of TLS
         │                                     └──▶ a host that is passed through
         └──▶ the protocol, in clear

Invariants:
- All of it together has the listener's ``header`` timeout.
- The ClientHello decides before anything of OpenSSL exists: a context that is changed in the middle of a
  handshake would keep the rules for client certificates of the one before.
- Nothing is believed of a PROXY header unless its sender is trusted, and nobody else is served.
- What was read and does not belong to these steps goes on, to the last byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.forwarding import is_trusted
from lbproc.core.http.rejected import bad_request
from lbproc.core.http.render import render_certificate
from lbproc.core.proxy_protocol import ProxyHeaderBuffer, ProxyHeaderRejected, ProxyTls
from lbproc.core.tls.certificate import read_certificate
from lbproc.core.tls.client_hello import Alert, HelloBuffer, HelloRejected, Kind, render_alert
from lbproc.net.readiness import READ, park
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.transport import TlsTransport
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.arrival import Arrival
from lbproc.proxy.connection import ClientConnection
from lbproc.proxy.destination import Destination
from lbproc.proxy.relayed import RelayedConnection
from lbproc.proxy.replying import linger, refuse
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.core.http.forwarding import Networks
    from lbproc.core.proxy_protocol import ProxyHeader
    from lbproc.core.tls.client_hello import ClientHello
    from lbproc.net.tls.sites import Site
    from lbproc.net.tls.transport import TlsFacts
    from lbproc.net.transport import Transport
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.door import Door
    from lbproc.proxy.entrance import Places
    from lbproc.proxy.listener import StreamListener
    from lbproc.types import Row

READ_SIZE = 16_384

_HTTP = b"http/1.1"


class Opening:
    """A connection of which it is not known yet what it becomes, and after that stands for what it became.

    Args:
        transport: to the client; closed at the end.
        listener: where it came to.
        door: the listener's.
        context: the worker's.
    """

    __slots__ = (
        "_client",
        "_client_ip",
        "_context",
        "_door",
        "_has_begun",
        "_listener",
        "_places",
        "_started_at",
        "_transport",
        "_until",
        "lineage",
    )

    def __init__(
        self, transport: Transport, listener: StreamListener, door: Door, context: WorkerContext
    ) -> None:
        self.lineage = listener.lineage
        self._transport = transport
        self._listener = listener
        self._door = door
        self._context = context
        self._client: Client | None = None
        """What it became."""
        self._client_ip: str | None = None
        """Once the PROXY header has told it."""
        self._places: Places | None = None
        """What it holds at the limits of its client."""
        self._has_begun = False
        """The peer has said something."""
        self._started_at = context.now()
        self._until = self._started_at + listener.timeouts.header

    @property
    def transport(self) -> Transport:
        """To the client; inside of TLS once that is there."""
        return self._transport if self._client is None else self._client.transport

    @property
    def listener(self) -> StreamListener:
        """In the form that what is under way began with."""
        return self._listener if self._client is None else self._client.listener

    async def serve(self) -> None:
        """Serves until the connection ends; closes the transport whatever happens."""
        try:
            try:  # noqa: SIM105  a context manager costs 0.3 µs
                self._client = await self._open()
            except ConnectionLost:
                pass
            if self._client is not None:
                await self._client.serve()
        finally:
            self._transport.close()
            self._client_ip = None  # it may still be told to follow, and holds nothing any more
            if self._places is not None:
                self._places.release()

    def follow(self) -> bool:
        """Lets go of an older form of its listener, if what it became has no use for that."""
        self._count_client()
        if self._client is None:
            self._follow()
            return True
        follows = self._client.follow()
        self._listener = self._client.listener
        self._door = self._listener.door or self._door
        return follows

    def nudge_idle(self) -> None:
        """Wakes it, so that it sees that it is to end, if nothing was said on it yet."""
        if self._client is not None:
            self._client.nudge_idle()
        elif not self._has_begun:
            self._transport.source.ready |= READ  # something may be here of which no event has told yet
            self._transport.source.nudge()

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends what is under way with one of these backends, if it is, and says with which."""
        return None if self._client is None else self._client.cut(rows)

    # The steps ----------------------------------------------------------------------------------------------

    async def _open(self) -> Client | None:
        """What it becomes; None: it ends here, and was told what there is to tell.

        Raises:
            ConnectionLost: the peer is gone.
        """
        transport, context = self._transport, self._context
        header: ProxyHeader | None = None
        received = b""
        if self._door.trusted is not None:
            found = await self._read_header(self._door.trusted)
            if found is None:
                return None
            header, received = found
        arrival = Arrival(transport, header)
        if header is not None and not self._is_let_in(arrival.client_ip):
            return None
        if self._door.hosts is None:
            self._follow()
            return self._listener.begin(transport, context, arrival, received)
        return await self._open_tls(arrival, received)

    async def _open_tls(self, arrival: Arrival, received: bytes) -> Client | None:
        buffer = HelloBuffer()
        try:
            hello = await self._read_hello(buffer, received)
        except HelloRejected as rejected:
            if rejected.kind is Kind.PLAIN_HTTP and self._door.speaks_http:
                await self._answer_in_clear(arrival, len(buffer.received))
            else:
                self._report(arrival, rejected.detail)
                await self._alert(rejected.alert)
            return None
        if hello is None:
            if self._has_begun:
                self._report(arrival, "the ClientHello did not arrive in time, or not at all")
            return None
        arrival.hello = hello.without_alpn()
        self._follow()
        hosts = self._door.hosts
        assert hosts is not None
        chosen = hosts.choose(hello.server_name)
        if isinstance(chosen, Destination):
            return RelayedConnection(
                self._transport, self._listener, self._context, chosen, arrival, buffer.received
            )
        if chosen is None:
            self._report(arrival, "no certificate is for the host that the client names, if any")
            await self._alert(Alert.UNRECOGNIZED_NAME)
        elif self._door.speaks_http and hello.alpn and _HTTP not in hello.alpn:
            self._report(arrival, "the client offers protocols, and http/1.1 is none of them")
            await self._alert(Alert.NO_APPLICATION_PROTOCOL)
        else:
            return await self._shake_hands(arrival, hello, buffer.received, chosen)
        return None

    async def _shake_hands(
        self, arrival: Arrival, hello: ClientHello, received: bytes, site: Site
    ) -> Client | None:
        context = self._context
        tls = TlsTransport(self._transport, site.context, server_name=hello.server_name, received=received)
        try:
            facts = await tls.handshake(context.deadlines, self._until)
        except TlsFailed as failed:
            self._report(arrival, str(failed))
            if failed.reason not in {"closed", "timeout"}:
                await linger(self._transport, context)  # else a reset may take the alert along
            return None
        context.view.count(WorkerCounter.TLS_RESUMED if facts.resumed else WorkerCounter.TLS_HANDSHAKES)
        try:
            _take_note(arrival, facts, site.domain)
        except ValueError as error:
            self._report(arrival, f"the certificate of the client: {error}")
            tls.close()
            return None
        first = tls.recv_first(READ_SIZE)
        self._follow()
        return self._listener.begin(tls, context, arrival, first)

    def _follow(self) -> None:
        """Goes on with the newest form of its listener."""
        if self._context.generation() != self._listener.generation:
            self._context.move()
        current: StreamListener | None = self.lineage.current
        if current is not None and current is not self._listener:
            self._listener = current
            door = current.door
            if door is not None and (door.hosts is None) is (self._door.hosts is None):
                self._door = door  # else TLS has come or gone: this connection goes on as it began

    def _is_let_in(self, client_ip: str) -> bool:
        """Asks the limits of clients, now that it is known who this one is."""
        self._client_ip = client_ip
        entrance = self._listener.entrance
        if entrance is None:
            return True
        self._places = entrance.recognise(client_ip)
        if self._places is None:
            self._transport.abort()
        return self._places is not None

    def _count_client(self) -> None:
        """Counts its client, if that is known, at limits that have come with a newer form of the listener."""
        current: StreamListener | None = self.lineage.current
        if self._client_ip is not None and current is not None and current.entrance is not None:
            self._places = current.entrance.complete_recognised(self._places, self._client_ip)

    # Reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> bytes:
        """Some bytes; none when no more are to be waited for."""
        transport = self._transport
        while (piece := transport.recv(READ_SIZE)) is None:
            if self.lineage.leaving and not self._has_begun:
                return b""
            if not await park(transport.until_readable, self._context.deadlines, self._until):
                return b""
        self._has_begun = self._has_begun or bool(piece)
        return piece

    async def _read_header(self, trusted: Networks) -> tuple[ProxyHeader, bytes] | None:
        """The PROXY header, and what came behind it."""
        if not is_trusted(self._transport.peer_ip, trusted):
            self._report_header("the peer is not in trusted_proxies")
            return None
        buffer = ProxyHeaderBuffer()
        try:
            while piece := await self._read():
                header = buffer.feed(piece)
                if header is not None:
                    return header, buffer.take_rest()
        except ProxyHeaderRejected as rejected:
            self._report_header(rejected.detail)
        else:
            if self._has_begun:
                self._report_header("the header did not arrive in time, or not at all")
        return None

    async def _read_hello(self, buffer: HelloBuffer, received: bytes) -> ClientHello | None:
        """The ClientHello; None when none comes.

        Raises:
            HelloRejected: what comes is none.
        """
        self._has_begun = bool(received)  # of this step
        piece = received or await self._read()
        while piece:
            hello = buffer.feed(piece)
            if hello is not None:
                return hello
            piece = await self._read()
        return None

    # Ends ---------------------------------------------------------------------------------------------------

    def _report(self, arrival: Arrival, reason: str) -> None:
        self._context.view.count(WorkerCounter.TLS_FAILED)
        self._context.log.write(
            Event.TLS_FAILED,
            listener=self._listener.name,
            client_ip=arrival.client_ip or None,
            server_name=arrival.server_name,
            reason=reason,
        )

    def _report_header(self, reason: str) -> None:
        self._context.view.count(WorkerCounter.REJECTED)
        refused = self._door.count_refused(self._context.now())
        if refused:
            self._context.log.write(
                Event.PROXY_HEADER_REJECTED,
                listener=self._listener.name,
                peer_ip=self._transport.peer_ip or None,
                reason=reason,
                refused=refused,
            )

    async def _alert(self, alert: Alert | None) -> None:
        """Tells the client in TLS, as far as it listens and understands that."""
        if alert is not None:
            self._transport.send(render_alert(alert))
            await linger(self._transport, self._context)

    async def _answer_in_clear(self, arrival: Arrival, bytes_in: int) -> None:
        """Tells a client that speaks plain HTTP that this is no place for it."""
        client = self._listener.begin(self._transport, self._context, arrival)
        assert isinstance(client, ClientConnection)
        rejected = bad_request("plain HTTP was sent to a port that serves HTTPS; use https://")
        await refuse(client, rejected, self._started_at, bytes_in)
        await linger(self._transport, self._context)


def _take_note(arrival: Arrival, facts: TlsFacts, domain: str) -> None:
    """Keeps of a handshake what matters later.

    Raises:
        ValueError: the client's certificate cannot be told of.
    """
    certificate = None if facts.peer_certificate is None else read_certificate(facts.peer_certificate)
    tls = ProxyTls(
        facts.version,
        facts.cipher,
        "" if certificate is None else certificate.common_name,
        certificate is not None,
        certificate is not None,  # one that is not good ends the handshake
    )
    alpn = (facts.alpn or "").encode()
    arrival.secure(tls, alpn, domain, b"" if certificate is None else render_certificate(certificate))
