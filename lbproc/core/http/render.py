"""Writes the heads that go on: normalised, with exactly one framing field, without hop-by-hop fields.

Owns the form of what is written. Decides nothing about connections. Invariants: every byte comes from a head
that was parsed, or from us; the fields that are kept keep their order, spelling and values (RFC 9110 section
5.3).
"""

from __future__ import annotations

from lbproc.core.http.forwarding import Forwarding, keeps_trace
from lbproc.core.http.framing import Framing, FramingKind
from lbproc.core.http.head import RequestHead, ResponseHead
from lbproc.core.http.headers import (
    CERTIFICATE_NAMES,
    FORWARDING_NAMES,
    FRAMING_NAMES,
    HOP_BY_HOP_NAMES,
    HeaderFields,
)
from lbproc.core.tls.certificate import ClientCertificate

_VIA_10 = b"Via: 1.0 lbproc\r\n"
_VIA_11 = b"Via: 1.1 lbproc\r\n"
_FORWARDED = b"x-forwarded-"
_NAMES_NO_FIELD = frozenset({b"keep-alive", b"te", b"upgrade"})
"""Options of ``Connection`` for which no further field has to be dropped."""

_DROPPED_FROM_RESPONSE = HOP_BY_HOP_NAMES | FRAMING_NAMES
_DROPPED_FROM_REQUEST = (
    _DROPPED_FROM_RESPONSE | FORWARDING_NAMES | CERTIFICATE_NAMES | {b"host", b"expect", b"proxy"}
)
"""``Proxy`` has no meaning in HTTP, but CGI programs take it for their proxy setting."""
_DELIMITED = frozenset({FramingKind.LENGTH, FramingKind.CHUNKED})
_SET_HERE = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"traceparent"}
)
_DROPPED_FROM_TRUSTED = (_DROPPED_FROM_REQUEST - FORWARDING_NAMES) | _SET_HERE


def render_request_start(head: RequestHead, *, trusted: bool, default_host: bytes = b"") -> bytes:
    """The head that a backend gets, always HTTP/1.1, but for forwarding headers and the last empty line.

    Follows from the request head alone.

    Args:
        head: what the client sent.
        trusted: it came from a trusted proxy, whose forwarding headers are passed on.
        default_host: the ``Host`` for an HTTP/1.0 request without one; may be empty (RFC 9112 section 3.2).
    """
    lines = [
        b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, head.target, head.host or default_host),
        *_kept_from_request(head, trusted=trusted),
    ]
    framing = head.framing
    if framing.kind is not FramingKind.NO_BODY:
        lines.append(_framing_line(framing))
    if head.expects_continue:
        lines.append(b"Expect: 100-continue")
    if head.upgrade is not None:
        lines.append(b"Connection: upgrade\r\nUpgrade: " + head.upgrade)
    # Further Via lines continue the list (RFC 9110 section 5.3); the version is that of the hop it came by.
    lines.append(_VIA_10 if head.http10 else _VIA_11)
    return b"\r\n".join(lines)


def render_origin(head: RequestHead, scheme: str) -> bytes:
    """The middle of an untrusted peer's forwarding headers: what the request was addressed to."""
    host = b"X-Forwarded-Host: %b\r\n" % head.host if head.host else b""
    return b"%bX-Forwarded-Proto: %b\r\nX-Request-Id: " % (host, scheme.encode("ascii"))


def render_response(head: ResponseHead, *, http10_client: bool, close: bool, body_dechunked: bool) -> bytes:
    """The head that the client gets, always HTTP/1.1 (RFC 9112 section 2.3); also of a 101.

    Args:
        head: what the backend sent.
        http10_client: the client speaks HTTP/1.0, which keeps a connection only when told.
        close: the connection to the client ends after this response; a body without an end implies it.
        body_dechunked: the body goes on without its chunked framing, so closing is its end.
    """
    dropped = _dropped_from_response(head)
    if body_dechunked:
        dropped |= {b"trailer"}
    framing = head.framing
    if framing.kind is FramingKind.NO_BODY and head.status >= 200 and head.status != 204:
        # To HEAD and in a 304 it says how long the body would have been (RFC 9110 section 8.6).
        dropped -= {b"content-length"}
    lines = [_status_line(head), *_kept_lines(head.headers, dropped)]
    if not body_dechunked and framing.kind in _DELIMITED:
        lines.append(_framing_line(framing))
    close = close or body_dechunked or framing.kind is FramingKind.UNTIL_CLOSE
    if close or http10_client or head.upgrade is not None:
        lines += _connection_lines(head, http10_client=http10_client, close=close)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def _dropped_from_response(head: ResponseHead) -> frozenset[bytes]:
    tokens = head.connection_tokens
    if tokens and not tokens <= _NAMES_NO_FIELD:
        return _DROPPED_FROM_RESPONSE | tokens
    return _DROPPED_FROM_RESPONSE


