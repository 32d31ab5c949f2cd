"""What the keys of ``[pools.NAME.health]`` may be together, and together with their pool.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself. A key at its default is always right, so that what ``config show`` writes can be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from lbproc.config.health import CheckTimeout, DoubtInterval, Interval
from lbproc.config.place import TargetAddress
from lbproc.config.tls_rules import authorities_are_looked_at
from lbproc.config.wording import listed, quote
from lbproc.types import Address, UnixAddress
from lbproc.units import render_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem
    from lbproc.config.wording import KeyPath


_INTERVAL: Final = TypeAdapter[float](Interval)
_DOUBT_INTERVAL: Final = TypeAdapter[float](DoubtInterval)
_TIMEOUT: Final = TypeAdapter[float](CheckTimeout)
_TARGET: Final[TypeAdapter[Address]] = TypeAdapter(TargetAddress)

_ONLY: Final[dict[str, tuple[str, ...]]] = {
    "path": ("http",),
    "method": ("http",),
    "headers": ("http",),
    "host": ("http",),
    "liveness_path": ("http",),
    "send": ("tcp", "tls", "udp"),
    "tls": ("http", "tls"),
}
"""Keys that only some kinds of check look at."""

_DEFAULTS: Final[dict[str, object]] = {"path": "/", "method": "GET", "headers": {}}


def health_rules(document: Document) -> Iterator[Problem]:
    """Applies all of them to every pool."""
    for name, pool in document.pools.items():
        table = pool.get("health")
        if isinstance(table, dict):
            path: KeyPath = ("pools", name, "health")
            yield from _spans_fit(document, path, table)
            yield from _keys_are_looked_at(document, path, table)
            yield from _answers_can_be_judged(document, path, table)
            yield from authorities_are_looked_at(document, path, table)
            yield from _place_is_one(document, path, table, pool)
            yield from _datagrams_arrive(document, path, table, pool)


def _spans_fit(document: Document, path: KeyPath, table: dict[str, Any]) -> Iterator[Problem]:
    """A check ends before the next begins, and is not slower in doubt: the time to notice hangs on both."""
    interval = document.read(_INTERVAL, table.get("interval", "2s"))
    if interval is None:
        return
    for key, kind in (("timeout", _TIMEOUT), ("doubt_interval", _DOUBT_INTERVAL)):
        span = document.read(kind, table[key]) if key in table else None
        if span is not None and span > interval:
            whose = document.at((*path, "interval")) if "interval" in table else "the default of interval"
            yield document.problem(
                (*path, key),
                f'is "{render_duration(span)}", longer than {whose}',
                f'write at most "{render_duration(interval)}", or a longer interval',
            )


def _keys_are_looked_at(document: Document, path: KeyPath, table: dict[str, Any]) -> Iterator[Problem]:
    """No key is there that the kind of check does not look at."""
    check = table.get("check", "http")
    if not isinstance(check, str) or check not in {"http", "tcp", "tls", "udp"}:
        return
    for key, kinds in _ONLY.items():
        if check not in kinds and key in table and table[key] != _DEFAULTS.get(key):
            yield _unused(document, (*path, key), check, kinds)
    expect = table.get("expect")
    if (
        check != "http"
        and isinstance(expect, dict)
        and expect.get("status", "200-299")
        not in (
            "200-299",
            ["200-299"],
        )
    ):
        yield _unused(document, (*path, "expect", "status"), check, ("http",))


def _unused(document: Document, path: KeyPath, check: str, kinds: tuple[str, ...]) -> Problem:
    others = listed(f'check = "{kind}"' for kind in kinds)
    return document.problem(
        path, f'is not looked at by check = "{check}"', f"leave it out, or write {others}"
    )


def _answers_can_be_judged(document: Document, path: KeyPath, table: dict[str, Any]) -> Iterator[Problem]:
    """No text is looked for where there is none."""
    expect = table.get("expect")
    asks_for_head = table.get("check", "http") == "http" and table.get("method") == "HEAD"
    if asks_for_head and isinstance(expect, dict) and "body" in expect:
        yield document.problem(
            (*path, "expect", "body"),
            'is never there: method = "HEAD" asks for no body',
            'write method = "GET", or leave it out',
        )


def _place_is_one(
    document: Document, path: KeyPath, table: dict[str, Any], pool: dict[str, Any]
) -> Iterator[Problem]:
    """What is connected to is said once, and a port belongs to an IP address or a name."""
    if "port" not in table:
        return
    if "address" in table:
        yield document.problem(
            (*path, "port"),
            f"is not looked at beside {document.at((*path, 'address'))}",
            "leave out one of them",
        )
        return
    backends = pool.get("backends")
    for place, backend in enumerate(backends if isinstance(backends, list) else ()):
        given = backend.get("address") if isinstance(backend, dict) else backend
        if isinstance(address := document.read(_TARGET, given), UnixAddress):
            where = document.at(("pools", path[1], "backends", place))
            yield document.problem(
                (*path, "port"), f"{quote(str(address))} of {where} has no ports", "leave out port"
            )


def _datagrams_arrive(
    document: Document, path: KeyPath, table: dict[str, Any], pool: dict[str, Any]
) -> Iterator[Problem]:
    """What is asked by a datagram has an IP address."""
    if table.get("check") != "udp":
        return
    right = 'write an address with a port, or check = "tcp"'
    if "address" in table:
        address = document.read(_TARGET, table["address"])
        if isinstance(address, UnixAddress):
            yield document.problem(
                (*path, "address"), "is a Unix socket, which takes no datagrams here", right
            )
        return
    backends = pool.get("backends")
    for place, backend in enumerate(backends if isinstance(backends, list) else ()):
        given = backend.get("address") if isinstance(backend, dict) else backend
        if isinstance(found := document.read(_TARGET, given), UnixAddress):
            where = document.at(("pools", path[1], "backends", place))
            yield document.problem(
                (*path, "check"), f"{quote(str(found))} of {where} is a Unix socket", right
            )
