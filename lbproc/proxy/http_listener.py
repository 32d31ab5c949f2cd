"""One HTTP listener of a worker: its limits, whom it trusts, and where requests go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproc.core.http.exchange import Fault
from lbproc.core.http.rejected import bad_request
from lbproc.core.http.replies import Reply, redirect_to_https
from lbproc.core.http.strict import HeadLimits
from lbproc.core.routing import Router
from lbproc.proxy.connection import ClientConnection
from lbproc.proxy.destination import Destination
from lbproc.proxy.listener import Lineage, Listener, StreamListener
from lbproc.proxy.logged import JSON, LogFormat
from lbproc.proxy.opening import Opening
from lbproc.proxy.plan import IN_CLEAR, MAX_PLAIN_BODY, Audience, Planner

if TYPE_CHECKING:
    from lbproc.config.model import ListenerConfig
    from lbproc.core.http.head import RequestHead
    from lbproc.net.transport import Transport
    from lbproc.proxy.arrival import Arrival
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext


NOWHERE: Final = Destination(None, None)


def _redirect(head: RequestHead, port: int) -> Reply:
    if not head.hostname:
        return Reply.from_rejected(
            bad_request("without Host it cannot be said where this is served by HTTPS")
        )
    return redirect_to_https(head.hostname, port, head.target)


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

    __slots__ = (
        "_default",
        "_https_port",
        "_router",
        "_routes",
        "head_limits",
        "log_format",
        "max_plain_body",
    )

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
        self._https_port = config.redirect_https

    def find(self, hostname: str, path: bytes, method: bytes) -> Destination:
        """Where a request goes: by the first route that matches, or to the listener's own pool."""
        index = self._router.find(hostname, path, method)
        return self._default if index is None else self._routes[index]

    def settle(self, head: RequestHead, audience: Audience) -> tuple[Destination, Reply]:
        """Where a request goes, and what it is answered if that is nowhere."""
        if audience.serves is not None and not audience.serves(head.hostname):
            return NOWHERE, Fault.MISDIRECTED.reply()
        if self._https_port is not None:
            return NOWHERE, _redirect(head, self._https_port)
        return self.find(head.hostname, head.path, head.method), Fault.NO_ROUTE.reply()


class HttpListener(StreamListener):
    """One HTTP listener, as one generation of the configuration has it.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        pools: of the same generation.
        generation: of the configuration.
        log_format: how requests are logged.
    """

    __slots__ = (
        "_planners",
        "directions",
        "planner",
        "trusted",
        "trusted_planner",
    )

    lineage: Lineage[HttpListener]

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        pools: dict[str, Balancer],
        generation: int,
        log_format: LogFormat = JSON,
    ) -> None:
        super().__init__(name, config, generation, log_format)
        self.trusted = config.trusted_proxies
        self.directions = Directions(config, pools, log_format)
        self.planner = Planner(self.directions, trusted=False)
        self.trusted_planner = Planner(self.directions, trusted=True)
        self._planners: dict[tuple[bool, str, str | None], Planner] = {
            (False, IN_CLEAR.scheme, None): self.planner,
            (True, IN_CLEAR.scheme, None): self.trusted_planner,
        }
        """By trust, scheme, and for TLS that ends here the domain: few, all made of configurations."""

    def open(self, transport: Transport, context: WorkerContext) -> Client:
        """Makes what serves a new connection."""
        if self.door is not None:
            return Opening(transport, self, self.door, context)
        return ClientConnection(transport, self, context)

    def planner_for(self, arrival: Arrival, *, trusted: bool) -> Planner:
        """What makes the plans for the requests of a connection.

        Args:
            arrival: how it came.
            trusted: its other end is a trusted proxy.
        """
        scheme = IN_CLEAR.scheme if arrival.client_tls is None else "https"
        domain = None if arrival.tls is None else arrival.domain
        planner = self._planners.get((trusted, scheme, domain))
        if planner is None:
            hosts = None if self.door is None else self.door.hosts
            serves = None if hosts is None or domain is None else hosts.judge_of(domain)
            planner = Planner(self.directions, Audience(scheme, serves), trusted=trusted)
            self._planners[trusted, scheme, domain] = planner
        return planner

    def continues(self, before: Listener) -> bool:
        """Whether connections may go on; not when TLS has come or gone."""
        return super().continues(before) and (before.config.tls is None) is (self.config.tls is None)

    def begin(
        self, transport: Transport, context: WorkerContext, arrival: Arrival, received: bytes = b""
    ) -> Client:
        """Makes what serves a connection once it is known how it came."""
        return ClientConnection(transport, self, context, arrival, received)

    def retire(self) -> None:
        """Another form has its place, or none. It may still be asked, and remembers no heads for that."""
        for planner in self._planners.values():
            planner.forget()
