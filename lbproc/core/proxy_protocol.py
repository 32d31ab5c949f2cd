"""The PROXY protocol, versions 1 and 2: a header in front of a connection that says whose it is.

Owns the reading of headers as they come, and their writing. Does not decide whom to believe: whoever reads
one has made sure that the peer may send it. Source: the specification of the PROXY protocol by HAProxy.

Invariants:
- However the bytes are cut into reads, the outcome is the same, and the work is linear. Everything behind the
  header stays as it came.
- No more than `MAX_HEADER` bytes and one read are held.
- What is not exactly a header is refused, at the first byte that shows it in version 1 and in the signature.
- A header that names no addresses (LOCAL, UNKNOWN, UNSPEC) names nothing else either: all of it is ignored.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from lbproc.core.http.value import value
from lbproc.core.proxy_tlv import (
    NO_FIELDS,
    ProxyFields,
    ProxyHeaderRejected,
    ProxyTls,
    read_fields,
    render_fields,
)
from lbproc.types import Address, TcpAddress, UnixAddress

__all__ = [
    "NO_FIELDS",
    "ProxyFields",
    "ProxyHeader",
    "ProxyHeaderBuffer",
    "ProxyHeaderRejected",
    "ProxyTls",
    "read_datagram_header",
    "render_v1",
    "render_v2",
]

MAX_LINE = 107
"""Of version 1, with its end."""

MAX_HEADER = 4096
"""Of version 2. The addresses of Unix sockets take 232 bytes of it, ordinary fields a few hundred."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_START = b"PROXY "
_LINE = re.compile(
    rb"PROXY TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]{2,39}) (?P<destination>[0-9A-Fa-f:.]{2,39})"
    rb" (?P<source_port>0|[1-9][0-9]{0,4}) (?P<destination_port>0|[1-9][0-9]{0,4})\Z"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: |\Z)")

_LOCAL = 0x20
_PROXY = 0x21
_INET, _INET6, _UNIX = 1, 2, 3
_STREAM, _DATAGRAM = 1, 2
_ADDRESS_SIZES = {_INET: 12, _INET6: 36, _UNIX: 216}
_UNIX_SIZE = 108


@value
class ProxyHeader:
    """What a header says.

    Attributes:
        source: the client; None: the connection is the proxy's own, or of a kind that has no addresses, and
            counts as what it is. An unnamed Unix socket is no address either.
        destination: where the client connected to.
        is_datagram: it spoke UDP, or with a datagram socket.
        fields: what version 2 says beside.
    """

    source: Address | None
    destination: Address | None
    is_datagram: bool = False
    fields: ProxyFields = NO_FIELDS


LOCAL = ProxyHeader(None, None)


