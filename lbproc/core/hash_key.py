"""What a request or a connection is hashed by, for the policies that send equal keys to the same backend.

Owns the reading of ``hash_key`` and the extraction. Does not hash. Invariant: b"" means that it has no such
key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Final

from lbproc.core.http.head import RequestHead
from lbproc.core.http.headers import HeaderFields
from lbproc.core.http.value import value


@value
class ConnectionFacts:
    """What is known of a connection that is relayed as it is, in the place of a request.

    Attributes:
        server_name: the host that the client has named in TLS, b"" for none.
        tls_session_id: of the session of TLS 1.2 that it wants to resume, b"" for none.
    """

    server_name: bytes = b""
    tls_session_id: bytes = b""

    headers: ClassVar[HeaderFields] = ()
    path: ClassVar[bytes] = b""
    query: ClassVar[bytes] = b""


NO_FACTS = ConnectionFacts()

Asked = RequestHead | ConnectionFacts
"""What a backend is picked for."""

HashKey = Callable[[Asked, str], bytes]
"""From that and the client's address to the bytes to hash."""


def compile_hash_key(spec: str) -> HashKey:
    """Makes the function for a ``hash_key`` setting.

    Args:
        spec: ``client_ip``, ``header:NAME``, ``cookie:NAME``, ``path``, ``query:NAME``, ``sni`` or
            ``tls_session_id``. Header names ignore case, the others do not. Of a field that comes several
            times, the first value counts.

    Raises:
        ValueError: when it is none of these.
    """
    kind, _, name = spec.partition(":")
    if spec in _WHOLE:
        return _WHOLE[spec]
    match kind, name:
        case "header", name if name:
            return _header(name.lower().encode())
        case "cookie", name if name:
            return _cookie(name.encode())
        case "query", name if name:
            return _query(name.encode())
        case _:
            raise ValueError(
                "a hash key is client_ip, header:NAME, cookie:NAME, path, query:NAME, sni or tls_session_id"
            )


def _client_ip(_head: Asked, client_ip: str) -> bytes:
    return client_ip.encode()


def _path(head: Asked, _client_ip: str) -> bytes:
    return head.path


def _server_name(head: Asked, _client_ip: str) -> bytes:
    """Of a request the host that it is for, which is the name that its client has asked TLS for."""
    return head.server_name if isinstance(head, ConnectionFacts) else head.hostname.encode()


def _tls_session_id(head: Asked, _client_ip: str) -> bytes:
    return head.tls_session_id if isinstance(head, ConnectionFacts) else b""


_WHOLE: Final[dict[str, HashKey]] = {
    "client_ip": _client_ip,
    "path": _path,
    "sni": _server_name,
    "tls_session_id": _tls_session_id,
}
"""Keys that have no name behind them."""


def _header(name: bytes) -> HashKey:
    def key(head: Asked, _client_ip: str) -> bytes:
        for lower, _, content in head.headers:
            if lower == name:
                return content
        return b""

    return key


def _cookie(name: bytes) -> HashKey:
    pattern = re.compile(rb"(?:\A|;)[ \t]*" + re.escape(name) + rb"=([^;]*)")

    def key(head: Asked, _client_ip: str) -> bytes:
        for lower, _, content in head.headers:
            if lower == b"cookie":
                found = pattern.search(content)
                if found is not None:
                    return found[1].strip(b" \t")
        return b""

    return key


def _query(name: bytes) -> HashKey:
    pattern = re.compile(rb"(?:\A|&)" + re.escape(name) + rb"=([^&]*)")

    def key(head: Asked, _client_ip: str) -> bytes:
        found = pattern.search(head.query)
        return found[1] if found is not None else b""

    return key
