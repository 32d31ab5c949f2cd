"""What is kept of one connection that is relayed as it is: for the counters, and its line of the access log.

Counted as it goes on, because such connections live long; written once, at the end. Times are instants of
trio's clock. Lines have the keys of every other line, without what only a request has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lbproc.telemetry.combined import COMBINED_NOT_UNDERSTOOD, render_combined_entry
from lbproc.telemetry.entry import NO_BACKEND, NOT_ROUTED, render_asked, render_entry

if TYPE_CHECKING:
    from lbproc.core.proxy_protocol import ProxyTls
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.destination import Destination


class Arrived(Protocol):
    """What lines say of how a connection came, or a session."""

    @property
    def server_name(self) -> str | None:
        """The host that the client has named."""

    @property
    def tls(self) -> ProxyTls | None:
        """How it speaks TLS with this listener."""


class RelayRecord:
    """The account of one connection, or of one session of datagrams, filled in as it goes.

    Args:
        context: the worker's.
        arrival: how it came.
        caller: what of log lines follows from the connection.
        destination: where it goes; None: nowhere.
    """

    __slots__ = (
        "_arrival",
        "_caller",
        "_context",
        "_routed",
        "backend",
        "bytes_in",
        "bytes_out",
        "cause",
        "connect_started_at",
        "connected_at",
        "retries",
        "started_at",
        "unique_id",
    )

    def __init__(
        self, context: WorkerContext, arrival: Arrived, caller: str, destination: Destination | None
    ) -> None:
        self._context = context
        self._arrival = arrival
        self._caller = caller
        self._routed = NOT_ROUTED if destination is None else destination.routed
        self.backend: Backend | None = None
        self.cause: str | None = None
        """Why it ended; None: both sides had said all that they wanted."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.started_at = context.now()
        self.connect_started_at = 0.0
        self.connected_at = 0.0
        self.retries = 0
        self.unique_id: str | None = None
        """What the backend was told of it."""

    def count(self, bytes_in: int, bytes_out: int) -> None:
        """Takes note of how much was relayed by now."""
        assert self.backend is not None
        self._context.view.count_relayed(
            self.backend.row, bytes_in - self.bytes_in, bytes_out - self.bytes_out
        )
        self.bytes_in, self.bytes_out = bytes_in, bytes_out

    def write(self) -> None:
        """Writes its line: it has ended."""
        if self._context.access_log.enabled:
            self._context.access_log.record(self._line())

    def _line(self) -> bytes:
        context, name = self._context, self._arrival.server_name
        ended_at = context.now()
        return render_entry(
            time=context.wall_clock.stamp(),
            caller=self._caller,
            routed=self._routed,
            backend=NO_BACKEND if self.backend is None else self.backend.logged,
            asked=render_asked(None, None if name is None else name.encode(), None, None),
            status=None,
            cause=self.cause,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            queue_ms=None,
            connect_ms=(self.connected_at - self.connect_started_at) * 1e3 if self.connected_at else None,
            first_byte_ms=None,
            total_ms=(ended_at - self.started_at) * 1e3,
            retries=self.retries,
            request_id=self.unique_id,
            tls=None if self._arrival.tls is None else self._arrival.tls.version,
        )


class CombinedRelayRecord(RelayRecord):
    """An account that is written in the combined format. Its caller is made for that too."""

    __slots__ = ()

    def _line(self) -> bytes:
        return render_combined_entry(
            time=self._context.wall_clock.stamp(),
            caller=self._caller,
            asked=COMBINED_NOT_UNDERSTOOD,
            status=None,
            bytes_out=self.bytes_out,
        )
