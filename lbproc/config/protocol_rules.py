"""Which keys of a listener make sense for which protocol.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself. A key at its default is always right, so that what ``config show`` writes can be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from lbproc.config.model import ListenerConfig, ListenerTimeouts, MatchConfig
from lbproc.config.wording import listed, quote
from lbproc.types import UnixAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document
    from lbproc.config.problem import Problem
    from lbproc.config.table import Table
    from lbproc.config.wording import KeyPath

_ONLY: Final[dict[str, tuple[str, ...]]] = {
    "routes": ("http", "tls_passthrough"),
    "tls": ("http", "tcp"),
    "redirect_https": ("http",),
    "max_header_size": ("http",),
    "max_header_count": ("http",),
    "max_body_size": ("http",),
    "underscore_headers": ("http",),
}
"""Keys that only some protocols look at; all others are for every one."""

_ONLY_TIMEOUTS: Final[dict[str, tuple[str, ...]]] = {
    "header": ("http", "tls_passthrough", "tcp"),
    "body": ("http",),
    "idle": ("http", "udp"),
    "write": ("http",),
    "tunnel": ("http", "tcp", "tls_passthrough"),
}

_ONLY_MATCH: Final[dict[str, tuple[str, ...]]] = {
    "host": ("http",),
    "path": ("http",),
    "path_prefix": ("http",),
    "method": ("http",),
    "sni": ("tls_passthrough",),
    "alpn": ("tls_passthrough",),
}

_LISTENER: Final = TypeAdapter(ListenerConfig)
_TIMEOUTS: Final = TypeAdapter(ListenerTimeouts)
_MATCH: Final = TypeAdapter(MatchConfig)
_SOMEWHERE: Final = "unix:/x"


def protocol_rules(document: Document) -> Iterator[Problem]:
    """Applies all of them to every listener."""
    for name, table in document.listeners.items():
        protocol = document.protocol(name)
        if not protocol:
            continue
        path: KeyPath = ("listeners", name)
        yield from _keys_are_looked_at(document, path, table, protocol)
        yield from _conditions_can_hold(document, name, protocol)
        yield from _proxies_are_trusted(document, path, table, protocol)
        if protocol == "http":
            yield from _redirect_leads_elsewhere(document, path, table)
        if protocol == "udp":
            yield from _addresses_have_ports(document, path)


def _keys_are_looked_at(
    document: Document, path: KeyPath, table: dict[str, Any], protocol: str
) -> Iterator[Problem]:
    """No key is there that the protocol does not look at."""
    for key, protocols in _ONLY.items():
        if protocol in protocols or key not in table:
            continue
        if key == "tls" or not _is_default(
            document, _LISTENER, {"bind": _SOMEWHERE, key: table[key]}, key, ListenerConfig
        ):
            yield _unused(document, (*path, key), protocol, protocols)
    given = table.get("timeouts")
    timeouts: dict[str, Any] = given if isinstance(given, dict) else {}
    for key, protocols in _ONLY_TIMEOUTS.items():
        is_there = key in timeouts and protocol not in protocols
        if is_there and not _is_default(document, _TIMEOUTS, {key: timeouts[key]}, key, ListenerTimeouts):
            yield _unused(document, (*path, "timeouts", key), protocol, protocols)


def _is_default(
    document: Document, kind: TypeAdapter[Any], given: dict[str, Any], key: str, table: type[Table]
) -> bool:
    """Whether a key says what it would say if it were not there, or is wrong in itself."""
    read = document.read(kind, given)
    default = table.model_fields[key].get_default(call_default_factory=True)
    return read is None or getattr(read, key) == default


def _unused(document: Document, path: KeyPath, protocol: str, protocols: tuple[str, ...]) -> Problem:
    others = listed(f"protocol = {quote(other)}" for other in protocols)
    return document.problem(
        path, f"is not looked at by protocol = {quote(protocol)}", f"leave it out, or write {others}"
    )


def _conditions_can_hold(document: Document, name: str, protocol: str) -> Iterator[Problem]:
    """Routes ask for what can be seen of a connection."""
    for place, route in enumerate(document.routes(name)):
        given = route.get("match")
        match: dict[str, Any] = given if isinstance(given, dict) else {}
        for key, value in match.items():
            protocols = _ONLY_MATCH.get(key)
            if protocols is None or protocol in protocols or protocol not in _ONLY["routes"]:
                continue
            if document.read(_MATCH, {key: value}) is None:
                continue
            hint = (
                "write sni instead"
                if key == "host"
                else "write host instead"
                if key == "sni"
                else "leave it out"
            )
            yield document.problem(
                ("listeners", name, "routes", place, "match", key),
                f"cannot be seen by protocol = {quote(protocol)}",
                hint,
            )


def _proxies_are_trusted(
    document: Document, path: KeyPath, table: dict[str, Any], protocol: str
) -> Iterator[Problem]:
    """PROXY headers come from proxies that are named, and named ones are asked for something."""
    expects_header = table.get("proxy_protocol") is True
    trusted = table.get("trusted_proxies")
    if expects_header and not trusted:
        yield document.problem(
            (*path, "trusted_proxies"),
            "is missing, and nobody else may send a PROXY header",
            'add the addresses of your proxies, such as trusted_proxies = "10.0.0.0/8"',
        )
    if trusted and not expects_header and protocol != "http":
        yield document.problem(
            (*path, "trusted_proxies"),
            f"is not looked at by protocol = {quote(protocol)} without PROXY headers",
            "add proxy_protocol = true, or leave it out",
        )


def _redirect_leads_elsewhere(document: Document, path: KeyPath, table: dict[str, Any]) -> Iterator[Problem]:
    """Only what came in clear is redirected to HTTPS, and then nothing goes anywhere else."""
    redirect = table.get("redirect_https")
    if not isinstance(redirect, int) or redirect is False:
        return
    if "tls" in table:
        yield document.problem(
            (*path, "redirect_https"),
            "is for clients in clear, and these speak TLS",
            "move it to a listener without tls, such as one on port 80",
        )
        return
    for key in ("pool", "routes"):
        if table.get(key):
            yield document.problem(
                (*path, key),
                f"is never used: {document.at((*path, 'redirect_https'))} redirects every request",
                "leave out one of them",
            )


def _addresses_have_ports(document: Document, path: KeyPath) -> Iterator[Problem]:
    """UDP is of IP."""
    for where, address in document.binds():
        if where[:2] == path and isinstance(address, UnixAddress):
            yield document.problem(
                where,
                f'{quote(str(address))} is a Unix socket, and protocol = "udp" is of IP',
                'write an IP address and a port, such as "0.0.0.0:53"',
            )
