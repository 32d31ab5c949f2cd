"""Certificates and keys in files: read once, with the configuration, so that all processes see the same.

Owns the types that hold what stood in such files, and what is known of a certificate. The files are read by
the process that loads the configuration, which alone needs the rights to; who makes a context of the bytes
needs no file. What of them makes sense is judged by ``certificates``, which is imported only where there is
something to judge, because the library behind it takes its time to load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from lbproc.config.place import FileContent, Stamp, resolve_path, surroundings
from lbproc.config.wording import quote, quote_end, wrong, wrong_type

LARGEST_PEM: Final = 1024**2
"""Bytes. The authorities of a whole system fit."""

NO_STAMP: Final[Stamp] = (0, 0, 0, 0)

KeyKind = Literal["RSA", "ECDSA", "Ed25519"]


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file of certificates in PEM form.

    Args:
        path: where it was read.
        content: all of it, as it was when it was read.
        stamp: by which it is seen that the file has changed since.
    """

    path: str
    content: bytes = field(repr=False)
    stamp: Stamp = field(default=NO_STAMP, repr=False, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What is known of a certificate and of those above it in its file.

    Args:
        subject: its distinguished name, as RFC 4514 writes it.
        serial: in hexadecimal.
        fingerprint: SHA-256 of the certificate, in hexadecimal.
        names: the host names it is for, in lower case, wildcards among them, in its order.
        addresses: the IP addresses it is for.
        key_kind: which clients can use it hangs on this.
        key_bits: the size of the key.
        not_before: first second of its validity, as seconds since 1970.
        not_after: last second of its validity.
        chain_not_after: the same of the certificate in the file that ends first.
        chain: the subjects of the certificates above it in the file.
        is_signed_with_sha1: whether it, or one above it that is not its own issuer, is signed so.
    """

    subject: str
    serial: str
    fingerprint: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    key_kind: KeyKind
    key_bits: int
    not_before: float
    not_after: float
    chain_not_after: float
    chain: tuple[str, ...] = ()
    is_signed_with_sha1: bool = False


@dataclass(frozen=True, slots=True)
class CertificateFile(PemFile):
    """A certificate, followed by those that lead to an authority, and what is known of it.

    Args:
        facts: of the first one in the file.
    """

    facts: CertificateFacts


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key in PEM form. Nothing of it shows.

    Args:
        path: where it was read.
        content: all of it. Use it where a context is made, and keep no copy.
        mode: the permissions of the file.
        stamp: by which it is seen that the file has changed since.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int = field(default=0o600, repr=False, compare=False)
    stamp: Stamp = field(default=NO_STAMP, repr=False, compare=False, kw_only=True)


def parse_authorities(value: object, info: ValidationInfo) -> PemFile:
    """The file of the authorities whose signatures count."""
    path, read = _read(value, info, example="tls/ca.pem")
    try:
        from lbproc.config.certificates import check_authorities  # noqa: PLC0415  only where it is needed

        check_authorities(read.octets)
    except ValueError as error:
        raise _unusable(path, "no authorities", error) from None
    return PemFile(path, read.octets, stamp=read.stamp)


def parse_certificate(
    value: object, info: ValidationInfo, *, purpose: Literal["server", "client"]
) -> CertificateFile:
    """The file of a certificate, with those above it."""
    path, read = _read(value, info, example=f"tls/{purpose}.pem")
    try:
        from lbproc.config.certificates import read_certificate  # noqa: PLC0415  only where it is needed

        facts = read_certificate(read.octets, purpose)
    except ValueError as error:
        raise _unusable(path, "no usable certificate", error) from None
    return CertificateFile(path, read.octets, facts, stamp=read.stamp)


def parse_key(value: object, info: ValidationInfo) -> KeyFile:
    """The file of a private key, which belongs to the certificate that stands beside it."""
    path, read = _read(value, info, example="tls/server.key")
    certificate = info.data.get("cert")
    try:
        from lbproc.config.certificates import check_key  # noqa: PLC0415  only where it is needed

        check_key(read.octets, certificate.content if isinstance(certificate, CertificateFile) else None)
    except ValueError as error:
        raise _unusable(path, "no usable key", error) from None
    return KeyFile(path, read.octets, read.mode, stamp=read.stamp)


def _read(value: object, info: ValidationInfo, *, example: str) -> tuple[str, FileContent]:
    """The path of a file, and what stands in it."""
    if not isinstance(value, str):
        raise wrong_type(value, "the path of a file", quote(example))
    if not value or not value.isprintable() or value.endswith("/"):
        raise wrong(f"{quote(value)} is not the path of a file", f"write one such as {quote(example)}")
    path = resolve_path(value, surroundings(info))
    try:
        return str(path), surroundings(info).read_pem(path)
    except PermissionError:
        raise wrong(
            f"the file {quote_end(str(path))} cannot be read: permission denied",
            "let the user that starts lbproc read it; workers never need to",
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
        raise wrong(
            f"the file {quote_end(str(path))} cannot be read: {reason}",
            f"write the path of a readable file in PEM form, such as {quote(example)}",
        ) from None


def _unusable(path: str, gives: str, error: ValueError) -> Exception:
    """What is wrong with what a file holds, from an error that says it in two halves."""
    what, _, right = str(error).partition("; ")
    return wrong(
        f"the file {quote_end(path)} gives {gives}: {what}",
        right or "name a file in PEM form that holds what is meant",
    )


def _path_of(file: PemFile | KeyFile) -> str:
    return file.path


AuthoritiesFile = Annotated[PemFile, PlainValidator(parse_authorities), PlainSerializer(_path_of)]
PrivateKey = Annotated[KeyFile, PlainValidator(parse_key), PlainSerializer(_path_of)]
