"""What the keys of a pool may be together with the listeners that use it.

Owns these rules; ``crosscheck`` applies them. They look at the merged document and pass over what is wrong in
itself. A key at its default is always right, so that what ``config show`` writes can be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from lbproc.config.model import PoolTimeouts
from lbproc.config.place import TargetAddress
from lbproc.config.tls_rules import authorities_are_looked_at
from lbproc.config.values import HashKey
from lbproc.config.wording import quote
from lbproc.types import Address, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.document import Document, Use
    from lbproc.config.problem import Problem
    from lbproc.config.wording import KeyPath

_TARGET: Final[TypeAdapter[Address]] = TypeAdapter(TargetAddress)
_HASH_KEY: Final = TypeAdapter[str](HashKey)
_TIMEOUTS: Final = TypeAdapter(PoolTimeouts)

_OF_HANDSHAKES: Final = ("sni", "tls_session_id")
_OF_REQUESTS: Final = ("path", "header", "cookie", "query")


def pool_rules(document: Document) -> Iterator[Problem]:
    """Applies all of them to every pool."""
    uses = document.uses()
    for name, pool in document.pools.items():
        path: KeyPath = ("pools", name)
        users = uses.get(name, [])
        yield from _hash_key_is_there(document, path, pool, users)
        yield from _requests_are_there(document, path, pool, users)
        yield from _encrypts_once(document, path, pool, users)
        yield from _datagrams_fit(document, path, pool, users)
        yield from authorities_are_looked_at(document, path, pool)


def _hash_key_is_there(
    document: Document, path: KeyPath, pool: dict[str, Any], users: list[Use]
) -> Iterator[Problem]:
    """Whatever goes to the pool has what is hashed."""
    key = document.read(_HASH_KEY, pool["hash_key"]) if "hash_key" in pool else None
    if key is None:
        return
    kind = key.partition(":")[0]
    for use in users:
        if kind in _OF_REQUESTS and use.protocol != "http":
            what = f"is of requests, and {document.at(use.path)} brings {_brought(use)}"
            right = 'write "client_ip", or give that listener a pool of its own'
        elif kind in _OF_HANDSHAKES and not use.is_tls:
            what = f"is of TLS handshakes, and {document.at(use.path)} brings {_brought(use)} in clear"
            right = 'write "client_ip", or give that listener a pool of its own'
        else:
            continue
        yield document.problem((*path, "hash_key"), f"{quote(key)} {what}", right)
        return


def _brought(use: Use) -> str:
    return {"http": "requests", "udp": "datagrams"}.get(use.protocol, "connections")


def _requests_are_there(
    document: Document, path: KeyPath, pool: dict[str, Any], users: list[Use]
) -> Iterator[Problem]:
    """What is said of requests is said of a pool that gets some."""
    if not users or any(use.protocol == "http" for use in users):
        return
    keys: list[tuple[str, ...]] = [("retries",)] if "retries" in pool else []
    timeouts = pool.get("timeouts")
    read = document.read(_TIMEOUTS, timeouts)
    if read is not None:
        defaults = PoolTimeouts()
        keys += [
            ("timeouts", key) for key in ("response", "read") if getattr(read, key) != getattr(defaults, key)
        ]
    for way in keys:
        yield document.problem(
            (*path, *way),
            f"is of requests, and {document.at(users[0].path)} brings {_brought(users[0])}",
            "leave it out",
        )


def _encrypts_once(
    document: Document, path: KeyPath, pool: dict[str, Any], users: list[Use]
) -> Iterator[Problem]:
    """What is encrypted already, and what cannot be, is not encrypted."""
    if "tls" not in pool:
        return
    for use in users:
        if use.protocol in {"tls_passthrough", "udp"}:
            what = "is encrypted already" if use.protocol == "tls_passthrough" else "is UDP"
            yield document.problem(
                (*path, "tls"),
                f"cannot be: what {document.at(use.path)} brings {what}",
                "leave it out, or give that listener a pool of its own",
            )
            return


def _datagrams_fit(
    document: Document, path: KeyPath, pool: dict[str, Any], users: list[Use]
) -> Iterator[Problem]:
    """A pool that gets datagrams has backends with ports, and a PROXY header that can say so."""
    use = next((use for use in users if use.protocol == "udp"), None)
    if use is None:
        return
    if pool.get("proxy_protocol") == "v1":
        yield document.problem(
            (*path, "proxy_protocol"),
            f'"v1" cannot speak of UDP, which {document.at(use.path)} brings',
            'write "v2"',
        )
    backends = pool.get("backends")
    for place, backend in enumerate(backends if isinstance(backends, list) else ()):
        given = backend.get("address") if isinstance(backend, dict) else backend
        if isinstance(address := document.read(_TARGET, given), UnixAddress):
            yield document.problem(
                (*path, "backends", place),
                f"{quote(str(address))} is a Unix socket, and {document.at(use.path)} brings UDP",
                "write a host and a port",
            )
