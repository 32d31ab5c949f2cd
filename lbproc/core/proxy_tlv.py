"""What version 2 of the PROXY protocol says beside addresses: typed fields, each with its length.

Owns the fields that are known, and their limits. Those that are not known are stepped over. Source: section
2.2 of the specification of the PROXY protocol by HAProxy.

Invariants: every length is checked against what there is; a field that counts stands there once; texts that
come out are printable, so that they may stand in logs.
"""

from __future__ import annotations

from lbproc.core.crc32c import crc32c
from lbproc.core.http.value import value
from lbproc.core.tls.server_name import read_server_name

MAX_UNIQUE_ID = 128
_MAX_ALPN = 255
_MAX_TEXT = 256

_ALPN = 0x01
_AUTHORITY = 0x02
_CRC32C = 0x03
_UNIQUE_ID = 0x05
_SSL = 0x20
_SSL_VERSION = 0x21
_SSL_COMMON_NAME = 0x22
_SSL_CIPHER = 0x23
_KNOWN = frozenset({_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL})
_KNOWN_OF_SSL = frozenset({_SSL_VERSION, _SSL_COMMON_NAME, _SSL_CIPHER})

_CLIENT_SSL = 0x01
_CLIENT_CERT_CONN = 0x02
_CLIENT_CERT_SESS = 0x04

_FIELD_HEADER = 3
_SSL_HEADER = 5


class ProxyHeaderRejected(Exception):  # noqa: N818 - what hostile bytes cause, not a defect of ours
    """This is no PROXY header, or none that is taken. The connection is closed without an answer.

    Attributes:
        detail: what is wrong, in our words.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@value
class ProxyTls:
    """How the client speaks TLS with the proxy that sent the header.

    Attributes:
        version: such as ``TLSv1.3``; "" when it is not said.
        cipher: as OpenSSL calls it; "" when it is not said.
        common_name: of the client's certificate; "" when it is not said.
        has_certificate: the client has shown one, on this connection or earlier in its session.
        is_verified: and it was found good.
    """

    version: str = ""
    cipher: str = ""
    common_name: str = ""
    has_certificate: bool = False
    is_verified: bool = False


@value
class ProxyFields:
    """The fields that a header had.

    Attributes:
        alpn: the protocol that runs inside; b"" when it is not said.
        authority: the host that the client has named, in lower case; None when it is not said.
        unique_id: of the connection; b"" when it is not said.
        tls: None when the client speaks no TLS, or it is not said.
    """

    alpn: bytes = b""
    authority: str | None = None
    unique_id: bytes = b""
    tls: ProxyTls | None = None


NO_FIELDS = ProxyFields()


def read_fields(header: bytes, start: int) -> ProxyFields:
    """Reads the fields at the end of a header.

    Args:
        header: the whole of it, which a checksum covers.
        start: where the fields begin.

    Raises:
        ProxyHeaderRejected: one is not right, or the checksum is another.
    """
    if start == len(header):
        return NO_FIELDS
    places = _find(header, start, _KNOWN)
    if _CRC32C in places:
        _check(header, *places[_CRC32C])
    found = {number: header[at:end] for number, (at, end) in places.items()}
    alpn = found.get(_ALPN, b"")
    if len(alpn) > _MAX_ALPN:
        raise ProxyHeaderRejected("the name of a protocol is too long")
    unique_id = found.get(_UNIQUE_ID, b"")
    if len(unique_id) > MAX_UNIQUE_ID:
        raise ProxyHeaderRejected("the unique id is too long")
    return ProxyFields(
        alpn,
        _read_authority(found[_AUTHORITY]) if _AUTHORITY in found else None,
        unique_id,
        _read_tls(found[_SSL]) if _SSL in found else None,
    )


def render_fields(fields: ProxyFields) -> bytes:
    """The end of a header."""
    parts = []
    if fields.alpn:
        parts.append(_field(_ALPN, fields.alpn))
    if fields.authority:
        parts.append(_field(_AUTHORITY, fields.authority.encode()))
    if fields.unique_id:
        parts.append(_field(_UNIQUE_ID, fields.unique_id))
    if fields.tls is not None:
        parts.append(_field(_SSL, _render_tls(fields.tls)))
    return b"".join(parts)


def _find(raw: bytes, start: int, known: frozenset[int]) -> dict[int, tuple[int, int]]:
    """Where each known field begins and ends."""
    places: dict[int, tuple[int, int]] = {}
    while start < len(raw):
        at = start + _FIELD_HEADER
        if at > len(raw):
            raise ProxyHeaderRejected("a field is cut off")
        number, end = raw[start], at + (raw[start + 1] << 8 | raw[start + 2])
        if end > len(raw):
            raise ProxyHeaderRejected("a field is longer than what it is in")
        if number in known:
            if number in places:
                raise ProxyHeaderRejected("a field stands there twice")
            places[number] = at, end
        start = end
    return places


def _check(header: bytes, at: int, end: int) -> None:
    if end - at != 4:
        raise ProxyHeaderRejected("a checksum has 4 bytes")
    covered = bytearray(header)
    covered[at:end] = bytes(4)
    if crc32c(covered) != int.from_bytes(header[at:end], "big"):
        raise ProxyHeaderRejected("the checksum is wrong")


def _read_authority(raw: bytes) -> str | None:
    try:
        return read_server_name(raw)
    except ValueError:
        raise ProxyHeaderRejected("the authority is not the name of a host") from None


def _read_tls(raw: bytes) -> ProxyTls | None:
    if len(raw) < _SSL_HEADER:
        raise ProxyHeaderRejected("what it says of TLS is cut off")
    if not raw[0] & _CLIENT_SSL:
        return None
    places = _find(raw, _SSL_HEADER, _KNOWN_OF_SSL)
    texts = {number: _read_text(raw[at:end]) for number, (at, end) in places.items()}
    has_certificate = bool(raw[0] & (_CLIENT_CERT_CONN | _CLIENT_CERT_SESS))
    return ProxyTls(
        texts.get(_SSL_VERSION, ""),
        texts.get(_SSL_CIPHER, ""),
        texts.get(_SSL_COMMON_NAME, ""),
        has_certificate,
        has_certificate and not any(raw[1:_SSL_HEADER]),
    )


def _read_text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ProxyHeaderRejected("a text is not UTF-8") from None
    if len(raw) > _MAX_TEXT or not text.isprintable():
        raise ProxyHeaderRejected("a text is too long or not printable")
    return text


def _render_tls(tls: ProxyTls) -> bytes:
    client = _CLIENT_SSL
    if tls.has_certificate:
        client |= _CLIENT_CERT_CONN | _CLIENT_CERT_SESS
    verify = 0 if tls.is_verified else 1
    parts = [bytes((client, 0, 0, 0, verify))]
    for number, text in (
        (_SSL_VERSION, tls.version),
        (_SSL_COMMON_NAME, tls.common_name),
        (_SSL_CIPHER, tls.cipher),
    ):
        content = text.encode()
        if 0 < len(content) <= _MAX_TEXT:  # what is longer is said nowhere rather than in part
            parts.append(_field(number, content))
    return b"".join(parts)


def _field(number: int, content: bytes) -> bytes:
    return bytes((number, len(content) >> 8, len(content) & 0xFF)) + content
