"""Listeners that relay TLS as it is: ``protocol = "tls_passthrough"``.

Owns the reading of the ClientHello, and where the connection goes by it. Every byte that was read is sent on,
so backend and client shake hands as if nobody stood between them. A client that is going nowhere is told so
in the one way that it understands before there is a session, by an alert; what is no TLS is closed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lbproc.core.http.exchange import Fault
from lbproc.core.tls.client_hello import Alert, HelloBuffer, HelloRejected, render_alert
from lbproc.core.tls.routing import HelloRouter
from lbproc.net.readiness import READ, park
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.arrival import Arrival
from lbproc.proxy.destination import Destination
from lbproc.proxy.listener import Lineage, StreamListener
from lbproc.proxy.opening import Opening
from lbproc.proxy.relayed import RelayedConnection
from lbproc.proxy.replying import linger
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.config.model import ListenerConfig
    from lbproc.core.tls.client_hello import ClientHello
    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.logged import LogFormat
    from lbproc.types import Row

READ_SIZE = 16_384

NO_HELLO = "tls_protocol_error"
"""The cause in the access log of a connection that is not TLS, or whose ClientHello is not taken."""

HELLO_TIMEOUT = "hello_timeout"
"""The cause of a connection whose ClientHello did not come in time."""


class PassthroughListener(StreamListener):
    """One listener whose connections are relayed by what their ClientHello says.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        pools: of the same generation.
        generation: of the configuration.
        log_format: how connections are logged.
    """

    __slots__ = ("_default", "_router", "_routes")

    lineage: Lineage[PassthroughListener]

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        pools: dict[str, Balancer],
        generation: int,
        log_format: LogFormat,
    ) -> None:
        super().__init__(name, config, generation, log_format)
        self._router = HelloRouter(config.routes)
        self._routes = [Destination(route.name, pools[route.pool]) for route in config.routes]
        self._default = Destination(None, None if config.pool is None else pools[config.pool])

    def find(self, hello: ClientHello) -> Destination:
        """Where a connection goes: by the first route that matches, or to the listener's own pool."""
        index = self._router.find(hello.server_name, hello.alpn)
        return self._default if index is None else self._routes[index]

    def open(self, transport: Transport, context: WorkerContext) -> Client:
        """Makes what serves a new connection."""
        if self.door is not None:
            return Opening(transport, self, self.door, context)
        return PassthroughConnection(transport, self, context, Arrival(transport))

    def begin(
        self, transport: Transport, context: WorkerContext, arrival: Arrival, received: bytes = b""
    ) -> Client:
        """Makes what serves a connection once it is known how it came, up to its ClientHello."""
        return PassthroughConnection(transport, self, context, arrival, received)


class PassthroughConnection:
    """Finds out where one connection goes, and then relays it.

    Args:
        transport: to the client; closed at the end.
        listener: where it came to.
        context: the worker's.
        arrival: how it came; gets its ClientHello.
        received: what was read from the client before.
    """

    __slots__ = ("_arrival", "_context", "_hello", "_received", "_relayed", "_until", "lineage",
                 "listener", "transport")  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        listener: PassthroughListener,
        context: WorkerContext,
        arrival: Arrival,
        received: bytes = b"",
    ) -> None:
        self.transport = transport
        self.listener: PassthroughListener = listener
        self.lineage = listener.lineage
        self._context = context
        self._arrival = arrival
        self._received = received
        self._hello = HelloBuffer()
        self._until = context.now() + listener.timeouts.header
        self._relayed: RelayedConnection | None = None
        """Once it is known where it goes."""

    async def serve(self) -> None:
        """Serves until both sides have ended, or one of them is broken; closes the transport."""
        try:
            await self._find_way()
        finally:
            if self._relayed is None:
                self.transport.close()
        if self._relayed is not None:
            await self._relayed.serve()

    def follow(self) -> bool:
        """Goes on with the newest form of its listener, which says where it goes if that is still open."""
        current = self.lineage.current
        if current is not None:
            self.listener = current
        if self._relayed is not None:
            self._relayed.follow()
        return True

    def nudge_idle(self) -> None:
        """Wakes it if it has said nothing yet, so that it sees that it is to end."""
        if self._relayed is None:
            self.transport.source.ready |= READ
            self.transport.source.nudge()

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends it if it is with one of these backends, and says with which."""
        return None if self._relayed is None else self._relayed.cut(rows)

    async def _find_way(self) -> None:
        """Reads the ClientHello, and does what it says."""
        try:
            hello = await self._read_hello()
        except ConnectionLost:
            self._end(Fault.CLIENT_GONE.cause)
        except HelloRejected as rejected:
            self._refuse(rejected.detail)
            if rejected.alert is None:
                self._end(NO_HELLO)
            else:
                await self._alert(rejected.alert, NO_HELLO)
        else:
            if hello is None:
                return
            self._arrival.hello = hello.without_alpn()  # it is kept as long as the connection
            self._context.move()
            self.follow()
            destination = self.listener.find(hello)
            if destination.balancer is None:
                self._refuse("no route matches, and there is no pool for the others")
                await self._alert(Alert.UNRECOGNIZED_NAME, Fault.NO_ROUTE.cause)
                return
            self._relayed = RelayedConnection(
                self.transport, self.listener, self._context, destination, self._arrival, self._hello.received
            )
            self._hello = HelloBuffer()  # what was read is the other's now, until it is sent

    async def _read_hello(self) -> ClientHello | None:
        """The ClientHello; None when none comes, which is settled then.

        Raises:
            HelloRejected: what comes is none.
            ConnectionLost: the client is gone.
        """
        piece: bytes | None = self._received
        self._received = b""
        transport = self.transport
        while True:
            if piece and (hello := self._hello.feed(piece)) is not None:
                return hello
            piece = transport.recv(READ_SIZE)
            if piece == b"":
                self._end(Fault.CLIENT_GONE.cause)
                return None
            if piece is not None:
                continue
            if self.lineage.leaving and not self._hello.received:
                return None
            if not await park(transport.until_readable, self._context.deadlines, self._until):
                self._refuse("the ClientHello did not arrive in time")
                self._end(HELLO_TIMEOUT)
                return None

    # Ends ---------------------------------------------------------------------------------------------------

    def _refuse(self, reason: str) -> None:
        context = self._context
        context.view.count(WorkerCounter.TLS_FAILED)
        context.log.write(
            Event.TLS_FAILED,
            listener=self.listener.name,
            client_ip=self._arrival.client_ip or None,
            server_name=self._arrival.server_name,
            reason=reason,
        )

    def _end(self, cause: str) -> None:
        """Writes the line of a connection that goes nowhere. One on which nothing was said leaves none."""
        received = self._hello.received
        if received:
            listener, context = self.listener, self._context
            log_format = listener.log_format
            caller = log_format.caller(self._arrival.client_ip or None, listener.name)
            record = log_format.relay_record(context, self._arrival, caller, None)
            record.bytes_in, record.cause = len(received), cause
            record.write()

    async def _alert(self, alert: Alert, cause: str) -> None:
        """Tells the client, as far as it listens."""
        self._end(cause)
        with suppress(ConnectionLost):
            self.transport.send(render_alert(alert))
            await linger(self.transport, self._context)
