"""What several keys may be together: references, duplicates, and settings that cannot work or do nothing.

Owns all rules that look at more than one key. They look at the merged document, not at a finished
``Config``, and pass over what is wrong in itself, so that one bad value never hides another problem.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from lbproc.config.document import Document, list_in, names_in
from lbproc.config.health_rules import health_rules
from lbproc.config.limit_rules import limit_rules
from lbproc.config.model import MatchConfig, RouteConfig, RuntimeConfig
from lbproc.config.outlier_rules import outlier_rules
from lbproc.config.place import BindAddress, Surroundings, TargetAddress
from lbproc.config.pool_rules import pool_rules
from lbproc.config.protocol_rules import protocol_rules
from lbproc.config.retry_rules import retry_rules
from lbproc.config.shadow import shadowed
from lbproc.config.tls_rules import tls_rules
from lbproc.config.values import NAME_REMEDY, is_name
from lbproc.config.wording import KeyPath, dotted, nearest, quote
from lbproc.types import Address, TcpAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lbproc.config.problem import Problem
    from lbproc.config.source import Source

OTHER_COLUMNS: Final = 3
"""Columns besides the workers': nobody's, the supervisor's, the controller's."""

MOST_NAMES_COMPARED: Final = 50
"""Names that a missing one is compared with. The first ones do, and a hostile file has many."""

_BIND: Final[TypeAdapter[Address]] = TypeAdapter(BindAddress)
_TARGET: Final[TypeAdapter[Address]] = TypeAdapter(TargetAddress)
_MATCH: Final = TypeAdapter(MatchConfig)
_RUNTIME: Final = TypeAdapter(RuntimeConfig)
_ROUTE_KEYS: Final = RouteConfig.model_fields.keys()


def crosscheck(source: Source, around: Surroundings) -> list[Problem]:
    """Applies every rule; gives what they find, in no order."""
    document = Document(source, around)
    return [problem for rule in _RULES for problem in rule(document)]


def _names_read(document: Document) -> Iterator[Problem]:
    """Names of listeners, pools and limits can be typed, logged, and split from what follows a slash."""
    for table in ("listeners", "pools", "limits"):
        for name in names_in(document.raw.get(table)):
            if not is_name(name):
                yield document.problem((table, name), f"{quote(name)} is not a name", NAME_REMEDY)


def _something_listens(document: Document) -> Iterator[Problem]:
    """There is a listener at all."""
    if document.raw.get("listeners") == {}:
        yield document.problem(
            ("listeners",), "holds no listener", 'add [listeners.web] with bind = "0.0.0.0:8080"'
        )


def _listeners_lead_somewhere(document: Document) -> Iterator[Problem]:
    """A listener has a pool or a route, else it answers 404 to all."""
    for name, listener in document.listeners.items():
        if "pool" not in listener and not listener.get("routes") and not listener.get("redirect_https"):
            yield document.problem(
                ("listeners", name, "pool"),
                "is missing, and there are no routes",
                'add pool = "NAME", or a route',
            )


def _pools_exist(document: Document) -> Iterator[Problem]:
    """Every pool that is named is there."""
    for name, listener in document.listeners.items():
        named: list[tuple[KeyPath, object]] = [(("listeners", name, "pool"), listener.get("pool"))]
        for place, route in enumerate(document.routes(name)):
            named.append((("listeners", name, "routes", place, "pool"), route.get("pool")))
        named += [
            (("listeners", name, "tls", "passthrough", host), pool)
            for host, pool in document.passed_through(name)
        ]
        for path, pool in named:
            if isinstance(pool, str) and pool not in document.pool_names:
                right = _existing_pool(pool, tuple(document.pool_names)[:MOST_NAMES_COMPARED])
                yield document.problem(path, f"there is no pool {quote(pool)}", right)


def _existing_pool(pool: str, known: tuple[str, ...]) -> str:
    """What to write instead of the name of a pool that is not there."""
    guess = nearest(pool, known)
    if guess is not None:
        return f"did you mean {quote(guess)}?"
    if known:
        return f"name one that is there, such as {quote(known[0])}, or add [{dotted(('pools', pool))}]"
    return f'add [{dotted(("pools", pool))}] with backends = ["10.0.0.1:8000"]'


def _binds_differ(document: Document) -> Iterator[Problem]:
    """No two keys listen on the same address, and none on one that another has taken with all others."""
    seen: dict[tuple[bool, Address], KeyPath] = {}
    wildcards: dict[tuple[bool, bool, int], KeyPath] = {}
    literals: dict[tuple[bool, bool, int], KeyPath] = {}
    for path, address in document.binds():
        is_udp = path[0] == "listeners" and document.protocol(str(path[1])) == "udp"  # has ports of its own
        other = seen.get((is_udp, address))
        if isinstance(address, TcpAddress) and address.port != 0:
            group = (is_udp, ":" in address.host, address.port)
            is_wildcard = ip_address(address.host).is_unspecified
            other = other or wildcards.get(group) or (literals.get(group) if is_wildcard else None)
            (wildcards if is_wildcard else literals).setdefault(group, path)
        elif isinstance(address, TcpAddress):
            continue  # any free port: a different one each time
        if other is None:
            seen[is_udp, address] = path
            continue
        same = "is" if seen.get((is_udp, address)) == other else "overlaps"
        yield document.problem(
            path,
            f"{quote(str(address))} {same} the address of {document.at(other)}",
            "write another address or port",
        )


def _admin_is_guarded(document: Document) -> Iterator[Problem]:
    """An admin listener that other machines can reach asks for a token."""
    admin = document.raw.get("admin")
    if not isinstance(admin, dict) or "token" in admin:
        return
    address = document.read(_BIND, admin.get("bind"))
    if isinstance(address, TcpAddress) and not ip_address(address.host).is_loopback:
        yield document.problem(
            ("admin", "token"),
            f"is missing, and other machines may reach {address}",
            f'add token = {{ env = "LBPROC_ADMIN_TOKEN" }}, or bind to "127.0.0.1:{address.port}"',
        )


def _route_names_differ(document: Document) -> Iterator[Problem]:
    """Routes of a listener have different names; one without a name is named by its place."""
    for listener in document.listeners:
        seen: dict[str, KeyPath] = {}
        for place, route in enumerate(document.routes(listener)):
            path: KeyPath = ("listeners", listener, "routes", place)
            name = route.get("name", str(place))
            if not isinstance(name, str):
                continue
            if name in seen:
                what = f"{quote(name)} is the name of {document.at(seen[name])} already"
                yield document.problem(
                    (*path, "name"), what, "give each route of a listener a name of its own"
                )
            seen.setdefault(name, path)


def _routes_are_reached(document: Document) -> Iterator[Problem]:
    """Every route can be taken by some request."""
    for listener in document.listeners:
        matches = [
            # A route with an unknown key may lack the conditions that were meant, and is compared with none.
            document.read(_MATCH, route.get("match", {}))
            if route and not route.keys() - _ROUTE_KEYS
            else None
            for route in document.routes(listener)
        ]
        for later, earlier in shadowed(matches):
            path: KeyPath = ("listeners", listener, "routes", later)
            first = document.at(("listeners", listener, "routes", earlier))
            yield document.problem(
                path,
                f"is never taken: {first} takes all its requests",
                "move it above that route, or narrow that one",
            )


def _backends_differ(document: Document) -> Iterator[Problem]:
    """Backends of a pool have different addresses and different names."""
    for pool, table in document.pools.items():
        names: dict[str, KeyPath] = {}
        addresses: dict[str, KeyPath] = {}
        for place, backend in enumerate(list_in(table.get("backends"))):
            path: KeyPath = ("pools", pool, "backends", place)
            given = backend if isinstance(backend, dict) else {"address": backend}
            address = document.read(_TARGET, given.get("address"))
            if address is None:
                continue
            if str(address) in addresses:
                what = (
                    f"{quote(str(address))} is the address of {document.at(addresses[str(address)])} already"
                )
                yield document.problem(path, what, 'keep one of them; its "weight" gives it a larger share')
                continue
            addresses[str(address)] = path
            name = given.get("name", str(address))
            if isinstance(name, str) and name in names:
                what = f"{quote(name)} is the name of {document.at(names[name])} already"
                yield document.problem((*path, "name"), what, "give each backend of a pool a name of its own")
            elif isinstance(name, str):
                names[name] = path


def _hash_key_is_used(document: Document) -> Iterator[Problem]:
    """``ip_hash`` looks at the client's address and nothing else."""
    for pool, table in document.pools.items():
        if table.get("policy") == "ip_hash" and table.get("hash_key", "client_ip") != "client_ip":
            yield document.problem(
                ("pools", pool, "hash_key"),
                'is not looked at by policy = "ip_hash"',
                'write policy = "consistent_hash", or leave out hash_key',
            )


