"""An authority for one's own machines, and certificates that it signs: what ``cert self-signed`` makes.

Owns what stands in them. Reads and writes no file and no clock. Besides ``certificates`` the only user of
``cryptography``. The authority signs certificates of servers alone, no further authority. Names are not
constrained, because it is used again for names that are not known yet; so its key is to be kept well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbproc.config.certificates import check_key, is_certificate_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.types import Seconds

YEARS: Final = 10
_SKEW: Final = timedelta(hours=1)
"""Clocks of other machines may be behind."""

_LONGEST_COMMON_NAME: Final = 64  # ub-common-name, RFC 5280 appendix A


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and its key in PEM form.

    Args:
        cert: may be shown to anybody.
        key: is for nobody else.
        not_after: when it expires, as seconds since 1970.
    """

    cert: bytes
    key: bytes
    not_after: Seconds

    def __repr__(self) -> str:
        """Nothing of the key."""
        return f"Made(not_after={self.not_after})"


def make_authority(now: Seconds) -> Made:
    """A new authority.

    Args:
        now: the date, as seconds since 1970.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Several may be trusted on one machine, and are told apart by it.
    name = _named(f"lbproc local authority {serial:040x}"[:-32])
    begin = datetime.fromtimestamp(now, UTC) - _SKEW
    end = begin + timedelta(days=366 * YEARS)
    builder = _builder(name, name, key.public_key(), serial, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _made(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Made, names: Sequence[str], days: int, now: Seconds) -> Made:
    """A certificate of a server.

    Args:
        authority: who signs it.
        names: host names, wildcards and IP addresses, in the form of `checked_name`.
        days: how long it is valid; at most as long as the authority.
        now: the date, as seconds since 1970.
    """
    signer = x509.load_pem_x509_certificate(authority.cert)
    signing_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.fromtimestamp(now, UTC)
    end = min(begin + timedelta(days=days), signer.not_valid_after_utc)
    builder = _builder(
        _named(names[0]) if len(names[0]) <= _LONGEST_COMMON_NAME else x509.Name([]),
        signer.subject,
        key.public_key(),
        x509.random_serial_number(),
        max(begin - _SKEW, signer.not_valid_before_utc),
        end,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
    )
    return _made(builder.sign(signing_key, hashes.SHA256()), key)


def read_authority(cert: bytes, key: bytes, now: Seconds) -> Made:
    """An authority that was made before.

    Raises:
        ValueError: it cannot sign: with what is wrong and what would be right.
    """
    check_key(key, cert)
    found = x509.load_pem_x509_certificate(cert)
    try:
        can_sign = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        can_sign = False
    if not can_sign or not isinstance(found.public_key(), ec.EllipticCurvePublicKey):
        raise ValueError("it is no authority that lbproc has made; name another directory")
    if found.not_valid_after_utc.timestamp() <= now:
        raise ValueError("it has expired; move it away, and trust the one that is made then")
    return Made(cert, key, found.not_valid_after_utc.timestamp())


def checked_name(text: str) -> str:
    """A host name, wildcard or IP address as it stands in a certificate.

    Raises:
        ValueError: it is none: with what would be right.
    """
    name = text.lower().removesuffix(".")
    try:
        return str(ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    if is_certificate_name(name) and not name.rpartition(".")[2].isdigit():
        return name
    raise ValueError('write one such as "www.example.com", "*.example.com", "localhost" or "127.0.0.1"')


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _made(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Made:
    return Made(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.not_valid_after_utc.timestamp(),
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
