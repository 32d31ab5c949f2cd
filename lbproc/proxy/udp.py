"""Listeners for datagrams: ``protocol = "udp"``.

A listener says where its sessions go; a `UdpServer` serves one socket of one of its addresses. Which listener
that is may change with a reload, as its sessions go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.proxy.destination import Destination
from lbproc.proxy.flow_places import FlowPlaces
from lbproc.proxy.listener import Lineage, Listener

if TYPE_CHECKING:
    from lbproc.config.model import ListenerConfig
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.logged import LogFormat


class UdpListener(Listener):
    """One listener for datagrams, as one generation of the configuration has it.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        pools: of the same generation.
        generation: of the configuration.
        log_format: how sessions are logged.

    Attributes:
        destination: where everything goes.
        idle: how long both sides of a session may be silent.
    """

    __slots__ = ("destination", "idle")

    lineage: Lineage[UdpListener]

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        pools: dict[str, Balancer],
        generation: int,
        log_format: LogFormat,
    ) -> None:
        super().__init__(name, config, generation, log_format)
        self.destination = Destination(None, None if config.pool is None else pools[config.pool])
        self.idle = config.timeouts.idle

    def flow_places(self, context: WorkerContext) -> FlowPlaces:
        """How its flows find their backends."""
        return FlowPlaces(self.name, self.idle, context)
