"""The waiting of one attempt: on both sockets, with one deadline, for whoever has to act next.

Owns when a byte moved last, and what it means that none moves: who is waited for, how long, and which fault
it is when nothing comes. Moves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.core.http.exchange import Fault
from lbproc.net.readiness import LOST, READ, park
from lbproc.net.relay import BUDGET
from lbproc.proxy.pending import ExchangeFailed

if TYPE_CHECKING:
    from lbproc.config.model import PoolTimeouts
    from lbproc.net.relay import Pipe
    from lbproc.net.transport import Transport
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.pending import PendingRequest
    from lbproc.proxy.upload import Upload
    from lbproc.types import Seconds

_TRY_FAULTS = frozenset({Fault.RESPONSE_TIMEOUT, Fault.BACKEND_STALLED})
"""What it is when a try takes too long by its backend's fault."""


class Waiting:
    """Parks for one attempt.

    Args:
        connection: the client's.
        pending: the request.
        upload: the request on its way.
        upstream: the connection to the backend.
        timeouts: the pool's.
        moved_at: when a byte moved last.
        was_plain: the attempt was taken over from reflexes, maybe because their deadline came.
    """

    __slots__ = (
        "_connection",
        "_hurried",
        "_moved_at",
        "_pending",
        "_timeouts",
        "_upload",
        "_upstream",
        "_was_plain",
    )

    def __init__(
        self,
        connection: ClientConnection,
        pending: PendingRequest,
        upload: Upload,
        upstream: Transport,
        timeouts: PoolTimeouts,
        moved_at: float,
        *,
        was_plain: bool,
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._upload = upload
        self._upstream = upstream
        self._timeouts = timeouts
        self._moved_at = moved_at
        self._was_plain = was_plain
        self._hurried = False

    def begin_anew(self) -> None:
        """Another thing is waited for from now on."""
        self._moved_at = self._connection.context.now()

    def count(self, moved: int) -> None:
        """Hears what a pump has moved."""
        if moved:
            self._moved_at = self._connection.context.now()
            self._hurried = self._hurried or moved >= BUDGET

    async def park(self, download: Pipe | None) -> None:
        """Waits for whatever can move this exchange on, until the deadline of whatever it waits for.

        Args:
            download: carries the response, when that has begun.

        Raises:
            ExchangeFailed: the deadline passed.
        """
        if self._hurried:  # there may be more to move at once, but others have waited
            self._hurried = False
            await trio.lowlevel.checkpoint()
            return
        connection, upload = self._connection, self._upload
        client, upstream = connection.transport.source, self._upstream.source
        client_bits = READ | LOST if self._pending.progress.request_sent and connection.has_room else LOST
        upstream_bits = READ if download is None else 0
        for pipe in (upload.pipe if upload.is_going else None, download):
            for source, bits in () if pipe is None else pipe.waits():
                if source is client:
                    client_bits |= bits
                else:
                    upstream_bits |= bits
        waits = tuple(wait for wait in ((client, client_bits), (upstream, upstream_bits)) if wait[1])
        fault, span = self._patience(download)
        deadline = self._moved_at + span
        if self._pending.per_try is not None and fault in _TRY_FAULTS:
            deadline = min(deadline, self._try_until(self._pending.per_try))
        if self._was_plain and deadline <= connection.context.now():
            raise ExchangeFailed(fault)  # taken over because the deadline has come: no need to be woken again
        if not await park(waits, connection.context.deadlines, deadline):
            raise ExchangeFailed(fault)

    def _try_until(self, per_try: Seconds) -> float:
        """Until when this try may wait for its backend. A client that sends slowly uses nothing of it up."""
        return per_try + (self._moved_at if self._upload.pipe.has_read else self._pending.tried_since)

    def _patience(self, download: Pipe | None) -> tuple[Fault, float]:
        """What is waited for, as the fault of its absence, and for how many seconds since something moved.

        A client that waits for a 100 owes nothing before it has got one: the backend has to send that, or a
        final answer, as soon as it has the head (RFC 9110 section 10.1.1). No other interim response is one.
        """
        limits = self._connection.listener.timeouts
        if download is not None:
            if download.is_sink_blocked:
                return Fault.CLIENT_STALLED, limits.write
            return Fault.RESPONSE_STALLED, self._timeouts.read
        if not self._upload.is_going:
            return Fault.RESPONSE_TIMEOUT, self._timeouts.response
        if self._upload.pipe.is_sink_blocked:
            return Fault.BACKEND_STALLED, self._timeouts.response
        if self._pending.wants_continue:
            return Fault.RESPONSE_TIMEOUT, self._timeouts.response
        return Fault.REQUEST_TIMEOUT, limits.body
