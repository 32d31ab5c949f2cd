"""Backends that speak TLS, in the hands of a test, with certificates made for it."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio

from lbproc.net.tls.transport import TlsTransport
from tests.certificates import Authority, Pair
from tests.net.tls.pairs import load_pair
from tests.proxy.rig import Rig, Wire

if TYPE_CHECKING:
    from lbproc.net.memory import MemoryTransport

IP = "127.0.0.1"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@functools.cache
def authority() -> Authority:
    """Of the backends. Made once, as is everything below."""
    return Authority("backends")


@functools.cache
def stranger() -> Authority:
    """Nobody trusts it."""
    return Authority("stranger")


@functools.cache
def pair(*names: str, days: float = 90, is_foreign: bool = False) -> Pair:
    """A certificate of a backend."""
    return (stranger() if is_foreign else authority()).issue(*names, days=days)


@functools.cache
def own_pair() -> Pair:
    """What lbproc shows to backends that ask."""
    return authority().issue("lbproc.test", purpose="client")


def ca(path: Path, issuer: Authority | None = None, name: str = "backends") -> str:
    """The file of the authority to trust."""
    return str((issuer or authority()).write(path, name))


def tls(path: Path, **keys: Any) -> dict[str, Any]:
    """The ``tls`` of a pool that trusts the authority of the backends."""
    return {"tls": {"ca": ca(path), **keys}}


def context(
    shown: Pair | None = None, *, maximum: str = "1.3", asks: bool = False, alpn: bool = True
) -> ssl.SSLContext:
    """What a backend needs.

    Args:
        shown: its certificate; by default a good one for its address.
        maximum: the newest version it speaks.
        asks: it wants a certificate of whoever connects.
        alpn: it knows HTTP/1.1 by name.
    """
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.maximum_version = VERSIONS[maximum]
    load_pair(found, shown or pair(IP))
    if asks:
        found.load_verify_locations(cadata=authority().pem.decode())
        found.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        found.set_alpn_protocols(["http/1.1"])
    return found


class SecureBackend(Wire):
    """The far end of a connection to a backend, inside of TLS."""

    def __init__(self, tls: TlsTransport, wire: Wire, rig: Rig) -> None:
        super().__init__(cast("MemoryTransport", tls), rig.deadlines)
        self.tls = tls
        self.wire = wire

    @property
    def is_resumed(self) -> bool:
        """Whether the session of an earlier connection goes on."""
        assert self.tls.tls is not None
        return self.tls.tls.resumed


async def accept(
    rig: Rig, server: ssl.SSLContext, *, wire: Wire | None = None, received: bytes = b""
) -> SecureBackend:
    """Shakes hands on the next connection that the worker opens.

    Raises:
        TlsFailed: the handshake came to nothing.
    """
    wire = wire or await rig.backend()
    transport = TlsTransport(wire.transport, server, received=received)
    try:
        await transport.handshake(rig.deadlines, trio.current_time() + 3600)
    except BaseException:
        transport.close()
        raise
    return SecureBackend(transport, wire, rig)
