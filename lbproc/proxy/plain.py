"""The plain exchange: a request that is here whole, an idle backend connection, a small answer. By reflexes.

Most exchanges are such. They are served without waking a task: the request goes up in one write when its
event comes, and the answer goes down, piece by piece as it comes, when its events come. Everything else is
the business of ``proxy.exchange``: whenever something is not plain, or fails, or takes too long, this module
stops with what has happened so far written down, and the connection's task goes on from there.

Theory of operation::

    begin ──request sent──▶ on_response ──head, part of body──▶ on_body ──▶ finished
      │                         │                                  │
      └────────────┬────────────┴──────────────────────────────────┘
                   ▼
             the task takes over: lease, upstream, unsent, received, answer say how far it came

While it is under way the connection's task is parked on the client: whatever the client does, and the
deadline, wakes it, and it takes over.

Invariants:
    - A reflex acts only while the task is parked, so the two never work on the same exchange.
    - An answer is an event of its own: no transport brings one from within a `send`, so a reflex that is set
      after the request was sent misses nothing. What was there before was found when the connection was
      checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.body import ChunkedBody, LengthBody
from lbproc.core.http.exchange import Fault
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.render import render_response
from lbproc.errors import CapacityError
from lbproc.net.readiness import READ
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.answer import CHUNKED, read_answer
from lbproc.proxy.balancer import Lease

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.core.http.body import Body
    from lbproc.net.transport import Transport
    from lbproc.proxy.answer import Answer
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.record import Record
    from lbproc.types import Row

READ_SIZE = 16 * 1024
"""Bytes asked for where a head or a small piece is awaited; a browser's head and a small body fit."""

MAX_BODY = 64 * 1024
"""Bytes of a response body still to come that are worth reflexes; pipes read larger ones in larger pieces."""

_READS = 4
"""Reads in one call of a reflex. A backend that is quicker than that has much to send."""


