"""What stands in files of certificates and keys, and whether it is of use. Judged with ``cryptography``.

Owns the judgement of one certificate with those above it, of one key, and of whether they belong together.
Whatever is wrong, it is an `UnusableError`, which never holds a byte of a key. Nothing here reads a file or a
clock, or trusts what it is given.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lbproc.config.pem import CertificateFacts
from lbproc.config.pem_file import refusal_of
from lbproc.config.wording import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.pem import KeyKind

LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 16_384
"""OpenSSL takes no larger ones."""

LONGEST_CHAIN: Final = 10
_MOST_NAMES: Final = 1000
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PURPOSES: Final = {
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
}
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_KINDS: Final = "RSA of at least 2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"


class UnusableError(ValueError):
    """What is wrong with a file, and what would be right: two halves parted by a semicolon."""


@contextmanager
def _judging(what: str) -> Iterator[None]:
    """Whatever else the library has against what it is given is told in one sentence, and warnings are not.

    It has errors of many kinds for what is malformed, some of which are no ``ValueError``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnusableError:
        raise
    except Exception:
        raise UnusableError(f"{what} is malformed; have it made again") from None


_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def read_certificate(content: bytes, purpose: Literal["server", "client"]) -> CertificateFacts:
    """What is known of the first certificate of a file, after all of them were looked at.

    Args:
        content: of the file.
        purpose: what the certificate must be allowed to show.

    Raises:
        UnusableError: with what is wrong.
    """
    with _judging("a certificate in it"):
        return _read(content, purpose)


def _read(content: bytes, purpose: Literal["server", "client"]) -> CertificateFacts:
    leaf, *above = chain = _certificates(content)
    if len(chain) > LONGEST_CHAIN:
        raise UnusableError(
            f"it holds {len(chain)} certificates; leave there the certificate and those that signed it"
        )
    key = _public_key(leaf)
    _check_purpose(leaf, purpose)
    _check_order(chain)
    names, addresses = _names(leaf)
    return CertificateFacts(
        subject=leaf.subject.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        names=names,
        addresses=addresses,
        key_kind=_kind(key),
        key_bits=256 if isinstance(key, ed25519.Ed25519PublicKey) else key.key_size,
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        chain_not_after=min(one.not_valid_after_utc.timestamp() for one in chain),
        chain=tuple(one.subject.rfc4514_string() for one in above),
        is_signed_with_sha1=any(_is_sha1(one) for one in chain if one.subject != one.issuer),
    )


def check_key(content: bytes, certificate: bytes | None) -> None:
    """Whether a file holds one private key that is of use, and that of the first certificate of another.

    Args:
        content: of the key's file.
        certificate: content of the certificate's file, which was found good; None: there is none.

    Raises:
        UnusableError: with what is wrong. Says nothing of what the file holds.
    """
    with _judging("the key"):
        _check_key(content, certificate)


def _check_key(content: bytes, certificate: bytes | None) -> None:
    if any(mark in content for mark in _ENCRYPTED):
        raise UnusableError(
            "the key is encrypted, and nobody is there to type its passphrase; "
            "write it without one (openssl pkey -in KEY -out NEW), readable by its owner alone"
        )
    try:
        key: object = serialization.load_pem_private_key(content, password=None).public_key()
    except UnsupportedAlgorithm:
        key = None
    except (ValueError, TypeError):
        if b"-----BEGIN CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content:
            raise UnusableError("it holds a certificate and no key; name the file of the key") from None
        raise UnusableError(
            "it holds no private key in PEM form; name a file that begins with -----BEGIN PRIVATE KEY-----"
        ) from None
    public = _usable(key)
    if certificate is None:
        return
    if _certificates(certificate)[0].public_key() != public:
        raise UnusableError(
            "the key is not that of the certificate beside it; name the key that the certificate was made for"
        )
    if reason := refusal_of(certificate, content):
        raise UnusableError(
            f"TLS of this system refuses the certificate beside it ({reason}); "
            "have it made again, signed with SHA-256"
        )


