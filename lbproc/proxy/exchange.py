"""One request and its response: given a backend, relayed both ways, recorded.

A thin shell around ``core.http.exchange``: it moves bytes and asks what follows. One task drives both
directions, because an early response, a client that leaves and a body that is still coming must all be seen
at once: it moves what can be moved without blocking, then parks on both sockets with one deadline. No
nursery, no second task. Nothing holds more of a body than one read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.core.http.body import make_request_body, make_response_body
from lbproc.core.http.exchange import (
    IDEMPOTENT,
    Fault,
    Progress,
    Verdict,
    is_backend_fault,
    keeps_backend,
    keeps_client,
)
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.head import RequestHead, ResponseHead, parse_response_head
from lbproc.core.http.head_buffer import HeadBuffer
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.render import render_interim, render_request, render_response
from lbproc.core.http.replies import Reply
from lbproc.core.pick import NoBackend
from lbproc.errors import CapacityError
from lbproc.net.connect import ConnectFailed
from lbproc.net.readiness import READ, park
from lbproc.net.relay import BUDGET, Pipe, SinkFailed, SourceFailed, Truncated, relay_tunnel
from lbproc.net.transport import ConnectionLost, Transport
from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.core.http.forwarding import Forwarding
    from lbproc.proxy.balancer import Backend, Balancer
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.record import Record

READ_SIZE = 16 * 1024
MAX_INTERIM = 16
"""Interim responses relayed for one request; a backend that sends more never means to answer."""

_CONNECT_FAULTS = {
    "refused": Fault.CONNECT_REFUSED,
    "timeout": Fault.CONNECT_TIMEOUT,
    "unreachable": Fault.CONNECT_UNREACHABLE,
}


class ExchangeFailed(Exception):  # noqa: N818  what happened to the exchange, never an error of this program
    """The exchange cannot go on; carries the fault, and the exact reply where one is known."""

    def __init__(self, fault: Fault, reply: Reply | None = None) -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.reply = reply or fault.reply()


class Exchange:
    """Serves one request over one client connection.

    Args:
        connection: where the request came from.
        request: its head.
        forwarding: what the backend is told of the client.
        balancer: the pool that serves it.
        record: filled in as things happen; the caller writes it.
    """

    __slots__ = (
        "_balancer",
        "_connection",
        "_context",
        "_early",
        "_forwarding",
        "_head_bytes",
        "_hurried",
        "_moved_at",
        "_progress",
        "_record",
        "_request",
        "_timeouts",
        "_upload",
        "_upload_broken",
        "_upstream",
        "_wants_continue",
    )

    def __init__(
        self,
        connection: ClientConnection,
        request: RequestHead,
        forwarding: Forwarding,
        balancer: Balancer,
        record: Record,
    ) -> None:
        self._connection = connection
        self._context = connection.context
        self._request = request
        self._forwarding = forwarding
        self._balancer = balancer
        self._record = record
        self._head_bytes = record.bytes_in
        self._timeouts = balancer.config.timeouts
        self._progress = Progress(idempotent=request.method in IDEMPOTENT)
        self._upload_broken = False
        self._early = connection.take_rest()
        self._wants_continue = request.expects_continue
        self._hurried = False
        self._moved_at = 0.0
        self._upload: Pipe
        self._upstream: Transport

    async def run(self) -> bool:
        """Serves the request. Returns whether the client connection can serve another.

        Raises:
            ConnectionLost: the client is gone.
        """
        tried: list[Backend] = []
        failure: ExchangeFailed | None = None
        while True:
            try:
                lease = self._balancer.take(self._request, self._forwarding.client_ip, tried)
            except CapacityError as error:
                self._context.log.write(Event.CAPACITY_REACHED, reason=error)
                return await self._end(ExchangeFailed(Fault.ALL_FULL))
            if isinstance(lease, NoBackend):
                fault = Fault.ALL_FULL if lease is NoBackend.ALL_FULL else Fault.NO_BACKEND
                return await self._end(failure or ExchangeFailed(fault))
            backend = self._record.backend = lease.backend
            self._context.view.count_backend(backend.row, BackendCounter.REQUESTS)
            try:
                return await self._attempt(backend)
            except ExchangeFailed as error:
                failure = error
                if is_backend_fault(error.fault):
                    self._context.view.count_backend(backend.row, BackendCounter.FAILURES)
                if self._progress.judge(error.fault) is not Verdict.REDISPATCH:
                    return await self._end(error)
                tried.append(backend)
                self._record.retries += 1
                self._context.view.count_backend(backend.row, BackendCounter.REDISPATCHES)
            finally:
                lease.release()

    # One attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, backend: Backend) -> bool:
        reused = backend.idle.checkout()
        if reused is not None:
            self._context.view.count_backend(backend.row, BackendCounter.REUSES)
            self._progress.connection_reused = True
            try:
                return await self._over(backend, reused)
            except ExchangeFailed as error:
                if self._progress.judge(error.fault) is not Verdict.RETRY:
                    raise
                self._record.retries += 1
        self._progress.connection_reused = False
        return await self._over(backend, await self._connect(backend))

    async def _connect(self, backend: Backend) -> Transport:
        record = self._record
        view = self._context.view
        record.connect_started_at = trio.current_time()
        fault = Fault.CONNECT_UNREACHABLE
        for address in backend.addresses:
            view.count_backend(backend.row, BackendCounter.CONNECTS)
            try:
                transport = await self._context.connect(address, trio.current_time() + self._timeouts.connect)
            except ConnectFailed as error:
                view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
                fault = _CONNECT_FAULTS.get(error.kind, Fault.CONNECT_FAILED)
            else:
                record.connected_at = trio.current_time()
                return transport
        raise ExchangeFailed(fault)

    async def _over(self, backend: Backend, upstream: Transport) -> bool:
        """Runs the exchange over one backend connection, which it keeps for reuse or closes."""
        self._upstream = upstream
        keep_upstream = False
        try:
            self._begin_upload(backend)
            response, rest = await self._await_response()
            if response.status == 101:
                await self._tunnel(response, rest)
                return False
            keep_client, keep_upstream = await self._relay_response(response, rest)
            return keep_client
        finally:
            if keep_upstream:
                displaced = backend.idle.checkin(upstream, trio.current_time())
                if displaced is not None:
                    displaced.close()
            else:
                upstream.close()

    # The request --------------------------------------------------------------------------------------------

    def _begin_upload(self, backend: Backend) -> None:
        """Starts to send the request, from its beginning whatever an earlier attempt has sent."""
        connection, progress = self._connection, self._progress
        if progress.request_sent:
            self._early += connection.take_rest()
            progress.request_sent = False
        self._upload_broken = False
        try:
            self._upload = Pipe(
                connection.transport,
                self._upstream,
                make_request_body(self._request.framing, connection.listener.config.max_body_size),
                buffered=self._early,
                prefix=render_request(self._request, self._forwarding, backend.host),
            )
        except Rejected as rejected:
            raise _refused(rejected) from None
        self._moved_at = trio.current_time()

    def _pump_upload(self) -> None:
        """Moves what can be moved of the request.

        A backend that stops reading may have answered already, so its failure as a sink only ends the upload;
        what it sent is read first.
        """
        upload, progress = self._upload, self._progress
        if progress.request_sent or self._upload_broken:
            return
        try:
            moved = upload.pump()
        except SinkFailed:
            self._upload_broken = True
            return
        except (SourceFailed, Truncated):
            raise ExchangeFailed(Fault.CLIENT_GONE) from None
        except Rejected as rejected:
            raise _refused(rejected) from None
        self._record.bytes_in = self._head_bytes + upload.received
        if upload.has_read:
            progress.body_consumed = True
            self._wants_continue = False
        self._moved(moved)
        if upload.finished:
            progress.request_sent = True
            if upload.excess:
                self._early = self._early[: len(self._early) - len(upload.excess)]
                self._connection.give_back(upload.excess)

    def _watch_client(self) -> None:
        """Sees a client that left, or keeps what it sent ahead, once its request is complete.

        Raises:
            ExchangeFailed: the client is gone; as in nginx, an end of its sending side says so.
        """
        connection = self._connection
        source = connection.transport.source
        while self._progress.request_sent and source.ready & READ and connection.has_room:
            try:
                received = connection.transport.recv(READ_SIZE)
            except ConnectionLost:
                raise ExchangeFailed(Fault.CLIENT_GONE) from None
            if received is None:
                return
            if not received:
                raise ExchangeFailed(Fault.CLIENT_GONE)
            connection.give_back(received)

    # The response -------------------------------------------------------------------------------------------

    async def _await_response(self) -> tuple[ResponseHead, bytes]:
        """The head of the final response, or of a 101, and the bytes that came with it.

        Relays interim ones.
        """
        heads = HeadBuffer.for_responses()
        interims = 0
        try:
            while True:
                self._pump_upload()
                if not self._receive_into(heads):
                    self._watch_client()
                    await self._park(None)
                    continue
                while (raw := heads.next_head()) is not None:
                    response = parse_response_head(raw, self._request.method)
                    if response.status >= 200 or response.status == 101:
                        self._record.responded_at = trio.current_time()
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
            raise ExchangeFailed(Fault.BACKEND_LOST) from None
        if received is None:
            return False
        if not received:
            raise ExchangeFailed(
                Fault.RESPONSE_INCOMPLETE if self._progress.backend_answered else Fault.BACKEND_LOST
            )
        self._progress.backend_answered = True
        heads.feed(received)
        return True

    def _checked(self, response: ResponseHead) -> ResponseHead:
        if response.status == 101 and (self._request.upgrade is None or not self._progress.request_sent):
            # Nobody asked: what follows would be bytes of no protocol that the client knows of.
            raise ExchangeFailed(Fault.RESPONSE_MALFORMED)
        return response

    async def _relay_interim(self, response: ResponseHead) -> None:
        self._wants_continue = False
        self._moved_at = trio.current_time()
        if not self._request.http10:  # RFC 9110 section 15.2: a 1.0 client does not know them
            piece = render_interim(response)
            await self._connection.send_all(piece)
            self._record.bytes_out += len(piece)

    async def _relay_response(self, response: ResponseHead, rest: bytes) -> tuple[bool, bool]:
        """Relays the final response. Returns whether client and backend connection may be used again."""
        request, progress, record = self._request, self._progress, self._record
        dechunk = request.http10 and response.framing.kind is FramingKind.CHUNKED
        delimited = not dechunk and response.framing.kind is not FramingKind.UNTIL_CLOSE
        keep_client = keeps_client(
            client_wants=request.keep_alive,
            request_sent=progress.request_sent,
            delimited=delimited,
            draining=self._context.draining,
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
        progress.response_begun = True
        self._moved_at = trio.current_time()
        try:
            while True:
                self._pump_download(download)
                if download.finished:
                    break
                self._pump_upload()
                self._watch_client()
                await self._park(download)
        finally:
            record.bytes_out += download.sent
        self._connection.has_unread = not progress.request_sent
        return keep_client, keeps_backend(
            backend_wants=response.keep_alive,
            request_sent=progress.request_sent,
            delimited=response.framing.kind is not FramingKind.UNTIL_CLOSE,
            excess=bool(download.excess),
        )

    def _pump_download(self, download: Pipe) -> None:
        try:
            self._moved(download.pump())
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
        await connection.send_all(piece)
        self._context.view.count(WorkerCounter.TUNNELS)
        try:
            end = await relay_tunnel(
                connection.transport,
                self._upstream,
                self._context.deadlines,
                connection.listener.timeouts.tunnel,
                buffered_a=connection.take_rest(),
                buffered_b=rest,
            )
        finally:
            self._context.view.count(WorkerCounter.TUNNELS, -1)
        record.bytes_in += end.bytes_up
        record.bytes_out += len(piece) + end.bytes_down

    # Waiting ------------------------------------------------------------------------------------------------

    def _moved(self, count: int) -> None:
        if count:
            self._moved_at = trio.current_time()
            self._hurried = self._hurried or count >= BUDGET

    async def _park(self, download: Pipe | None) -> None:
        """Parks on whatever can move this exchange on, with the deadline of whatever it waits for.

        Raises:
            ExchangeFailed: that deadline passed.
        """
        if self._hurried:  # there may be more to move at once, but others have waited
            self._hurried = False
            await trio.lowlevel.checkpoint()
            return
        client = self._connection.transport.source
        upstream = self._upstream.source
        client_bits = READ if self._progress.request_sent and self._connection.has_room else 0
        upstream_bits = READ if download is None else 0
        fault, span = self._patience(download)
        for pipe in (None if self._progress.request_sent or self._upload_broken else self._upload, download):
            for source, bits in () if pipe is None else pipe.waits():
                if source is client:
                    client_bits |= bits
                else:
                    upstream_bits |= bits
        waits = tuple(wait for wait in ((client, client_bits), (upstream, upstream_bits)) if wait[1])
        if not await park(waits, self._context.deadlines, self._moved_at + span):
            raise ExchangeFailed(fault)

    def _patience(self, download: Pipe | None) -> tuple[Fault, float]:
        """What is waited for, as the fault of its absence, and for how many seconds since something moved."""
        limits = self._connection.listener.timeouts
        client = self._connection.transport.source
        if download is not None:
            if download.waits()[0][0] is client:
                return Fault.CLIENT_STALLED, limits.write
            return Fault.RESPONSE_STALLED, self._timeouts.read
        if self._progress.request_sent or self._upload_broken or self._wants_continue:
            return Fault.RESPONSE_TIMEOUT, self._timeouts.response
        if self._upload.waits()[0][0] is client:
            return Fault.REQUEST_TIMEOUT, limits.body
        return Fault.BACKEND_STALLED, self._timeouts.response

    # The end ------------------------------------------------------------------------------------------------

    async def _end(self, failure: ExchangeFailed) -> bool:
        """Does what the verdict says. Returns whether the client connection can serve another request."""
        record, connection, fault = self._record, self._connection, failure.fault
        record.cause = failure.reply.cause or fault.cause
        verdict = self._progress.judge(fault)
        if verdict is Verdict.LEAVE:
            record.status = record.status or 499
            return False
        if verdict is Verdict.CUT:
            connection.transport.abort()
            return False
        return await connection.reply(failure.reply, self._request, record, whole=self._is_request_whole())

    def _is_request_whole(self) -> bool:
        """Whether the request was received to its end, so that the next one can be found after it."""
        if self._progress.request_sent:
            return True
        if self._progress.body_consumed:
            return False
        body = make_request_body(self._request.framing, self._connection.listener.config.max_body_size)
        try:
            _, excess = body.take(self._early)
        except Rejected:
            return False
        if body.complete:
            self._connection.give_back(excess)
        return body.complete


def _refused(rejected: Rejected) -> ExchangeFailed:
    """The failure that a request body causes by what it is."""
    fault = Fault.REQUEST_TOO_LARGE if rejected.status == 413 else Fault.REQUEST_MALFORMED
    return ExchangeFailed(fault, Reply.from_rejected(rejected))


def _malformed(rejected: Rejected) -> ExchangeFailed:
    """The failure that a backend causes by what it answers."""
    return ExchangeFailed(Fault.RESPONSE_MALFORMED, Reply(502, rejected.cause, rejected.detail))
