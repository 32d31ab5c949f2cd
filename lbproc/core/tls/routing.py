"""Which route a connection takes by its ClientHello, where what is inside of TLS is nobody's business here.

Owns the matching of server name and protocols. Does not know what a route leads to: it answers with the place
in the list. Invariant: the first route of which all conditions hold wins, exactly as if they were tried one
by one; looking names up first only leaves out routes that cannot match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


class HelloMatch(Protocol):
    """The conditions of one route. An empty condition always holds; of several values one is enough."""

    @property
    def sni(self) -> Sequence[str]:
        """Names, or ``*.example.com`` for every name below example.com at any depth, but not itself."""

    @property
    def alpn(self) -> Sequence[str]:
        """Protocols, of which the client offers one."""


class HelloRoute(Protocol):
    """What has conditions: a route of the configuration."""

    @property
    def match(self) -> HelloMatch:
        """When it is taken."""


class _Compiled:
    """One route in the form that is compared."""

    __slots__ = ("alpn", "any_name", "index", "names", "suffixes")

    def __init__(self, index: int, match: HelloMatch) -> None:
        names = [name.lower().removesuffix(".") for name in match.sni]
        self.index = index
        self.any_name = not names
        self.names = frozenset(name for name in names if not name.startswith("*."))
        self.suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self.alpn = frozenset(protocol.encode() for protocol in match.alpn)

    def matches_name(self, name: str) -> bool:
        return self.any_name or name in self.names or name.endswith(self.suffixes)

    def matches_alpn(self, offered: Collection[bytes]) -> bool:
        return not self.alpn or not self.alpn.isdisjoint(offered)


class HelloRouter:
    """Finds the route of a connection.

    Args:
        routes: in the order of the configuration.
    """

    __slots__ = ("_by_name", "_others")

    def __init__(self, routes: Iterable[HelloRoute]) -> None:
        compiled = [_Compiled(index, route.match) for index, route in enumerate(routes)]
        named = {name for route in compiled for name in route.names}
        self._by_name = {
            name: tuple(route for route in compiled if route.matches_name(name)) for name in named
        }
        self._others = tuple(route for route in compiled if route.any_name or route.suffixes)

    def find(self, server_name: str | None, alpn: Collection[bytes]) -> int | None:
        """The place of the first route that matches, or None.

        Args:
            server_name: that the client asks for, in lower case and without a last dot; None without one.
            alpn: the protocols that it offers.
        """
        name = server_name or ""  # which no condition on names holds for
        routes = self._by_name.get(name)
        if routes is None:
            routes = tuple(route for route in self._others if route.matches_name(name))
        for route in routes:
            if route.matches_alpn(alpn):
                return route.index
        return None