class PlainExchange:
    """One exchange, as long as it is plain.

    Args:
        connection: the client's; its task is parked whenever a reflex acts.
        plan: says what is to be done.
        record: filled in, and written when the exchange ends plainly.
        early: the request's body.

    Attributes:
        introduction: the end of the request's head.
        lease: the place taken, or None.
        upstream: the backend connection in use, or None.
        unsent: what the backend has not taken of the request.
        received: what it has sent of which nothing was passed on.
        answer: the response that has begun, or None.
        body: its body, or None when it has all been read.
        undelivered: what the client has not taken of it.
        has_excess: bytes came behind the end of the response.
        fault: what made the rest of the response unusable.
        moved_at: when a byte moved last.
        keeps_client: the response has said that the connection goes on.
        is_cut: the backend was taken out of use meanwhile.
    """

    # Few exchanges set more than two of these, which therefore stand in the class: all of them cost 0.4 µs.
    lease: Lease | None = None
    upstream: Transport | None = None
    unsent = b""
    received = b""
    answer: Answer | None = None
    body: Body | None = None
    undelivered = b""
    has_excess = False
    fault: Fault | None = None
    moved_at = 0.0
    keeps_client = True
    is_cut = False
    _reads = 0

    def __init__(self, connection: ClientConnection, plan: Plan, record: Record, early: bytes) -> None:
        self._connection = connection
        self._context = connection.context
        self.plan = plan
        self.record = record
        self.early = early
        self.introduction = connection.caller.introduce(plan, record, connection.context.random)

    def begin(self) -> bool:
        """Sends the request. Returns whether the exchange is under way; else the task has to go on."""
        plan, record, view = self.plan, self.record, self._context.view
        assert plan.balancer is not None
        try:
            lease = plan.balancer.take(plan.head, record.client_ip, ())
        except CapacityError:
            return False  # it is met again, and reported, by the task
        if not isinstance(lease, Lease):
            return False
        self.lease = lease
        backend = record.backend = lease.backend
        upstream = self.upstream = backend.checkout()
        view.count_pick(backend.row, reuses=upstream is not None)
        if upstream is None:
            return False
        now = self.moved_at = record.tried_at = record.received_at  # no time has passed
        wire = b"".join((plan.start, self.introduction, self.early))
        try:
            sent = upstream.send(wire)
        except ConnectionLost:
            sent = 0  # the task meets it again
        if sent < len(wire):
            self.unsent = wire[sent:]
            return False
        self._connection.transport.source.deadline = now + plan.balancer.timeouts.response
        upstream.source.reflex = self._on_response
        return True

    def detach(self) -> None:
        """Ends the reflexes: the task takes over."""
        if self.upstream is not None:
            self.upstream.source.reflex = None

    def abandon(self) -> None:
        """Gives everything up: the connection is being cancelled."""
        self.detach()
        if self.lease is not None:
            self.lease.release()
        if self.upstream is not None:
            self.upstream.close()
        if self.answer is not None:  # what has begun must not look complete
            self._connection.transport.abort()
        self.record.write(self._context.now())

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of the request was sent."""
        return len(self.unsent) == len(self.plan.start) + len(self.introduction) + len(self.early)

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Leaves the exchange to the task, to be ended, if its backend is one of these; says which."""
        lease, upstream = self.lease, self.upstream
        if lease is None or upstream is None or lease.backend.row not in rows:
            return None
        self.is_cut = True
        upstream.abort()
        self._hand_over()
        return lease.backend.row

    def _hand_over(self) -> bool:
        self.detach()
        self._connection.transport.source.nudge()
        return True

    def _on_response(self) -> bool:
        """The reflex of the backend connection until the head of the response is here."""
        connection, upstream = self._connection, self.upstream
        if not connection.transport.source.is_parked or upstream is None:
            return False
        try:
            received = upstream.recv(READ_SIZE)
        except ConnectionLost:
            return self._hand_over()  # a transport that broke says so again
        if received is None:
            return False
        try:
            return self._read_response(received)
        except Rejected:
            self.received = received
            return self._hand_over()
        except Exception as error:  # a reflex raises nothing; the task raises it
            connection.fail(error)
            return self._hand_over()

    def _read_response(self, received: bytes) -> bool:
        """Passes on a response of which the first bytes have come, or leaves them to the task."""
        end = received.find(b"\r\n\r\n") + 4
        raw = received[:end]
        answers = self._context.answers
        answer = answers.get(raw)
        if answer is None:
            if end > 3:
                answer = read_answer(raw, self.plan.head.method, answers)
            if answer is None:
                self.received = received
                return self._hand_over()
        piece = received[end:]
        missing = answer.length - len(piece)
        if answer.length == CHUNKED:
            self.body = ChunkedBody(None)
        elif missing:
            self.body = LengthBody(answer.length)
            if missing > MAX_BODY:
                self.received = received
                return self._hand_over()
        if self.body is not None:
            piece, excess = self.body.take(piece)
            self.has_excess = bool(excess)
        self._begin_response(answer)
        wire = answer.wire
        if not self.keeps_client:
            wire = render_response(answer.head, http10_client=False, close=True, body_dechunked=False)
        return self._pass_on(wire + piece)

    def _begin_response(self, answer: Answer) -> None:
        record = self.record
        self.moved_at = record.responded_at = self._context.now()
        record.status = answer.head.status
        self.answer = answer
        self.keeps_client = self.plan.keeps_client and not self._connection.lineage.draining

    def _on_body(self) -> bool:
        """The reflex of the backend connection while a body comes."""
        connection, upstream = self._connection, self.upstream
        if not connection.transport.source.is_parked or upstream is None or self.body is None:
            return False
        try:
            received = upstream.recv(READ_SIZE)
            if received is None:
                self._reads = 0
                return False
            if received:
                self.moved_at = self._context.now()
                relayed, excess = self.body.take(received)
                self.has_excess = bool(excess)
                return self._pass_on(relayed)
        except ConnectionLost:
            pass  # it says so again, as the end stays the end; the task makes of it what it means
        except Rejected:
            self.fault = Fault.RESPONSE_MALFORMED
        except Exception as error:
            connection.fail(error)
        return self._hand_over()

    def _pass_on(self, piece: bytes) -> bool:
        """Sends a piece of the response to the client, and goes on."""
        connection, upstream = self._connection, self.upstream
        assert upstream is not None
        sent = 0
        if piece:
            transport = connection.transport
            try:
                if self.keeps_client or not (self.body is None or self.body.complete):
                    sent = transport.send(piece)
                else:
                    sent = transport.send_last(piece)
            except ConnectionLost:
                pass  # the task meets it again
            self.record.bytes_out += sent
        if sent < len(piece):
            self.undelivered = piece[sent:]
            return self._hand_over()
        if self.body is None or self.body.complete:
            return self._finish(upstream)
        upstream.source.reflex = self._on_body
        assert self.plan.balancer is not None
        connection.transport.source.deadline = self.moved_at + self.plan.balancer.timeouts.read
        if not upstream.source.ready & READ:
            return False
        self._reads += 1
        return self._on_body() if self._reads < _READS else self._hand_over()

    def _finish(self, upstream: Transport) -> bool:
        lease, answer = self.lease, self.answer
        assert lease is not None
        assert answer is not None
        upstream.source.reflex = None
        self.lease = self.upstream = None  # given back once, whatever happens here
        lease.release()
        backend = lease.backend
        if backend.outlier is not None:
            backend.outlier.answered(backend, self.record.status)
        now = self._context.now()
        if answer.keeps_backend and not self.has_excess:
            backend.checkin(upstream, now)
        else:
            upstream.close()
        self.record.write_plain(now)
        return self._connection.rest(now, keep=self.keeps_client)
