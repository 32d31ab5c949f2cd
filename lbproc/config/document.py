"""The merged document of a configuration, read leniently, for rules that look at more than one key.

Owns how such rules look: what has another type than it should is not there, and a value that is wrong in
itself is passed over, because it is reported elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from lbproc.config.place import BindAddress, SocketPath, Surroundings
from lbproc.config.wording import KeyPath, dotted
from lbproc.types import Address, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lbproc.config.source import Source

PROTOCOLS: Final = ("http", "tcp", "udp", "tls_passthrough")

_Value = TypeVar("_Value")

_BIND: Final[TypeAdapter[Address]] = TypeAdapter(BindAddress)
_SOCKET: Final[TypeAdapter[Path]] = TypeAdapter(SocketPath)


@dataclass(frozen=True, slots=True)
class Use:
    """One place that names a pool.

    Args:
        path: of the key.
        protocol: what goes to the pool.
        is_tls: whether clients speak TLS there.
    """

    path: KeyPath
    protocol: str
    is_tls: bool


class Document:
    """The merged document, read leniently: what has another type than it should is not there."""

    def __init__(self, source: Source, around: Surroundings) -> None:
        self.problem = source.problem
        self.place = source.place
        self.listeners = dict(tables_in(source.document.get("listeners")))
        self.pools = dict(tables_in(source.document.get("pools")))
        self.limits = dict(tables_in(source.document.get("limits")))
        self.pool_names = dict.fromkeys(names_in(source.document.get("pools")))
        self.raw = source.document
        self._around = around

    def read(self, kind: TypeAdapter[_Value], value: object) -> _Value | None:
        """A value in its finished form, or None if it is wrong in itself."""
        try:
            return kind.validate_python(value, context=self._around)
        except ValidationError:
            return None

    def at(self, path: KeyPath) -> str:
        """A key with its place, for a message about another one."""
        file, line = self.place(path)
        return f"{dotted(path)} ({file}:{line})"

    def routes(self, listener: str) -> list[dict[str, Any]]:
        """The routes of a listener; what is no table counts as an empty one, so that places stay right."""
        routes = self.listeners[listener].get("routes")
        return (
            [route if isinstance(route, dict) else {} for route in routes] if isinstance(routes, list) else []
        )

    def protocol(self, listener: str) -> str:
        """What clients of a listener speak; empty if that is wrong in itself."""
        protocol = self.listeners[listener].get("protocol", "http")
        return protocol if protocol in PROTOCOLS else ""

    def has_tls(self, listener: str) -> bool:
        """Whether connections of a listener are decrypted here."""
        return "tls" in self.listeners[listener]

    def passed_through(self, listener: str) -> list[tuple[str, object]]:
        """The hosts that a listener with TLS does not decrypt, and their pools."""
        tls = self.listeners[listener].get("tls")
        passthrough = tls.get("passthrough") if isinstance(tls, dict) else None
        return list(passthrough.items()) if isinstance(passthrough, dict) else []

    def uses(self) -> dict[str, list[Use]]:
        """Who sends what to each pool that is named anywhere."""
        found: dict[str, list[Use]] = {}
        for name, listener in self.listeners.items():
            protocol, has_tls = self.protocol(name), self.has_tls(name)
            named: list[tuple[KeyPath, object, str]] = [(("pool",), listener.get("pool"), protocol)]
            for place, route in enumerate(self.routes(name)):
                named.append((("routes", place, "pool"), route.get("pool"), protocol))
            for host, pool in self.passed_through(name):
                named.append((("tls", "passthrough", host), pool, "tls_passthrough"))
            for path, pool, spoken in named:
                if isinstance(pool, str) and spoken:
                    is_tls = has_tls or spoken == "tls_passthrough"
                    found.setdefault(pool, []).append(Use(("listeners", name, *path), spoken, is_tls))
        return found

    def binds(self) -> Iterator[tuple[KeyPath, Address]]:
        """Every address that is listened on, and its path."""
        for name, listener in self.listeners.items():
            yield from self._addresses(("listeners", name, "bind"), listener.get("bind"))
        admin = self.raw.get("admin")
        if isinstance(admin, dict):
            yield from self._addresses(("admin", "bind"), admin.get("bind"))
        runtime = self.raw.get("runtime")
        if (
            isinstance(runtime, dict)
            and (path := self.read(_SOCKET, runtime.get("control_socket"))) is not None
        ):
            yield ("runtime", "control_socket"), UnixAddress(str(path))

    def _addresses(self, path: KeyPath, value: object) -> Iterator[tuple[KeyPath, Address]]:
        """The addresses of one ``bind``."""
        elements = (
            [((*path, place), one) for place, one in enumerate(value)]
            if isinstance(value, list)
            else [(path, value)]
        )
        for where, element in elements:
            if (address := self.read(_BIND, element)) is not None:
                yield where, address


def tables_in(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables in a table, by name."""
    for name, table in value.items() if isinstance(value, dict) else ():
        if isinstance(table, dict):
            yield name, table


def names_in(value: object) -> Iterator[str]:
    """The names in a table."""
    yield from value if isinstance(value, dict) else ()


def list_in(value: object) -> list[Any]:
    """A list, or an empty one in place of anything else."""
    return value if isinstance(value, list) else []
