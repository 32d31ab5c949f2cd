"""What belongs to the host that a client names: the exact name, else a wildcard, else a default.

Owns the order in which they win, and how far a wildcard reaches. Does not know what it finds. Certificates
reach one label deep, as clients judge them (RFC 9525 section 6.3); routes and the names that are passed
through reach any depth, as ``match.host`` of a route does. A wildcard is never good for the name itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

_Value = TypeVar("_Value")


class HostTable(Generic[_Value]):
    """A table of hosts.

    Args:
        hosts: names, or ``*.example.com``, each with what belongs to it; the first of equal ones counts.
        default: what belongs to all others, and to clients that name no host.
        any_depth: a wildcard is good for ``a.b.example.com`` too; of several the longest wins.
    """

    __slots__ = ("_any_depth", "_by_name", "_has_wildcards", "default")

    def __init__(
        self, hosts: Iterable[tuple[str, _Value]], default: _Value | None = None, *, any_depth: bool = False
    ) -> None:
        self._by_name: dict[str, _Value] = {}
        for host, found in hosts:
            self._by_name.setdefault(host.lower().removesuffix("."), found)
        self._has_wildcards = any(name.startswith("*.") for name in self._by_name)
        self._any_depth = any_depth
        self.default = default

    def __bool__(self) -> bool:
        """Whether any host is in it."""
        return bool(self._by_name)

    def values(self) -> list[_Value]:
        """What belongs to each of its hosts."""
        return list(self._by_name.values())

    def find(self, name: str | None) -> _Value | None:
        """What belongs to a host by its name alone, or None.

        Args:
            name: lower case, without a last dot; None finds nothing.
        """
        found = self._match(name)
        return None if found is None else self._by_name[found]

    def is_closer(self, name: str | None, other: HostTable[Any]) -> bool:
        """Whether a host is in this table, and by a closer name than in another one, if in that at all.

        The name itself is closer than any wildcard, and a longer wildcard than a shorter one.
        """
        mine = self._match(name)
        if mine is None:
            return False
        theirs = other._match(name)
        return theirs is None or (mine == name, len(mine)) > (theirs == name, len(theirs))

    def _match(self, name: str | None) -> str | None:
        """By which entry a host is in the table."""
        by_name = self._by_name
        if name is None or name in by_name:
            return name
        if not self._has_wildcards:
            return None
        _, dot, parent = name.partition(".")
        while dot:
            wildcard = f"*.{parent}"
            if wildcard in by_name:
                return wildcard
            if not self._any_depth:
                return None
            _, dot, parent = parent.partition(".")
        return None

    def choose(self, name: str | None) -> _Value | None:
        """What belongs to a host, or the default."""
        found = self.find(name)
        return self.default if found is None else found
