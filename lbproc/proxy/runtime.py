"""What one worker built from one configuration: its listeners with their routes, and its pools.

Built beside whatever is in use, without touching it; a request keeps the runtime it started with.
"""

from __future__ import annotations

import msgpack

from lbproc.config.model import Config, ListenerConfig
from lbproc.core.http.strict import HeadLimits
from lbproc.core.routing import Router
from lbproc.proxy.balancer import Balancer
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.plan import MAX_PLAIN_BODY, Planner
from lbproc.telemetry.entry import render_routed


class Destination:
    """Where a route leads.

    Attributes:
        balancer: of the pool; None: nowhere.
        routed: the log members that say so.
    """

    __slots__ = ("balancer", "routed")

    def __init__(self, route: str | None, balancer: Balancer | None) -> None:
        self.balancer = balancer
        self.routed = render_routed(route, None if balancer is None else balancer.name)


class HttpListener:
    """One HTTP listener: its limits, whom it trusts, and where requests go."""

    __slots__ = (
        "_default",
        "_router",
        "_routes",
        "config",
        "head_limits",
        "max_plain_body",
        "name",
        "planner",
        "timeouts",
        "trusted",
        "trusted_planner",
    )

    def __init__(self, name: str, config: ListenerConfig, pools: dict[str, Balancer]) -> None:
        self.name = name
        self.config = config
        self.timeouts = config.timeouts
        self.trusted = config.trusted_proxies
        self.head_limits = HeadLimits(
            max_size=config.max_header_size,
            max_count=config.max_header_count,
            underscore=config.underscore_headers,
        )
        self.max_plain_body = min(MAX_PLAIN_BODY, config.max_body_size)
        self._router = Router(config.routes)
        self._routes = [Destination(route.name, pools[route.pool]) for route in config.routes]
        self._default = Destination(None, None if config.pool is None else pools[config.pool])
        self.planner = Planner(self, trusted=False)
        self.trusted_planner = Planner(self, trusted=True)

    def find(self, hostname: str, path: bytes, method: bytes) -> Destination:
        """Where a request goes: by the first route that matches, or to the listener's own pool."""
        index = self._router.find(hostname, path, method)
        return self._default if index is None else self._routes[index]


class Runtime:
    """Everything that depends on the configuration in one worker."""

    def __init__(self, config: Config, context: WorkerContext) -> None:
        self.config = config
        self._context = context
        self._epoch = -1
        self.pools = {
            name: Balancer(name, pool, context, self.follow_membership) for name, pool in config.pools.items()
        }
        self.listeners = {
            name: HttpListener(name, listener, self.pools) for name, listener in config.listeners.items()
        }
        self.follow_membership()

    def follow_membership(self) -> None:
        """Takes over published membership if it changed since the last call."""
        view = self._context.view
        if view.membership_epoch() == self._epoch:
            return
        self._epoch, blob = view.read_membership()
        membership = msgpack.unpackb(blob)["pools"] if blob else {}
        for name, balancer in self.pools.items():
            if name in membership:
                balancer.follow(membership[name])

    def close_aged(self, now: float) -> None:
        """Closes backend connections that have been idle too long."""
        for balancer in self.pools.values():
            for backend in balancer.backends:
                backend.close_aged(now)

    def retire(self) -> None:
        """Closes all idle backend connections; this worker leaves."""
        for balancer in self.pools.values():
            for backend in balancer.backends:
                backend.retire()
