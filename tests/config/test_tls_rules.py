# ruff: noqa: E501  messages stand here word for word, one on a line
"""The certificates of a listener go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.config.document import found

ROOT = Authority()
PAIRS = {
    "a": ROOT.issue("a.example.com", "*.x.com"),
    "a_rsa": ROOT.issue("a.example.com", kind="RSA"),
    "a_more": ROOT.issue("b.example.com", "A.example.com"),
    "nameless": ROOT.issue(),
    "address": ROOT.issue("127.0.0.1"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tls")
    ROOT.write(base)
    for name, pair in PAIRS.items():
        pair.write(base, name)
    return base


def text(*certificates: str, protocol: str = "http", keys: str = "") -> str:
    """A listener whose keys of ``tls`` stand on lines 6 and 7."""
    entries = []
    for entry in certificates:
        name, _, more = entry.partition(" ")
        entries.append(f'{{ cert = "{name}.pem", key = "{name}.key"{more and ", " + more} }}')
    return (
        f'[listeners.l]\nbind = "127.0.0.1:80"\nprotocol = "{protocol}"\npool = "p"\n[listeners.l.tls]\n'
        f"certificates = [{', '.join(entries)}]\n{keys}\n"
        '[pools.p]\nbackends = ["b:1"]\n'
    )


@pytest.mark.parametrize(
    "given",
    [
        text("a"),
        text("a", "a_rsa"),
        text("a", 'a_more hosts = "b.example.com"'),
        text('a hosts = "a.example.com"', 'a hosts = "c.x.com"'),
        text("address"),
        text('nameless hosts = "a.example.com"'),
        text('a client_ca = "ca.pem"', 'a_rsa client_ca = "ca.pem", client_auth = "required"'),
        text('a client_auth = "optional"', keys='client_ca = "ca.pem"'),
        text("a", keys='passthrough = { "c.x.com" = "p", "*.example.com" = "p" }'),
        text("a", keys='min_version = "1.3"'),
        text("a", protocol="tcp"),
        text("a", "nothing"),
    ],
)
def test_what_goes_together(files: Path, given: str) -> None:
    assert found(given, files) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (text("a", "a_more"), '6: listeners.l.tls.certificates[1]: is for "a.example.com" with a key of kind ECDSA, as is listeners.l.tls.certificates[0] (a.toml:6); leave out one of them, or say in hosts which one is for which host'),
        (text('a client_ca = "ca.pem"', "a_rsa"), '6: listeners.l.tls.certificates[1]: asks clients of "a.example.com" for another certificate than listeners.l.tls.certificates[0] (a.toml:6) does; give both the same client_ca and client_auth'),
        (text("a", 'a_rsa client_auth = "optional"', keys='client_ca = "ca.pem"'), '6: listeners.l.tls.certificates[1]: asks clients of "a.example.com" for another certificate than listeners.l.tls.certificates[0] (a.toml:6) does; give both the same client_ca and client_auth'),
        (text("a", keys='client_auth = "optional"'), '7: listeners.l.tls.client_auth: asks for certificates, and no authorities are named for them; add client_ca = "tls/clients.pem", or leave it out'),
        (text('a client_auth = "optional"'), '6: listeners.l.tls.certificates[0].client_auth: asks for certificates, and no authorities are named for them; add client_ca = "tls/clients.pem", or leave it out'),
        (text("nameless"), '6: listeners.l.tls.certificates[0].cert: the certificate in "@nameless.pem" is for no host name; have it made for the names of your hosts (subjectAltName), or name them in hosts'),
        (text("a", "address"), '6: listeners.l.tls.certificates[1].cert: the certificate in "@address.pem" is for no host name; have it made for the names of your hosts (subjectAltName), or name them in hosts'),
        (text("a", keys='passthrough = { "A.example.com" = "p" }'), '7: listeners.l.tls.passthrough."a.example.com": "a.example.com" has a certificate here too: listeners.l.tls.certificates[0] (a.toml:6); leave it out of one of them'),
        (text("a", protocol="tcp", keys='passthrough = { "c.com" = "p" }'), '7: listeners.l.tls.passthrough: is not looked at by protocol = "tcp"; leave it out, or write protocol = "tls_passthrough" and routes without tls'),
        (text("a", keys='min_version = "1.3"\nciphers = "ECDHE-RSA-AES128-GCM-SHA256"'), '8: listeners.l.tls.ciphers: are those of TLS 1.2, which min_version = "1.3" refuses; leave out one of them'),
    ],
)  # fmt: skip
def test_what_does_not(files: Path, given: str, message: str) -> None:
    (line,) = found(given, files)
    assert line == message.replace("@", f"{files}/")
