"""Backend connections that began with a PROXY header, and so are one client's for as long as they live.

Owns what a client connection keeps of them between its requests. Pools without ``proxy_protocol`` share
their idle connections among all clients, and have none of this.

Invariant: what was introduced as the connection of one client carries nothing of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.proxy.arrival import Arrival

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.proxy.arrival import ProxyVersion
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.connection import ClientConnection
    from lbproc.types import Seconds

MAX_KEPT = 4
"""Backends to which one client keeps a connection."""

MAX_IDLE_AGE: Seconds = 55.0
"""As for shared ones: less than the 60 to 75 s of common servers."""

_ID_BITS = 128


def introduce(connection: ClientConnection, version: ProxyVersion) -> bytes:
    """The PROXY header for a backend connection of a client.

    Raises:
        ConnectionLost: the client is gone.
    """
    arrival = connection.arrival or Arrival(connection.transport)
    unique_id = f"{connection.context.random.getrandbits(_ID_BITS):032x}" if version == "v2" else ""
    return arrival.greeting(connection.transport, version, unique_id)


class IntroducedConnections:
    """The idle backend connections of one client connection, at most one to each backend."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: dict[Backend, tuple[Transport, float]] = {}

    def checkout(self, backend: Backend, now: float) -> Transport | None:
        """The connection to a backend, if there is one that still is quiet; the caller owns it now."""
        found = self._idle.pop(backend, None)
        if found is None:
            return None
        transport, idle_since = found
        if now - idle_since < MAX_IDLE_AGE and transport.is_quiet():
            return transport
        transport.close()
        return None

    def checkin(self, backend: Backend, transport: Transport, now: float) -> None:
        """Keeps a connection that is ready for another request, or closes it."""
        if not backend.is_member or backend in self._idle:
            transport.close()
            return
        self._idle[backend] = (transport, now)
        if len(self._idle) > MAX_KEPT:
            self._idle.pop(next(iter(self._idle)))[0].close()

    def close(self) -> None:
        """Closes all of them."""
        while self._idle:
            self._idle.popitem()[1][0].close()