def _table_has_room(document: Document) -> Iterator[Problem]:
    """Workers and backends fit into the shared table."""
    runtime = document.read(_RUNTIME, document.raw.get("runtime", {}))
    if runtime is None:
        return
    backends = sum(len(list_in(table.get("backends"))) for table in document.pools.values())
    if backends > runtime.max_backends:
        what = f"is {runtime.max_backends}, and the pools have {backends} backends"
        yield document.problem(("runtime", "max_backends"), what, f"write at least {backends}")
    if isinstance(runtime.workers, int) and runtime.workers + OTHER_COLUMNS > runtime.max_columns:
        need = runtime.workers + OTHER_COLUMNS
        what = f"is {runtime.max_columns}, too few for {runtime.workers} workers"
        yield document.problem(
            ("runtime", "max_columns"), what, f"write at least {need}, or have fewer workers"
        )


_RULES: Final[tuple[Callable[[Document], Iterator[Problem]], ...]] = (
    _names_read,
    _something_listens,
    _listeners_lead_somewhere,
    _pools_exist,
    _binds_differ,
    _admin_is_guarded,
    _route_names_differ,
    _routes_are_reached,
    _backends_differ,
    _hash_key_is_used,
    _table_has_room,
    health_rules,
    retry_rules,
    outlier_rules,
    protocol_rules,
    tls_rules,
    pool_rules,
    limit_rules,
)
