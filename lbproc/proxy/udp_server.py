"""The sessions at one socket for datagrams: who begins one, and when it ends.

Owns the sessions and their order, and what becomes of each datagram that comes. A session is named by the
client's address and port and the local address that he sent to. It belongs to the socket: answers go out
where questions came in, also when another worker receives there by now.

Theory of operation. One task turns: it takes a bounded number of datagrams, sends each to its session's
backend, sees to sessions that need something, ends those that were silent too long, and parks. What backends
answer is sent on by the sessions' reflexes (``proxy.udp_session``) without the task.

Which backend a session has is found by ``proxy.udp_seating``.

Invariants:
- Nothing that a client sends costs more than a session, and there are no more of these than the listener
  lets in. What is not let in is dropped and counted, and never answered.
- A line is written for a session, never for a datagram; events are held to one a second of a kind.
- Every session has ended when `UdpServer.run` has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from lbproc.core.http.exchange import Fault
from lbproc.core.http.forwarding import is_trusted
from lbproc.core.proxy_protocol import ProxyHeader, ProxyHeaderRejected, read_datagram_header
from lbproc.core.sessions import Expiry, Stage, ends_at
from lbproc.net.readiness import READ, Source, park
from lbproc.net.udp import BATCH, DatagramPort
from lbproc.proxy.udp import UdpListener
from lbproc.proxy.udp_seating import Seating, Teller, bare
from lbproc.proxy.udp_session import ARRIVED, UdpSession
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from lbproc.net.readiness import Dispatcher
    from lbproc.net.udp import Local, Peer
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.door import Door
    from lbproc.proxy.entrance import Places
    from lbproc.proxy.listener import Listener
    from lbproc.types import Seconds

ENDED_BY_DRAIN: Final = "drain_timeout"
"""The cause in the access log of an end because lbproc leaves, or did not want to wait."""

LEFTOVERS: Final[Seconds] = 0.3
"""How long a socket that gets nothing new is looked at nevertheless: something may be queued."""


class UdpServer:
    """Serves one socket.

    Args:
        sock: bound; made non-blocking here, not closed.
        dispatcher: reports its events, and those of the sessions' sockets.
        context: the worker's.
        find: the listener that the socket belongs to now.
    """

    __slots__ = (
        "_context",
        "_dispatcher",
        "_expiry",
        "_find",
        "_heard_at",
        "_is_running",
        "_listener",
        "_port",
        "_receives",
        "_seating",
        "_sessions",
        "_since",
        "_sock",
        "_source",
        "_stage",
        "_told",
        "_waiting",
    )

    def __init__(
        self,
        sock: socket.socket,
        dispatcher: Dispatcher,
        context: WorkerContext,
        find: Callable[[], Listener | None],
    ) -> None:
        self._sock = sock
        self._dispatcher = dispatcher
        self._context = context
        self._find = find
        found = find()
        assert isinstance(found, UdpListener)
        self._listener = found
        self._port = DatagramPort(sock)
        self._seating = Seating(found, self._port, context, self._wake)
        self._sessions: dict[tuple[Peer, Local], UdpSession] = {}
        self._expiry: Expiry[UdpSession] = Expiry()
        self._waiting: dict[UdpSession, None] = {}
        """Those that need this task."""
        self._stage = Stage.SERVING
        self._receives = True
        self._is_running = False
        self._since = self._heard_at = 0.0
        self._source = Source()
        self._told = Teller(context.log)

    @property
    def sessions(self) -> Iterable[UdpSession]:
        """All that are under way; not to be kept."""
        return self._sessions.values()

    # Stages -------------------------------------------------------------------------------------------------

    def stop(self, stage: Stage) -> None:
        """Lets `run` come to its end, as the stage says; later stages are more urgent."""
        if stage.value > self._stage.value:
            self._stage, self._since = stage, self._context.now()
            self._expiry.reset(self._sessions.values(), self._ends_at)
        self._source.nudge()

    def leave(self) -> None:
        """Receives no more: another worker does. Sessions go on for what their backends have to say."""
        if self._receives:
            self._receives = False
            before, self._source = self._source, Source()
            self._source.ready = 0  # nothing comes here any more but nudges
            if self._is_running:
                self._dispatcher.unregister(self._sock.fileno())
            before.nudge()
        self.stop(Stage.LEFT)

    def nudge(self) -> None:
        """Has the listener looked up anew."""
        self._source.nudge()

    async def run(self) -> None:
        """Serves until it is over, or cancelled. Afterwards the socket may be closed."""
        self._sock.setblocking(False)
        self._is_running = True
        if self._receives:
            self._dispatcher.register(self._sock.fileno(), self._source)
        try:
            while True:
                has_more = self._turn()
                if self._is_over():
                    return
                if has_more:
                    await trio.lowlevel.checkpoint()
                else:
                    source = self._source
                    await park(((source, READ),), self._context.deadlines, self._look_at())
        finally:
            self._is_running = False
            if self._receives:
                self._dispatcher.unregister(self._sock.fileno())
            for session in list(self._sessions.values()):
                self._end(session, ENDED_BY_DRAIN)

    def _is_over(self) -> bool:
        if self._stage is Stage.SERVING or self._sessions:
            return False
        if self._stage is not Stage.RETIRED:
            return True
        return self._context.now() >= max(self._since, self._heard_at) + LEFTOVERS

    def _look_at(self) -> float:
        """When there is something to do although nothing comes."""
        if self._stage is Stage.RETIRED and not self._sessions:
            return max(self._since, self._heard_at) + LEFTOVERS
        return self._expiry.next_at

    # A turn -------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Does what there is to do, within bounds. Returns whether there is more."""
        context = self._context
        self._follow()
        now = context.now()
        has_more = self._receives and self._receive(now)
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for session in waiting:
                self._attend(session, now)
            has_more = has_more or bool(self._waiting)
        self._end_silent(now)
        return has_more

    def _follow(self) -> None:
        """Goes on with the newest form of its listener."""
        if self._context.generation() != self._listener.generation:
            self._context.move()
        listener = self._found()
        if listener is self._listener:
            return
        self._listener, idle = listener, self._listener.idle
        self._seating.follow(listener)
        for session in self._sessions.values():
            session.seen = -1
            if listener.entrance is not None and session.places is not None:
                listener.entrance.complete(session.places, session.client_ip)
                listener.entrance.complete_recognised(session.places, session.client_ip)
        if listener.idle != idle:
            self._expiry.reset(self._sessions.values(), self._ends_at)
            self._remember()

    def _remember(self) -> None:
        """Has all flows kept for as long as sessions may be silent now, which may be longer than before."""
        if self._stage is Stage.SERVING:
            for session in self._sessions.values():
                if session.backend is not None:
                    self._seating.keep(session.flow, session.backend.row)

    def _found(self) -> UdpListener:
        found = self._find()
        if found is None:  # long after it was removed
            return self._listener
        assert isinstance(found, UdpListener)
        return found

    def _receive(self, now: float) -> bool:
        """Takes some datagrams. Returns whether there may be more."""
        port, source = self._port, self._source
        for _ in range(BATCH):
            try:
                octets, peer, local = port.receive()
            except BlockingIOError:
                source.ready &= ~READ
                return False
            except OSError as error:  # this host has no memory for it
                self._context.view.count(WorkerCounter.ACCEPT_PAUSES)
                self._told.tell(Event.ACCEPT_PAUSED, now, listener=self._listener.name, reason=error.strerror)
                source.ready &= ~READ  # the next datagram sets it again
                return False
            self._heard_at = now
            try:
                self._take(octets, peer, local, now)
            except Exception as error:  # one client's defect must not take the others along
                self._context.view.count(WorkerCounter.DEFECTS)
                self._context.log.write_crash(Event.CONNECTION_CRASHED, error, listener=self._listener.name)
        return True

    def _take(self, octets: memoryview | bytes | None, peer: Peer, local: Local, now: float) -> None:
        """Does with one datagram what is to be done."""
        if octets is None:
            self._refuse()
            return
        session = self._sessions.get((peer, local))
        door = self._listener.door
        header: ProxyHeader | None = None
        if door is not None:
            try:
                header, octets = self._introduced(octets, peer, door, is_first=session is None)
            except ProxyHeaderRejected as rejected:
                self._report_header(door, peer, rejected.detail, now)
                return
        if session is None:
            session = self._begin(peer, local, header, now)
            if session is None:
                self._refuse()
                return
        elif not self._seating.is_seated_well(session, now):
            self._end(session, Fault.NO_BACKEND.cause)
            self._refuse()
            return
        if not session.forward(octets, now):
            self._seating.turned_away(session, now, octets)

    def _attend(self, session: UdpSession, now: float) -> None:
        """Sees to a session that has more to read, or whose backend has failed."""
        if session.is_over:
            return
        if session.fault is Fault.BACKEND_DOWN and session.backend is None:
            self._end(session, Fault.BACKEND_DOWN.cause)
            return
        if session.has_more:
            session.pass_on()
        if session.fault is not None:
            self._seating.turned_away(session, now, None)
        if session.has_more:
            self._waiting[session] = None

    def _wake(self, session: UdpSession) -> bool:
        """Called by sessions that need this task, also out of a reflex."""
        self._waiting[session] = None
        is_parked = self._source.is_parked
        self._source.nudge()
        return is_parked

    # Who begins one -----------------------------------------------------------------------------------------

    def _begin(self, peer: Peer, local: Local, header: ProxyHeader | None, now: float) -> UdpSession | None:
        """A new session with a backend; None: it is not let in, or there is none."""
        ip, number = bare(peer[0]), peer[1]
        here = self._port.local_address(local)
        # Nobody can be answered at port 0. Who claims to be this very socket would have it talk to itself.
        if not number or not self._stage.takes_new or (ip, number) == (bare(here.host), here.port):
            return None
        listener, context = self._listener, self._context
        source = None if header is None else header.source
        client_ip = bare(source.host) if isinstance(source, TcpAddress) else ip
        places = self._admit(ip, client_ip)
        if places is None:
            return None
        log_format = listener.log_format
        record = log_format.relay_record(
            context, ARRIVED, log_format.caller(client_ip, listener.name), listener.destination
        )
        session = UdpSession(
            self._port, peer, local, client_ip, context, self._dispatcher, record, self._wake
        )
        session.places = places
        session.flow = self._seating.key_of(ip, number, here)
        session.introduction = header
        try:
            is_seated = self._seating.seat(session, now)
        except BaseException:
            places.release()
            raise
        if not is_seated:
            places.release()
            return None
        self._sessions[peer, local] = session
        self._expiry.add(session, self._ends_at(session))
        context.view.count(WorkerCounter.ACCEPTED)
        context.view.count(WorkerCounter.CONNECTIONS)
        return session

    def _admit(self, peer_ip: str, client_ip: str) -> Places | None:
        """What it holds at limits; None: it is refused."""
        entrance = self._listener.entrance
        assert entrance is not None  # there is no listener for datagrams without a limit
        places = entrance.enter(peer_ip)
        if places is not None and self._listener.door is not None:
            more = entrance.recognise(client_ip)
            if more is None:
                places.release()
                return None
            places.held |= more.held
        return places

    def _introduced(
        self, octets: memoryview | bytes, peer: Peer, door: Door, *, is_first: bool
    ) -> tuple[ProxyHeader | None, memoryview | bytes]:
        """The PROXY header of a datagram, and what stands behind it. Later ones may come without.

        Raises:
            ProxyHeaderRejected: it must have one, and has not.
        """
        if door.trusted is None or not is_trusted(bare(peer[0]), door.trusted):
            raise ProxyHeaderRejected("the peer is not in trusted_proxies")
        try:
            return read_datagram_header(bytes(octets))
        except ProxyHeaderRejected:
            if is_first:
                raise
            return None, octets

    def _report_header(self, door: Door, peer: Peer, reason: str, now: float) -> None:
        self._context.view.count(WorkerCounter.REJECTED)
        self._refuse()
        if refused := door.count_refused(now):
            self._context.log.write(
                Event.PROXY_HEADER_REJECTED,
                listener=self._listener.name,
                peer_ip=peer[0],
                reason=reason,
                refused=refused,
            )

    # Ends ---------------------------------------------------------------------------------------------------

    def _ends_at(self, session: UdpSession) -> float:
        return ends_at(self._stage, self._listener.idle, session.heard_at, session.moved_at, self._since)

    def _end_silent(self, now: float) -> None:
        """Ends sessions that were silent for too long, and has the others remembered in the map."""
        again = []
        for session in self._expiry.due(now):
            if session.is_over:
                continue
            at = self._ends_at(session)
            if at <= now:
                self._end(session, None)
                continue
            again.append((session, at))
            if self._stage is Stage.SERVING and session.backend is not None:
                self._seating.keep(session.flow, session.backend.row)
        for session, at in again:
            self._expiry.add(session, at)

    def _end(self, session: UdpSession, cause: str | None) -> None:
        if self._sessions.pop((session.peer, session.local), None) is not None:
            self._context.view.count(WorkerCounter.CONNECTIONS, -1)
        session.end(cause)

    def _refuse(self) -> None:
        self._context.view.count(WorkerCounter.DATAGRAMS_REFUSED)
