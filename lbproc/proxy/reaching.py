"""The way to a backend: a fresh connection to it, with what is said on it before anything else.

Owns the order of a backend's addresses, what is said first (a PROXY header in clear, then the handshake of
TLS), the counters of connects, and which fault a failed one is. Whether another backend is tried then is the
caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.exchange import Fault
from lbproc.net.connect import ConnectFailed
from lbproc.net.readiness import park
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.transport import ConnectionLost
from lbproc.shm.views import BackendCounter

if TYPE_CHECKING:
    from lbproc.core.http.replies import Reply
    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Seconds

_FAULTS = {
    "refused": Fault.CONNECT_REFUSED,
    "timeout": Fault.CONNECT_TIMEOUT,
    "unreachable": Fault.CONNECT_UNREACHABLE,
    "local": Fault.OUT_OF_SOCKETS,
}
_TLS_FAULTS = {
    "timeout": Fault.TLS_TIMEOUT,
    "closed": Fault.TLS_ENDED,
    "certificate_rejected": Fault.TLS_CERTIFICATE,
    "refused_by_peer": Fault.TLS_ALERT,
}
_SPEAKS_FOR_ITSELF = frozenset({"timeout", "closed"})

_LONGEST_DETAIL = 200


class Unreached(Exception):  # noqa: N818  what happened, and the caller tries another
    """No connection was made, and nothing was sent of what is to be relayed.

    Args:
        fault: what went wrong.
        detail: what is known beyond that, for the operator alone.
    """

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(fault.name)
        self.fault = fault
        self._detail = detail[:_LONGEST_DETAIL]

    @property
    def reason(self) -> str:
        """A line for the log."""
        return self.fault.reply(self._detail).detail

    @property
    def reply(self) -> Reply:
        """The answer to the client, which is not told what our backends are called."""
        return self.fault.reply(self._detail.partition(",")[0])


async def reach(
    backend: Backend,
    context: WorkerContext,
    patience: Seconds,
    greeting: bytes = b"",
    *,
    speaks_http: bool = False,
) -> Transport:
    """Connects to a backend, at the first of its addresses that takes the connection.

    Args:
        backend: that is wanted.
        context: the worker's.
        patience: for each address.
        greeting: a PROXY header, which is sent first.
        speaks_http: over TLS the backend is told so.

    Raises:
        Unreached: there is no connection.
    """
    view = context.view
    way = None if backend.tls is None else backend.tls.http if speaks_http else backend.tls.relay
    fault, detail = Fault.CONNECT_UNREACHABLE, ""
    for address in backend.addresses:
        view.count_backend(backend.row, BackendCounter.CONNECTS)
        deadline = context.now() + patience
        try:
            transport = await context.connect(address, deadline)
            if greeting:
                await _greet(transport, greeting, context, deadline)
            if way is not None:
                transport = await way.encrypt(transport, context.deadlines, deadline)
        except ConnectFailed as error:
            view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
            fault, detail = _FAULTS.get(error.kind, Fault.CONNECT_FAILED), ""
        except TlsFailed as error:
            view.count_backend(backend.row, BackendCounter.CONNECT_FAILURES)
            fault = _TLS_FAULTS.get(error.reason, Fault.TLS_PROTOCOL)
            detail = "" if error.reason in _SPEAKS_FOR_ITSELF else error.detail
        else:
            transport.opened_at = context.now()
            return transport
    raise Unreached(fault, detail)


async def _greet(transport: Transport, greeting: bytes, context: WorkerContext, deadline: float) -> None:
    """Sends it in one piece wherever that is possible, as a fresh connection has room for it.

    Raises:
        ConnectFailed: it cannot be sent.
    """
    rest = memoryview(greeting)
    try:
        while rest := rest[transport.send(rest) :]:
            if not await park(transport.until_writable, context.deadlines, deadline):
                transport.abort()  # which the next send finds
    except ConnectionLost as error:
        transport.close()
        raise ConnectFailed("other", error.detail) from error
    except BaseException:
        transport.close()
        raise
