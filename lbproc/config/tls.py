"""The tables about TLS: ``[listeners.NAME.tls]`` towards clients, ``[pools.NAME.tls]`` towards backends.

Owns their keys, their defaults and what each value may look like. What several of them may be together is in
``tls_rules``; what stands in the files is judged in ``certificates``.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from lbproc.config.health import parse_server_name
from lbproc.config.match import parse_host
from lbproc.config.pem import AuthoritiesFile, CertificateFile, PemFile, PrivateKey, parse_certificate
from lbproc.config.table import Table, choice, strings
from lbproc.config.values import Switch, parse_pool_reference
from lbproc.config.wording import nearest, quote, toml_type, wrong, wrong_type

_CIPHER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""Of TLS 1.2: forward secrecy and authenticated encryption, nothing else. TLS 1.3 has its own, all good."""

_SIGNED: Final = {"auth-rsa", "auth-ecdsa"}
"""How a server shows who it is with a certificate of the kinds that are taken, in the words of OpenSSL."""


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """How clients show who they are.

    Args:
        ca: the authorities whose certificates count.
        is_required: whether a client without one is turned away.
    """

    ca: PemFile
    is_required: bool


def parse_certificate_host(value: object) -> str:
    """A host that a certificate is chosen for: a name, or ``*.`` before one for the names one label below."""
    host = parse_host(value)
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        raise wrong(
            f"{quote(host)} is an address, and clients name none in a handshake",
            "leave it out: the first certificate is for clients that name no host",
        )
    return host


def parse_cipher(value: object) -> str:
    """A cipher suite of TLS 1.2, as OpenSSL names it."""
    if not isinstance(value, str):
        raise wrong_type(value, "the name of a cipher", quote(CIPHERS[0]))
    right = f"write the name of one of TLS 1.2 as OpenSSL has it, such as {quote(CIPHERS[0])}"
    if value.startswith("TLS_"):
        raise wrong(
            f"{quote(value)} belongs to TLS 1.3, whose ciphers are all good and always there",
            f"leave it out, or {right}",
        )
    known = openssl_cipher(value) if _CIPHER.fullmatch(value) else None
    if known is None:
        guess = nearest(value, CIPHERS)
        raise wrong(
            f"{quote(value)} is no cipher of this system", f"did you mean {quote(guess)}?" if guess else right
        )
    if not known["strength_bits"]:
        raise wrong(f"{quote(value)} encrypts nothing", right)
    if known["auth"] not in _SIGNED:
        raise wrong(f"{quote(value)} is of no use with a certificate", right)
    return value


def openssl_cipher(name: str) -> Mapping[str, Any] | None:
    """What OpenSSL says of exactly this cipher; many other words stand for groups of them there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.set_ciphers(name)
    except ssl.SSLError:
        return None
    return next((cipher for cipher in context.get_ciphers() if cipher["name"] == name), None)


def parse_passthrough(value: object) -> dict[str, str]:
    """Hosts that are not terminated, and the pools that they are handed to."""
    right = 'write hosts and pools such as { "db.example.com" = "db" }'
    if not isinstance(value, dict):
        raise wrong(f"is {toml_type(value)}, not a table of hosts", right)
    found: dict[str, str] = {}
    for host, pool in value.items():
        name = parse_certificate_host(host)
        if name in found:
            raise wrong(f"{quote(name)} is there twice, in other cases", "keep one of them")
        found[name] = parse_pool_reference(pool)
    return found


def _as_certificates(value: object) -> object:
    """The list of a listener's certificates."""
    example = '[{ cert = "tls/example.pem", key = "tls/example.key" }]'
    if not isinstance(value, list | tuple):
        raise wrong(f"is {toml_type(value)}, not a list of certificates", f"write a list such as {example}")
    if not value:
        raise wrong("is an empty list", f"write at least one certificate, such as {example}")
    return tuple(value)


ServerCertificate = Annotated[
    CertificateFile,
    PlainValidator(partial(parse_certificate, purpose="server")),
    PlainSerializer(lambda file: file.path),
]
ClientCertificate = Annotated[
    CertificateFile,
    PlainValidator(partial(parse_certificate, purpose="client")),
    PlainSerializer(lambda file: file.path),
]
Version = Annotated[Literal["1.2", "1.3"], choice("a version of TLS", "1.2", "1.3")]
ClientAuthWord = Annotated[
    Literal["required", "optional"], choice("a way to ask for certificates", "required", "optional")
]


