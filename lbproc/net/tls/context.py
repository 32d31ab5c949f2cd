"""Contexts of OpenSSL, made of bytes: what was read with the configuration, never a file of its own.

Owns every choice that is made of OpenSSL: versions, ciphers, options, what is verified. Which certificate a
host gets is `lbproc.net.tls.sites`'. Making a context takes milliseconds, so it is not done on the loop.

Decisions:
    - The client chooses among the ciphers, as Mozilla recommends (guidelines 5.7, intermediate): all of them
      are good, and a telephone knows best that it has no AES of its own. Curves are those of OpenSSL.
    - No renegotiation, no compression, no log of keys, and no store of sessions where tickets serve.
    - Private keys are handed to OpenSSL through memory files, the only way that needs neither a disk nor
      OpenSSL's own interfaces.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lbproc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lbproc.config.tls import BackendTlsConfig, CertificateConfig, ClientAuth, KeyPairConfig, TlsConfig

HTTP_ALPN: Final = ("http/1.1",)
"""What is agreed on where HTTP is spoken inside."""

_TICKETS: Final = 1
"""With each full handshake of TLS 1.3, as Go does it. OpenSSL would send two, which costs 14 of 180 µs more;
a client that opens several connections at once gets one on each."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(
    config: TlsConfig,
    certificates: Iterable[CertificateConfig | KeyPairConfig],
    client_auth: ClientAuth | None,
    alpn: Sequence[str] = HTTP_ALPN,
) -> ssl.SSLContext:
    """A context towards clients.

    Args:
        config: the listener's.
        certificates: at most one for each kind of key; clients are shown the one that they can use.
        client_auth: how clients show who they are; None: they are not asked.
        alpn: the protocols that are spoken inside; empty: whatever the client asks for, nothing is said.

    Raises:
        ConfigError: OpenSSL refuses something.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, config.min_version)
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    with _refusals("ciphers"):
        context.set_ciphers(":".join(config.ciphers))
    context.num_tickets = _TICKETS
    if not config.tickets:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    for certificate in certificates:
        _show(context, certificate)
    if client_auth is not None:
        _trust(context, client_auth.ca.path, client_auth.ca.content)
        context.verify_mode = ssl.CERT_REQUIRED if client_auth.is_required else ssl.CERT_OPTIONAL
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(config: BackendTlsConfig, alpn: Sequence[str] = HTTP_ALPN) -> ssl.SSLContext:
    """A context towards the backends of a pool.

    Args:
        config: the pool's.
        alpn: the protocols that are offered.

    Raises:
        ConfigError: OpenSSL refuses something.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, config.min_version)
    context.hostname_checks_common_name = False
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca is not None:
        _trust(context, config.ca.path, config.ca.content)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if config.certificate is not None:
        _show(context, config.certificate)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def load_key_pair(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """Gives a context a certificate, with those above it, and its key, both in PEM form.

    Raises:
        ssl.SSLError: They are of no use, or do not belong together.
        OSError: There is no memory file, or no /proc.
    """
    with _memory_file(chain) as chain_path, _memory_file(key) as key_path:
        context.load_cert_chain(chain_path, key_path, password=_no_passphrase)


def _restrict(context: ssl.SSLContext, min_version: str) -> None:
    """What holds for servers and clients alike."""
    context.minimum_version = _VERSIONS[min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


def _show(context: ssl.SSLContext, certificate: CertificateConfig | KeyPairConfig) -> None:
    with _refusals(certificate.cert.path):
        load_key_pair(context, certificate.cert.content, certificate.key.content)


def _trust(context: ssl.SSLContext, path: str, content: bytes) -> None:
    with _refusals(path):
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Says what OpenSSL refuses, in its words, which hold nothing of a key."""
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "unusable").replace("_", " ").lower()
        raise ConfigError((f"{what}: OpenSSL cannot use it: {reason}",)) from None


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A file that exists only here and only meanwhile; gives its path."""
    fd = os.memfd_create("lbproc-tls", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _no_passphrase() -> bytes:
    """Keeps OpenSSL from asking whoever sits at the terminal."""
    return b""