def check_authorities(content: bytes) -> None:
    """Whether a file holds an authority that something can be traced back to.

    Raises:
        UnusableError: with what is wrong.
    """
    with _judging("a certificate in it"):
        if not any(map(_is_root, _certificates(content))):
            raise UnusableError(
                "none of its certificates is signed by itself, and OpenSSL trusts nothing by others alone; "
                "add the certificate of the root authority"
            )


def last_root_ends(content: bytes) -> float:
    """When the last root authority expires, as seconds since 1970.

    Args:
        content: that `check_authorities` has found good.
    """
    return max(one.not_valid_after_utc.timestamp() for one in _certificates(content) if _is_root(one))


def _is_root(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL ends a chain at it; elsewhere it would with its flag for partial chains alone."""
    return certificate.subject == certificate.issuer


def _certificates(content: bytes) -> list[x509.Certificate]:
    """All certificates of a file, of which there is at least one."""
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        if b"PRIVATE KEY-----" in content and b"-----BEGIN CERTIFICATE-----" not in content:
            raise UnusableError(
                "it holds a key and no certificate; name the file of the certificate"
            ) from None
        raise UnusableError(
            "it holds no certificate in PEM form; name a file that begins with -----BEGIN CERTIFICATE-----"
        ) from None
    return found


def _public_key(certificate: x509.Certificate) -> _PublicKey:
    try:
        key: object = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    return _usable(key)


def _usable(key: object) -> _PublicKey:
    """A key, if it is of a kind and size that clients of today take."""
    match key:
        case rsa.RSAPublicKey() if key.key_size < LEAST_RSA_BITS:
            raise UnusableError(
                f"its RSA key has {key.key_size} bits, which clients refuse; "
                f"make one of at least {LEAST_RSA_BITS}"
            )
        case rsa.RSAPublicKey() if key.key_size <= MOST_RSA_BITS:
            return key
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, _CURVES):
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            raise UnusableError(f"this kind of key is not of use; make one that is {_KINDS}")


def _kind(key: _PublicKey) -> KeyKind:
    match key:
        case rsa.RSAPublicKey():
            return "RSA"
        case ec.EllipticCurvePublicKey():
            return "ECDSA"
        case _:
            return "Ed25519"


def _check_purpose(leaf: x509.Certificate, purpose: Literal["server", "client"]) -> None:
    """A certificate that says what it may be used for says this; one that says nothing is for everything."""
    identifier, word = _PURPOSES[purpose]
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if identifier not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
        raise UnusableError(
            f"its extended key usage lacks {word}, so its peers refuse it; have it made for a {purpose}"
        )


def _check_order(chain: list[x509.Certificate]) -> None:
    """Each certificate is signed by the next one in the file."""
    for place, (one, signer) in enumerate(pairwise(chain), start=1):
        try:
            one.verify_directly_issued_by(signer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            subject = quote(one.subject.rfc4514_string())
            by = quote(signer.subject.rfc4514_string())
            raise UnusableError(
                f"its certificate {place}, {subject}, is not signed by the one after it, {by}; "
                "put the certificate first, then the one that signed it, and so on"
            ) from None


def _names(leaf: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The host names and addresses that a certificate is for. What no client compares is passed over."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    names = [name.lower().removesuffix(".") for name in found.get_values_for_type(x509.DNSName)]
    if len(names) > _MOST_NAMES:
        raise UnusableError(f"it is for {len(names)} names; make several, of {_MOST_NAMES} names at most")
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return tuple(dict.fromkeys(filter(is_certificate_name, names))), tuple(dict.fromkeys(addresses))


def _is_sha1(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5)
    except UnsupportedAlgorithm:
        return False


def is_certificate_name(name: str) -> bool:
    """Whether a client may find its server in this name: letters, digits, hyphens; a star as first label."""
    labels = name.removeprefix("*.").split(".")
    return len(name) <= 253 and all(
        0 < len(label) < 64 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
