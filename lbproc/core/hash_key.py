"""What a request is hashed by, for the policies that send equal keys to the same backend.

Owns the reading of ``hash_key`` and the extraction. Does not hash. Invariant: b"" means that the request has
no such key.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lbproc.core.http.head import RequestHead

HashKey = Callable[[RequestHead, str], bytes]
"""From a request and its client address to the bytes to hash."""


def compile_hash_key(spec: str) -> HashKey:
    """Makes the function for a ``hash_key`` setting.

    Args:
        spec: ``client_ip``, ``header:NAME``, ``cookie:NAME``, ``path`` or ``query:NAME``. Header names ignore
            case, the others do not. Of a field that comes several times, the first value counts.

    Raises:
        ValueError: when it is none of these.
    """
    kind, _, name = spec.partition(":")
    match kind, name:
        case "client_ip", "" if spec == kind:
            return _client_ip
        case "path", "" if spec == kind:
            return _path
        case "header", name if name:
            return _header(name.lower().encode())
        case "cookie", name if name:
            return _cookie(name.encode())
        case "query", name if name:
            return _query(name.encode())
        case _:
            raise ValueError("a hash key is client_ip, header:NAME, cookie:NAME, path or query:NAME")


def _client_ip(_head: RequestHead, client_ip: str) -> bytes:
    return client_ip.encode()


def _path(head: RequestHead, _client_ip: str) -> bytes:
    return head.path


def _header(name: bytes) -> HashKey:
    def key(head: RequestHead, _client_ip: str) -> bytes:
        for lower, _, value in head.headers:
            if lower == name:
                return value
        return b""

    return key


def _cookie(name: bytes) -> HashKey:
    pattern = re.compile(rb"(?:\A|;)[ \t]*" + re.escape(name) + rb"=([^;]*)")

    def key(head: RequestHead, _client_ip: str) -> bytes:
        for lower, _, value in head.headers:
            if lower == b"cookie":
                found = pattern.search(value)
                if found is not None:
                    return found[1].strip(b" \t")
        return b""

    return key


def _query(name: bytes) -> HashKey:
    pattern = re.compile(rb"(?:\A|&)" + re.escape(name) + rb"=([^&]*)")

    def key(head: RequestHead, _client_ip: str) -> bytes:
        found = pattern.search(head.query)
        return found[1] if found is not None else b""

    return key