class CertificateConfig(Table):
    """One certificate of a listener, and the hosts that it is for."""

    cert: ServerCertificate = Field(
        description="file of the certificate, followed by those above it", examples=['cert = "tls/web.pem"']
    )
    key: PrivateKey = Field(description="file of its private key", examples=['key = "tls/web.key"'])
    hosts: Annotated[
        tuple[Annotated[str, PlainValidator(parse_certificate_host)], ...], strings("www.example.com")
    ] = Field(default=(), description="hosts that it is shown for; default: the names in it")
    client_ca: AuthoritiesFile | None = Field(
        default=None, description="authorities of the certificates that clients of these hosts show"
    )
    client_auth: ClientAuthWord | None = Field(
        default=None, description="whether clients of these hosts must show one: required, optional"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts that it is chosen for; a star stands for one label. Without any: only as the default."""
        return self.hosts or self.cert.facts.names


class TlsConfig(Table):
    """TLS towards clients: present, and connections are decrypted here."""

    certificates: Annotated[tuple[CertificateConfig, ...], BeforeValidator(_as_certificates)] = Field(
        description="chosen by the host that a client names; the first one is for all others",
        examples=['certificates = [{ cert = "tls/web.pem", key = "tls/web.key" }]'],
    )
    min_version: Version = Field(default="1.2", description="the oldest version of TLS: 1.2 or 1.3")
    ciphers: Annotated[
        tuple[Annotated[str, PlainValidator(parse_cipher)], ...], strings("ECDHE-ECDSA-AES128-GCM-SHA256")
    ] = Field(default=CIPHERS, description="ciphers of TLS 1.2, the best one first")
    client_ca: AuthoritiesFile | None = Field(
        default=None,
        description="authorities of the certificates that clients show; absent: none is asked for",
    )
    client_auth: ClientAuthWord | None = Field(
        default=None, description="whether clients must show a certificate; default: required with client_ca"
    )
    strict_sni: Switch = Field(
        default=False, description="true: a client that names no host of a certificate is turned away"
    )
    tickets: Switch = Field(default=True, description="whether clients may resume sessions, in any worker")
    watch: Switch = Field(default=False, description="whether changed files are taken without a reload")
    passthrough: Annotated[dict[str, str], PlainValidator(parse_passthrough)] = Field(
        default_factory=dict, description="hosts that are not decrypted here, and the pools they go to"
    )

    def client_auth_for(self, certificate: CertificateConfig) -> ClientAuth | None:
        """How clients that are shown this certificate show who they are; None: they need not."""
        ca = certificate.client_ca or self.client_ca
        word = certificate.client_auth or self.client_auth or "required"
        return None if ca is None else ClientAuth(ca, word == "required")

    @property
    def asks_clients(self) -> bool:
        """Whether clients of any host are asked for certificates."""
        return any(self.client_auth_for(entry) is not None for entry in self.certificates)


class KeyPairConfig(Table):
    """A certificate that lbproc itself shows to backends."""

    cert: ClientCertificate = Field(
        description="file of the certificate, followed by those above it",
        examples=['cert = "tls/lbproc.pem"'],
    )
    key: PrivateKey = Field(description="file of its private key", examples=['key = "tls/lbproc.key"'])


class BackendTlsConfig(Table):
    """TLS towards the backends of a pool: present, and it is spoken."""

    verify: Switch = Field(default=True, description="whether the certificate of a backend must be right")
    ca: AuthoritiesFile | None = Field(
        default=None, description="file of the authorities to trust; default: those of the system"
    )
    server_name: Annotated[str, PlainValidator(parse_server_name)] | None = Field(
        default=None,
        description="name that is asked for and that certificates are for; default: the host of the backend",
    )
    certificate: KeyPairConfig | None = Field(
        default=None, description="certificate that is shown to backends that ask for one"
    )
    min_version: Version = Field(default="1.2", description="the oldest version of TLS: 1.2 or 1.3")
