"""One connection of a client that is relayed to a backend as it is, byte for byte.

Owns its way: a place on a backend by the pool's policy, a connection to it, on another backend where that
fails, then a tunnel to the end of both. Whatever was read from the client before (a ClientHello) is sent
first. What the bytes mean is nobody's business here.

A connection is one place on its backend, from the moment when that is picked. It is connected at once, so
it does not matter which side speaks first. A backend that cannot be connected to is replaced by another, as
nothing was sent; later there is no second try.

How it ends is told to both sides as it is: an end as an end, in each direction by itself; a break as a reset.
Where there is no backend the client is reset, and the log has the cause.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lbproc.core.http.exchange import CONNECT_FAULTS, Fault, is_backend_fault
from lbproc.core.pick import NoBackend
from lbproc.errors import CapacityError
from lbproc.net.transport import ConnectionLost
from lbproc.net.tunnel import Tunnel
from lbproc.proxy.reaching import Unreached, reach
from lbproc.proxy.replying import linger
from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.net.transport import Transport
    from lbproc.net.tunnel import TunnelReason
    from lbproc.proxy.arrival import Arrival
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.destination import Destination
    from lbproc.proxy.listener import StreamListener
    from lbproc.types import Row

IDLE = "idle_timeout"
"""The cause in the access log of an end because nothing moved."""

ENDED_BY_DRAIN = "drain_timeout"
"""The cause of an end because lbproc leaves, or did not want to wait."""

_ID_BITS = 128


class RelayedConnection:
    """Relays one connection.

    Args:
        transport: to the client; closed at the end.
        listener: where it came to.
        context: the worker's.
        destination: where it goes; None, or without a pool: nowhere.
        arrival: how it came.
        received: what was read from the client before, and is to be sent on.
    """

    __slots__ = (
        "_arrival",
        "_backend",
        "_context",
        "_destination",
        "_is_cut",
        "_lingers",
        "_received",
        "_record",
        "_tunnel",
        "_upstream",
        "lineage",
        "listener",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        listener: StreamListener,
        context: WorkerContext,
        destination: Destination | None,
        arrival: Arrival,
        received: bytes = b"",
    ) -> None:
        self.transport = transport
        self.listener = listener
        self.lineage = listener.lineage
        self._context = context
        self._destination = destination
        self._arrival = arrival
        self._received = received
        log_format = listener.log_format
        caller = log_format.caller(arrival.client_ip or None, listener.name)
        self._record = log_format.relay_record(context, arrival, caller, destination)
        self._backend: Backend | None = None
        """The one that is being tried, or has it."""
        self._upstream: Transport | None = None
        self._tunnel: Tunnel | None = None
        self._is_cut = False
        self._lingers = False
        """The client may still talk to a backend that has ended."""

    async def serve(self) -> None:
        """Serves until both sides have ended, or one of them is broken; closes the transport."""
        record = self._record
        try:
            reached = await self._find_backend()
            self._destination = None  # it lives on without what it was picked by
            if isinstance(reached, Fault):
                record.cause = reached.cause
                self.transport.abort()
            else:
                await self._relay(*reached)
                if self._lingers:
                    with suppress(ConnectionLost):
                        await linger(self.transport, self._context)
        except BaseException as error:
            is_defect = isinstance(error, Exception)  # which whoever started this task reports
            record.cause = Fault.OUT_OF_PLACES.cause if is_defect else ENDED_BY_DRAIN
            self.transport.abort()  # what was cut must not look complete
            raise
        finally:
            self.transport.close()
            record.write()

    def follow(self) -> bool:
        """Lets go of an older form of its listener: nothing that it goes on with depends on it."""
        current = self.lineage.current
        if current is not None:
            self.listener = current
        return True

    def nudge_idle(self) -> None:
        """Does nothing: nobody but its two sides knows when it is idle."""

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends it, or the attempt to connect it, if it is with one of these backends; says with which."""
        backend = self._backend
        if backend is None or backend.row not in rows:
            return None
        self._is_cut = True
        if self._upstream is not None:
            self._upstream.abort()  # which wakes the task
        return backend.row

    # The backend --------------------------------------------------------------------------------------------

    async def _find_backend(self) -> tuple[Lease, Transport] | Fault:
        """A place on the first backend that can be connected to, with a connection; or why there is none."""
        balancer = None if self._destination is None else self._destination.balancer
        if balancer is None:
            return Fault.NO_ROUTE
        tried: list[Backend] = []
        failure: Fault | None = None
        while True:
            place = self._take(balancer, tried)
            if isinstance(place, Fault):
                return failure or place
            if tried:
                self._record.retries += 1
                self._context.view.count_backend(tried[-1].row, BackendCounter.REDISPATCHES)
            self._backend, self._is_cut = place.backend, False
            try:
                return place, await self._reach(balancer, place.backend)
            except BaseException as error:
                self._backend = None
                place.release()
                if not isinstance(error, Unreached):
                    raise
                failure = error.fault
            if failure not in CONNECT_FAULTS and failure is not Fault.BACKEND_DOWN:
                return failure
            tried.append(place.backend)

    def _take(self, balancer: Balancer, tried: list[Backend]) -> Lease | Fault:
        """A place on a backend, or why there is none."""
        context = self._context
        try:
            place = balancer.take(self._arrival.facts(), self._arrival.client_ip, tried)
        except CapacityError as error:
            context.log.write(Event.CAPACITY_REACHED, reason=error)
            return Fault.OUT_OF_PLACES
        if isinstance(place, NoBackend):
            fault = Fault.ALL_FULL if place is NoBackend.ALL_FULL else Fault.NO_BACKEND
            if not tried:
                context.log.write(Event.POOL_EXHAUSTED, pool=balancer.name, cause=fault.cause)
            return fault
        self._record.backend = place.backend
        context.view.count_pick(place.backend.row)
        return place

    async def _reach(self, balancer: Balancer, backend: Backend) -> Transport:
        record, context = self._record, self._context
        record.connect_started_at = context.now()
        try:
            upstream = await reach(backend, context, balancer.timeouts.connect, self._greeting(balancer))
        except Unreached as error:
            if is_backend_fault(error.fault):
                self._blame(balancer, backend, error)
            raise
        if self._is_cut:
            upstream.close()
            raise Unreached(Fault.BACKEND_DOWN)
        record.connected_at = upstream.opened_at
        return upstream

    def _greeting(self, balancer: Balancer) -> bytes:
        version = balancer.config.proxy_protocol
        if version is None:
            return b""
        record = self._record
        if version == "v2" and record.unique_id is None:
            record.unique_id = f"{self._context.random.getrandbits(_ID_BITS):032x}"
        try:
            return self._arrival.greeting(self.transport, version, record.unique_id or "")
        except ConnectionLost:  # closed here; the tunnel meets it again
            return b""

    def _blame(self, balancer: Balancer, backend: Backend, failure: Unreached) -> None:
        """Counts and reports what a backend did."""
        context = self._context
        if backend.outlier is not None:
            backend.outlier.failed(backend, failure.fault.cause)
        context.view.count_backend(backend.row, BackendCounter.FAILURES)
        context.log.write(
            Event.BACKEND_UNREACHABLE, pool=balancer.name, backend=backend.name, reason=failure.reason
        )

    # The relay ----------------------------------------------------------------------------------------------

    async def _relay(self, place: Lease, upstream: Transport) -> None:
        """Brings it to its end, and gives the place back."""
        context, record = self._context, self._record
        self._upstream = upstream
        tunnel = self._tunnel = Tunnel(self.transport, upstream, self._received)
        self._received = b""
        context.view.count(WorkerCounter.TUNNELS)
        try:
            reason = await tunnel.relay(context.deadlines, self.listener.timeouts.tunnel, self._count)
            self._end(reason, upstream, tunnel)
        except BaseException:
            upstream.abort()
            raise
        finally:
            context.view.count(WorkerCounter.TUNNELS, -1)
            record.count(tunnel.bytes_up, tunnel.bytes_down)
            self._backend = self._upstream = self._tunnel = None
            upstream.close()
            place.release()

    def _count(self) -> None:
        """Counts what has moved. A backend that has said something, or that was heard to the end, works."""
        tunnel, record = self._tunnel, self._record
        assert tunnel is not None
        if not record.bytes_out and tunnel.bytes_down:
            self._praise()
        record.count(tunnel.bytes_up, tunnel.bytes_down)

    def _praise(self) -> None:
        backend = self._backend
        if backend is not None and backend.outlier is not None:
            backend.outlier.answered(backend, 200)

    def _end(self, reason: TunnelReason, upstream: Transport, tunnel: Tunnel) -> None:
        """Tells each side what has become of the other."""
        record = self._record
        if self._is_cut:
            record.cause = Fault.BACKEND_DOWN.cause
            self.transport.abort()
        elif reason == "b_failed":
            record.cause = (Fault.TLS_ALERT if upstream.alert else Fault.BACKEND_LOST).cause
            self.transport.abort()
            self._lose(tunnel, record.cause)
        elif reason == "a_failed":
            record.cause = Fault.CLIENT_GONE.cause
            upstream.abort()
        elif reason == "idle":
            record.cause = IDLE
            if tunnel.owes_a:
                self.transport.abort()
            if tunnel.owes_b:
                upstream.abort()
        else:
            if not tunnel.bytes_down:
                self._praise()
            self._lingers = not tunnel.has_a_ended

    def _lose(self, tunnel: Tunnel, cause: str) -> None:
        """A backend that breaks a connection before it has said anything has failed."""
        backend = self._backend
        if backend is None or tunnel.bytes_down:
            return
        if backend.outlier is not None:
            backend.outlier.failed(backend, cause)
        self._context.view.count_backend(backend.row, BackendCounter.FAILURES)
