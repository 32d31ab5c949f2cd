"""One HTTP listener of a worker: its limits, whom it trusts, where requests go, and what becomes of it.

A listener is made anew for each generation of the configuration, as is everything that hangs on it. What goes
on under its name is its *lineage*: connections find the newest form of their listener there, and learn there
that it was removed.

Invariants:
- Nothing here names a later generation, except for the lineage, which names the newest alone. And nothing
  that a listener is made of names the listener. So an old one goes with its last request, without a garbage
  collection.
- A lineage that has ended stays ended: a listener that comes again under the same name begins another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.strict import HeadLimits
from lbproc.core.routing import Router
from lbproc.proxy.logged import JSON, LogFormat
from lbproc.proxy.plan import MAX_PLAIN_BODY, Planner
from lbproc.telemetry.entry import render_routed

if TYPE_CHECKING:
    from lbproc.config.model import ListenerConfig
    from lbproc.proxy.balancer import Balancer


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


class Directions:
    """Where the requests of one listener go, and what their heads may be.

    Args:
        config: the listener's.
        pools: of the same generation.
        log_format: how requests are logged.

    Attributes:
        head_limits: of a head.
        max_plain_body: the most bytes of a request's body that reflexes send with its head.
    """

    __slots__ = ("_default", "_router", "_routes", "head_limits", "log_format", "max_plain_body")

    def __init__(
        self, config: ListenerConfig, pools: dict[str, Balancer], log_format: LogFormat = JSON
    ) -> None:
        self.log_format = log_format
        self.head_limits = HeadLimits(
            max_size=config.max_header_size,
            max_count=config.max_header_count,
            underscore=config.underscore_headers,
        )
        self.max_plain_body = min(MAX_PLAIN_BODY, config.max_body_size)
        self._router = Router(config.routes)
        self._routes = [Destination(route.name, pools[route.pool]) for route in config.routes]
        self._default = Destination(None, None if config.pool is None else pools[config.pool])

    def find(self, hostname: str, path: bytes, method: bytes) -> Destination:
        """Where a request goes: by the first route that matches, or to the listener's own pool."""
        index = self._router.find(hostname, path, method)
        return self._default if index is None else self._routes[index]


class Lineage:
    """One listener through the generations.

    Attributes:
        current: its newest form; None: it was removed.
        draining: every response announces the end of its connection.
        leaving: the grace of connections without a request is over.
    """

    __slots__ = ("current", "draining", "leaving")

    def __init__(self, current: HttpListener) -> None:
        self.current: HttpListener | None = current
        self.draining = False
        self.leaving = False

    def end(self) -> None:
        """The listener is removed. Its connections end with what they serve."""
        self.current = None
        self.draining = True


class HttpListener:
    """One HTTP listener, as one generation of the configuration has it.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        pools: of the same generation.
        generation: of the configuration.
        log_format: how requests are logged.
    """

    __slots__ = (
        "config",
        "directions",
        "generation",
        "lineage",
        "name",
        "planner",
        "timeouts",
        "trusted",
        "trusted_planner",
    )

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        pools: dict[str, Balancer],
        generation: int,
        log_format: LogFormat = JSON,
    ) -> None:
        self.name = name
        self.config = config
        self.generation = generation
        self.timeouts = config.timeouts
        self.trusted = config.trusted_proxies
        self.directions = Directions(config, pools, log_format)
        self.planner = Planner(self.directions, trusted=False)
        self.trusted_planner = Planner(self.directions, trusted=True)
        self.lineage = Lineage(self)

    def succeed(self, before: HttpListener) -> None:
        """Takes the place of the form that it had."""
        self.lineage = before.lineage
        self.lineage.current = self

    def retire(self) -> None:
        """Another form has its place, or none. It may still be asked, and remembers no heads for that."""
        self.planner.forget()
        self.trusted_planner.forget()
