"""Where sessions of datagrams go: to a backend, a place on it and a socket to it, or to another one.

Owns the reasons to stay and to go. A session goes to another backend when its own has gone out of use, which
is looked at when the status epoch has changed, or when its host turns datagrams away. With no other it stays,
in the second case, or is to end.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from lbproc.core.http.exchange import Fault, is_backend_fault
from lbproc.core.pick import NoBackend
from lbproc.core.proxy_protocol import ProxyFields, ProxyHeader, render_v2
from lbproc.errors import CapacityError
from lbproc.net.udp import NO_ROOM, open_upstream
from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.telemetry.events import Event
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from lbproc.net.udp import DatagramPort
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.udp import UdpListener
    from lbproc.proxy.udp_session import UdpSession
    from lbproc.telemetry.log import ErrorLog
    from lbproc.types import Row, Seconds

TOLD_EVERY: Final[Seconds] = 1.0
"""Between two events of a kind: strangers may cause any number."""

FORGIVEN_AFTER: Final[Seconds] = 1.0
"""A backend that turned a session away is tried again after so long, if it comes to that."""

_ID_BITS: Final = 128
_MAPPED: Final = "::ffff:"


class Teller:
    """Writes events, but not the same one again within a second."""

    __slots__ = ("_log", "_told")

    def __init__(self, log: ErrorLog) -> None:
        self._log = log
        self._told: dict[Event, float] = {}

    def tell(self, event: Event, now: float, **fields: Any) -> None:  # noqa: ANN401  as the log takes them
        """Writes an event, unless it was written a moment ago."""
        if now >= self._told.get(event, -TOLD_EVERY) + TOLD_EVERY:
            self._told[event] = now
            self._log.write(event, **fields)


class Seating:
    """Finds backends for the sessions of one socket.

    Args:
        listener: that the socket belongs to.
        port: where clients send to.
        context: the worker's.
        wake: called for a session that is to be seen to again.
    """

    __slots__ = ("_context", "_flows", "_listener", "_port", "_told", "_wake")

    def __init__(
        self,
        listener: UdpListener,
        port: DatagramPort,
        context: WorkerContext,
        wake: Callable[[UdpSession], object],
    ) -> None:
        self._port = port
        self._context = context
        self._wake = wake
        self._told = Teller(context.log)
        self.follow(listener)

    def follow(self, listener: UdpListener) -> None:
        """Goes on as another form of the listener says."""
        self._listener = listener
        self._flows = listener.flow_places(self._context)

    def key_of(self, peer_ip: str, peer_port: int, local: TcpAddress) -> int:
        """What names a flow in every worker."""
        return self._flows.key_of(peer_ip, peer_port, local)

    def keep(self, flow: int, row: Row) -> None:
        """Extends a flow that goes on here; call it at least once in the longest silence."""
        self._flows.keep(flow, row)

    def is_seated_well(self, session: UdpSession, now: float) -> bool:
        """Whether a session has a backend that it may go on with, perhaps another one; else it is to end."""
        epoch = self._context.view.status_epoch()
        if session.seen == epoch and session.backend is not None:
            return True
        session.seen = epoch
        backend, balancer = session.backend, self._listener.destination.balancer
        if backend is not None and balancer is not None and balancer.serves(backend):
            session.balancer = balancer
            return True
        session.unseat()  # first: its place may be the last one of a backend that it is to stay with
        return self.seat(session, now)

    def turned_away(self, session: UdpSession, now: float, octets: memoryview | bytes | None) -> None:
        """Finds another backend for a session whose own turned a datagram away, if there is one."""
        fault, backend, balancer = session.fault, session.backend, session.balancer
        session.fault = None
        if fault is None or backend is None or balancer is None:
            return
        held = session.take_held() if octets is None else octets
        self._blame(balancer, backend, fault, now)
        if now >= session.tried_at + FORGIVEN_AFTER:
            session.tried.clear()
        session.tried_at = now
        if backend not in session.tried:
            session.tried.append(backend)
        self.seat(session, now)  # or it stays
        if held is not None and (session.backend is not backend or octets is not None):
            session.record.retries += session.backend is not backend
            if not session.forward(held, now):
                self._wake(session)

    def seat(self, session: UdpSession, now: float) -> bool:
        """Gives a session a backend and a socket, or leaves it as it is."""
        balancer = self._listener.destination.balancer
        if balancer is None:
            return False
        before = session.backend
        while True:
            lease = self._take_place(balancer, session, now)
            if lease is None:
                return False
            try:
                sock = _connect(lease.backend)
            except OSError as error:
                lease.release()
                if error.errno in NO_ROOM:
                    self._context.view.count(WorkerCounter.ACCEPT_PAUSES)
                    name = self._listener.name
                    self._told.tell(Event.ACCEPT_PAUSED, now, listener=name, reason=error.strerror)
                    return False
                session.tried.append(lease.backend)
                session.tried_at = now
                self._blame(balancer, lease.backend, Fault.CONNECT_UNREACHABLE, now)
                continue
            except BaseException:
                lease.release()
                raise
            if before is not None:
                self._context.view.count_backend(before.row, BackendCounter.REDISPATCHES)
            view = self._context.view
            view.count_pick(lease.backend.row)
            view.count_backend(lease.backend.row, BackendCounter.CONNECTS)
            session.seat(balancer, lease, sock, self._greeting(session, balancer))
            session.seen = view.status_epoch()
            return True

    def _take_place(self, balancer: Balancer, session: UdpSession, now: float) -> Lease | None:
        """A place on a backend that has not turned the session away; None: there is none."""
        try:
            place = self._flows.take(balancer, session.flow, session.client_ip, session.tried)
        except CapacityError as error:
            self._told.tell(Event.CAPACITY_REACHED, now, reason=error)
            return None
        if not isinstance(place, NoBackend):
            return place
        if not session.tried:
            fault = Fault.ALL_FULL if place is NoBackend.ALL_FULL else Fault.NO_BACKEND
            self._told.tell(Event.POOL_EXHAUSTED, now, pool=balancer.name, cause=fault.cause)
        return None

    def _blame(self, balancer: Balancer, backend: Backend, fault: Fault, now: float) -> None:
        """Counts what a backend did as a connect that failed."""
        view = self._context.view
        view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
        if not is_backend_fault(fault):
            return
        if backend.outlier is not None:
            backend.outlier.failed(backend, fault.cause)
        view.count_backend(backend.row, BackendCounter.FAILURES)
        self._told.tell(
            Event.BACKEND_UNREACHABLE,
            now,
            pool=balancer.name,
            backend=backend.name,
            reason=fault.reply().detail,
        )

    def _greeting(self, session: UdpSession, balancer: Balancer) -> bytes:
        """The PROXY header for each datagram of a session; b"" for pools that want none."""
        if balancer.config.proxy_protocol is None:
            return b""
        record, given = session.record, session.introduction
        if record.unique_id is None:
            record.unique_id = f"{self._context.random.getrandbits(_ID_BITS):032x}"
        if given is not None and given.source is not None:
            fields, source, destination = given.fields, given.source, given.destination
            said = ProxyFields(
                fields.alpn, fields.authority, fields.unique_id or record.unique_id.encode(), fields.tls
            )
        else:
            here = self._port.local_address(session.local)
            source = TcpAddress(bare(session.peer[0]), session.peer[1])
            destination = TcpAddress(bare(here.host), here.port)
            said = ProxyFields(unique_id=record.unique_id.encode())
        return render_v2(ProxyHeader(source, destination, is_datagram=True, fields=said))


def _connect(backend: Backend) -> socket.socket:
    """A socket to the first of its addresses that a way leads to.

    Raises:
        OSError: there is none.
    """
    failure = OSError(errno.EHOSTUNREACH, "it has no address")
    for address in backend.addresses:
        try:
            return open_upstream(address)
        except OSError as error:
            failure = error
            if error.errno in NO_ROOM:
                break
    raise failure


def bare(ip: str) -> str:
    """An address without a zone, and IPv4 as such."""
    return ip.removeprefix(_MAPPED).partition("%")[0]
