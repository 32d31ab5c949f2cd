"""What stands in files of certificates and keys is judged before anything is done with it."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbproc.config.certificates import (
    UnusableError,
    check_authorities,
    check_key,
    is_certificate_name,
    read_certificate,
)
from lbproc.config.pem_file import refusal_of
from tests.certificates import Authority, Kind, key_pem, new_key, rsa_key, self_signed

ROOT = Authority()
MIDDLE = Authority("middle", ROOT)
PAIR = MIDDLE.issue("a.example.com", "*.B.example.com", "127.0.0.1", "::1")


def test_what_is_known_of_a_certificate() -> None:
    facts = read_certificate(PAIR.chain, "server")
    assert facts.names == ("a.example.com", "*.b.example.com")
    assert facts.addresses == ("127.0.0.1", "::1")
    assert facts.subject == "CN=a.example.com"
    assert facts.chain == ("CN=middle",)
    assert (facts.key_kind, facts.key_bits) == ("ECDSA", 256)
    assert facts.not_after == PAIR.certificate.not_valid_after_utc.timestamp() == facts.chain_not_after
    assert facts.not_before == PAIR.certificate.not_valid_before_utc.timestamp()
    assert int(facts.serial, 16) == PAIR.certificate.serial_number
    assert len(bytes.fromhex(facts.fingerprint)) == 32
    assert not facts.is_signed_with_sha1


@pytest.mark.parametrize(("kind", "bits"), [("RSA", 2048), ("ECDSA", 256), ("Ed25519", 256)])
def test_each_kind_of_key_fits_its_own_certificate_alone(kind: Kind, bits: int) -> None:
    pair = ROOT.issue("a.example.com", kind=kind)
    facts = read_certificate(pair.chain, "server")
    assert (facts.key_kind, facts.key_bits) == (kind, bits)
    check_key(pair.key, pair.chain)
    with pytest.raises(ValueError, match="is not that of the certificate beside it; name the key"):
        check_key(PAIR.key, pair.chain)


def test_the_chain_stands_in_the_order_of_its_signatures() -> None:
    leaf, middle = PAIR.chain.split(b"-----END CERTIFICATE-----\n")[:2]
    end = b"-----END CERTIFICATE-----\n"
    read_certificate(leaf + end + middle + end + ROOT.pem, "server")
    with pytest.raises(
        ValueError, match=r'certificate 1, "CN=a.example.com", is not signed by .* "CN=lbproc'
    ):
        read_certificate(leaf + end + ROOT.pem + middle + end, "server")
    with pytest.raises(ValueError, match='certificate 2, "CN=middle", is not signed'):
        read_certificate(PAIR.chain + Authority("lbproc tests").pem, "server")
    with pytest.raises(ValueError, match="it holds 12 certificates; leave there"):
        read_certificate(leaf + end + (middle + end) * 11, "server")


def test_a_chain_is_valid_as_long_as_all_of_it() -> None:
    facts = read_certificate(MIDDLE.issue("a.example.com", days=9999).chain, "server")
    assert facts.chain_not_after < facts.not_after


def test_a_certificate_is_for_what_it_says() -> None:
    client = ROOT.issue("me", purpose="client")
    with pytest.raises(
        ValueError, match="lacks serverAuth, so its peers refuse it; have it made for a server"
    ):
        read_certificate(client.chain, "server")
    assert read_certificate(client.chain, "client").names == ("me",)
    with pytest.raises(ValueError, match="lacks clientAuth"):
        read_certificate(PAIR.chain, "client")
    for purpose in ("server", "client"):
        read_certificate(ROOT.issue("a", purpose=None).chain, purpose)


def test_names_that_no_client_compares_are_passed_over() -> None:
    facts = read_certificate(ROOT.issue("a.example.com", "*.*.example.com", "a*.example.com").chain, "server")
    assert facts.names == ("a.example.com",)
    assert read_certificate(ROOT.issue(common_name="a.example.com").chain, "server").names == ()
    with pytest.raises(UnusableError, match="it is for 1001 names; make several"):
        read_certificate(ROOT.issue(*(f"a{number}" for number in range(1001))).chain, "server")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a", True),
        ("localhost", True),
        ("xn--bcher-kva.example", True),
        ("*.example.com", True),
        ("_srv.example.com", True),
        ("*", False),
        ("a..b", False),
        ("", False),
        ("a b", False),
        ("b\u00fccher.example", False),
        ("a" * 64, False),
        (".".join(["a" * 60] * 5), False),
    ],
)
def test_names(name: str, is_one: bool) -> None:
    assert is_certificate_name(name) is is_one


def test_what_is_no_certificate_or_no_key_is_told_apart() -> None:
    with pytest.raises(ValueError, match="no certificate in PEM form; name a file that begins"):
        read_certificate(b"hello", "server")
    with pytest.raises(ValueError, match="holds a key and no certificate; name"):
        read_certificate(PAIR.key, "server")
    with pytest.raises(ValueError, match="holds a certificate and no key; name"):
        check_key(PAIR.chain, None)
    with pytest.raises(ValueError, match="no private key in PEM form; name"):
        check_key(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None)
    with pytest.raises(ValueError, match="no certificate in PEM form"):
        check_authorities(b"")
    check_authorities(ROOT.pem + MIDDLE.pem)
    check_authorities(self_signed("a.example.com").chain)


@pytest.mark.parametrize("content", [MIDDLE.pem, PAIR.chain], ids=["intermediate", "leaf"])
def test_authorities_by_which_openssl_trusts_nothing_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"is signed by itself, .*; add the certificate of the root"):
        check_authorities(content)


def test_certificate_and_key_may_stand_in_one_file() -> None:
    both = PAIR.key + PAIR.chain
    assert read_certificate(both, "server").names
    check_key(both, both)


def test_an_encrypted_key_is_refused_with_the_command_that_helps() -> None:
    with pytest.raises(ValueError, match=r"the key is encrypted.*openssl pkey -in KEY -out NEW"):
        check_key(key_pem(new_key(), b"secret"), None)


def test_weak_and_strange_keys_are_refused() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(
        ValueError, match="its RSA key has 1024 bits, which clients refuse; make one of at least 2048"
    ):
        check_key(key_pem(small), None)
    with pytest.raises(ValueError, match="1024 bits"):
        read_certificate(ROOT.issue("a.example.com", key=small).chain, "server")
    for strange in (
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
        dsa.generate_private_key(1024),
    ):
        with pytest.raises(
            ValueError, match="this kind of key is not of use; make one that is RSA of at least"
        ):
            check_key(key_pem(strange), None)
    for curve in (ec.SECP384R1(), ec.SECP521R1()):
        check_key(key_pem(ec.generate_private_key(curve)), None)


def test_no_message_holds_a_byte_of_a_key() -> None:
    secret = key_pem(rsa_key()).splitlines()[5]
    for content in (secret, b"-----BEGIN PRIVATE KEY-----\n" + secret, key_pem(rsa_key())[:-300]):
        with pytest.raises(ValueError, match="no private key") as caught:
            check_key(content, None)
        assert secret.decode()[:10] not in repr(caught.value)
        assert caught.value.__suppress_context__


def test_what_tls_of_this_system_refuses_is_told_by_the_check(tmp_path: Path) -> None:
    """Signed with SHA-1, which our library can judge and no longer make."""
    pair = ROOT.issue("a.example.com", kind="RSA")
    pair.write(tmp_path, "a")
    signer = Authority("old")
    (tmp_path / "old.key").write_bytes(key_pem(signer.key))
    signer.write(tmp_path, "old")
    for command in (
        "openssl req -new -key a.key -subj /CN=a.example.com -out a.csr",
        "openssl x509 -req -in a.csr -CA old.pem -CAkey old.key -set_serial 1 -sha1 -days 9 -out weak.pem",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    weak = (tmp_path / "weak.pem").read_bytes()
    assert read_certificate(weak, "server").is_signed_with_sha1
    if reason := refusal_of(weak, pair.key):
        assert reason == "ca md too weak"
        with pytest.raises(
            UnusableError, match=r"TLS of this system refuses .* \(ca md too weak\); have it made"
        ):
            check_key(pair.key, weak)
    assert refusal_of(pair.chain, pair.key) == ""


CHANGE = st.tuples(st.integers(0, 600), st.integers(0, 3), st.binary(max_size=3))


@settings(deadline=None, max_examples=300)
@given(
    cut=st.sampled_from(["CERTIFICATE", "PRIVATE KEY"]),
    changes=st.lists(CHANGE, max_size=3),
)
@example("CERTIFICATE", [(12, 1, b"\x12")])  # the version
def test_whatever_stands_there_is_judged_in_words(cut: str, changes: list[tuple[int, int, bytes]]) -> None:
    source = PAIR.certificate.public_bytes(serialization.Encoding.DER)
    if cut == "PRIVATE KEY":
        source = base64.b64decode(b"".join(PAIR.key.splitlines()[1:-1]))
    for place, length, octets in changes:
        at = place % len(source)
        source = source[:at] + octets + source[at + length :]
    label = cut.encode()
    content = b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(source), label)
    for judge in (
        lambda: read_certificate(content, "server"),
        lambda: check_key(content, PAIR.chain),
        lambda: check_authorities(content),
    ):
        said = "fine; nothing"
        try:
            judge()
        except UnusableError as error:
            said = str(error)
        what, _, right = said.partition("; ")
        assert what
        assert right
        assert said.isprintable()
