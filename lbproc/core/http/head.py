"""Message heads: from raw bytes to values (RFC 9112 sections 2 to 6, RFC 9110 sections 7 and 10).

Owns what a head means to the proxy. Ordinary heads are read by the fast lane (``lane``). All others go the
long way, in this order: the grammar on the raw bytes (``strict``), the meaning of each field that the proxy
acts on, and last h11, which must have read the same head (``meaning``). Does not collect bytes
(``head_buffer``), read bodies (``body``) or write heads (``render``).

Invariants: a ``RequestHead`` that exists can be forwarded (``message``). Which way a head went cannot be seen
in the result; everything that is refused is refused by the long way.
"""

from __future__ import annotations

from lbproc.core.http.framing import CHUNKED, UNTIL_CLOSE, Framing, request_framing, response_framing
from lbproc.core.http.headers import (
    ACTED_ON_NAMES,
    FRAMING_NAMES,
    HOP_BY_HOP_NAMES,
    NO_TOKENS,
    HeaderFields,
    connection_tokens,
    is_forwarding_name,
    without_underscores,
)
from lbproc.core.http.lane import RequestLane, ResponseLane
from lbproc.core.http.meaning import confirm_request, confirm_response
from lbproc.core.http.message import RequestHead, ResponseHead
from lbproc.core.http.rejected import Rejected, bad_request, bad_response
from lbproc.core.http.strict import HeadLimits, match_request, match_response, split_fields
from lbproc.core.http.target import hostname_of, read_target

__all__ = [
    "RequestHead",
    "ResponseHead",
    "parse_request_head",
    "parse_response_head",
    "read_request_head",
    "read_response_head",
]

_REQUESTS = RequestLane()
_RESPONSES = ResponseLane()

_NOTHING: list[bytes] = []


def parse_request_head(raw: bytes, limits: HeadLimits) -> RequestHead:
    """Reads one request head, ``raw`` being exactly one head with its last empty line.

    Raises:
        Rejected: 400, 417, 431, 501 or 505. The first thing found wrong is the one named.
    """
    return _REQUESTS.read(raw, limits.max_count) or read_request_head(raw, limits)


def parse_response_head(raw: bytes, request_method: bytes) -> ResponseHead:
    """Reads one response head, ``raw`` being exactly one head with its last empty line.

    Args:
        raw: the bytes as received.
        request_method: of the request it answers: the response to HEAD has no body.

    Raises:
        Rejected: 502.
    """
    return _RESPONSES.read(raw, request_method) or read_response_head(raw, request_method)


def read_request_head(raw: bytes, limits: HeadLimits) -> RequestHead:
    """`parse_request_head` by the long way, which takes or refuses any head."""
    found = match_request(raw)
    method, target = found[1], found[2]
    http10 = found[3] == b"0"
    fields = split_fields(raw)
    if len(fields) > limits.max_count:
        raise Rejected(431, "http_request_error", f"more than {limits.max_count} header fields")
    if method.upper() == b"CONNECT":
        raise Rejected(501, "http_request_error", "CONNECT is not served here")
    headers = tuple([(name.lower(), name, value) for name, value in fields])
    names = [field[0] for field in headers]
    if b"_" in b"".join(names):
        headers = _settle_underscores(headers, limits.underscore)
    acted_on = _values_acted_on(headers, names)

    framing = request_framing(
        acted_on.get(b"content-length", _NOTHING), acted_on.get(b"transfer-encoding", _NOTHING), http10=http10
    )
    host = _single_host(acted_on.get(b"host", _NOTHING), http10=http10)
    target, path, query, authority = read_target(method, target)
    if authority is not None:
        # RFC 9112 section 3.2.2 would let the target win. Two names for one request are refused instead.
        if host is not None and host.lower() != authority.lower():
            raise bad_request("the authority of the target differs from Host")
        host = authority
    tokens = (
        connection_tokens(acted_on[b"connection"], bad_request) if b"connection" in acted_on else NO_TOKENS
    )
    head = RequestHead(
        method=method,
        target=target,
        http10=http10,
        headers=headers,
        framing=framing,
        host=host or b"",
        hostname=hostname_of(host) if host else "",
        path=path,
        query=query,
        keep_alive=_keep_alive(tokens, http10=http10),
        expects_continue=_expects_continue(acted_on.get(b"expect", _NOTHING), framing, http10=http10),
        upgrade=_offered_upgrade(acted_on.get(b"upgrade", _NOTHING), tokens, http10=http10),
        connection_tokens=tokens,
    )
    confirm_request(raw, method, found[2], found[3], fields)
    return head


