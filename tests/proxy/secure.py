"""Clients that speak TLS to a rig's listeners, over memory, with certificates made for it."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio
from cryptography.hazmat.primitives import serialization

from lbproc.core.tls.certificate import read_certificate
from lbproc.net.tls.transport import TlsTransport
from tests.certificates import Authority, Pair
from tests.proxy.rig import Rig, Wire

if TYPE_CHECKING:
    from lbproc.net.memory import MemoryTransport

HOSTS = ("a.test", "*.wild.test", "b.test", "closed.test", "other.test")


def der(pair: Pair) -> bytes:
    """The certificate alone, as it goes over the wire."""
    return pair.certificate.public_bytes(serialization.Encoding.DER)


@functools.cache
def authority() -> Authority:
    """Of the servers. Made once, as is everything below: what is in them is the same for all tests."""
    return Authority("servers")


@functools.cache
def clients() -> Authority:
    """Of clients who may come in."""
    return Authority("clients")


@functools.cache
def server_pair(*names: str, number: int = 0) -> Pair:
    """A certificate for hosts; another one for each number."""
    return authority().issue(*names, common_name=f"{names[0]} {number}")


@functools.cache
def client_pair(name: str = "client", *, is_foreign: bool = False, days: float = 90) -> Pair:
    """A certificate that a client may show."""
    issuer = authority() if is_foreign else clients()
    return issuer.issue(f"{name}.test", purpose="client", common_name=name, days=days)


def certificate(path: Path, *names: str, number: int = 0, **keys: Any) -> dict[str, Any]:
    """An entry of ``certificates``."""
    cert, key = server_pair(*names, number=number).write(path, f"{names[0]}-{number}".replace("*", "star"))
    return {"cert": str(cert), "key": str(key), **keys}


def hosts(path: Path, **keys: Any) -> dict[str, Any]:
    """The ``tls`` table of a listener: two hosts and a wildcard, and two whose clients show certificates."""
    ca = str(clients().write(path, "clients"))
    return {
        "certificates": [
            certificate(path, "a.test", "*.wild.test"),
            certificate(path, "b.test"),
            certificate(path, "closed.test", client_ca=ca),
            certificate(path, "other.test", client_ca=ca, client_auth="optional"),
        ],
        **keys,
    }


def client_context(
    *, alpn: tuple[str, ...] = (), pair: Pair | None = None, maximum: str = "1.3"
) -> ssl.SSLContext:
    """What a client needs, which trusts the servers' authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[maximum]
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if pair is not None:
        from lbproc.net.tls.context import load_key_pair  # noqa: PLC0415

        load_key_pair(context, pair.chain, pair.key)
    return context


class SecureWire(Wire):
    """The far end of a client connection, inside of TLS."""

    def __init__(self, tls: TlsTransport, wire: Wire, rig: Rig) -> None:
        super().__init__(cast("MemoryTransport", tls), rig.deadlines)
        self.tls = tls
        self.outer = wire

    def names(self) -> list[str]:
        """The hosts that the server's certificate is for."""
        assert self.tls.tls is not None
        assert self.tls.tls.peer_certificate is not None
        shown = read_certificate(self.tls.tls.peer_certificate)
        return shown.names.removeprefix("DNS:").split(", DNS:")

    def common_name(self) -> str:
        """Of the server's certificate."""
        assert self.tls.tls is not None
        assert self.tls.tls.peer_certificate is not None
        return read_certificate(self.tls.tls.peer_certificate).common_name


async def connect(
    rig: Rig,
    nursery: trio.Nursery,
    server_name: str | None = "a.test",
    context: ssl.SSLContext | None = None,
    *,
    session: ssl.SSLSession | None = None,
    before: bytes = b"",
    **options: Any,
) -> SecureWire:
    """A client that has shaken hands.

    Args:
        before: is sent in clear first.
    """
    wire = rig.client(nursery, **options)
    if before:
        await wire.send(before)
    context = context or client_context()
    if server_name is None:
        context.check_hostname = False
    tls = TlsTransport(wire.transport, context, server_name=server_name, session=session)
    await tls.handshake(rig.deadlines, trio.current_time() + 3600)
    return SecureWire(tls, wire, rig)
