"""One request from its head to its answer: given a backend, tried, tried again where that is safe, answered.

Asks ``core.http.exchange`` what follows from a failure and does it. The bytes are moved by ``proxy.attempt``.
All of it runs in the task of the client connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.body import make_request_body
from lbproc.core.http.exchange import CONNECT_FAULTS, Fault, Verdict, is_backend_fault
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.rejected import Rejected
from lbproc.core.pick import NoBackend
from lbproc.errors import CapacityError
from lbproc.net.connect import ConnectFailed
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.attempt import Attempt
from lbproc.proxy.pending import ExchangeFailed, PendingRequest
from lbproc.proxy.replying import reply
from lbproc.shm.views import BackendCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.plain import PlainExchange
    from lbproc.proxy.record import Record

_CONNECT_FAULTS = {
    "refused": Fault.CONNECT_REFUSED,
    "timeout": Fault.CONNECT_TIMEOUT,
    "unreachable": Fault.CONNECT_UNREACHABLE,
    "local": Fault.OUT_OF_SOCKETS,
}


async def serve_request(connection: ClientConnection, record: Record, plain: PlainExchange | None) -> bool:
    """Serves a request whose head was read, and writes its record. Returns whether there may be another.

    Args:
        connection: where the request came from.
        record: has the request's plan.
        plain: how far the reflexes have brought it, if they began it.

    Raises:
        ConnectionLost: the client is gone.
    """
    plan, context = record.plan, connection.context
    assert plan is not None
    try:
        if plain is None:
            introduction = connection.caller.introduce(plan, record, context.random)
            framing = plan.head.framing
            if (
                framing.kind is FramingKind.LENGTH
                and framing.length > connection.listener.config.max_body_size
            ):
                return await reply(
                    connection, Fault.REQUEST_TOO_LARGE.reply(), plan.head, record, whole=False
                )
            if plan.balancer is None:
                whole = framing.kind is not FramingKind.CHUNKED and not framing.length
                return await reply(connection, Fault.NO_ROUTE.reply(), plan.head, record, whole=whole)
            pending = PendingRequest(plan, introduction, record, connection.take_rest())
        else:
            pending = PendingRequest(plan, plain.introduction, record, plain.early)
        return await Exchange(connection, pending, plain).run()
    except ConnectionLost:
        raise
    except Exception:
        record.status = 500  # a defect; whoever started this task reports it
        raise
    finally:
        record.write(context.now())


class Exchange:
    """Serves one request over one client connection.

    Args:
        connection: where the request came from.
        pending: the request.
        plain: how far the reflexes have brought it, if they began it.
    """

    __slots__ = ("_balancer", "_connection", "_context", "_pending", "_plain", "_progress", "_record")

    def __init__(
        self, connection: ClientConnection, pending: PendingRequest, plain: PlainExchange | None
    ) -> None:
        assert pending.plan.balancer is not None
        self._connection = connection
        self._context = connection.context
        self._balancer: Balancer = pending.plan.balancer
        self._record = pending.record
        self._progress = pending.progress
        self._pending = pending
        self._plain = plain

    async def run(self) -> bool:
        """Serves the request. Returns whether the client connection can serve another.

        Raises:
            ConnectionLost: the client is gone.
        """
        tried: list[Backend] = []
        failure: ExchangeFailed | None = None
        lease: Lease | ExchangeFailed | None = None if self._plain is None else self._plain.lease
        while True:
            if lease is None:
                lease = self._take(tried)
            if isinstance(lease, ExchangeFailed):
                return await self._end(failure or lease)
            backend = lease.backend
            if tried:
                self._record.retries += 1
                self._context.view.count_backend(tried[-1].row, BackendCounter.REDISPATCHES)
            try:
                return await self._try(backend)
            except ExchangeFailed as error:
                failure = error.bare()
            finally:
                lease.release()  # before the answer is sent: a client that takes it slowly holds no place
            if is_backend_fault(failure.fault):
                self._blame(backend, failure)
            if self._progress.judge(failure.fault) is not Verdict.REDISPATCH:
                return await self._end(failure)
            tried.append(backend)
            lease = None

    def _take(self, tried: list[Backend]) -> Lease | ExchangeFailed:
        """A place on a backend, or why there is none."""
        pending = self._pending
        try:
            lease = self._balancer.take(pending.head, self._record.client_ip, tried)
        except CapacityError as error:
            self._context.log.write(Event.CAPACITY_REACHED, reason=error)
            return ExchangeFailed(Fault.OUT_OF_PLACES)
        if isinstance(lease, NoBackend):
            fault = Fault.ALL_FULL if lease is NoBackend.ALL_FULL else Fault.NO_BACKEND
            if not tried:
                self._context.log.write(Event.POOL_EXHAUSTED, pool=self._balancer.name, cause=fault.cause)
            return ExchangeFailed(fault)
        self._record.backend = lease.backend
        self._context.view.count_pick(lease.backend.row)
        return lease

    def _blame(self, backend: Backend, failure: ExchangeFailed) -> None:
        """Counts and reports what a backend did."""
        self._context.view.count_backend(backend.row, BackendCounter.FAILURES)
        pool, name, answer = self._balancer.name, backend.name, failure.reply
        if failure.fault in CONNECT_FAULTS:
            self._context.log.write(Event.BACKEND_UNREACHABLE, pool=pool, backend=name, reason=answer.detail)
        else:
            self._context.log.write(
                Event.BACKEND_MISBEHAVED, pool=pool, backend=name, cause=answer.cause, reason=answer.detail
            )

    async def _try(self, backend: Backend) -> bool:
        """Serves the request on a backend, on an idle connection or, if that is stale, on a fresh one."""
        plain, self._plain = self._plain, None
        reused = None if plain is None else plain.upstream
        if reused is None:
            plain = None
            reused = backend.checkout()
            if reused is not None:
                self._context.view.count_reuse(backend.row)
        if reused is not None:
            self._progress.connection_reused = True
            try:
                return await self._attempt(backend, reused, plain)
            except ExchangeFailed as error:
                if self._progress.judge(error.fault) is not Verdict.RETRY:
                    raise
                self._record.retries += 1
        self._progress.connection_reused = False
        return await self._attempt(backend, await self._connect(backend), None)

    async def _connect(self, backend: Backend) -> Transport:
        record, view = self._record, self._context.view
        patience = self._balancer.timeouts.connect
        record.connect_started_at = self._context.now()
        fault = Fault.CONNECT_UNREACHABLE
        for address in backend.addresses:
            view.count_backend(backend.row, BackendCounter.CONNECTS)
            try:
                transport = await self._context.connect(address, self._context.now() + patience)
            except ConnectFailed as error:
                view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
                fault = _CONNECT_FAULTS.get(error.kind, Fault.CONNECT_FAILED)
            else:
                record.connected_at = transport.opened_at = self._context.now()
                return transport
        raise ExchangeFailed(fault)

    async def _attempt(self, backend: Backend, upstream: Transport, plain: PlainExchange | None) -> bool:
        """Makes one attempt over one backend connection, which is kept for reuse or closed."""
        keeps_upstream = False
        try:
            attempt = Attempt(
                self._connection, self._pending, upstream, backend.host, self._balancer.timeouts, plain
            )
            keeps_client = await attempt.run()
            keeps_upstream = attempt.keeps_upstream
            return keeps_client
        finally:
            if keeps_upstream:
                backend.checkin(upstream, self._context.now())
            else:
                upstream.close()

    async def _end(self, failure: ExchangeFailed) -> bool:
        """Does what the verdict says. Returns whether the client connection can serve another request."""
        record, connection, fault = self._record, self._connection, failure.fault
        record.cause = failure.reply.cause or fault.cause
        verdict = self._progress.judge(fault)
        if verdict is Verdict.LEAVE:
            return False
        if verdict is Verdict.CUT:
            connection.transport.abort()
            return False
        return await reply(
            connection, failure.reply, self._pending.head, record, whole=self._is_request_whole()
        )

    def _is_request_whole(self) -> bool:
        """Whether the request was received to its end, so that the next one can be found after it."""
        if self._progress.request_sent:
            return True
        if self._progress.body_consumed:
            return False
        pending = self._pending
        body = make_request_body(pending.head.framing, self._connection.listener.config.max_body_size)
        try:
            _, excess = body.take(pending.early)
        except Rejected:
            return False
        if body.complete:
            self._connection.give_back(excess)
        return body.complete
