"""One session of datagrams: a client, the address that he sends to, and a socket of its own to one backend.

Owns that socket, the place on the backend and the account for the log. Whether a session begins, goes to
another backend or ends is its server's to say (``proxy.udp``).

What a backend's host says of a datagram (nobody listens there, no way leads there) comes with a later call on
the same socket. A datagram that was turned away so was taken by nobody. So the newest one is held until the
backend says something, and goes to the next backend if there is one: a client that asks once then need not
ask again.

No task runs for a session: answers are sent on by the reflex of its socket, questions by the server's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproc.core.http.exchange import Fault
from lbproc.net.readiness import READ, Source
from lbproc.net.udp import MAX_DATAGRAM, REFUSED, UNREACHABLE
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection

    from lbproc.core.proxy_protocol import ProxyHeader
    from lbproc.net.readiness import Dispatcher
    from lbproc.net.udp import DatagramPort, Local, Peer
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.entrance import Places
    from lbproc.proxy.relay_record import RelayRecord
    from lbproc.types import Row

HELD_SIZE: Final = 2048
"""Datagrams up to this size are held. Questions are small, and sessions are many."""

ANSWERS_AT_ONCE: Final = 16
"""Answers of one backend that are sent on before others have their turn."""


class _Arrived:
    """How a session came, for its line in the log."""

    __slots__ = ()

    server_name: str | None = None
    tls: None = None


ARRIVED: Final = _Arrived()


class UdpSession:
    """One session; begins when it is seated.

    Args:
        port: where the client sends to.
        peer: the client, as the kernel knows it.
        local: the address that he sent to.
        context: the worker's.
        dispatcher: reports the events of its sockets.
        record: its account.
        wake: called when it needs the server's task.

    Attributes:
        peer: as given.
        local: as given.
        client_ip: whose it is.
        flow: its key in the map of flows.
        places: what it holds at limits.
        greeting: stands in front of each datagram to the backend.
        introduction: the PROXY header that its first datagram had.
        heard_at: when the client's last datagram came.
        moved_at: when the last one came or went, whoever's.
        seen: the status epoch at which its backend was last looked at.
        balancer: of its backend.
        tried: backends that turned it away, since one answered.
        tried_at: when the last one did.
        fault: what its backend did; None: nothing.
        has_more: answers may wait.
        is_over: it has ended.
    """

    __slots__ = (
        "_context",
        "_dispatcher",
        "_held",
        "_is_answered",
        "_lease",
        "_port",
        "_sock",
        "_source",
        "_wake",
        "balancer",
        "client_ip",
        "fault",
        "flow",
        "greeting",
        "has_more",
        "heard_at",
        "introduction",
        "is_over",
        "local",
        "moved_at",
        "peer",
        "places",
        "record",
        "seen",
        "tried",
        "tried_at",
    )

    _sock: socket.socket

    def __init__(
        self,
        port: DatagramPort,
        peer: Peer,
        local: Local,
        client_ip: str,
        context: WorkerContext,
        dispatcher: Dispatcher,
        record: RelayRecord,
        wake: Callable[[UdpSession], bool],
    ) -> None:
        self.peer = peer
        self.local = local
        self.client_ip = client_ip
        self.record = record
        self.flow = 0
        self.places: Places | None = None
        self.greeting = b""
        self.introduction: ProxyHeader | None = None
        self.heard_at = self.moved_at = record.started_at
        self.seen = -1
        self.tried: list[Backend] = []
        self.tried_at = 0.0
        self.fault: Fault | None = None
        self.has_more = False
        self.is_over = False
        self.balancer: Balancer | None = None
        self._port = port
        self._context = context
        self._dispatcher = dispatcher
        self._wake = wake
        self._lease: Lease | None = None
        self._source = Source()
        self._held: bytes | None = None
        self._is_answered = False

    @property
    def backend(self) -> Backend | None:
        """The one that it goes to; None: it has ended."""
        return None if self._lease is None else self._lease.backend

    # Its backend --------------------------------------------------------------------------------------------

    def seat(self, balancer: Balancer, lease: Lease, sock: socket.socket, greeting: bytes) -> None:
        """Goes to a backend from now on, and to the one before no more."""
        self.unseat()
        self.balancer, self._lease, self._sock, self.greeting = balancer, lease, sock, greeting
        self._is_answered = False
        self.fault = None
        self.record.backend = lease.backend
        source = self._source = Source()
        source.ready = 0
        source.reflex = self._reflex
        self._dispatcher.register(sock.fileno(), source)

    def unseat(self) -> None:
        """Gives the place on its backend back, and closes the socket. Idempotent."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._dispatcher.unregister(self._sock.fileno())
            self._sock.close()
            lease.release()

    def end(self, cause: str | None) -> None:
        """Ends it, and writes its line. Idempotent."""
        if self.is_over:
            return
        self.is_over = True
        self.unseat()
        if self.places is not None:
            self.places.release()
        self.record.cause = cause
        self.record.write()

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Goes to this backend no more, if it is one of these; says which."""
        backend = self.backend
        if backend is None or backend.row not in rows:
            return None
        self.fault = Fault.BACKEND_DOWN
        self.unseat()
        self._wake(self)
        return backend.row

    # Datagrams ----------------------------------------------------------------------------------------------

    def forward(self, octets: memoryview | bytes, now: float) -> bool:
        """Sends a datagram of the client to the backend.

        Returns:
            False when the backend's host has turned away an earlier one (``fault`` says how), and this one
            was not sent. Where there is no room it is lost, as datagrams are.
        """
        self.heard_at = self.moved_at = now
        self._held = bytes(octets) if len(octets) <= HELD_SIZE else None
        context = self._context
        try:
            if self.greeting:
                self._sock.sendmsg((self.greeting, octets))
            else:
                self._sock.send(octets)
        except OSError as error:
            if self._blame(error.errno):
                return False
            context.view.count(WorkerCounter.DATAGRAMS_LOST)
            return True
        self.record.count(self.record.bytes_in + len(octets), self.record.bytes_out)
        context.view.count(WorkerCounter.DATAGRAMS_IN)
        return True

    def take_held(self) -> bytes | None:
        """What was sent last and nobody has taken; it is held no more."""
        held, self._held = self._held, None
        return held

    def pass_on(self) -> None:
        """Sends answers of the backend on to the client, some at once; ``has_more`` says what is left."""
        port, record, count, buffer = self._port, self.record, self._context.view.count, _ANSWER
        self.has_more = False
        self._source.ready |= READ
        for _ in range(ANSWERS_AT_ONCE):
            try:
                size = self._sock.recv_into(buffer)
            except BlockingIOError:
                self._source.ready &= ~READ
                return
            except OSError as error:
                self._blame(error.errno)
                continue  # there may be answers behind it
            self.fault = None
            self._hear()
            if port.answer(buffer[:size], self.peer, self.local):
                record.count(record.bytes_in, record.bytes_out + size)
                count(WorkerCounter.DATAGRAMS_OUT)
            else:
                count(WorkerCounter.DATAGRAMS_LOST)
        self.has_more = True

    def _reflex(self) -> bool:
        """Sends answers on. Has no connection to break, so a defect here ends nothing."""
        try:
            self.pass_on()
        except Exception as error:
            self._context.view.count(WorkerCounter.DEFECTS)
            self._context.log.write_crash(Event.CONNECTION_CRASHED, error)
            self.fault = Fault.BACKEND_LOST
        if self.has_more or self.fault is not None:
            return self._wake(self)
        return False

    def _hear(self) -> None:
        """Takes note of an answer."""
        self.moved_at = self._context.now()
        self._held = None
        if not self._is_answered:
            self._is_answered = True
            self.tried.clear()
            backend = self.backend
            if backend is not None and backend.outlier is not None:
                backend.outlier.answered(backend, 200)

    def _blame(self, code: int | None) -> bool:
        """Whether the backend, or the way to it, is at fault."""
        if code in REFUSED:
            self.fault = Fault.CONNECT_REFUSED
        elif code in UNREACHABLE:
            self.fault = Fault.CONNECT_UNREACHABLE
        else:
            return False
        self._is_answered = False
        return True


_ANSWER: Final = memoryview(bytearray(MAX_DATAGRAM + 1))
"""Into which all sessions of this process read; what is read is sent on before the next is."""
