"""Passive checks of one pool in one worker: counts outcomes, ejects, and lets come back whose time is over.

A thin shell: ``core.outlier`` decides, ``shm.ejections`` changes the words that all workers share. A success
costs one load of the table, a pool without ``[outlier]`` nothing.

Ejections end even if the pool has no rules any more (a reload took them away): then at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.outlier import is_failed_answer
from lbproc.shm.views import BackendCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.core.outlier import OutlierRules
    from lbproc.core.pool import Status
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Row

_SECOND = 1_000_000_000


class PassiveChecks:
    """The passive checks of one pool.

    Args:
        pool: its name.
        rules: when it ejects; None: never.
        context: the worker's.
    """

    __slots__ = ("_context", "_convalescent", "_ejected", "_ejections", "_pool", "_rows", "_rules")

    def __init__(self, pool: str, rules: OutlierRules | None, context: WorkerContext) -> None:
        self._pool = pool
        self._rules = rules
        self._context = context
        self._ejections = context.view.ejections
        self._rows: tuple[Row, ...] = ()
        self._ejected: dict[Row, Backend] = {}
        """Those that this worker knows to be ejected: its picks leave them out."""
        self._convalescent: set[Row] = set()
        """Those that are back, and whose ejections are not forgiven yet."""

    def follow(self, backends: Sequence[Backend], statuses: Sequence[Status]) -> None:
        """Takes note of the members and of what the table says of them; when a status has changed.

        Args:
            backends: the members.
            statuses: of each.
        """
        self._ejected = {
            backend.row: backend
            for backend, (_, _, is_ejected) in zip(backends, statuses, strict=True)
            if is_ejected
        }
        if self._rules is not None:
            self._rows = tuple([backend.row for backend in backends])
            self._convalescent = {row for row in self._rows if self._ejections.past(row).ejections}
            self._convalescent.difference_update(self._ejected)

    # What was seen ------------------------------------------------------------------------------------------

    def answered(self, backend: Backend, status: int) -> None:
        """An answer came whole, or its tunnel was opened."""
        if is_failed_answer(status):
            self.failed(backend, f"status {status}")
        else:
            self._ejections.succeeded(backend.row)

    def failed(self, backend: Backend, cause: str) -> None:
        """An attempt failed by the backend's fault.

        Args:
            backend: that failed.
            cause: of this failure, for the log.
        """
        ejections, rules = self._ejections, self._rules
        if rules is None:
            return
        if ejections.until(backend.row):
            # The attempt began before the ejection. If this worker knows nothing of it, whoever ejected has
            # died before it said so.
            if backend.row not in self._ejected and backend.is_member:
                ejections.announce()
            return
        errors = ejections.failed(backend.row)
        if rules.is_due(errors) and backend.is_member:
            self._eject(backend, rules, errors, cause)

    def _eject(self, backend: Backend, rules: OutlierRules, errors: int, cause: str) -> None:
        ejections, now = self._ejections, self._context.stamp()
        claim = ejections.claim(backend.row, now)
        if not claim:
            return  # a sibling is at it
        if ejections.count(self._rows, now) > rules.most_ejected(len(self._rows)):
            ejections.withdraw(backend.row, claim)
            if errors == rules.consecutive_errors:  # once for each run of failures
                self._context.log.write(
                    Event.EJECTION_WITHHELD, pool=self._pool, backend=backend.name, errors=errors, cause=cause
                )
            return
        past = ejections.past(backend.row)
        ejection = rules.next_ejection(past.ejections, past.returned_at, now)
        if ejections.confirm(backend.row, claim, ejection.number, ejection.until):
            self._context.view.count_backend(backend.row, BackendCounter.EJECTIONS)
            self._context.log.write(
                Event.BACKEND_EJECTED,
                pool=self._pool,
                backend=backend.name,
                errors=errors,
                cause=cause,
                ejections=ejection.number,
                seconds=round((ejection.until - now) / _SECOND, 3),
            )

    # What time brings ---------------------------------------------------------------------------------------

    def look(self, now: int) -> bool:
        """Ends what is over; for the worker's pulse.

        Returns:
            Whether the table says something else than what was followed last, announced or not.
        """
        changed = False
        for row, backend in self._ejected.items():
            until = self._ejections.until(row)
            if until and (until <= now or self._rules is None):
                if self._ejections.give_back(row, until, min(until, now)):
                    self._context.log.write(Event.BACKEND_RETURNED, pool=self._pool, backend=backend.name)
                until = 0
            changed = changed or not until
        if self._convalescent and self._rules is not None:
            for row in tuple(self._convalescent):
                past = self._ejections.past(row)
                if self._rules.is_forgiven(past.ejections, past.returned_at, now):
                    self._ejections.forgive(row, past.ejections)
                    self._convalescent.discard(row)
        return changed
