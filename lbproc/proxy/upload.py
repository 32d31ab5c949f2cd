"""One request on its way up: from its beginning, or from where reflexes have stopped.

Owns the pipe from the client to the backend, what was read of the body, and what the client sends behind it.
Does not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.body import NoBody, make_request_body
from lbproc.core.http.exchange import Fault
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.replies import Reply
from lbproc.net.readiness import LOST, READ
from lbproc.net.relay import Pipe, SinkFailed, SourceFailed, Truncated
from lbproc.proxy.pending import ExchangeFailed, KeptBody
from lbproc.proxy.plain import READ_SIZE

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.pending import PendingRequest
    from lbproc.proxy.plain import PlainExchange


class Upload:
    """Carries one request to one backend. Make it with `begin` or `take_over`.

    Args:
        connection: the client's.
        pending: the request.
        pipe: what carries it.
        bytes_before: the size of what came before that which the pipe counts.

    Attributes:
        pipe: as given; to be parked on while the request is going.
        is_going: there is more to send, and the backend takes it.
    """

    __slots__ = ("_bytes_before", "_connection", "_pending", "is_going", "pipe")

    def __init__(
        self, connection: ClientConnection, pending: PendingRequest, pipe: Pipe, bytes_before: int
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._bytes_before = bytes_before
        self.pipe = pipe
        self.is_going = not pending.progress.request_sent

    @classmethod
    def begin(
        cls, connection: ClientConnection, pending: PendingRequest, upstream: Transport, host: bytes
    ) -> Upload:
        """Sends the request from its beginning, whatever an earlier attempt has sent.

        Args:
            connection: the client's.
            pending: the request.
            upstream: the connection to the backend.
            host: what a request that names no host is taken to mean.

        Raises:
            ExchangeFailed: what has come of the body is already refused.
        """
        plan, progress = pending.plan, pending.progress
        if progress.request_sent:
            pending.early += connection.take_rest()
            progress.request_sent = False
        try:
            body = make_request_body(plan.head.framing, connection.listener.config.max_body_size)
            if pending.keeps:
                body = pending.kept = KeptBody(body, pending.keeps)
            pipe = Pipe(
                connection.transport,
                upstream,
                body,
                buffered=pending.early,
                prefix=connection.caller.start_for(plan, host) + pending.introduction,
            )
        except Rejected as rejected:
            raise _refused(rejected) from None
        return cls(connection, pending, pipe, plan.size)

    @classmethod
    def take_over(
        cls,
        connection: ClientConnection,
        pending: PendingRequest,
        upstream: Transport,
        plain: PlainExchange,
    ) -> Upload:
        """Sends what reflexes have not sent of a request that was here whole."""
        pending.progress.request_sent = not plain.unsent
        pipe = Pipe(connection.transport, upstream, NoBody(), prefix=plain.unsent)
        return cls(connection, pending, pipe, pending.plan.size + len(plain.early))

    def pump(self) -> int:
        """Moves what can be moved of a request that is going. Returns how much, as `Pipe.pump` does.

        A backend that stops reading may have answered already, so its failure as a sink only ends the upload;
        what it sent is read first.

        Raises:
            ExchangeFailed: the client is gone, or its body is refused.
        """
        pipe, pending = self.pipe, self._pending
        moved = 0
        try:
            moved = pipe.pump()
        except SinkFailed:
            self.is_going = False
        except (SourceFailed, Truncated):
            raise ExchangeFailed(Fault.CLIENT_GONE) from None
        except Rejected as rejected:
            raise _refused(rejected) from None
        finally:
            pending.record.bytes_in = self._bytes_before + pipe.received
            if pipe.has_read:
                pending.progress.body_consumed = True
                pending.wants_continue = False
        if pipe.finished:
            self.is_going = False
            pending.progress.request_sent = True
            if pipe.excess:
                pending.early = pending.early.removesuffix(pipe.excess)
                self._connection.give_back(pipe.excess)
        return moved

    def watch_client(self) -> None:
        """Sees a client that left, or keeps what it sent ahead, once its request is complete.

        Raises:
            ExchangeFailed: the client ended its sending side; as in nginx, that says that it is gone.
            ConnectionLost: its connection broke.
        """
        connection = self._connection
        source = connection.transport.source
        if source.ready & LOST:
            raise ExchangeFailed(Fault.CLIENT_GONE)
        while self._pending.progress.request_sent and source.ready & READ and connection.has_room:
            received = connection.transport.recv(READ_SIZE)
            if received is None:
                return
            if not received:
                raise ExchangeFailed(Fault.CLIENT_GONE)
            connection.give_back(received)


def _refused(rejected: Rejected) -> ExchangeFailed:
    """The failure that a request body causes by what it is."""
    fault = Fault.REQUEST_TOO_LARGE if rejected.status == 413 else Fault.REQUEST_MALFORMED
    return ExchangeFailed(fault, Reply.from_rejected(rejected))
