"""One try at an exchange, over one backend connection: the request up, the response down.

A thin shell around ``core.http.exchange``: it moves bytes and reports what went wrong. One task drives both
directions, because an early response, a client that leaves and a body that is still coming must all be seen
at once: it moves what can be moved without blocking, then parks on both sockets with one deadline. No
nursery, no second task. Nothing holds more of a body than one read. What reflexes have begun (``plain``) goes
on from where they have stopped.

Owns the response. The request is ``proxy.upload``'s, and how long to wait for whom ``proxy.waiting``'s.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from lbproc.core.http.body import NoBody, make_response_body
from lbproc.core.http.exchange import Fault, keeps_backend, keeps_client
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.head import ResponseHead, parse_response_head
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.render import render_interim, render_response
from lbproc.core.http.replies import Reply
from lbproc.net.readiness import READ
from lbproc.net.relay import Pipe, SinkFailed, SourceFailed, Truncated
from lbproc.net.transport import ConnectionLost, Transport
from lbproc.net.tunnel import Tunnel
from lbproc.proxy.pending import AnswerDeclined, ExchangeFailed, PendingRequest
from lbproc.proxy.plain import READ_SIZE
from lbproc.proxy.replying import send_all
from lbproc.proxy.upload import Upload
from lbproc.proxy.waiting import Waiting
from lbproc.shm.views import WorkerCounter

if TYPE_CHECKING:
    from lbproc.config.model import PoolTimeouts
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.failover import Failover
    from lbproc.proxy.plain import PlainExchange

MAX_INTERIM = 100
"""Interim responses relayed for one request; a backend that sends more never means to answer."""


class Attempt:
    """Carries one request to one backend and its response back.

    Args:
        connection: the client's.
        pending: the request.
        upstream: the connection to the backend; the caller closes or keeps it.
        host: what a request that names no host is taken to mean.
        timeouts: the pool's.
        failover: may decline an answer; None when all are passed on.
        plain: how far reflexes have brought this attempt, if they began it.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_failover",
        "_head",
        "_pending",
        "_plain",
        "_progress",
        "_record",
        "_upload",
        "_upstream",
        "_waiting",
        "keeps_upstream",
    )

    def __init__(
        self,
        connection: ClientConnection,
        pending: PendingRequest,
        upstream: Transport,
        host: bytes,
        timeouts: PoolTimeouts,
        failover: Failover | None,
        plain: PlainExchange | None,
    ) -> None:
        self._connection = connection
        self._context = connection.context
        self._failover = failover
        self._pending = pending
        self._head = pending.head
        self._plain = plain
        self._progress = pending.progress
        self._record = pending.record
        self._upstream = upstream
        self.keeps_upstream = False
        """The backend connection can serve another exchange."""
        if plain is None:
            moved_at = self._record.tried_at = self._context.now()
            self._upload = Upload.begin(connection, pending, upstream, host)
        else:
            moved_at = plain.moved_at
            self._upload = Upload.take_over(connection, pending, upstream, plain)
        self._waiting = Waiting(
            connection, pending, self._upload, upstream, timeouts, moved_at, was_plain=plain is not None
        )

    async def run(self) -> bool:
        """Serves the request. Returns whether the client connection can serve another.

        Raises:
            ExchangeFailed: the attempt came to nothing, or broke off.
            AnswerDeclined: it brought an answer that the client does not get.
        """
        try:
            if self._plain is not None and self._plain.answer is not None:
                return await self._take_over_response(self._plain, self._plain.answer.head)
            response, rest = await self._await_response()
            if self._failover is not None:
                if self._failover.declines(response.status):
                    self._decline(response, rest)
                self._pending.forget()
            if response.status == 101:
                await self._tunnel(response, rest)
                return False
            return await self._relay_response(response, rest)
        except ConnectionLost:
            raise ExchangeFailed(Fault.CLIENT_GONE) from None
        except AnswerDeclined:
            raise
        except ExchangeFailed:
            self._progress.untouched = not self._upload.pipe.sent and (
                self._plain is None or self._plain.is_untouched
            )
            raise
        except BaseException:  # cancelled, or a defect: what has begun must not look complete
            if self._progress.response_begun:
                self._connection.transport.abort()
            raise

    # The response -------------------------------------------------------------------------------------------

    async def _await_response(self) -> tuple[ResponseHead, bytes]:
        """The head of the final response, or of a 101, and the bytes that came with it.

        Relays interim ones.
        """
        heads = HeadBuffer.for_responses()
        interims = 0
        has_more = False
        if self._plain is not None and self._plain.received:
            self._progress.backend_answered = has_more = True
            heads.feed(self._plain.received)
        try:
            while True:
                if self._upload.is_going:
                    self._waiting.count(self._upload.pump())
                if not has_more and not self._receive_into(heads):
                    self._upload.watch_client()
                    await self._waiting.park(None)
                    continue
                has_more = False
                while (raw := heads.next_head()) is not None:
                    response = parse_response_head(raw, self._head.method)
                    if response.status >= 200 or response.status == 101:
                        return self._checked(response), heads.take_rest()
                    interims += 1
                    if interims > MAX_INTERIM:
                        raise ExchangeFailed(Fault.RESPONSE_MALFORMED)
                    await self._relay_interim(response)
        except Rejected as rejected:
            raise _malformed(rejected) from None

    def _receive_into(self, heads: HeadBuffer) -> bool:
        if not self._upstream.source.ready & READ:
            return False
        try:
            received = self._upstream.recv(READ_SIZE)
        except ConnectionLost:
            raise ExchangeFailed(Fault.BACKEND_LOST, self._why_lost()) from None
        if received is None:
            return False
        if not received:
            raise ExchangeFailed(
                Fault.RESPONSE_INCOMPLETE if self._progress.backend_answered else Fault.BACKEND_LOST
            )
        self._progress.backend_answered = True
        heads.feed(received)
        return True

    def _why_lost(self) -> Reply | None:
        """What is known of why the backend broke the connection.

        With TLS 1.3 it looks at our certificate when we have sent the request already.
        """
        alert = self._upstream.alert
        return Fault.TLS_ALERT.reply(alert) if alert else None

    def _checked(self, response: ResponseHead) -> ResponseHead:
        if response.status == 101 and (self._head.upgrade is None or not self._progress.request_sent):
            # Nobody asked: what follows would be bytes of no protocol that the client knows of.
            raise ExchangeFailed(Fault.RESPONSE_MALFORMED)
        self._record.responded_at = self._context.now()
        return response

    async def _relay_interim(self, response: ResponseHead) -> None:
        pending = self._pending
        is_known = self._head.http10  # RFC 9110 section 15.2: a 1.0 client is to hear of none
        if response.status == 100:
            is_known = is_known or pending.continued
            pending.wants_continue = False
        elif not is_known:
            self._progress.hinted = True
        self._waiting.begin_anew()
        if not is_known:
            await send_all(self._connection, render_interim(response), self._record)

    def _decline(self, response: ResponseHead, rest: bytes) -> NoReturn:
        """Ends a response that is not passed on. Its connection serves on if it has come whole."""
        body = make_response_body(response.framing, dechunk=False)
        with suppress(Rejected):
            _, excess = body.take(rest)
            self.keeps_upstream = body.complete and keeps_backend(
                backend_wants=response.keep_alive,
                request_sent=self._progress.request_sent,
                delimited=response.framing.kind is not FramingKind.UNTIL_CLOSE,
                excess=bool(excess),
            )
        raise AnswerDeclined

    async def _relay_response(self, response: ResponseHead, rest: bytes) -> bool:
        """Relays the final response. Returns whether the client connection may be used again."""
        request, progress, record = self._head, self._progress, self._record
        dechunk = request.http10 and response.framing.kind is FramingKind.CHUNKED
        delimited = not dechunk and response.framing.kind is not FramingKind.UNTIL_CLOSE
        keep_client = keeps_client(
            client_wants=request.keep_alive,
            request_sent=progress.request_sent,
            delimited=delimited,
            draining=self._connection.lineage.draining,
        )
        try:
            download = Pipe(
                self._upstream,
                self._connection.transport,
                make_response_body(response.framing, dechunk),
                buffered=rest,
                prefix=render_response(
                    response, http10_client=request.http10, close=not keep_client, body_dechunked=dechunk
                ),
            )
        except Rejected as rejected:
            raise _malformed(rejected) from None
        record.status = response.status
        self._waiting.begin_anew()
        await self._relay(response, download)
        return keep_client

    async def _take_over_response(self, plain: PlainExchange, response: ResponseHead) -> bool:
        """Relays what reflexes have not relayed of a response. Returns as `_relay_response`."""
        self._progress.backend_answered = self._progress.response_begun = True
        if plain.fault is not None:
            raise ExchangeFailed(plain.fault)
        body = NoBody() if plain.body is None else plain.body
        download = Pipe(self._upstream, self._connection.transport, body, prefix=plain.undelivered)
        await self._relay(response, download, has_excess=plain.has_excess)
        return plain.keeps_client

    async def _relay(self, response: ResponseHead, download: Pipe, *, has_excess: bool = False) -> None:
        """Brings the response to its end, and decides whether the backend connection serves another one."""
        progress, record = self._progress, self._record
        progress.response_begun = True
        bytes_before = record.bytes_out
        try:
            while True:
                self._pump_download(download)
                if download.finished:
                    break
                if self._upload.is_going:
                    self._waiting.count(self._upload.pump())
                self._upload.watch_client()
                await self._waiting.park(download)
        finally:
            record.bytes_out = bytes_before + download.sent
        self._connection.has_unread = not progress.request_sent
        self.keeps_upstream = keeps_backend(
            backend_wants=response.keep_alive,
            request_sent=progress.request_sent,
            delimited=response.framing.kind is not FramingKind.UNTIL_CLOSE,
            excess=has_excess or bool(download.excess),
        )

    def _pump_download(self, download: Pipe) -> None:
        try:
            self._waiting.count(download.pump())
        except SinkFailed:
            raise ExchangeFailed(Fault.CLIENT_GONE) from None
        except (SourceFailed, Truncated):
            raise ExchangeFailed(Fault.RESPONSE_INCOMPLETE) from None
        except Rejected:
            raise ExchangeFailed(Fault.RESPONSE_MALFORMED) from None

    async def _tunnel(self, response: ResponseHead, rest: bytes) -> None:
        """Relays another protocol after the backend agreed to switch to it (RFC 9110 section 7.8)."""
        connection, record = self._connection, self._record
        piece = render_response(response, http10_client=False, close=False, body_dechunked=False)
        record.status = 101
        self._progress.response_begun = True
        await send_all(connection, piece, record)
        self._context.view.count(WorkerCounter.TUNNELS)
        if record.backend is not None and record.backend.outlier is not None:
            record.backend.outlier.answered(record.backend, 101)
        tunnel = Tunnel(connection.transport, self._upstream, connection.take_rest(), rest)
        try:
            reason = await tunnel.relay(self._context.deadlines, connection.listener.timeouts.tunnel)
        finally:
            self._context.view.count(WorkerCounter.TUNNELS, -1)
            record.bytes_in += tunnel.bytes_up
            record.bytes_out += tunnel.bytes_down
        if tunnel.owes_b or reason == "a_failed":  # what the one side saw, the other sees: a reset is no end
            self._upstream.abort()
        if tunnel.owes_a or reason == "b_failed":
            connection.transport.abort()
        elif reason != "a_failed":
            connection.has_unread = True  # the client may still be talking to a backend that has ended


def _malformed(rejected: Rejected) -> ExchangeFailed:
    """The failure that a backend causes by what it answers."""
    # A body is followed by the same scanner whichever side sent it, which blames a client.
    cause = rejected.cause if rejected.status == 502 else Fault.RESPONSE_MALFORMED.cause
    return ExchangeFailed(Fault.RESPONSE_MALFORMED, Reply(502, cause, rejected.detail))
