"""What is kept of one exchange: its times, sizes and outcome, for the counters and the access log.

Written once, at the end, whatever the end was. Times are instants of trio's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.telemetry.entry import render_entry

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.context import WorkerContext

_WORKER_CLASSES = (
    WorkerCounter.RESPONSES_1XX,
    WorkerCounter.RESPONSES_2XX,
    WorkerCounter.RESPONSES_3XX,
    WorkerCounter.RESPONSES_4XX,
    WorkerCounter.RESPONSES_5XX,
)
_BACKEND_CLASSES = (
    BackendCounter.RESPONSES_1XX,
    BackendCounter.RESPONSES_2XX,
    BackendCounter.RESPONSES_3XX,
    BackendCounter.RESPONSES_4XX,
    BackendCounter.RESPONSES_5XX,
)


class Record:
    """The account of one exchange, filled in as it goes."""

    __slots__ = (
        "_context",
        "backend",
        "bytes_in",
        "bytes_out",
        "cause",
        "client_ip",
        "connect_started_at",
        "connected_at",
        "listener",
        "pool",
        "received_at",
        "request",
        "request_id",
        "responded_at",
        "retries",
        "route",
        "started_at",
        "status",
        "tried_at",
    )

    def __init__(self, context: WorkerContext, listener: str, client_ip: str) -> None:
        self._context = context
        self.listener = listener
        self.client_ip = client_ip
        self.started_at = 0.0
        """When the first byte of the request was here."""
        self.received_at = 0.0
        """When the head was complete."""
        self.tried_at = 0.0
        """When the attempt began that the backend answered."""
        self.responded_at = 0.0
        """When the head of the backend's answer was here; 0 if it gave none that could be passed on."""
        self.request: RequestHead | None = None
        self.request_id: str | None = None
        self.route: str | None = None
        self.pool: str | None = None
        self.backend: Backend | None = None
        self.status = 499  # until the client has been sent another one
        self.cause: str | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.connect_started_at = 0.0
        self.connected_at = 0.0
        self.retries = 0

    def write(self) -> None:
        """Counts the exchange and writes its line."""
        ended_at = trio.current_time()
        self._count()
        context = self._context
        if context.access_log.enabled:
            context.access_log.record(self._line(ended_at))

    def _count(self) -> None:
        view = self._context.view
        status_class = self.status // 100 - 1
        view.count(WorkerCounter.REQUESTS)
        if self.status == 499:
            view.count(WorkerCounter.CLIENT_GONE)
        view.count(_WORKER_CLASSES[status_class])
        view.count(WorkerCounter.BYTES_IN, self.bytes_in)
        view.count(WorkerCounter.BYTES_OUT, self.bytes_out)
        backend = self.backend
        if backend is None or not self.responded_at:
            return  # what lbproc answered itself is not the backend's
        row = backend.row
        view.count_backend(row, BackendCounter.BYTES_IN, self.bytes_in)
        view.count_backend(row, BackendCounter.BYTES_OUT, self.bytes_out)
        view.count_backend(row, _BACKEND_CLASSES[status_class])
        view.count_backend(row, BackendCounter.RESPONSE_NS, int((self.responded_at - self.tried_at) * 1e9))

    def _line(self, ended_at: float) -> bytes:
        request = self.request
        return render_entry(
            time=self._context.wall_clock.stamp(),
            client_ip=self.client_ip or None,
            listener=self.listener,
            route=self.route,
            pool=self.pool,
            backend=None if self.backend is None else self.backend.name,
            method=None if request is None else request.method,
            host=None if request is None else request.host,
            target=None if request is None else request.target,
            version=None if request is None else ("1.0" if request.http10 else "1.1"),
            status=self.status,
            cause=self.cause,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            queue_ms=None,
            connect_ms=(self.connected_at - self.connect_started_at) * 1e3 if self.connected_at else None,
            first_byte_ms=(self.responded_at - self.received_at) * 1e3 if self.responded_at else None,
            total_ms=(ended_at - self.started_at) * 1e3,
            retries=self.retries,
            request_id=self.request_id,
            tls=None,
        )