def read_response_head(raw: bytes, request_method: bytes) -> ResponseHead:
    """`parse_response_head` by the long way, which takes or refuses any head."""
    found = match_response(raw)
    status = int(found[2])
    http10 = found[1] == b"0"
    fields = split_fields(raw)
    headers = tuple([(name.lower(), name, value) for name, value in fields])
    acted_on = _values_acted_on(headers, [field[0] for field in headers])
    framing = response_framing(
        acted_on.get(b"content-length", _NOTHING),
        acted_on.get(b"transfer-encoding", _NOTHING),
        http10=http10,
        status=status,
        request_method=request_method,
    )
    tokens = (
        connection_tokens(acted_on[b"connection"], bad_response) if b"connection" in acted_on else NO_TOKENS
    )
    head = ResponseHead(
        status=status,
        reason=found[3] or b"",
        http10=http10,
        headers=headers,
        framing=framing,
        keep_alive=framing is not UNTIL_CLOSE and _keep_alive(tokens, http10=http10),
        upgrade=_chosen_upgrade(status, acted_on.get(b"upgrade", _NOTHING), tokens),
        connection_tokens=tokens,
    )
    confirm_response(raw, status, found[1], fields)
    return head


def _values_acted_on(headers: HeaderFields, names: list[bytes]) -> dict[bytes, list[bytes]]:
    """The values of the fields that decide anything. Most heads have two of them."""
    present = ACTED_ON_NAMES.intersection(names)
    values: dict[bytes, list[bytes]] = {name: [] for name in present}
    for lower, _, value in headers:
        if lower in present:
            values[lower].append(value)
    return values


def _settle_underscores(headers: HeaderFields, underscore: str) -> HeaderFields:
    """Applies ``underscore_headers``; spellings of names that this proxy vouches for never pass."""
    kept = []
    for field in headers:
        if b"_" not in field[0]:
            kept.append(field)
            continue
        twin = without_underscores(field[0])
        if twin in FRAMING_NAMES:
            raise bad_request("a framing header spelled with an underscore")
        if underscore == "reject":
            raise bad_request("a header name with an underscore")
        if underscore == "forward" and twin not in HOP_BY_HOP_NAMES and not is_forwarding_name(twin):
            kept.append(field)
    return tuple(kept)


def _single_host(values: list[bytes], *, http10: bool) -> bytes | None:
    if len(values) > 1:
        raise bad_request("more than one Host")
    if values:
        hostname_of(values[0])
        return values[0]
    if http10:
        return None
    raise bad_request("no Host in an HTTP/1.1 request")


def _keep_alive(tokens: frozenset[bytes], *, http10: bool) -> bool:
    """RFC 9112 section 9.3: ``close`` wins, and HTTP/1.0 has to ask."""
    return b"close" not in tokens and (not http10 or b"keep-alive" in tokens)


def _expects_continue(values: list[bytes], framing: Framing, *, http10: bool) -> bool:
    """RFC 9110 section 10.1.1. HTTP/1.0 and a request without content have nothing to wait for."""
    if not values:
        return False
    if len(values) > 1 or values[0].lower() != b"100-continue":
        raise Rejected(417, "http_request_error", "the only expectation served here is 100-continue")
    return not http10 and (framing is CHUNKED or framing.length > 0)


def _offered_upgrade(values: list[bytes], tokens: frozenset[bytes], *, http10: bool) -> bytes | None:
    """The protocols to offer the backend (RFC 9110 section 7.8).

    Offers of HTTP and TLS are left out: a tunnel with another HTTP inside passes requests that no route has
    seen.
    """
    if not values or http10 or b"upgrade" not in tokens:
        return None
    offers = [offer.strip(b" \t") for offer in b",".join(values).split(b",")]
    kept = [offer for offer in offers if offer and not _is_nested_http(offer.lower())]
    return b", ".join(kept) or None


def _is_nested_http(offer: bytes) -> bool:
    return offer.partition(b"/")[0] in {b"h2c", b"h2", b"http", b"tls"}


def _chosen_upgrade(status: int, values: list[bytes], tokens: frozenset[bytes]) -> bytes | None:
    if status == 101 and (not values or not values[0] or b"upgrade" not in tokens):
        raise Rejected(502, "http_upgrade_failed", "a 101 that does not say what it switches to")
    return b", ".join(values) or None if status in {101, 426} else None
