"""Backends of a stage that speak TLS, by Python's ssl, and those that only seem to."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from tests.e2e.harness_backend import BackendConnection, serve_requests

if TYPE_CHECKING:
    from tests.certificates import Authority, Pair

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Secure:
    """A script of a backend: shakes hands, then answers requests.

    Args:
        pair: what it shows.
        version: the only one it speaks; None: any.
        clients: signs the certificate that it asks for; None: it asks for none.

    Attributes:
        resumed: of each connection whose handshake succeeded, in order, whether a session went on.
        failed: how many handshakes did not.
        alpn: what was agreed on last.
    """

    def __init__(self, pair: Pair, *, version: str | None = None, clients: Authority | None = None) -> None:
        self.resumed: list[bool] = []
        self.failed = 0
        self.alpn: str | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["http/1.1"])
        if version is not None:
            self._context.minimum_version = self._context.maximum_version = VERSIONS[version]
        if clients is not None:
            self._context.load_verify_locations(cadata=clients.pem.decode())
            self._context.verify_mode = ssl.CERT_REQUIRED
        from lbproc.net.tls.context import load_key_pair  # noqa: PLC0415

        load_key_pair(self._context, pair.chain, pair.key)

    async def __call__(self, connection: BackendConnection) -> None:
        """Serves one connection."""
        stream = trio.SSLStream(connection._stream, self._context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            self.failed += 1
            await connection.send(stream._outgoing.read())  # the alert, which trio keeps to itself
            await connection.half_close()
            return
        self.resumed.append(stream.session_reused)
        self.alpn = stream.selected_alpn_protocol()
        connection._stream = stream  # type: ignore[assignment]  # it has what is used of it
        await serve_requests(connection)
        with trio.move_on_after(1):
            await stream.aclose()


async def stall(connection: BackendConnection) -> None:
    """Hears the beginning of a handshake, and says nothing."""
    while await connection.receive():
        pass


async def babble(connection: BackendConnection) -> None:
    """Answers a handshake in clear."""
    await connection.receive()
    await connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await connection.receive()
