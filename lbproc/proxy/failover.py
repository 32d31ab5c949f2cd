"""Whether one request is tried again after a try has failed, and where: the place and the credit for it.

``core.retry`` decides; this shell reads and changes the table for it. A pool without ``retries`` has none of
this. Redispatching after a failed connect is not its business: it is free, and done for every pool.

Invariants:
    - A place is taken before the credit, and given back when there is no credit: so credit is taken for tries
      that are made, and for no other.
    - The answer or failure of the try that was last stands until both are had. So the client gets what the
      backend said when nobody else can be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.framing import FramingKind
from lbproc.core.pick import NoBackend
from lbproc.core.retry import has_credit, may_repeat, withdrawn
from lbproc.errors import CapacityError
from lbproc.shm.views import BackendCounter

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.core.retry import Outcome, RetryRules
    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.pending import PendingRequest

BUDGET_SPENT = "retry_budget_spent"
"""The cause in the access log of what would have been tried again if the budget had allowed it."""


class Failover:
    """The further tries of one request.

    Args:
        rules: the pool's.
        balancer: picks.
        context: the worker's.
        pending: the request.
        tried: the backends that have had their turn; the exchange adds those that could not be reached.

    Attributes:
        lease: of the try under way.
        following: the place of the next try, once that is decided; the exchange takes it over.
        is_denied: a try was not repeated because the budget is spent.
    """

    __slots__ = (
        "_balancer",
        "_context",
        "_pending",
        "_repeated",
        "_rules",
        "_tried",
        "following",
        "is_denied",
        "lease",
    )

    def __init__(
        self,
        rules: RetryRules,
        balancer: Balancer,
        context: WorkerContext,
        pending: PendingRequest,
        tried: list[Backend],
    ) -> None:
        self._rules = rules
        self._balancer = balancer
        self._context = context
        self._pending = pending
        self._repeated = 0
        self._tried = tried
        self.lease: Lease | None = None
        self.following: Lease | None = None
        self.is_denied = False
        pending.per_try = rules.per_try_timeout
        framing = pending.head.framing
        if (
            pending.progress.idempotent
            and framing.kind is not FramingKind.NO_BODY
            and framing.length <= rules.max_body
        ):
            pending.keeps = rules.max_body

    def deposit(self) -> None:
        """Counts the request into the budget; once for each, and not if reflexes have done it."""
        self._context.view.add_retry_credit(self._balancer.pool_index, self._rules.deposit)

    def begin(self, lease: Lease, began_at: float) -> None:
        """A try begins, or has begun by reflexes."""
        self._pending.tried_since = began_at
        self.lease, self.following = lease, None

    def declines(self, status: int) -> bool:
        """Whether an answer is not passed on, because another backend is to be asked."""
        record, view = self._pending.record, self._context.view
        if not self._rules.names(status) or not self.seek(status):
            return False
        assert self.lease is not None
        spent = int((record.responded_at - record.tried_at) * 1e9)
        backend = self.lease.backend
        view.count_answer(backend.row, status // 100, record.bytes_in, 0, spent)
        if backend.outlier is not None:
            backend.outlier.answered(backend, status)
        return True

    def seek(self, outcome: Outcome) -> bool:
        """Whether there is another try after such an outcome of this one; ``following`` has its place."""
        pending, progress = self._pending, self._pending.progress
        assert self.lease is not None
        backend = self.lease.backend
        if not may_repeat(
            self._rules,
            outcome,
            repeated=self._repeated,
            is_idempotent=progress.idempotent,
            is_sent=not progress.untouched,
            is_seen=progress.response_begun or progress.hinted,
            is_at_hand=pending.is_at_hand(self._rules.max_body),
        ):
            return False
        if not self._has_credit():
            return self._deny(backend)
        place = self._take_place(self.lease)
        if place is None:
            return False
        if not self._withdraw():
            if place is not self.lease:
                place.release()
            return self._deny(backend)
        self._context.view.count_backend(backend.row, BackendCounter.RETRIES)
        self._repeated += 1
        if self._repeated == self._rules.attempts:
            pending.keeps = 0  # nobody will ask for it
        self.following = place
        return True

    # The place ----------------------------------------------------------------------------------------------

    def _take_place(self, lease: Lease) -> Lease | None:
        """A place where this request was not tried yet; when there is none, elsewhere; else there again."""
        backend, tried = lease.backend, self._tried
        tried.append(backend)
        place = self._take(tried)
        if place is NoBackend.NONE_ELIGIBLE and len(tried) > 1:
            tried[:] = [backend]
            place = self._take(tried)
        if place is NoBackend.NONE_ELIGIBLE and self._balancer.is_eligible(backend):
            tried.clear()
            return lease
        return None if isinstance(place, NoBackend) else place

    def _take(self, tried: Collection[Backend]) -> Lease | NoBackend:
        try:
            return self._balancer.take(self._pending.head, self._pending.record.client_ip, tried)
        except CapacityError:
            return NoBackend.ALL_FULL

    # The budget ---------------------------------------------------------------------------------------------

    def _has_credit(self) -> bool:
        return has_credit(self._context.view.retry_credit(self._balancer.pool_index))

    def _withdraw(self) -> bool:
        view, pool = self._context.view, self._balancer.pool_index
        while has_credit(word := view.retry_credit(pool)):
            if view.swap_retry_credit(pool, word, withdrawn(word)):
                return True
        return False

    def _deny(self, backend: Backend) -> bool:
        self.is_denied = True
        self._pending.record.cause = BUDGET_SPENT
        self._context.view.count_backend(backend.row, BackendCounter.RETRIES_DENIED)
        return False
