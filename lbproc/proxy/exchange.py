"""One request from its head to its answer: given a backend, tried, tried again where that is safe, answered.

Asks ``core.http.exchange`` what follows from a failure and does it. The bytes are moved by ``proxy.attempt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.core.http.body import make_request_body
from lbproc.core.http.exchange import CONNECT_FAULTS, IDEMPOTENT, Fault, Progress, Verdict, is_backend_fault
from lbproc.core.http.rejected import Rejected
from lbproc.core.pick import NoBackend
from lbproc.errors import CapacityError
from lbproc.net.connect import ConnectFailed
from lbproc.proxy.attempt import Attempt
from lbproc.proxy.pending import ExchangeFailed, PendingRequest
from lbproc.shm.views import BackendCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.core.http.forwarding import Forwarding
    from lbproc.core.http.head import RequestHead
    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.record import Record

_CONNECT_FAULTS = {
    "refused": Fault.CONNECT_REFUSED,
    "timeout": Fault.CONNECT_TIMEOUT,
    "unreachable": Fault.CONNECT_UNREACHABLE,
    "local": Fault.OUT_OF_SOCKETS,
}


class Exchange:
    """Serves one request over one client connection.

    Args:
        connection: where the request came from.
        request: its head.
        forwarding: what the backend is told of the client.
        balancer: the pool that serves it.
        record: filled in as things happen; the caller writes it.
    """

    __slots__ = ("_balancer", "_connection", "_context", "_pending", "_progress", "_record")

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
        self._balancer = balancer
        self._record = record
        self._progress = Progress(idempotent=request.method in IDEMPOTENT)
        self._pending = PendingRequest(request, forwarding, self._progress, record, connection.take_rest())

    async def run(self) -> bool:
        """Serves the request. Returns whether the client connection can serve another.

        Raises:
            ConnectionLost: the client is gone.
        """
        tried: list[Backend] = []
        failure: ExchangeFailed | None = None
        while True:
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
                failure = error
            finally:
                lease.release()  # before the answer is sent: a client that takes it slowly holds no place
            if is_backend_fault(failure.fault):
                self._blame(backend, failure)
            if self._progress.judge(failure.fault) is not Verdict.REDISPATCH:
                return await self._end(failure)
            tried.append(backend)

    def _take(self, tried: list[Backend]) -> Lease | ExchangeFailed:
        """A place on a backend, or why there is none."""
        pending = self._pending
        try:
            lease = self._balancer.take(pending.head, pending.forwarding.client_ip, tried)
        except CapacityError as error:
            self._context.log.write(Event.CAPACITY_REACHED, reason=error)
            return ExchangeFailed(Fault.OUT_OF_PLACES)
        if isinstance(lease, NoBackend):
            fault = Fault.ALL_FULL if lease is NoBackend.ALL_FULL else Fault.NO_BACKEND
            if not tried:
                self._context.log.write(Event.POOL_EXHAUSTED, pool=self._balancer.name, cause=fault.cause)
            return ExchangeFailed(fault)
        self._record.backend = lease.backend
        self._context.view.count_backend(lease.backend.row, BackendCounter.REQUESTS)
        return lease

    def _blame(self, backend: Backend, failure: ExchangeFailed) -> None:
        """Counts and reports what a backend did."""
        self._context.view.count_backend(backend.row, BackendCounter.FAILURES)
        pool, name, reply = self._balancer.name, backend.name, failure.reply
        if failure.fault in CONNECT_FAULTS:
            self._context.log.write(Event.BACKEND_UNREACHABLE, pool=pool, backend=name, reason=reply.detail)
        else:
            self._context.log.write(
                Event.BACKEND_MISBEHAVED, pool=pool, backend=name, cause=reply.cause, reason=reply.detail
            )

    async def _try(self, backend: Backend) -> bool:
        """Serves the request on a backend, on an idle connection or, if that is stale, on a fresh one."""
        reused = backend.checkout()
        if reused is not None:
            self._context.view.count_backend(backend.row, BackendCounter.REUSES)
            self._progress.connection_reused = True
            try:
                return await self._attempt(backend, reused)
            except ExchangeFailed as error:
                if self._progress.judge(error.fault) is not Verdict.RETRY:
                    raise
                self._record.retries += 1
        self._progress.connection_reused = False
        return await self._attempt(backend, await self._connect(backend))

    async def _connect(self, backend: Backend) -> Transport:
        record, view = self._record, self._context.view
        patience = self._balancer.config.timeouts.connect
        record.connect_started_at = trio.current_time()
        fault = Fault.CONNECT_UNREACHABLE
        for address in backend.addresses:
            view.count_backend(backend.row, BackendCounter.CONNECTS)
            try:
                transport = await self._context.connect(address, trio.current_time() + patience)
            except ConnectFailed as error:
                view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
                fault = _CONNECT_FAULTS.get(error.kind, Fault.CONNECT_FAILED)
            else:
                record.connected_at = trio.current_time()
                return transport
        raise ExchangeFailed(fault)

    async def _attempt(self, backend: Backend, upstream: Transport) -> bool:
        """Makes one attempt over one backend connection, which is kept for reuse or closed."""
        keeps_upstream = False
        try:
            attempt = Attempt(
                self._connection, self._pending, upstream, backend.host, self._balancer.config.timeouts
            )
            keeps_client = await attempt.run()
            keeps_upstream = attempt.keeps_upstream
            return keeps_client
        finally:
            if keeps_upstream:
                backend.checkin(upstream, trio.current_time())
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
        return await connection.reply(
            failure.reply, self._pending.head, record, whole=self._is_request_whole()
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
