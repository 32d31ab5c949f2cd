"""Clients of one listener with TLS that keep their sessions and verify what they are shown."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Self

from cryptography import x509

from tests.e2e.harness import PATIENCE
from tests.e2e.harness_client import READ_BYTES, render_request
from tests.e2e.harness_wire import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.certificates import Authority
    from tests.e2e.harness_wire import Message


def tls_table(pairs: Sequence[str], rest: str = "") -> str:
    """``[listeners.web.tls]`` with certificates as ``Pair.toml`` writes them."""
    return f"[listeners.web.tls]\ncertificates = [{', '.join(pairs)}]\n{rest}\n"


def client_context(authority: Authority, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts an authority, and may speak one version only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TlsClient:
    """One connection, whose certificate is verified.

    Args:
        address: ``host:port``.
        context: the client's.
        name: the host that is asked for.
        session: of an earlier connection.
        receive_buffer: the socket's receive buffer, for clients that read slowly.
    """

    def __init__(
        self,
        address: str,
        context: ssl.SSLContext,
        name: str,
        session: ssl.SSLSession | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        plain = socket.socket()
        try:
            if receive_buffer is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            # A request right after the end of a handshake would wait for the delayed acknowledgement of that.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(PATIENCE)
            plain.connect((host, int(port)))
            self.socket = context.wrap_socket(plain, server_hostname=name, session=session)
        except BaseException:
            plain.close()
            raise
        self._name = name
        self._reader = Reader(responses=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def serial_number(self) -> int:
        """Of the certificate that was shown, or was in the session that goes on."""
        shown = self.socket.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    def request(self, target: str = "/") -> Message:
        """Sends a plain request and reads its response."""
        self.socket.sendall(render_request(target).replace(b"example.com", self._name.encode(), 1))
        while (message := self._reader.next_message()) is None:
            assert not self._reader.at_eof, "the connection ended inside a response"
            self._reader.feed(self.socket.recv(READ_BYTES))
        return message
