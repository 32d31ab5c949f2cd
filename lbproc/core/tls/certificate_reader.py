"""Reads a client's certificate with ``cryptography``, and writes what it says for headers.

Owns the form of subject and names, and what is refused of them. Does not judge a certificate: whoever gives
one has verified it. Its words are the client's all the same, as far as the authority let them pass. The
library is stricter than OpenSSL in places; what it cannot read is refused, whoever has verified it.

Invariants:
- What goes into headers is printable ASCII, has a bound, and one certificate has one spelling.
- No name can look like two: what could is escaped.
- Nothing is imported once this module is there, and nothing is printed.
"""

from __future__ import annotations

import codecs
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.x509.oid import NameOID

from lbproc.core.tls.certificate import ClientCertificate

MAX_TEXT: Final = 4096
"""Characters of a subject, and of all names: what is longer fits into no head."""

_ATTRIBUTES: Final = {
    NameOID.COMMON_NAME: "CN",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STREET_ADDRESS: "STREET",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
}
"""The short names of RFC 4514 section 3; others are written as numbers."""

_SPECIAL: Final = frozenset(',+"\\<>;=')
_PLAIN_IN_NAMES: Final = "/:@*?&+="
_LONGEST_REASON: Final = 200

for _encoding in ("utf_16_be", "utf_32_be"):
    codecs.lookup(_encoding)  # of BMPString and UniversalString: Python imports a codec when it is first used


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever the library has against a certificate is a ``ValueError``, and what it warns of is not said.

    It has errors of many kinds for what is malformed. Even a panic of its Rust, which is no ``Exception``,
    must not be the end of a worker.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise ValueError(f"it cannot be read: {reason}") from None


def read(der: bytes) -> ClientCertificate:
    """Reads a certificate.

    Raises:
        ValueError: it cannot be read, or says more than fits.
    """
    with _reading():
        certificate = x509.load_der_x509_certificate(der)
        name = certificate.subject
        extensions = certificate.extensions
    steps = [_attributes(step) for step in name.rdns]
    subject = ",".join(
        "+".join(f"{kind}={_escaped(text)}" for kind, text in step) for step in reversed(steps)
    )
    names = ", ".join(_names(extensions))
    if len(subject) > MAX_TEXT or len(names) > MAX_TEXT:
        raise ValueError("it has more names than fit into a head")
    return ClientCertificate(subject, names, hashlib.sha256(der).hexdigest(), _common_name(steps))


def _attributes(step: x509.RelativeDistinguishedName) -> list[tuple[str, str]]:
    """One step of a subject, which may have several parts: of each its kind and its text."""
    found = []
    for attribute in step:
        text = attribute.value
        if not isinstance(text, str):
            raise ValueError("its subject has bits where a text should stand")  # noqa: TRY004  the one kind
        found.append((_ATTRIBUTES.get(attribute.oid) or attribute.oid.dotted_string, text))
    return found


def _common_name(steps: list[list[tuple[str, str]]]) -> str:
    """The last one, which is the most specific."""
    names = [text for step in steps for kind, text in step if kind == "CN"]
    return names[-1] if names and names[-1].isprintable() else ""


def _escaped(text: str) -> str:
    """RFC 4514 section 2.4; beyond that ``=``, and everything but printable ASCII becomes hexadecimal."""
    pieces = []
    for place, character in enumerate(text):
        if character in _SPECIAL:
            pieces.append(f"\\{character}")
        elif not " " <= character <= "~":
            pieces += [f"\\{byte:02X}" for byte in character.encode()]
        elif (character == " " and place in {0, len(text) - 1}) or (character == "#" and not place):
            pieces.append(f"\\{character}")
        else:
            pieces.append(character)
    return "".join(pieces)


def _names(extensions: x509.Extensions) -> Iterator[str]:
    """The alternative names of a certificate, of the kinds that have an established text."""
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in found:
        match name:
            case x509.DNSName():
                yield f"DNS:{quote(name.value, safe=_PLAIN_IN_NAMES)}"
            case x509.RFC822Name():
                yield f"email:{quote(name.value, safe=_PLAIN_IN_NAMES)}"
            case x509.UniformResourceIdentifier():
                yield f"URI:{quote(name.value, safe=_PLAIN_IN_NAMES)}"
            case x509.IPAddress(value=IPv4Address() | IPv6Address() as address):
                yield f"IP:{address}"
            case x509.IPAddress():
                raise ValueError("one of its names is a network in place of an address")
            case _:
                pass
