"""How a connection came: whose it is, and what was said on it before its protocol began.

Owns what is told of it to backends that ask for a PROXY header. Does not decide whom to believe: what is here
is believed. Without PROXY header and TLS there is nothing in it but the transport.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Literal

from lbproc.core.hash_key import NO_FACTS, ConnectionFacts
from lbproc.core.proxy_protocol import ProxyFields, ProxyHeader, ProxyTls, render_v1, render_v2
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    from lbproc.core.tls.client_hello import ClientHello
    from lbproc.net.transport import Transport
    from lbproc.types import Address

ProxyVersion = Literal["v1", "v2"]

_MAPPED = "::ffff:"


class Arrival:
    """What is known of a connection.

    Args:
        transport: to the client.
        header: the PROXY header that came first; None: none came.
        hello: how the client began TLS; None: it did not.
        tls: how it speaks TLS with this listener; None: it does not.
        alpn: the protocol that was settled on there.

    Attributes:
        client_ip: of the client, "" when it has none: that of the header, else the peer's.
        hello: as given, or read later.
        tls: as given, or `secure` has said.
        domain: as `secure` has said.
        certificate: as `secure` has said.
    """

    __slots__ = ("_alpn", "_header", "certificate", "client_ip", "domain", "hello", "tls")

    def __init__(
        self,
        transport: Transport,
        header: ProxyHeader | None = None,
        hello: ClientHello | None = None,
        tls: ProxyTls | None = None,
        alpn: bytes = b"",
    ) -> None:
        self.client_ip = transport.peer_ip
        if header is not None and header.source is not None:
            self.client_ip = _ip_of(header.source)
        self.tls = tls
        self._header = header
        self.hello = hello
        self._alpn = alpn
        self.domain = ""
        self.certificate = b""

    def secure(self, tls: ProxyTls, alpn: bytes, domain: str, certificate: bytes) -> None:
        """Takes note of a handshake that was made here.

        Args:
            tls: how the client speaks TLS.
            alpn: the protocol that was settled on.
            domain: of hosts that ask clients for the same certificates; "" where none are asked for.
            certificate: the lines that tell backends of the client's, which was verified.
        """
        self.tls = tls
        self._alpn = alpn
        self.domain = domain
        self.certificate = certificate

    @property
    def client_tls(self) -> ProxyTls | None:
        """How the client speaks TLS, with this listener or the proxy in front; None: it does not."""
        return self.tls or (None if self._header is None else self._header.fields.tls)

    @property
    def server_name(self) -> str | None:
        """The host that the client has named in TLS."""
        return None if self.hello is None else self.hello.server_name

    def facts(self) -> ConnectionFacts:
        """What it is hashed by."""
        hello = self.hello
        if hello is None:
            return NO_FACTS
        return ConnectionFacts((hello.server_name or "").encode(), hello.session_id)

    def greeting(self, transport: Transport, version: ProxyVersion, unique_id: str) -> bytes:
        """The PROXY header for a backend: the client, and where it had connected to.

        What a header in front of this connection said goes on, unless it is known better here.

        Args:
            transport: to the client.
            version: of the protocol.
            unique_id: of this connection, if nobody has given it one before.
        """
        given = self._header
        if given is None or given.source is None:
            given = ProxyHeader(*_ends(transport))
        if version == "v1":
            return render_v1(given.source, given.destination)
        said = given.fields
        fields = ProxyFields(
            self._alpn or said.alpn,
            self.server_name or said.authority,
            said.unique_id or unique_id.encode(),
            self.tls or said.tls,
        )
        return render_v2(ProxyHeader(given.source, given.destination, fields=fields))


def _ends(transport: Transport) -> tuple[Address | None, Address | None]:
    """The two ends of a connection; None where it came over a Unix socket."""
    if not transport.peer_ip:
        return None, None
    ip, port = transport.local_address
    return TcpAddress(_bare(transport.peer_ip), transport.peer_port), TcpAddress(_bare(ip), port)


def _ip_of(address: Address) -> str:
    """The IP address of a client, IPv4 as such; "" for a Unix socket."""
    if not isinstance(address, TcpAddress):
        return ""
    mapped = IPv6Address(address.host).ipv4_mapped if ":" in address.host else None
    return address.host if mapped is None else str(mapped)


def _bare(ip: str) -> str:
    """An address as headers write it: without a zone, and IPv4 as such on a socket that takes both."""
    return ip.removeprefix(_MAPPED).partition("%")[0]