def render_interim(head: ResponseHead) -> bytes:
    """A 1xx on its way to the client. Not for clients that speak HTTP/1.0 (RFC 9110 section 15.2)."""
    lines = [
        _status_line(head),
        *_kept_lines(head.headers, _dropped_from_response(head)),
        b"\r\n",
    ]
    return b"\r\n".join(lines)


def _kept_lines(headers: HeaderFields, dropped: frozenset[bytes]) -> list[bytes]:
    return [name + b": " + value for lower, name, value in headers if lower not in dropped]


def _kept_from_request(head: RequestHead, *, trusted: bool) -> list[bytes]:
    """The lines that go on: no fixed ones, none in ``Connection``, none that an untrusted peer forwards."""
    dropped = _DROPPED_FROM_TRUSTED if trusted else _DROPPED_FROM_REQUEST
    tokens = head.connection_tokens
    if tokens and not tokens <= _NAMES_NO_FIELD:
        dropped |= tokens
    if trusted and not keeps_trace(head.values(b"traceparent")):
        dropped |= {b"tracestate"}
    lines = _kept_lines(head.headers, dropped)
    if not trusted and _FORWARDED in b"\n".join(lines).lower():  # rarely: one look instead of one a line
        return [line for line in lines if line[: len(_FORWARDED)].lower() != _FORWARDED]
    return lines


def render_certificate(certificate: ClientCertificate) -> bytes:
    """What the backend learns of the certificate that the client has shown and that was verified."""
    lines = f"X-Client-Cert-Subject: {certificate.subject}\r\n"
    if certificate.names:
        lines += f"X-Client-Cert-San: {certificate.names}\r\n"
    return f"{lines}X-Client-Cert-Fingerprint: {certificate.fingerprint}\r\n".encode("ascii")


def render_forwarding(head: RequestHead, forwarded: Forwarding) -> bytes:
    """The end of the head of a trusted proxy's request: forwarding headers, and the empty line.

    ``X-Forwarded-*`` go on as it sent them, completed by what is seen here.
    """
    before = b", ".join(head.values(b"x-forwarded-for")).decode("latin-1")
    peer_ip = forwarded.peer_ip
    addresses = f"{before}, {peer_ip}" if before and peer_ip else before or peer_ip
    said_hosts = head.values(b"x-forwarded-host")
    host = said_hosts[0] if len(said_hosts) == 1 and said_hosts[0] else head.host
    scheme = _said_scheme(head.values(b"x-forwarded-proto")) or forwarded.scheme
    lines = f"X-Forwarded-For: {addresses}\r\n" if addresses else ""
    if host:
        lines += f"X-Forwarded-Host: {host.decode('latin-1')}\r\n"
    lines += (
        f"X-Forwarded-Proto: {scheme}\r\nX-Request-Id: {forwarded.request_id}\r\n"
        f"traceparent: {forwarded.traceparent}\r\n\r\n"
    )
    return lines.encode("latin-1")


def _said_scheme(values: list[bytes]) -> str | None:
    """What a trusted peer says the client spoke, if it is one word that means something."""
    if len(values) == 1 and values[0].lower() in {b"http", b"https", b"ws", b"wss"}:
        return values[0].lower().decode("ascii")
    return None


def _status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b" % (head.status, head.reason)


def _framing_line(framing: Framing) -> bytes:
    """The one framing field of a message that is delimited by one."""
    if framing.kind is FramingKind.LENGTH:
        return b"Content-Length: %d" % framing.length
    return b"Transfer-Encoding: chunked"


def _connection_lines(head: ResponseHead, *, http10_client: bool, close: bool) -> list[bytes]:
    """RFC 9112 section 9.3 for the client's connection, RFC 9110 section 7.8 for a change of protocol."""
    upgrade = head.upgrade
    if upgrade is None:
        if close:
            return [b"Connection: close"]
        return [b"Connection: keep-alive"] if http10_client else []
    if head.status == 101 or not close:
        return [b"Connection: upgrade", b"Upgrade: " + upgrade]
    return [b"Connection: close, upgrade", b"Upgrade: " + upgrade]