class ProxyHeaderBuffer:
    """The first bytes of a connection, until the header is whole."""

    __slots__ = ("_received", "_size")

    def __init__(self) -> None:
        self._received = bytearray()
        self._size = 0  # of a header of version 2, when it is known

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Takes what was received.

        Returns:
            The header when it is whole, else None. After that no more is to be fed.

        Raises:
            ProxyHeaderRejected: it will never be one.
        """
        received = self._received
        received += data
        if not received:
            return None
        return self._version_1() if received[0] == _START[0] else self._version_2()

    def take_rest(self) -> bytes:
        """Takes what came behind the header."""
        rest = bytes(self._received)
        self._received = bytearray()
        return rest

    def _version_1(self) -> ProxyHeader | None:
        received = self._received
        if not received.startswith(_START[: len(received)]):
            raise ProxyHeaderRejected("what came begins like no PROXY header")
        end = received.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(received) >= MAX_LINE:
                raise ProxyHeaderRejected("the line is too long")
            return None
        line = bytes(received[: end - 1])
        if received[end - 1] != 0x0D or b"\r" in line:
            raise ProxyHeaderRejected("the line does not end in CR LF")
        header = _parse_line(line)
        del received[: end + 1]
        return header

    def _version_2(self) -> ProxyHeader | None:
        received = self._received
        if not self._size:
            if not received.startswith(_SIGNATURE[: len(received)]):
                raise ProxyHeaderRejected("what came begins like no PROXY header")
            if len(received) > len(_SIGNATURE) and received[len(_SIGNATURE)] not in {_LOCAL, _PROXY}:
                raise ProxyHeaderRejected("an unknown version or command")
            if len(received) < _FIXED:
                return None
            self._size = _FIXED + int.from_bytes(received[14:_FIXED], "big")
            if self._size > MAX_HEADER:
                raise ProxyHeaderRejected("the header is too large")
        if len(received) < self._size:
            return None
        header = _parse_block(bytes(received[: self._size]))
        del received[: self._size]
        return header


def read_datagram_header(datagram: bytes) -> tuple[ProxyHeader, bytes]:
    """Reads the header of version 2 in front of a datagram, and what stands behind it.

    Raises:
        ProxyHeaderRejected: none is there, or not all of it.
    """
    if not datagram.startswith(_SIGNATURE):
        raise ProxyHeaderRejected("the datagram begins with no PROXY header of version 2")
    buffer = ProxyHeaderBuffer()
    header = buffer.feed(datagram)
    if header is None:
        raise ProxyHeaderRejected("the header is longer than its datagram")
    return header, buffer.take_rest()


def _parse_line(line: bytes) -> ProxyHeader:
    found = _LINE.match(line)
    if found is None:
        if _UNKNOWN.match(line):
            return LOCAL
        raise ProxyHeaderRejected("the line is not of the form that it must have")
    ports = int(found["source_port"]), int(found["destination_port"])
    if max(ports) > 65_535:
        raise ProxyHeaderRejected("a port is too large")
    kind = IPv4Address if found["family"] == b"4" else IPv6Address
    try:
        source, destination = (str(kind(found[name].decode("ascii"))) for name in ("source", "destination"))
    except ValueError:
        raise ProxyHeaderRejected("an address is none, or of another family") from None
    return ProxyHeader(TcpAddress(source, ports[0]), TcpAddress(destination, ports[1]))


def _parse_block(header: bytes) -> ProxyHeader:
    if header[12] == _LOCAL:
        return LOCAL
    family, protocol = header[13] >> 4, header[13] & 0x0F
    if family > _UNIX or protocol > _DATAGRAM:
        raise ProxyHeaderRejected("an unknown family or protocol")
    if not family or not protocol:
        return LOCAL
    end = _FIXED + _ADDRESS_SIZES[family]
    if len(header) < end:
        raise ProxyHeaderRejected("the addresses are cut off")
    block = header[_FIXED:end]
    source: Address | None
    destination: Address | None
    if family == _UNIX:
        source, destination = _read_path(block[:_UNIX_SIZE]), _read_path(block[_UNIX_SIZE:])
    else:
        size = 4 if family == _INET else 16
        kind = IPv4Address if family == _INET else IPv6Address
        ports = block[2 * size :]
        source = TcpAddress(str(kind(block[:size])), int.from_bytes(ports[:2], "big"))
        destination = TcpAddress(str(kind(block[size : 2 * size])), int.from_bytes(ports[2:], "big"))
    return ProxyHeader(source, destination, protocol == _DATAGRAM, read_fields(header, end))


def _read_path(raw: bytes) -> UnixAddress | None:
    """A path ends at its first NUL. Unnamed and abstract sockets have none."""
    path = raw.partition(b"\0")[0]
    if not path:
        return None
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if len(path) == _UNIX_SIZE or not text.isprintable() or not text:
        raise ProxyHeaderRejected("the path of a socket is too long or not printable")
    return UnixAddress(text)


def render_v1(source: Address | None, destination: Address | None) -> bytes:
    """The line of version 1. It can say nothing of Unix sockets, nor of two families at once."""
    if isinstance(source, TcpAddress) and isinstance(destination, TcpAddress):
        family = _common_family(source, destination)
        if family is not None:
            version = "4" if family == _INET else "6"
            return (
                f"PROXY TCP{version} {source.host} {destination.host} {source.port} {destination.port}\r\n"
            ).encode("ascii")
    return b"PROXY UNKNOWN\r\n"


def render_v2(header: ProxyHeader) -> bytes:
    """The header of version 2.

    Without addresses it is LOCAL. Two addresses of different families are of no family (UNSPEC): the
    receiver then takes what it sees.

    Raises:
        ValueError: the fields do not fit.
    """
    source, destination = header.source, header.destination
    if source is None and destination is None:
        return _SIGNATURE + bytes((_LOCAL, 0, 0, 0))
    family, addresses = _render_addresses(source, destination)
    if not family:
        return _SIGNATURE + bytes((_PROXY, 0, 0, 0))
    block = addresses + render_fields(header.fields)
    if _FIXED + len(block) > MAX_HEADER:
        raise ValueError("the fields are larger than a header may be")
    protocol = _DATAGRAM if header.is_datagram else _STREAM
    return _SIGNATURE + bytes((_PROXY, family << 4 | protocol)) + len(block).to_bytes(2, "big") + block


def _render_addresses(source: Address | None, destination: Address | None) -> tuple[int, bytes]:
    if isinstance(source, TcpAddress) and isinstance(destination, TcpAddress):
        family = _common_family(source, destination)
        if family is None:
            return 0, b""
        kind = IPv4Address if family == _INET else IPv6Address
        ports = source.port << 16 | destination.port
        packed = kind(source.host).packed + kind(destination.host).packed
        return family, packed + ports.to_bytes(4, "big")
    if isinstance(source, TcpAddress) or isinstance(destination, TcpAddress):
        return 0, b""
    return _UNIX, b"".join(
        (b"" if one is None else one.path.encode()).ljust(_UNIX_SIZE, b"\0") for one in (source, destination)
    )


def _common_family(source: TcpAddress, destination: TcpAddress) -> int | None:
    is_six = ":" in source.host
    if is_six != (":" in destination.host):
        return None
    return _INET6 if is_six else _INET
