"""Two ends of a TLS connection that have shaken hands, over any two joined transports."""

from __future__ import annotations

import functools
import math
import ssl
from typing import Any

import trio

from lbproc.net.readiness import Deadlines
from lbproc.net.tls.transport import TlsTransport
from lbproc.net.transport import Transport
from tests.certificates import Authority, Pair

NEVER_SWEPT = Deadlines()


@functools.cache
def authority() -> Authority:
    """Made once: what certificates say is no matter to most tests."""
    return Authority()


@functools.cache
def localhost() -> Pair:
    return authority().issue("localhost")


@functools.cache
def server_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    load_pair(context, localhost())
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    return context


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    from lbproc.net.tls.context import load_key_pair  # noqa: PLC0415

    load_key_pair(context, pair.chain, pair.key)


def tls_ends(
    near: Transport,
    far: Transport,
    *,
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
    **arguments: Any,
) -> tuple[TlsTransport, TlsTransport]:
    """A client at ``near`` and a server at ``far``, before the handshake."""
    return (
        TlsTransport(near, client or client_context(), **{"server_name": "localhost"} | arguments),
        TlsTransport(far, server or server_context()),
    )


async def tls_pair(near: Transport, far: Transport, **arguments: Any) -> tuple[TlsTransport, TlsTransport]:
    """The same after it."""
    ends = tls_ends(near, far, **arguments)
    await shake_hands(*ends)
    return ends


async def shake_hands(*ends: TlsTransport) -> None:
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.handshake, NEVER_SWEPT, math.inf)
