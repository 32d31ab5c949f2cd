"""One client connection: request heads in, one exchange after another, until either side ends it.

Owns the client's transport, the bytes received and not yet used, the waits between requests, and the answers
that lbproc gives itself. What happens to a request that goes to a backend is the business of ``proxy.plain``
while all goes smoothly, else of ``proxy.exchange``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lbproc.core.http.exchange import Fault
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.replies import Reply, render_reply
from lbproc.net.readiness import LOST, READ, park
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.caller import Caller
from lbproc.proxy.exchange import Exchange
from lbproc.proxy.pending import PendingRequest
from lbproc.proxy.plain import PlainExchange
from lbproc.proxy.record import Record
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead
    from lbproc.net.readiness import Waits
    from lbproc.net.transport import Transport
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.runtime import HttpListener
    from lbproc.types import Seconds

READ_SIZE = 16 * 1024
"""Bytes asked for while a head is awaited; a browser's head and a small body fit."""

LINGER_READ = 256 * 1024

LINGER_TIME: Seconds = 5.0
"""How long a connection that was answered early is read on, so that the answer is not lost to a reset."""

TURNS = 16
"""Requests served in a row before other connections get their turn."""


class ClientConnection:
    """Serves the requests of one accepted connection.

    Theory of operation. The task sleeps on the client, and plain exchanges are served by reflexes while it
    does. It is woken for what only a task can do, which it finds in ``_work``::

        idle ──head──▶ plain exchange under way ──▶ idle          by reflexes, the task sleeps on
          │                    │
          └──────┬─────────────┘  anything else: a part of a head, a refusal, no idle backend connection,
                 ▼                a client that speaks or leaves meanwhile, a deadline
              the task
    """

    __slots__ = (
        "_heads",
        "_idle_until",
        "_is_over",
        "_plain",
        "_refused_bytes",
        "_started_at",
        "_turns",
        "_waits",
        "_work",
        "caller",
        "context",
        "has_unread",
        "is_idle",
        "listener",
        "transport",
    )

    def __init__(self, transport: Transport, listener: HttpListener, context: WorkerContext) -> None:
        self.transport = transport
        self.listener = listener
        self.context = context
        self.caller = Caller(transport.peer_ip, listener)
        self.is_idle = True
        self.has_unread = False
        """An answer was given before the request was received whole; more of it may come."""
        self._heads = HeadBuffer(listener.head_limits.max_size)
        self._idle_until = 0.0
        self._is_over = False
        self._plain: PlainExchange | None = None
        """Under way by reflexes."""
        self._refused_bytes = 0
        """The size of a whole head that was refused."""
        self._started_at = 0.0
        """When the first byte of the next head came; 0 while there is none."""
        self._turns = 0
        self._waits: Waits = ((transport.source, READ | LOST),)
        self._work: PlainExchange | Record | Exception | None = None
        """What a reflex or `_begin` leaves to the task."""

    async def serve(self) -> None:
        """Serves until the connection ends; closes the transport whatever happens."""
        try:
            self._idle_until = self.context.now() + self.listener.timeouts.header
            while not self._is_over:
                try:
                    await self._turn()
                except Rejected as rejected:
                    await self._refuse(rejected)
            if self.has_unread or self._has_more():
                await self._linger()
        except ConnectionLost:
            pass  # the client reset the connection; an exchange that it hit has recorded it
        except Exception:
            if self._plain is not None:
                self._plain.record.status = 500  # a defect; whoever started this task reports it
            raise
        finally:
            try:
                if self._plain is not None:
                    self._plain.abandon()
            finally:
                self.transport.close()

    def _has_more(self) -> bool:
        """Whether the client sent more than was answered, and so may still be sending."""
        return not self._heads.is_empty or bool(self.transport.recv(READ_SIZE))

    def nudge_idle(self) -> None:
        """Wakes a connection that waits for a request, so that it sees the worker leaving.

        It reads once more first: a request may be here of which no event has told yet.
        """
        if self.is_idle:
            self.transport.source.ready |= READ
            self.transport.source.nudge()

    async def _turn(self) -> None:
        """Serves what the reflexes have left, or what there is to read, or waits.

        Raises:
            Rejected: the head cannot be read, or did not arrive in time.
        """
        work, self._work = self._work, None
        if work is None:
            plan = self._poll()
            if plan is None:
                if not self._is_over:
                    await self._wait()
                return
            if self._begin(plan):
                await self._wait()
                return
            work, self._work = self._work, None
        if isinstance(work, Exception):
            try:
                raise work
            finally:
                del work  # the frame that it carries from here on
        assert work is not None
        self._is_over = not await self._serve(work)
        self._idle_until = self.context.now() + self.listener.timeouts.idle
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()

    # Heads --------------------------------------------------------------------------------------------------

    def _poll(self) -> Plan | None:
        """The plan of the next request; None while its head is not whole, and when there will be none.

        Raises:
            Rejected: the bytes can be no head.
        """
        heads, planner = self._heads, self.caller.planner
        is_empty = heads.is_empty
        while True:
            if not is_empty:
                raw = heads.next_head()
                if raw is not None:
                    try:
                        return planner.plan(raw)
                    except Rejected:
                        self._refused_bytes = len(raw)
                        raise
                is_empty = heads.is_empty  # also behind the empty line that some clients send after a body
                if not self._started_at and not is_empty:
                    self._started_at = self.context.now()
            received = self.transport.recv(READ_SIZE)
            if not received:
                self._is_over = received is not None
                self.is_idle = is_empty
                if is_empty:
                    self._started_at = 0.0
                return None
            if is_empty:
                plan = planner.find(received)
                if plan is not None:
                    heads.skip_head()
                    return plan
                is_empty = False
            heads.feed(received)

    def _begin(self, plan: Plan) -> bool:
        """Begins a request. Returns whether it is under way by reflexes; else it is left in ``_work``."""
        self.is_idle = False
        record = Record(self.context, self.caller)
        now = record.received_at = self.context.now()
        record.started_at = self._started_at or now
        self._started_at = 0.0
        record.plan = plan
        record.bytes_in = plan.size
        self._work = record
        if not plan.is_plain:
            return False
        early = b""
        if plan.body_length:
            if self._heads.size < plan.body_length:
                return False
            rest = self._heads.take_rest()
            early, rest = rest[: plan.body_length], rest[plan.body_length :]
            if rest:
                self._heads.feed(rest)
            record.bytes_in += plan.body_length
        if self.transport.source.ready & READ:
            self._read_ahead()
        plain = self._plain = PlainExchange(self, plan, record, early)
        if plain.begin():
            self._work = None
            return True
        self._work, self._plain = plain, None
        return False

    def _read_ahead(self) -> None:
        """Finds out whether the client has more to say: ordinarily not, and then its next word is an event.

        An end or a break stays to be read again, by whoever then serves the exchange.
        """
        if self.has_room:
            with suppress(ConnectionLost):
                received = self.transport.recv(READ_SIZE)
                if received:
                    self._heads.feed(received)

    # The task and the reflexes ------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Parks, and leaves requests that come meanwhile to the reflex.

        Raises:
            Rejected: a head has begun and is not complete in time.
        """
        context, source = self.context, self.transport.source
        if self._plain is not None:
            deadline = source.deadline
        elif not self.is_idle:
            deadline = self._started_at + self.listener.timeouts.header
        elif context.leaving:
            self._is_over = True
            return
        else:
            deadline = self._idle_until
            source.reflex = self._on_request
        try:
            in_time = await park(self._waits, context.deadlines, deadline)
        finally:
            source.reflex = None
        if self._work is not None:
            return
        if self._plain is not None:
            self._plain.detach()
            self._work, self._plain = self._plain, None
        elif not in_time and not source.ready & (READ | LOST):  # else something came at the last moment
            if not self.is_idle:
                raise Rejected(408, Fault.REQUEST_TIMEOUT.cause, "the request head did not arrive in time")
            self._is_over = True

    def _on_request(self) -> bool:
        """The reflex of an idle client."""
        source = self.transport.source
        if not source.is_parked:
            return False
        if not self.context.draining:
            try:
                plan = self._poll()
                if plan is None:
                    if self.is_idle and not self._is_over:
                        return False
                elif self._begin(plan):
                    source.reflex = None
                    if not source.ready & (READ | LOST):
                        return False
            except Exception as error:  # a reflex raises nothing; the task raises it
                self._work = error
        source.nudge()
        return True

    def rest(self, now: float, *, keep: bool) -> bool:
        """Called by a plain exchange that has ended. Returns whether the task was woken.

        Args:
            now: an instant of trio's clock.
            keep: the connection may serve another request.
        """
        self._plain = None
        self._idle_until = now + self.listener.timeouts.idle
        source = self.transport.source
        if keep and not self.context.leaving and self._heads.is_empty and not source.ready & READ:
            self.is_idle = True
            source.deadline = self._idle_until
            source.reflex = self._on_request
            return False
        self._is_over = not keep
        source.nudge()
        return True

    def fail(self, error: Exception) -> None:
        """Leaves a defect that a reflex met to the task, which raises it."""
        self._work = error

    # Requests -----------------------------------------------------------------------------------------------

    async def _refuse(self, rejected: Rejected) -> None:
        """Answers a head that cannot be read. Nothing after it is read."""
        self._is_over = True
        record = Record(self.context, self.caller)
        record.started_at = self._started_at or self.context.now()
        record.bytes_in = self._refused_bytes or self._heads.size
        self.context.view.count(WorkerCounter.REJECTED)
        self.context.log.write(
            Event.REQUEST_REJECTED,
            listener=self.listener.name,
            client_ip=self.transport.peer_ip or None,
            status=rejected.status,
            reason=rejected.detail,
        )
        try:
            await self.reply(Reply.from_rejected(rejected), None, record, whole=False)
        finally:
            record.write(self.context.now())

    async def _serve(self, work: PlainExchange | Record) -> bool:
        """Serves a request in this task. Returns whether the connection can serve another."""
        plain, record = (None, work) if isinstance(work, Record) else (work, work.record)
        plan = record.plan
        assert plan is not None
        try:
            if plain is None:
                introduction = self.caller.introduce(plan, record, self.context.random)
                framing = plan.head.framing
                if framing.kind is FramingKind.LENGTH and framing.length > self.listener.config.max_body_size:
                    return await self.reply(Fault.REQUEST_TOO_LARGE.reply(), plan.head, record, whole=False)
                if plan.balancer is None:
                    whole = framing.kind is FramingKind.NO_BODY
                    return await self.reply(Fault.NO_ROUTE.reply(), plan.head, record, whole=whole)
                pending = PendingRequest(plan, introduction, record, self.take_rest())
            else:
                pending = PendingRequest(plan, plain.introduction, record, plain.early)
            return await Exchange(self, pending, plain).run()
        except ConnectionLost:
            raise
        except Exception:
            record.status = 500  # a defect; whoever started this task reports it
            raise
        finally:
            record.write(self.context.now())

    # What an exchange uses ----------------------------------------------------------------------------------

    def take_rest(self) -> bytes:
        """The bytes that came after the head: the body's beginning, or the next request."""
        return self._heads.take_rest()

    def give_back(self, received: bytes) -> None:
        """Puts bytes back that turned out to belong to the next request."""
        self._heads.feed(received)

    @property
    def has_room(self) -> bool:
        """Whether more bytes of a client that sends ahead may be kept."""
        return self._heads.size < self.listener.head_limits.max_size

    async def send_all(self, piece: bytes, record: Record) -> None:
        """Sends a small piece whole, and counts what was sent.

        Raises:
            ConnectionLost: the client is gone, or takes nothing for the listener's ``write`` timeout.
        """
        rest = memoryview(piece)
        deadline = self.context.now() + self.listener.timeouts.write
        while rest:
            sent = self.transport.send(rest)
            record.bytes_out += sent
            rest = rest[sent:]
            if not sent and not await park(self.transport.until_writable, self.context.deadlines, deadline):
                raise ConnectionLost("the client takes no bytes")

    async def reply(self, reply: Reply, request: RequestHead | None, record: Record, *, whole: bool) -> bool:
        """Answers in place of a backend. Returns whether the connection can serve another request.

        Args:
            reply: the answer.
            request: None when the head could not be read.
            record: gets status, cause and size.
            whole: the request was received to its end.
        """
        keep = request is not None and request.keep_alive and whole and not self.context.draining
        piece = render_reply(
            reply,
            accept=b", ".join(request.values(b"accept")) if request is not None else b"",
            close=not keep,
            head_only=request is not None and request.method == b"HEAD",
            request_id=record.request_id or "",
        )
        record.cause = reply.cause
        bytes_before = record.bytes_out
        try:
            await self.send_all(piece, record)
        finally:
            if record.bytes_out > bytes_before:  # else the client left before it got anything
                record.status = reply.status
        self.has_unread = not whole
        return keep

    async def _linger(self) -> None:
        """Ends the sending side and reads on for a bounded time.

        A close with unread bytes in the receive buffer makes the kernel send a reset, which can destroy the
        answer before the client has read it (RFC 9112 section 9.6).
        """
        transport = self.transport
        transport.shutdown_write()
        deadline = self.context.now() + LINGER_TIME
        while self.context.now() < deadline:
            received = transport.recv(LINGER_READ)
            if received is None:
                if not await park(transport.until_readable, self.context.deadlines, deadline):
                    return
            elif not received:
                return
            else:
                await trio.lowlevel.checkpoint()
