"""One request from its head to its answer: given a backend, tried, tried again where that is safe, answered.

Asks ``core.http.exchange`` what follows from a failure and does it. The bytes are moved by ``proxy.attempt``.
All of it runs in the task of the client connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lbproc.core.http.body import make_request_body
from lbproc.core.http.exchange import CONNECT_FAULTS, Fault, Verdict, is_backend_fault
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.rejected import Rejected
from lbproc.core.pick import NoBackend
from lbproc.errors import CapacityError
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.attempt import Attempt
from lbproc.proxy.failover import BUDGET_SPENT, Failover
from lbproc.proxy.introduced import IntroducedConnections, introduce
from lbproc.proxy.pending import AnswerDeclined, ExchangeFailed, PendingRequest
from lbproc.proxy.reaching import Unreached, reach
from lbproc.proxy.replying import reply
from lbproc.shm.views import BackendCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.plain import PlainExchange
    from lbproc.proxy.record import Record
    from lbproc.types import Row


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
                return await reply(connection, plan.refusal, plan.head, record, whole=whole)
            pending = PendingRequest(plan, introduction, record, connection.take_rest())
        else:
            pending = PendingRequest(plan, plain.introduction, record, plain.early)
        exchange = connection.exchange = Exchange(connection, pending, plain)
        return await exchange.run()
    except ConnectionLost:
        raise
    except Exception:
        record.status = 500  # a defect; whoever started this task reports it
        raise
    finally:
        connection.exchange = None  # the two name each other
        record.write(context.now())


class Exchange:
    """Serves one request over one client connection.

    Args:
        connection: where the request came from.
        pending: the request.
        plain: how far the reflexes have brought it, if they began it.
    """

    __slots__ = (
        "_backend",
        "_balancer",
        "_connection",
        "_context",
        "_failover",
        "_is_cut",
        "_pending",
        "_plain",
        "_progress",
        "_record",
        "_tried",
        "_upstream",
    )

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
        self._tried: list[Backend] = []
        """Which have had their turn."""
        self._failover = (
            None
            if self._balancer.retries is None
            else Failover(self._balancer.retries, self._balancer, self._context, pending, self._tried)
        )
        self._backend: Backend | None = None
        """The one that is being tried."""
        self._upstream: Transport | None = None
        """The connection to it, when that stands."""
        self._is_cut = False
        """The backend was taken out of use meanwhile."""

    async def run(self) -> bool:
        """Serves the request. Returns whether the client connection can serve another.

        Raises:
            ConnectionLost: the client is gone.
        """
        plain, failover = self._plain, self._failover
        failure: ExchangeFailed | None = None
        if plain is None and failover is not None:
            failover.deposit()  # else the reflexes did
        lease = (None if plain is None else plain.lease) or self._take()
        while not isinstance(lease, ExchangeFailed):
            if failover is not None:
                failover.begin(lease, self._began_at())
            try:
                return await self._try(lease.backend)
            except AnswerDeclined:
                failure = None
            except ExchangeFailed as error:
                failure = self._fail(lease.backend, error.bare())
            finally:  # before the answer is sent: a client that takes it slowly holds no place
                if failover is None or failover.following is not lease:
                    lease.release()
            if failover is not None and failover.following is not None:
                lease = self._repeat(failover.following)
                continue
            assert failure is not None
            if self._progress.judge(failure.fault) is not Verdict.REDISPATCH:
                return await self._end(failure)
            lease = self._redispatch(lease.backend)
        return await self._end(failure or lease)

    def _began_at(self) -> float:
        """When the try began that is to be made, or gone on with."""
        plain = self._plain
        return self._context.now() if plain is None or plain.upstream is None else self._record.tried_at

    def _fail(self, backend: Backend, failure: ExchangeFailed) -> ExchangeFailed:
        """Judges a try that came to nothing: whose fault it is, and whether there is another one."""
        fault = failure.fault
        # A connect is not ended by a cut: when it fails, it has failed by itself, and nothing was sent.
        if self._is_cut and is_backend_fault(fault) and fault not in CONNECT_FAULTS:
            failure = ExchangeFailed(Fault.BACKEND_DOWN)
        elif is_backend_fault(fault):
            self._blame(backend, failure)
        if self._failover is not None and self._progress.judge(failure.fault) is Verdict.REPLY:
            self._failover.seek(failure.fault)
        return failure

    def _repeat(self, place: Lease) -> Lease:
        """Goes on with another try."""
        self._pending.rewind()
        self._record.retries += 1
        self._occupy(place)
        return place

    def _redispatch(self, backend: Backend) -> Lease | ExchangeFailed:
        """Another place instead of one where nothing was sent."""
        self._tried.append(backend)
        self._progress.untouched = False
        place = self._take()
        if not isinstance(place, ExchangeFailed):
            self._record.retries += 1
            self._context.view.count_backend(backend.row, BackendCounter.REDISPATCHES)
        return place

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends the try under way if it is with one of these backends, and says with which.

        What becomes of the request is decided as for any failure.
        """
        backend = self._backend
        if backend is None or backend.row not in rows:
            return None
        self._is_cut = True
        if self._upstream is not None:
            self._upstream.abort()  # which wakes the task
        return backend.row

    def _take(self) -> Lease | ExchangeFailed:
        """A place on a backend, or why there is none."""
        pending, tried = self._pending, self._tried
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
        self._occupy(lease)
        return lease

    def _occupy(self, place: Lease) -> None:
        self._record.backend = place.backend
        self._context.view.count_pick(place.backend.row)

    def _blame(self, backend: Backend, failure: ExchangeFailed) -> None:
        """Counts and reports what a backend did."""
        if backend.outlier is not None:
            backend.outlier.failed(backend, failure.reply.cause)
        self._context.view.count_backend(backend.row, BackendCounter.FAILURES)
        pool, name, reason = self._balancer.name, backend.name, failure.reason
        if failure.fault in CONNECT_FAULTS:
            self._context.log.write(Event.BACKEND_UNREACHABLE, pool=pool, backend=name, reason=reason)
        else:
            cause = failure.reply.cause
            self._context.log.write(
                Event.BACKEND_MISBEHAVED, pool=pool, backend=name, cause=cause, reason=reason
            )

    async def _try(self, backend: Backend) -> bool:
        """Serves the request on a backend, on an idle connection or, if that is stale, on a fresh one."""
        plain, self._plain = self._plain, None
        self._backend = backend
        self._is_cut = plain is not None and plain.is_cut
        try:
            keeps_client = await self._try_connections(backend, plain)
        finally:
            self._backend = None
        if self._is_cut and self._record.status == 101:
            self._record.cause = Fault.BACKEND_DOWN.cause
        if backend.outlier is not None and self._record.status != 101:  # a tunnel counted when it opened
            backend.outlier.answered(backend, self._record.status)
        return keeps_client

    async def _try_connections(self, backend: Backend, plain: PlainExchange | None) -> bool:
        reused = None if plain is None else plain.upstream
        if reused is None:
            plain = None
            reused = self._checkout(backend)
            if reused is not None:
                self._context.view.count_reuse(backend.row)
        if reused is not None:
            self._progress.connection_reused = True
            try:
                return await self._attempt(backend, reused, plain)
            except ExchangeFailed as error:
                if self._is_cut or self._progress.judge(error.fault) is not Verdict.RETRY:
                    raise
                self._progress.untouched = False
                self._record.retries += 1
        self._progress.connection_reused = False
        return await self._attempt(backend, await self._connect(backend), None)

    async def _connect(self, backend: Backend) -> Transport:
        record = self._record
        patience = self._balancer.timeouts.connect
        if self._pending.per_try is not None:
            patience = min(patience, self._pending.per_try)
        record.connect_started_at = self._context.now()
        try:
            transport = await reach(backend, self._context, patience, self._greeting(), speaks_http=True)
        except Unreached as error:
            raise ExchangeFailed(error.fault, error.reply, error.reason) from None
        record.connected_at = transport.opened_at
        if self._is_cut:
            transport.close()
            self._progress.untouched = True
            raise ExchangeFailed(Fault.BACKEND_DOWN)
        return transport

    def _greeting(self) -> bytes:
        """What a backend is told first of whose connection it is, if it is to know."""
        version = self._balancer.config.proxy_protocol
        return b"" if version is None else introduce(self._connection, version)

    def _checkout(self, backend: Backend) -> Transport | None:
        """An idle connection. One that was introduced as some client's serves no other."""
        if self._balancer.config.proxy_protocol is None:
            return backend.checkout()
        own = self._connection.introduced
        return None if own is None else own.checkout(backend, self._context.now())

    def _checkin(self, backend: Backend, upstream: Transport) -> None:
        """Keeps a connection for reuse."""
        connection, now = self._connection, self._context.now()
        if self._balancer.config.proxy_protocol is None:
            backend.checkin(upstream, now)
            return
        if connection.introduced is None:
            connection.introduced = IntroducedConnections()
        connection.introduced.checkin(backend, upstream, now)

    async def _attempt(self, backend: Backend, upstream: Transport, plain: PlainExchange | None) -> bool:
        """Makes one attempt over one backend connection, which is kept for reuse or closed."""
        self._upstream = upstream
        attempt: Attempt | None = None
        try:
            attempt = Attempt(
                self._connection,
                self._pending,
                upstream,
                backend.host,
                self._balancer.timeouts,
                self._failover,
                plain,
            )
            return await attempt.run()
        finally:
            self._upstream = None
            if attempt is not None and attempt.keeps_upstream:
                self._checkin(backend, upstream)
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
        # Nothing of a response has gone to the client.
        answer, is_denied = failure.reply, self._failover is not None and self._failover.is_denied
        if is_denied:
            answer = replace(answer, detail=f"{answer.detail}; the retry budget is spent")
        try:
            return await reply(connection, answer, self._pending.head, record, whole=self._is_request_whole())
        finally:
            if is_denied:
                record.cause = BUDGET_SPENT

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
