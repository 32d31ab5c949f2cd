"""Which route a request takes.

Owns the matching of host, path and method. Does not know what a route leads to: it answers with the place in
the list. Invariant: the first route of which all conditions hold wins, exactly as if they were tried one by
one; looking hosts up first only leaves out routes that cannot match.

Paths are compared as they were sent: nothing is decoded and no dot segments are resolved, so that a backend
sees what the route saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Match(Protocol):
    """The conditions of one route. An empty condition always holds; of several values one is enough."""

    @property
    def host(self) -> Sequence[str]:
        """Names, or ``*.example.com`` for every name below example.com at any depth, but not itself."""

    @property
    def path(self) -> Sequence[str]:
        """Whole paths."""

    @property
    def path_prefix(self) -> Sequence[str]:
        """Whole segments: ``/v1`` is good for ``/v1`` and ``/v1/x``, not for ``/v10``."""

    @property
    def method(self) -> Sequence[str]:
        """Methods, case-sensitive as in HTTP."""


class Route(Protocol):
    """What has conditions: a route of the configuration."""

    @property
    def match(self) -> Match:
        """When it is taken."""


class _Compiled:
    """One route in the form that is compared."""

    __slots__ = ("any_host", "any_path", "exact_hosts", "index", "methods", "paths", "prefixes", "suffixes")

    def __init__(self, index: int, match: Match) -> None:
        hosts = [_normal_host(host) for host in match.host]
        self.index = index
        self.any_host = not hosts
        self.exact_hosts = frozenset(host for host in hosts if not host.startswith("*."))
        self.suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))
        self.any_path = not match.path and not match.path_prefix
        self.paths = frozenset(path.encode() for path in _with_bare_prefixes(match))
        self.prefixes = tuple(prefix.rstrip("/").encode() + b"/" for prefix in match.path_prefix)
        self.methods = frozenset(method.encode() for method in match.method)

    def matches_host(self, hostname: str) -> bool:
        return self.any_host or hostname in self.exact_hosts or hostname.endswith(self.suffixes)

    def matches_rest(self, path: bytes, method: bytes) -> bool:
        if self.methods and method not in self.methods:
            return False
        return self.any_path or path in self.paths or path.startswith(self.prefixes)


class Router:
    """Finds the route of a request.

    Args:
        routes: in the order of the configuration.
    """

    __slots__ = ("_by_host", "_others")

    def __init__(self, routes: Iterable[Route]) -> None:
        compiled = [_Compiled(index, route.match) for index, route in enumerate(routes)]
        named = {host for route in compiled for host in route.exact_hosts}
        self._by_host = {
            host: tuple(route for route in compiled if route.matches_host(host)) for host in named
        }
        self._others = tuple(route for route in compiled if route.any_host or route.suffixes)

    def find(self, hostname: str, path: bytes, method: bytes) -> int | None:
        """The place of the first route that matches, or None.

        Args:
            hostname: lower case, without port and last dot.
            path: the target up to ``?``, as sent.
            method: as sent.
        """
        routes = self._by_host.get(hostname)
        if routes is not None:  # these match the host already
            for route in routes:
                if route.matches_rest(path, method):
                    return route.index
            return None
        for route in self._others:
            if route.matches_host(hostname) and route.matches_rest(path, method):
                return route.index
        return None


def _normal_host(host: str) -> str:
    return host.lower().removesuffix(".")


def _with_bare_prefixes(match: Match) -> Iterable[str]:
    """Whole paths, and prefixes without a last slash: ``/v1`` is good for ``/v1`` itself, ``/v1/`` is not."""
    yield from match.path
    for prefix in match.path_prefix:
        if not prefix.endswith("/"):
            yield prefix
