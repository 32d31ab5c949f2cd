"""What a listener asks of a connection before its protocol begins: a PROXY header, TLS.

Owns the answers that follow from the configuration: who may send a header, what belongs to the host that a
client names, and which hosts may be asked for on a connection. What is done with them is ``proxy.opening``'s.
A listener that asks for neither has no door, and pays nothing for it.

Hosts whose clients show the same kind of certificate, or none, are a *domain*. A connection of one domain may
ask for its hosts and for no other, because its client has shown what that domain asks for and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.tls.certificate import load_reader
from lbproc.core.tls.hosts import HostTable
from lbproc.net.tls.context import HTTP_ALPN
from lbproc.net.tls.sites import build_sites
from lbproc.proxy.destination import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lbproc.config.model import ListenerConfig
    from lbproc.core.http.forwarding import Networks
    from lbproc.net.tls.sites import Site
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Seconds

TOLD_EVERY: Seconds = 1.0
"""Between two events about refused headers, for each listener and worker: strangers may cause any number."""


class Hosts:
    """The hosts of a listener with TLS.

    Args:
        sites: those that are decrypted here; its default is for all others.
        passed: those that are passed through.
    """

    __slots__ = ("_domains", "_passed", "_sites")

    def __init__(self, sites: HostTable[Site], passed: HostTable[Destination]) -> None:
        self._sites = sites
        self._passed = passed
        self._domains = {site.domain for site in sites.values()}
        """Of all hosts and the default: every new connection asks for its own."""
        if sites.default is not None:
            self._domains.add(sites.default.domain)

    def choose(self, server_name: str | None) -> Site | Destination | None:
        """What belongs to the host that a client names; None: it is turned away."""
        if self._passed and self._passed.is_closer(server_name, self._sites):
            return self._passed.find(server_name)
        return self._sites.choose(server_name)

    def has_domain(self, domain: str) -> bool:
        """Whether any host is of a domain."""
        return domain in self._domains

    def judge_of(self, domain: str) -> Callable[[str], bool] | None:
        """What says whether a host may be asked for on connections of a domain; None: any may."""
        sites, passed = self._sites, self._passed
        if sites.default is not None and self._domains == {domain} and not passed:
            return None

        def serves(hostname: str) -> bool:
            if not hostname:  # HTTP/1.0: whatever the client has connected to
                return True
            if passed and passed.is_closer(hostname, sites):
                return False
            site = sites.choose(hostname)
            return site is not None and site.domain == domain

        return serves


class Door:
    """What one form of a listener asks for.

    Args:
        trusted: who may come, and begins with a PROXY header; None: nobody does.
        hosts: None: clients speak in clear.
        speaks_http: what is inside is HTTP.

    Attributes:
        trusted: as given.
        hosts: as given.
        speaks_http: as given.
    """

    __slots__ = ("_refused", "_told_at", "hosts", "speaks_http", "trusted")

    def __init__(self, trusted: Networks | None, hosts: Hosts | None, *, speaks_http: bool) -> None:
        self.trusted = trusted
        self.hosts = hosts
        self.speaks_http = speaks_http
        self._refused = 0
        self._told_at = -TOLD_EVERY

    def count_refused(self, now: float) -> int:
        """Counts a header that was refused. Returns how many are to be told of now: 0 for none."""
        self._refused += 1
        if now < self._told_at + TOLD_EVERY:
            return 0
        refused, self._refused, self._told_at = self._refused, 0, now
        return refused


def make_door(
    name: str, config: ListenerConfig, pools: Mapping[str, Balancer], context: WorkerContext
) -> Door | None:
    """The door of a listener, if it has one. Takes milliseconds for each certificate.

    Raises:
        ConfigError: OpenSSL refuses something.
        StartError: what reads certificates of clients cannot be loaded.
    """
    if config.tls is None and not config.proxy_protocol:
        return None
    trusted = config.trusted_proxies if config.proxy_protocol else None
    speaks_http = config.protocol == "http"
    if config.tls is None:
        return Door(trusted, None, speaks_http=speaks_http)
    if config.tls.asks_clients:
        load_reader()  # at a start it is there already; a reload may be the first to need it
    passed = HostTable(
        [(host, Destination(None, pools[pool])) for host, pool in config.tls.passthrough.items()],
        any_depth=True,
    )
    sites = build_sites(
        name,
        config.tls,
        context.enroll_tickets,
        context.wall_clock.seconds(),
        HTTP_ALPN if speaks_http else (),
    )
    return Door(trusted, Hosts(sites, passed), speaks_http=speaks_http)
