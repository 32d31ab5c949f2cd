"""Which header fields travel and which stop here (RFC 9110 section 7.6.1).

Owns the sets of names and the reading of ``Connection``. Does not render. Invariant: ``Connection`` never
removes a field that framing, routing, forwarding or authorization rest on; a message that tries is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lbproc.core.http.rejected import Rejected
from lbproc.core.memo import Memo

HeaderFields = tuple[tuple[bytes, bytes, bytes], ...]
"""Of each field the lower-case name, the name as sent and the value, in the order sent."""

FRAMING_NAMES = frozenset({b"content-length", b"transfer-encoding"})

FORWARDING_NAMES = frozenset({
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
    b"x-real-ip", b"x-request-id", b"traceparent", b"tracestate",
})  # fmt: skip
"""What tells a backend where a request came from; ``is_forwarding_name`` adds every ``x-forwarded-`` name."""

CERTIFICATE_NAMES = frozenset({b"x-client-cert-subject", b"x-client-cert-san", b"x-client-cert-fingerprint"})
"""What tells a backend of the client's certificate. Nobody else's word on it is passed on, trusted or not."""

AUTHORIZATION_NAMES = frozenset({b"authorization", b"proxy-authorization", b"cookie"})

HOP_BY_HOP_NAMES = frozenset({
    b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
    b"http2-settings", b"proxy-authenticate", b"proxy-authorization",
})  # fmt: skip

ACTED_ON_NAMES = frozenset(
    {b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
)
"""The fields that decide anything while a head is read."""

_LIST_OF_TOKENS = re.compile(rb"[ \t,]*+(?>(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++[ \t]*+(?:,[ \t,]*+|\Z))*)\Z")
NO_TOKENS: frozenset[bytes] = frozenset()
_TOKENS: Memo[frozenset[bytes]] = Memo(256, 128)


def is_forwarding_name(name: bytes) -> bool:
    """Whether a lower-case name belongs to the headers that say who asks."""
    return name in FORWARDING_NAMES or name in CERTIFICATE_NAMES or name.startswith(b"x-forwarded-")


def without_underscores(name: bytes) -> bytes:
    """The name that a CGI-like backend cannot tell from this one: both become ``HTTP_A_B``."""
    return name.replace(b"_", b"-")


def connection_tokens(values: Iterable[bytes], refuse: Callable[[str], Rejected]) -> frozenset[bytes]:
    """Reads the ``Connection`` fields of a message into lower-case option names (RFC 9110 section 7.6.1).

    Args:
        values: one per ``Connection`` field.
        refuse: makes the rejection, ``bad_request`` or ``bad_response``.

    Raises:
        Rejected: for anything but a list of tokens, and for a name that ``Connection`` must not remove.
    """
    tokens = NO_TOKENS
    for value in values:
        these = _TOKENS.get(value)
        if these is None:
            these = _tokens_of(value)
            if these is None:
                raise refuse("Connection is not a list of tokens")
            _TOKENS.offer(value, these)
        tokens = tokens | these if tokens else these
    if tokens <= _ORDINARY:
        return tokens
    for token in tokens:
        name = without_underscores(token)
        if name in _KEPT or is_forwarding_name(name):
            raise refuse("Connection names a header that it must not remove")
    return tokens


_ORDINARY = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
_KEPT = FRAMING_NAMES | AUTHORIZATION_NAMES | {b"host", b"via"}


def _tokens_of(value: bytes) -> frozenset[bytes] | None:
    if _LIST_OF_TOKENS.match(value) is None:
        return None
    tokens = (token.strip(b" \t") for token in value.lower().split(b","))
    return frozenset(token for token in tokens if token)
