"""One client connection: request heads in, one exchange after another, until either side ends it.

Owns the client's transport, the bytes received and not yet used, the waits between requests, and the answers
that lbproc gives itself. What happens to a request that goes to a backend is the business of
``proxy.exchange``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.core.http.exchange import Fault
from lbproc.core.http.forwarding import identify_client
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.head import parse_request_head
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.replies import Reply, render_reply
from lbproc.net.readiness import READ, park
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.exchange import Exchange
from lbproc.proxy.record import Record
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead
    from lbproc.net.transport import Transport
    from lbproc.proxy.context import WorkerContext
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
    """Serves the requests of one accepted connection."""

    __slots__ = ("_heads", "_turns", "context", "has_unread", "is_idle", "listener", "transport")

    def __init__(self, transport: Transport, listener: HttpListener, context: WorkerContext) -> None:
        self.transport = transport
        self.listener = listener
        self.context = context
        self.is_idle = True
        self.has_unread = False
        """An answer was given before the request was received whole; more of it may come."""
        self._heads = HeadBuffer(listener.head_limits.max_size)
        self._turns = 0

    async def serve(self) -> None:
        """Serves until the connection ends; closes the transport whatever happens."""
        try:
            deadline = trio.current_time() + self.listener.timeouts.header
            while await self._serve_next(deadline):
                deadline = trio.current_time() + self.listener.timeouts.idle
            if self.has_unread or self._has_more():
                await self._linger()
        except ConnectionLost:
            pass  # the client reset the connection; an exchange that it hit has recorded it
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
            self.transport.source.notify(READ)

    async def _serve_next(self, deadline: float) -> bool:
        """Serves one request. Returns whether the connection can serve another."""
        record = Record(self.context, self.listener.name, self.transport.peer_ip)
        try:
            raw = await self._next_head(deadline, record)
            if raw is None:
                return False
            record.received_at = trio.current_time()
            record.bytes_in = len(raw)
            record.request = request = parse_request_head(raw, self.listener.head_limits)
        except Rejected as rejected:
            return await self._refuse(rejected, record)
        try:
            keeps = await self._serve(request, record)
        except Exception:
            record.status = 500  # a defect; whoever started this task reports it
            raise
        finally:
            record.write()
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()
        return keeps

    async def _refuse(self, rejected: Rejected, record: Record) -> bool:
        """Answers a head that cannot be read."""
        self.context.view.count(WorkerCounter.REJECTED)
        self.context.log.write(
            Event.REQUEST_REJECTED,
            listener=self.listener.name,
            client_ip=self.transport.peer_ip or None,
            status=rejected.status,
            reason=rejected.detail,
        )
        record.bytes_in = record.bytes_in or self._heads.size
        try:
            return await self.reply(Reply.from_rejected(rejected), None, record, whole=False)
        finally:
            record.write()

    async def _serve(self, request: RequestHead, record: Record) -> bool:
        listener = self.listener
        forwarding = identify_client(request, self.transport.peer_ip, listener.trusted, self.context.random)
        record.client_ip = forwarding.client_ip
        record.request_id = forwarding.request_id
        framing = request.framing
        if framing.kind is FramingKind.LENGTH and framing.length > listener.config.max_body_size:
            return await self.reply(Fault.REQUEST_TOO_LARGE.reply(), request, record, whole=False)
        record.route, balancer = listener.find(request.hostname, request.path, request.method)
        if balancer is None:
            whole = framing.kind is FramingKind.NO_BODY
            return await self.reply(Fault.NO_ROUTE.reply(), request, record, whole=whole)
        record.pool = balancer.name
        return await Exchange(self, request, forwarding, balancer, record).run()

    async def _next_head(self, idle_until: float, record: Record) -> bytes | None:
        """The next head, or None when the connection is over. Notes in the record when it began.

        Raises:
            Rejected: the bytes can be no head, or it did not arrive in time.
        """
        heads, transport = self._heads, self.transport
        try:
            while True:
                raw = heads.next_head()
                self.is_idle = heads.is_empty and raw is None
                if self.is_idle:  # also behind the empty line that some clients send after a body
                    record.started_at = 0.0
                elif not record.started_at:
                    record.started_at = trio.current_time()
                if raw is not None:
                    return raw
                received = transport.recv(READ_SIZE)
                if received:
                    heads.feed(received)
                elif received is not None or not await self._wait_for_more(
                    idle_until if self.is_idle else record.started_at + self.listener.timeouts.header
                ):
                    return None
        finally:
            self.is_idle = False

    async def _wait_for_more(self, deadline: float) -> bool:
        """Parks until more of a head may be there. Returns False when the connection is to end quietly.

        Raises:
            Rejected: a head has begun and is not complete in time.
        """
        if self.is_idle and self.context.leaving:
            return False
        if await park(self.transport.until_readable, self.context.deadlines, deadline):
            return True
        if self.is_idle:
            return False
        raise Rejected(408, Fault.REQUEST_TIMEOUT.cause, "the request head did not arrive in time")

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

    async def send_all(self, piece: bytes) -> None:
        """Sends a small piece whole.

        Raises:
            ConnectionLost: the client is gone, or takes nothing for the listener's ``write`` timeout.
        """
        rest = memoryview(piece)
        deadline = trio.current_time() + self.listener.timeouts.write
        while rest:
            sent = self.transport.send(rest)
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
        record.status, record.cause = reply.status, reply.cause
        await self.send_all(piece)
        record.bytes_out += len(piece)
        self.has_unread = not whole
        return keep

    async def _linger(self) -> None:
        """Ends the sending side and reads on for a bounded time.

        A close with unread bytes in the receive buffer makes the kernel send a reset, which can destroy the
        answer before the client has read it (RFC 9112 section 9.6).
        """
        transport = self.transport
        transport.shutdown_write()
        deadline = trio.current_time() + LINGER_TIME
        while trio.current_time() < deadline:
            received = transport.recv(LINGER_READ)
            if received is None:
                if not await park(transport.until_readable, self.context.deadlines, deadline):
                    return
            elif not received:
                return
            else:
                await trio.lowlevel.checkpoint()
