"""What lbproc says itself to a client, and that it gets there: sent whole, and not lost to a reset.

Owns the last steps of answers that no backend gives: their bytes, what the record says of them, and the end
of a connection that was answered before everything was received. When they are due is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lbproc.core.http.replies import Reply, render_reply
from lbproc.net.readiness import park
from lbproc.net.transport import ConnectionLost
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead
    from lbproc.core.http.rejected import Rejected
    from lbproc.net.transport import Transport
    from lbproc.proxy.connection import ClientConnection
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.record import Record
    from lbproc.types import Seconds

LINGER_READ = 256 * 1024

LINGER_TIME: Seconds = 5.0
"""How long a connection that was answered early is read on, so that the answer is not lost to a reset."""


async def send_all(connection: ClientConnection, piece: bytes, record: Record) -> None:
    """Sends a small piece whole, and counts what was sent.

    Raises:
        ConnectionLost: the client is gone, or takes nothing for the listener's ``write`` timeout.
    """
    transport, context = connection.transport, connection.context
    rest = memoryview(piece)
    deadline = context.now() + connection.listener.timeouts.write
    while rest:
        sent = transport.send(rest)
        record.bytes_out += sent
        rest = rest[sent:]
        if not sent and not await park(transport.until_writable, context.deadlines, deadline):
            raise ConnectionLost("the client takes no bytes")


async def reply(
    connection: ClientConnection, answer: Reply, request: RequestHead | None, record: Record, *, whole: bool
) -> bool:
    """Answers in place of a backend. Returns whether the connection can serve another request.

    Args:
        connection: the client's.
        answer: what is said.
        request: None when the head could not be read.
        record: gets status, cause and size.
        whole: the request was received to its end.

    Raises:
        ConnectionLost: the client is gone.
    """
    keep = (
        request is not None
        and request.keep_alive
        and whole
        and not connection.lineage.draining
        and not connection.caller.is_foreign
    )
    piece = render_reply(
        answer,
        accept=b", ".join(request.values(b"accept")) if request is not None else b"",
        close=not keep,
        head_only=request is not None and request.method == b"HEAD",
        request_id=record.request_id or "",
    )
    record.cause = answer.cause or None
    bytes_before = record.bytes_out
    try:
        await send_all(connection, piece, record)
    finally:
        if record.bytes_out > bytes_before:  # else the client left before it got anything
            record.status = answer.status
    connection.has_unread = not whole
    return keep


async def refuse(connection: ClientConnection, rejected: Rejected, started_at: float, bytes_in: int) -> None:
    """Answers a head that cannot be read, with a record and an event of its own.

    Args:
        connection: nothing more is read from it.
        rejected: why.
        started_at: when the first byte of the head was here.
        bytes_in: its size, as far as it was received.

    Raises:
        ConnectionLost: the client is gone.
    """
    context, listener = connection.context, connection.listener
    record = connection.caller.begin_record(context, connection.caller)
    record.started_at = started_at
    record.bytes_in = bytes_in
    context.view.count(WorkerCounter.REJECTED)
    context.log.write(
        Event.REQUEST_REJECTED,
        listener=listener.name,
        client_ip=connection.caller.peer_ip or None,
        status=rejected.status,
        reason=rejected.detail,
    )
    try:
        await reply(connection, Reply.from_rejected(rejected), None, record, whole=False)
    finally:
        record.write(context.now())


async def linger(transport: Transport, context: WorkerContext) -> None:
    """Ends the sending side and reads on for a bounded time.

    A close with unread bytes in the receive buffer makes the kernel send a reset, which can destroy the
    answer before the client has read it (RFC 9112 section 9.6).
    """
    transport.shutdown_write()
    deadline = context.now() + LINGER_TIME
    while context.now() < deadline:
        received = transport.recv(LINGER_READ)
        if received is None:
            if not await park(transport.until_readable, context.deadlines, deadline):
                return
        elif not received:
            return
        else:
            await trio.lowlevel.checkpoint()
