"""Listeners that relay connections as they are: ``protocol = "tcp"``.

Everything goes to one pool. With TLS on the listener what is inside of it is relayed, so it offloads TLS for
any protocol that runs over TCP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.proxy.arrival import Arrival
from lbproc.proxy.destination import Destination
from lbproc.proxy.listener import Lineage, StreamListener
from lbproc.proxy.opening import Opening
from lbproc.proxy.relayed import RelayedConnection

if TYPE_CHECKING:
    from lbproc.config.model import ListenerConfig
    from lbproc.net.transport import Transport
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.logged import LogFormat


class TcpListener(StreamListener):
    """One listener whose connections are relayed.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        pools: of the same generation.
        generation: of the configuration.
        log_format: how connections are logged.
    """

    __slots__ = ("_destination",)

    lineage: Lineage[TcpListener]

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        pools: dict[str, Balancer],
        generation: int,
        log_format: LogFormat,
    ) -> None:
        super().__init__(name, config, generation, log_format)
        self._destination = Destination(None, None if config.pool is None else pools[config.pool])

    def open(self, transport: Transport, context: WorkerContext) -> Client:
        """Makes what serves a new connection."""
        if self.door is not None:
            return Opening(transport, self, self.door, context)
        return self.begin(transport, context, Arrival(transport))

    def begin(
        self, transport: Transport, context: WorkerContext, arrival: Arrival, received: bytes = b""
    ) -> Client:
        """Makes what serves a connection once it is known how it came."""
        return RelayedConnection(transport, self, context, self._destination, arrival, received)
