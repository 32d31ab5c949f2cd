"""Certificates of an authority that exists only for a test: for servers and clients, good ones and bad ones.

Made with ``cryptography`` when they are asked for. Keys on P-256 unless said otherwise, because those are
made in no time; RSA keys, which are not, are made once and used again.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Kind = Literal["ECDSA", "RSA", "Ed25519"]
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def now() -> datetime.datetime:
    """The time of the system, which TLS libraries go by."""
    return datetime.datetime.now(datetime.UTC)


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def new_key(kind: Kind = "ECDSA") -> CertificateIssuerPrivateKeyTypes:
    match kind:
        case "ECDSA":
            return ec.generate_private_key(ec.SECP256R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "RSA":
            return rsa_key()


@dataclass(frozen=True)
class Pair:
    """A certificate with those above it, and its key."""

    certificate: x509.Certificate
    chain: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Files ``NAME.pem`` and ``NAME.key`` of it."""
        cert, key = directory / f"{name}.pem", directory / f"{name}.key"
        cert.write_bytes(self.chain)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return cert, key

    def toml(self, directory: Path, name: str) -> str:
        """The same, and what names them in a configuration."""
        cert, key = self.write(directory, name)
        return f'{{ cert = "{cert}", key = "{key}" }}'


class Authority:
    """Signs certificates. One that is given another one is an intermediate below that."""

    def __init__(self, name: str = "lbproc tests", above: Authority | None = None) -> None:
        self.key = new_key()
        self._above = above
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate: x509.Certificate = (
            _builder(subject, above.certificate.subject if above else subject, self.key.public_key(), 3650, 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(above.key if above else self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path, name: str = "ca") -> Path:
        """The file ``NAME.pem`` of the authority's own certificate."""
        path = directory / f"{name}.pem"
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        *names: str,
        kind: Kind = "ECDSA",
        days: float = 90,
        began: float = 1,
        purpose: Literal["server", "client"] | None = "server",
        common_name: str | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        subject: x509.Name | None = None,
        extension: x509.ExtensionType | None = None,
    ) -> Pair:
        """A certificate.

        Args:
            names: host names, wildcards and IP addresses; none: it has no names.
            kind: of its key.
            days: until it expires; negative: it has.
            began: how many days ago it became valid; negative: it will.
            purpose: its extended key usage; None: it has none.
            common_name: of its subject; default: its first name.
            key: one that exists already.
            subject: all of it.
            extension: one more.
        """
        key = key or new_key(kind)
        subject = subject or x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common_name or (*names, "nobody")[0])]
        )
        builder = _builder(subject, self.certificate.subject, key.public_key(), days, began)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([_PURPOSES[purpose]]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Pair(certificate, _pem([certificate, *self._intermediates()]), key_pem(key))

    def _intermediates(self) -> Sequence[x509.Certificate]:
        return [] if self._above is None else [self.certificate, *self._above._intermediates()]


def self_signed(*names: str) -> Pair:
    """A certificate that is its own authority."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject, subject, key.public_key(), 90, 1)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, _pem([certificate]), key_pem(key))


def key_pem(key: CertificateIssuerPrivateKeyTypes, passphrase: bytes | None = None) -> bytes:
    """A key as a file holds it, encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: object,
    days: float,
    began: float,
) -> x509.CertificateBuilder:
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey)
    end = now() + datetime.timedelta(days=days)
    begin = (
        min(now(), end) - datetime.timedelta(days=began)
        if began > 0
        else now() - datetime.timedelta(days=began)
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
