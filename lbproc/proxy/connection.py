"""One client connection: request heads in, one exchange after another, until either side ends it.

Owns the client's transport, the bytes received and not yet used, and the waits between requests. What happens
to a request is the business of ``proxy.plain`` while all goes smoothly, else of ``proxy.exchange``; what
lbproc says itself, of ``proxy.replying``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import trio

from lbproc.core.http.exchange import Fault
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.net.readiness import LOST, READ, park
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.caller import Caller
from lbproc.proxy.exchange import serve_request
from lbproc.proxy.known import KNOWN_HEAD_SIZE
from lbproc.proxy.plain import READ_SIZE
from lbproc.proxy.replying import linger, refuse

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.net.readiness import Waits
    from lbproc.net.transport import Transport
    from lbproc.proxy.arrival import Arrival
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.exchange import Exchange
    from lbproc.proxy.http_listener import HttpListener
    from lbproc.proxy.introduced import IntroducedConnections
    from lbproc.proxy.plain import PlainExchange
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.record import Record
    from lbproc.types import Row, Seconds

FOREIGN_GRACE: Seconds = 1.0
"""How long a connection is kept for a request that is on its way, when no host takes its client any more."""

TURNS = 16
"""Requests served in a row before other connections get their turn."""


class ClientConnection:
    """Serves the requests of one accepted connection.

    Args:
        transport: to the client; closed at the end.
        listener: where it came to.
        context: the worker's.
        arrival: how it came; None: as it is, without TLS or a PROXY header.
        received: what was read from the client before.

    Theory of operation. The task sleeps on the client, and plain exchanges are served by reflexes while it
    does. It is woken for what only a task can do: a request that it finds in ``_record``, or what there is to
    read::

        idle ──head──▶ plain exchange under way ──▶ idle          by reflexes, the task sleeps on
          │                    │
          └──────┬─────────────┘  anything else: a part of a head, a refusal, no idle backend connection,
                 ▼                a client that speaks or leaves meanwhile, a deadline
              the task
    """

    __slots__ = (
        "_error",
        "_heads",
        "_idle_until",
        "_is_over",
        "_plain",
        "_record",
        "_refused_bytes",
        "_started_at",
        "_turns",
        "_waits",
        "arrival",
        "caller",
        "context",
        "exchange",
        "has_unread",
        "introduced",
        "is_idle",
        "lineage",
        "listener",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        listener: HttpListener,
        context: WorkerContext,
        arrival: Arrival | None = None,
        received: bytes = b"",
    ) -> None:
        self.transport = transport
        self.listener = listener
        """In the form that the present request began with."""
        self.lineage = listener.lineage
        self.context = context
        self.arrival = arrival
        self.caller = Caller(self._client_ip(), listener, self.arrival)
        self.exchange: Exchange | None = None
        """Served by the task."""
        self.introduced: IntroducedConnections | None = None
        """Backend connections that are this client's own."""
        self.is_idle = True
        self.has_unread = False
        """An answer was given before the request was received whole; more of it may come."""
        self._error: Exception | None = None
        """What a reflex left to the task to raise."""
        self._heads = HeadBuffer(listener.directions.head_limits.max_size)
        if received:
            self._heads.feed(received)
        self._idle_until = 0.0
        self._is_over = False
        self._plain: PlainExchange | None = None
        """Under way by reflexes, until the task finds its record."""
        self._record: Record | None = None
        """Of the request that is left to the task."""
        self._refused_bytes = 0
        """The size of a whole head that was refused."""
        self._started_at = 0.0
        """When the first byte of the next head came; 0 while there is none."""
        self._turns = 0
        self._waits: Waits = ((transport.source, READ | LOST),)

    async def serve(self) -> None:
        """Serves until the connection ends; closes the transport whatever happens."""
        try:
            self._idle_until = self.context.now() + self.listener.timeouts.header
            while not self._is_over:
                try:
                    await self._turn()
                except Rejected as rejected:
                    self._is_over = True  # nothing after it is read
                    started_at = self._started_at or self.context.now()
                    await refuse(self, rejected, started_at, self._refused_bytes or self._heads.size)
            if self.has_unread or self._has_more():
                await linger(self.transport, self.context)
        except ConnectionLost:
            pass  # the client reset the connection; an exchange that it hit has recorded it
        except Exception:
            if self._plain is not None:
                self._plain.record.status = 500  # a defect; whoever started this task reports it
            raise
        finally:
            plain, self._plain = self._plain, None  # they know each other: no cycle stays
            try:
                if plain is not None:
                    plain.abandon()
            finally:
                self.transport.close()
                if self.introduced is not None:
                    self.introduced.close()

    def _client_ip(self) -> str:
        """Of the client, as far as it is known from the connection."""
        return self.transport.peer_ip if self.arrival is None else self.arrival.client_ip

    def _has_more(self) -> bool:
        """Whether the client sent more than was answered, and so may still be sending."""
        return not self._heads.is_empty or bool(self.transport.recv(READ_SIZE))

    def follow(self) -> bool:
        """Goes on with the newest form of its listener, if no request is under way.

        Returns:
            False when one is: it is to be asked again.
        """
        if not self.is_idle:
            return False
        if self.lineage.current not in {None, self.listener}:
            self._move()
            # What is idle has at most the new time from now on, also if that is shorter.
            spare = FOREIGN_GRACE if self.caller.is_foreign else self.listener.timeouts.idle
            until = self.context.now() + spare
            if until < self._idle_until:
                self._idle_until = until
                if self.transport.source.is_parked:
                    self.transport.source.deadline = until
        return True

    def _move(self) -> None:
        """Goes on with the newest form of its listener, unless a request has begun to come."""
        if self._started_at:
            return
        self.context.move()
        listener = self.lineage.current
        if listener is not None and listener is not self.listener:
            self.listener = listener
            self.caller = Caller(self._client_ip(), listener, self.arrival)
            self._heads.max_size = listener.directions.head_limits.max_size

    def nudge_idle(self) -> None:
        """Wakes a connection that waits for a request, so that it sees the worker leaving.

        It reads once more first: a request may be here of which no event has told yet.
        """
        if self.is_idle:
            self.transport.source.ready |= READ
            self.transport.source.nudge()

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends what is under way with one of these backends, if it is, and says with which."""
        if self._plain is not None:
            return self._plain.cut(rows)
        return None if self.exchange is None else self.exchange.cut(rows)

    async def _turn(self) -> None:
        """Serves what the reflexes have left, or what there is to read, or waits.

        Raises:
            Rejected: the head cannot be read, or did not arrive in time.
        """
        if self._error is not None:
            self._raise_error()
        if self._record is None and self._take_up():
            if not self._is_over:
                await self._wait()
            return
        record, self._record = self._record, None
        plain, self._plain = self._plain, None
        assert record is not None
        if plain is None and self.context.generation() != self.listener.generation:
            record = self._plan_again(record)
        self._is_over = not await serve_request(self, record, plain)
        self._idle_until = self.context.now() + self.listener.timeouts.idle
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()

    def _take_up(self) -> bool:
        """Begins the next request, if it is here. Returns whether nothing is left to the task."""
        if self.context.generation() != self.listener.generation:
            self._move()
        plan = self._poll()
        return plan is None or self._begin(plan)

    def _plan_again(self, before: Record) -> Record:
        """Lets a request that was read before a reload, and not begun, go where it would go now."""
        self._move()
        assert before.plan is not None
        record = self.caller.begin_record(self.context, self.caller)
        record.started_at, record.received_at = before.started_at, before.received_at
        record.bytes_in = before.bytes_in
        record.plan = self.caller.planner.plan_again(before.plan)
        return record

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
                # What is longer was never kept, and the hash of 16 KiB costs 5 µs.
                plan = planner.find(received) if len(received) <= KNOWN_HEAD_SIZE else None
                if plan is not None:
                    heads.skip_head()
                    return plan
                is_empty = False
            heads.feed(received)

    def _begin(self, plan: Plan) -> bool:
        """Begins a request. Returns whether it is under way by reflexes; else it is left in ``_record``."""
        self.is_idle = False
        record = self.caller.begin_record(self.context, self.caller)
        now = record.received_at = self.context.now()
        record.started_at = self._started_at or now
        self._started_at = 0.0
        record.plan = plan
        record.bytes_in = plan.size
        if not plan.is_plain:
            self._record = record
            return False
        early = b""
        if plan.body_length:
            if self._heads.size < plan.body_length:
                self._record = record
                return False
            rest = self._heads.take_rest()
            early, rest = rest[: plan.body_length], rest[plan.body_length :]
            if rest:
                self._heads.feed(rest)
            record.bytes_in += plan.body_length
        if self.transport.source.ready & READ:
            self._read_ahead()
        plain = self._plain = plan.plain(self, plan, record, early)
        if plain.begin():
            return True
        self._record = record
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
        elif self.lineage.leaving:
            self._is_over = True
            return
        else:
            deadline = self._idle_until
            source.reflex = self._on_request
        try:
            in_time = await park(self._waits, context.deadlines, deadline)
        finally:
            source.reflex = None
        if self._record is not None or self._error is not None:
            return
        if self._plain is not None:
            self._plain.detach()
            self._record = self._plain.record
        elif not in_time and not source.ready & (READ | LOST):  # else something came at the last moment
            if not self.is_idle:
                raise Rejected(408, Fault.REQUEST_TIMEOUT.cause, "the request head did not arrive in time")
            self._is_over = True

    def _on_request(self) -> bool:
        """The reflex of an idle client."""
        source = self.transport.source
        if not source.is_parked:
            return False
        if not self.lineage.draining:
            try:
                if self.context.generation() != self.listener.generation:
                    self._move()
                plan = self._poll()
                if plan is None:
                    if self.is_idle and not self._is_over:
                        return False
                elif self._begin(plan):
                    source.reflex = None
                    if not source.ready & (READ | LOST):
                        return False
            except Exception as error:  # a reflex raises nothing; the task raises it
                self._error = error
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
        if keep and not self.lineage.leaving and self._heads.is_empty and not source.ready & READ:
            self.is_idle = True
            source.deadline = self._idle_until
            source.reflex = self._on_request
            return False
        self._is_over = not keep
        source.nudge()
        return True

    def fail(self, error: Exception) -> None:
        """Leaves a defect that a reflex met to the task, which raises it."""
        self._error = error

    def _raise_error(self) -> NoReturn:
        error, self._error = self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # it carries this frame from here on

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
        return self._heads.size < self._heads.max_size
