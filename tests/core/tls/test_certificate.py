"""What is said of certificates, compared with what cryptography and openssl say."""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
import subprocess
import sys
import warnings
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.core.tls.certificate import load_reader, read_certificate
from lbproc.core.tls.certificate_reader import MAX_TEXT, _reading
from lbproc.errors import StartError
from tests.certificates import Authority, new_key, now

_KEY = new_key()


def make(subject: x509.Name, names: list[x509.GeneralName] | None = None) -> x509.Certificate:
    """A certificate that says this."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))
        .public_key(_KEY.public_key())
        .serial_number(1)
        .not_valid_before(now())
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(_KEY, hashes.SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def test_a_certificate_says_who_the_client_is() -> None:
    certificate = make(
        name(
            (NameOID.COUNTRY_NAME, "DE"),
            (NameOID.ORGANIZATION_NAME, "Example, Inc."),
            (NameOID.COMMON_NAME, "client 1"),
            (NameOID.EMAIL_ADDRESS, "a@example.com"),
        ),
        [
            x509.DNSName("client.example.com"),
            x509.UniformResourceIdentifier("spiffe://example.com/a"),
            x509.RFC822Name("a@example.com"),
            x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            x509.RegisteredID(NameOID.COMMON_NAME),
            x509.OtherName(NameOID.COMMON_NAME, b"\x0c\x01a"),
            x509.DirectoryName(name((NameOID.COMMON_NAME, "b"))),
        ],
    )
    found = read_certificate(der(certificate))
    assert found.subject == certificate.subject.rfc4514_string()
    assert found.subject == "1.2.840.113549.1.9.1=a@example.com,CN=client 1,O=Example\\, Inc.,C=DE"
    assert found.names == (
        "DNS:client.example.com, URI:spiffe://example.com/a, email:a@example.com, "
        "IP:192.0.2.1, IP:2001:db8::1"
    )
    assert found.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()


def test_certificates_of_an_authority_are_read() -> None:
    certificate = Authority().issue("a.test", purpose="client", common_name="a").certificate
    found = read_certificate(der(certificate))
    assert (found.subject, found.names) == ("CN=a", "DNS:a.test")


def test_steps_with_several_parts_and_other_kinds_of_text() -> None:
    both = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "Zoë", _ASN1Type.BMPString),
            x509.NameAttribute(NameOID.USER_ID, "z"),
        ]
    )
    found = read_certificate(der(make(x509.Name([both]))))
    assert found.subject in {"CN=Zo\\C3\\AB+UID=z", "UID=z+CN=Zo\\C3\\AB"}
    assert found.names == ""


@pytest.mark.parametrize(
    "kind",
    [
        _ASN1Type.UTF8String,
        _ASN1Type.PrintableString,
        _ASN1Type.IA5String,
        _ASN1Type.T61String,
        _ASN1Type.BMPString,
        _ASN1Type.UniversalString,
    ],
)
def test_every_kind_of_text_is_read(kind: _ASN1Type) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "abc", kind)])
    assert read_certificate(der(make(subject))).subject == "CN=abc"


@pytest.mark.parametrize(("oid", "text"), [(NameOID.COMMON_NAME, "a" * 65), (NameOID.COUNTRY_NAME, "DEU")])
def test_what_the_library_would_warn_of_is_read_in_silence(oid: x509.ObjectIdentifier, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject = x509.Name([x509.NameAttribute(oid, text, _validate=False)])
        certificate = der(make(subject)).replace(b"\x02\x01\x01", b"\x02\x01\x81")  # a negative serial
    assert read_certificate(certificate).subject.endswith(f"={text}")  # warnings are errors in tests


def test_names_that_are_none_are_refused() -> None:
    bits = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\0a", _ASN1Type.BitString)
    with pytest.raises(ValueError, match="bits"):
        read_certificate(der(make(x509.Name([bits]))))
    network = x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))
    with pytest.raises(ValueError, match="network"):
        read_certificate(der(make(name((NameOID.COMMON_NAME, "a")), [network])))


def test_nothing_that_is_said_looks_like_something_else() -> None:
    certificate = make(
        name((NameOID.COMMON_NAME, "a,CN=admin\r\nX: y#")),
        [x509.DNSName("a, DNS:b"), x509.UniformResourceIdentifier("x:%2c,\n")],
    )
    found = read_certificate(der(certificate))
    assert found.subject == "CN=a\\,CN\\=admin\\0D\\0AX: y#"
    assert found.names == "DNS:a%2C%20DNS:b, URI:x:%252c%2C%0A"


def test_a_certificate_without_a_subject_has_an_empty_one() -> None:
    assert read_certificate(der(make(x509.Name([])))).subject == ""


def test_a_certificate_that_says_too_much_is_refused() -> None:
    names: list[x509.GeneralName] = [x509.DNSName(f"{number}.example.com") for number in range(300)]
    with pytest.raises(ValueError, match="more names"):
        read_certificate(der(make(name((NameOID.COMMON_NAME, "a")), names)))
    parts = [(NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 60)] * (MAX_TEXT // 60)
    with pytest.raises(ValueError, match="more names"):
        read_certificate(der(make(name(*parts))))


@given(st.text(min_size=1, max_size=40))
def test_a_subject_is_what_was_meant_and_printable(text: str) -> None:
    try:
        certificate = make(name((NameOID.COMMON_NAME, text)))
    except ValueError:  # surrogates, or too long in bytes
        return
    found = read_certificate(der(certificate)).subject
    assert found.isascii()
    assert found.isprintable()
    if text.isascii() and text.isprintable() and "=" not in text:
        assert found == certificate.subject.rfc4514_string()


@given(st.lists(st.text(st.characters(max_codepoint=0x7F), min_size=1, max_size=12), max_size=4))
def test_names_are_parted_again_as_they_were_meant(texts: list[str]) -> None:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(text) for text in texts]
    found = read_certificate(der(make(name((NameOID.COMMON_NAME, "a")), names))).names
    assert found.isascii()
    assert found.isprintable()
    parted = found.split(", ") if found else []
    assert [unquote(one.removeprefix("URI:")) for one in parted] == texts


ESCAPED = re.compile(rb"\\([0-9A-F]{2})|\\(.)")


@given(st.lists(st.text(min_size=1, max_size=8), max_size=4))
def test_a_subject_is_parted_again_as_it_was_meant(texts: list[str]) -> None:
    try:
        certificate = make(name(*((NameOID.ORGANIZATION_NAME, text) for text in texts)))
    except ValueError:  # surrogates
        return
    found = read_certificate(der(certificate)).subject
    parts = re.findall(r"(?:^|,)O=((?:\\.|[^\\,+=])+)", found)
    assert len(found) == sum(len(part) + 3 for part in parts) - bool(parts)
    plain = [
        ESCAPED.sub(lambda match: match[2] or bytes.fromhex(match[1].decode()), part.encode()).decode()
        for part in parts
    ]
    assert plain[::-1] == texts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.DOMAIN_COMPONENT, NameOID.USER_ID]
            ),
            st.text(
                st.sampled_from("abcXYZ019 ,+\"\\<>;#.-_'()/:?äß€漢\U0001f600\a\x7f"), min_size=1, max_size=20
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_openssl_writes_subjects_in_the_same_way(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    subject = x509.Name([x509.NameAttribute(oid, text, _ASN1Type.UTF8String) for oid, text in parts])
    certificate = der(make(subject))
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"]
    said = subprocess.run(command, input=certificate, capture_output=True, check=True).stdout.decode()
    assert said == f"subject={read_certificate(certificate).subject}\n"


_GOOD = der(make(name((NameOID.COMMON_NAME, "a"), (NameOID.USER_ID, "b")), [x509.DNSName("a")]))


def is_refused(raw: bytes) -> bool:
    try:
        read_certificate(raw)
    except ValueError:
        return True
    return False


@given(st.binary(max_size=100))
def test_what_is_no_certificate_raises_one_kind_of_error(raw: bytes) -> None:
    assert is_refused(raw)


@given(st.data())
def test_mutated_certificates_raise_one_kind_of_error(data: st.DataObject) -> None:
    raw = bytearray(_GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        found = read_certificate(bytes(raw))
    except ValueError:
        return
    assert (found.subject + found.names).isascii()
    assert (found.subject + found.names).isprintable()


@pytest.mark.parametrize(
    "raw",
    [
        _GOOD[:-1],
        _GOOD + b"\0",
        b"\x30\x00",
        b"\x30\x02\x30\x00",
        b"\x30\x80",
        b"\x30\x85\0\0\0\0\1\0",
        b"\x31" + _GOOD[1:],
        _GOOD.replace(b"\x0c\x01a", b"\x09\x01a"),
        _GOOD.replace(b"\x06\x03\x55\x04\x03", b"\x04\x03\x55\x04\x03"),
        _GOOD.replace(b"\x06\x03\x55\x04\x03", b"\x06\x03\xd5\x84\x83"),
        b"\x30",
    ],
)
def test_broken_encodings_are_refused(raw: bytes) -> None:
    assert is_refused(raw)


def test_a_panic_of_the_library_is_an_error_like_others() -> None:
    class PanicException(BaseException):
        pass

    with pytest.raises(ValueError, match="it cannot be read: out of range"), _reading():
        raise PanicException("out of\nrange")
    with pytest.raises(KeyboardInterrupt), _reading():
        raise KeyboardInterrupt


def test_a_process_that_cannot_load_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lbproc.core.tls.certificate_reader", None)
    with pytest.raises(StartError, match="restart lbproc"):
        load_reader()


@pytest.mark.slow
def test_nobody_has_the_library_who_does_not_ask_for_it() -> None:
    program = (
        "import sys\n"
        "import lbproc.supervisor, lbproc.worker, lbproc.controller\n"
        "from lbproc.core.tls.certificate import load_reader\n"
        "print('cryptography' in sys.modules)\n"
        "load_reader()\n"
        "print('cryptography' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False\nTrue\n"
