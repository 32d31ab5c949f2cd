"""Plain exchanges of pools with ``retries``: the same by reflexes, until an answer may have to be declined.

Owns what such a pool costs while all goes well: one addition to the budget's word, and a look at the three
digits of the status. Pools without ``retries`` use ``proxy.plain`` as it is, and pay nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.proxy.plain import PlainExchange

if TYPE_CHECKING:
    from lbproc.core.retry import RetryRules

_STATUS = slice(9, 12)
"""Where a status stands in ``HTTP/1.1 503``."""


class CautiousExchange(PlainExchange):
    """A plain exchange whose answer is left to the task when its status is one that may be tried again."""

    _rules: RetryRules

    def begin(self) -> bool:
        """Sends the request. Returns as `PlainExchange.begin`."""
        balancer = self.plan.balancer
        assert balancer is not None
        assert balancer.retries is not None
        rules = self._rules = balancer.retries
        self._context.view.add_retry_credit(balancer.pool_index, rules.deposit)
        if not super().begin():
            return False
        per_try = rules.per_try_timeout
        if per_try is not None:
            source = self._connection.transport.source
            source.deadline = min(source.deadline, self.moved_at + per_try)
        return True

    def _read_response(self, received: bytes) -> bool:
        if received[_STATUS] in self._rules.codes:
            self.received = received
            return self._hand_over()
        return super()._read_response(received)
