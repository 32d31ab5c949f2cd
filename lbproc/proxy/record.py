"""What is kept of one exchange: its times, sizes and outcome, for the counters and the access log.

Written once, at the end, whatever the end was. Times are instants of trio's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.combined import COMBINED_NOT_UNDERSTOOD, render_combined_entry
from lbproc.telemetry.entry import NO_BACKEND, NOT_ROUTED, NOT_UNDERSTOOD, render_entry, render_plain_entry

if TYPE_CHECKING:
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.caller import Caller
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.plan import Plan


class Record:
    """The account of one exchange, filled in as it goes.

    Most fields of most exchanges keep their defaults, which therefore stand in the class: an object that sets
    all of them costs 1 µs more.
    """

    started_at = 0.0
    """When the first byte of the request was here."""
    received_at = 0.0
    """When the head was complete."""
    tried_at = 0.0
    """When the attempt began that the backend answered."""
    responded_at = 0.0
    """When the head of the backend's answer was here; 0 if it gave none that could be passed on."""
    plan: Plan | None = None
    """None when the head could not be read."""
    request_id: str | None = None
    backend: Backend | None = None
    status = 499  # until the client has been sent another one
    cause: str | None = None
    bytes_in = 0
    bytes_out = 0
    connect_started_at = 0.0
    connected_at = 0.0
    retries = 0
    tls: str | None = None
    """The version of TLS that the client speaks."""

    def __init__(self, context: WorkerContext, caller: Caller) -> None:
        self._context = context
        self.client_ip = caller.peer_ip
        self.caller = caller.logged

    def write(self, ended_at: float) -> None:
        """Counts the exchange, which ended at that instant of trio's clock, and writes its line."""
        context = self._context
        view = context.view
        status_class = self.status // 100
        view.count_exchange(status_class, self.bytes_in, self.bytes_out)
        if self.status == 499:
            view.count(WorkerCounter.CLIENT_GONE)
        backend = self.backend
        if backend is not None and self.responded_at:  # what lbproc answered itself is not the backend's
            nanoseconds = int((self.responded_at - self.tried_at) * 1e9)
            view.count_answer(backend.row, status_class, self.bytes_in, self.bytes_out, nanoseconds)
        if context.access_log.enabled:
            context.access_log.record(self._line(ended_at))

    def write_plain(self, ended_at: float) -> None:
        """Does the same for what a backend has answered over an idle connection at the first try."""
        context, backend, plan, request_id = self._context, self.backend, self.plan, self.request_id
        assert backend is not None
        assert plan is not None
        assert request_id is not None
        view, responded_at = context.view, self.responded_at
        status, bytes_in, bytes_out = self.status, self.bytes_in, self.bytes_out
        view.count_exchange(status // 100, bytes_in, bytes_out)
        spent = int((responded_at - self.tried_at) * 1e9)
        view.count_answer(backend.row, status // 100, bytes_in, bytes_out, spent)
        if context.access_log.enabled:
            context.access_log.record(
                render_plain_entry(
                    time=context.wall_clock.stamp(),
                    caller=self.caller,
                    routed=plan.routed,
                    backend=backend.logged,
                    asked=plan.asked,
                    status=status,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                    first_byte_ms=(responded_at - self.received_at) * 1e3,
                    total_ms=(ended_at - self.started_at) * 1e3,
                    request_id=request_id,
                )
            )

    def _line(self, ended_at: float) -> bytes:
        plan, backend, responded_at = self.plan, self.backend, self.responded_at
        return render_entry(
            time=self._context.wall_clock.stamp(),
            caller=self.caller,
            routed=NOT_ROUTED if plan is None else plan.routed,
            backend=NO_BACKEND if backend is None else backend.logged,
            asked=NOT_UNDERSTOOD if plan is None else plan.asked,
            status=self.status,
            cause=self.cause,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            queue_ms=None,
            connect_ms=(self.connected_at - self.connect_started_at) * 1e3 if self.connected_at else None,
            first_byte_ms=(responded_at - self.received_at) * 1e3 if responded_at else None,
            total_ms=(ended_at - self.started_at) * 1e3,
            retries=self.retries,
            request_id=self.request_id,
            tls=self.tls,
        )


class TlsRecord(Record):
    """An account of what came by TLS, as its caller says."""

    def __init__(self, context: WorkerContext, caller: Caller) -> None:
        super().__init__(context, caller)
        self.tls = caller.tls

    def write_plain(self, ended_at: float) -> None:
        """As any other: what a line costs more is little beside TLS."""
        self.write(ended_at)


class CombinedRecord(Record):
    """An account that is written in the combined format. Its caller and its plan are made for that too."""

    def write_plain(self, ended_at: float) -> None:
        """As any other: these lines are quick to make."""
        self.write(ended_at)

    def _line(self, ended_at: float) -> bytes:
        plan = self.plan
        return render_combined_entry(
            time=self._context.wall_clock.stamp(),
            caller=self.caller,
            asked=COMBINED_NOT_UNDERSTOOD if plan is None else plan.asked,
            status=self.status,
            bytes_out=self.bytes_out,
        )
