# ruff: noqa: E501  messages stand here word for word, one on a line
"""The tables about TLS: their values, what is read for them, and that no key ever shows."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lbproc.config.certificates import check_key
from lbproc.config.load import load_config
from lbproc.config.model import Config
from lbproc.config.pem import KeyFile, PemFile
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.config.show import render_config
from lbproc.config.tls import CIPHERS, BackendTlsConfig, CertificateConfig, TlsConfig
from lbproc.config.wording import quote_end
from tests.certificates import Authority
from tests.config.refusal import refusal

ROOT = Authority()


def around(base: Path) -> Surroundings:
    return Surroundings(base=base, read_pem=read_pem)


def tls(base: Path, **keys: Any) -> TlsConfig:
    return TlsConfig.model_validate(keys, context=around(base))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """``a.pem``, ``a.key``, ``b.pem``, ``b.key`` and ``ca.pem``."""
    ROOT.issue("a.example.com").write(tmp_path, "a")
    ROOT.issue("b.example.com", kind="RSA").write(tmp_path, "b")
    ROOT.write(tmp_path)
    return tmp_path


def told(message: str, base: Path) -> str:
    """A message with paths in place of those that begin with @."""
    return re.sub(r'"@([^"]*)"', lambda found: quote_end(f"{base}{found[1]}"), message)


A = {"cert": "a.pem", "key": "a.key"}
B = {"cert": "b.pem", "key": "b.key"}


def test_a_certificate_alone_is_enough(files: Path) -> None:
    found = tls(files, certificates=[A])
    (pair,) = found.certificates
    assert pair.cert.path == str(files / "a.pem")
    assert pair.cert.content == (files / "a.pem").read_bytes()
    assert pair.key.content == (files / "a.key").read_bytes()
    assert pair.key.mode == 0o600
    assert pair.names == ("a.example.com",)
    assert (found.min_version, found.ciphers, found.strict_sni) == ("1.2", CIPHERS, False)
    assert (found.tickets, found.watch, found.passthrough) == (True, False, {})
    assert found.client_auth_for(pair) is None


def test_hosts_stand_for_the_names_in_the_certificate(files: Path) -> None:
    pair = tls(files, certificates=[A | {"hosts": ["*.A.example.com", "c"]}]).certificates[0]
    assert pair.names == ("*.a.example.com", "c")


def test_who_asks_clients_for_what(files: Path) -> None:
    listener = {"client_ca": "ca.pem", "client_auth": "optional"}
    Authority().write(files, "other")
    own = {"client_ca": "other.pem", "client_auth": "required"}
    found = tls(files, certificates=[A, B | own], **listener)
    first, second = map(found.client_auth_for, found.certificates)
    assert first is not None
    assert second is not None
    assert (first.ca.path, first.is_required) == (str(files / "ca.pem"), False)
    assert (second.ca.path, second.is_required) == (str(files / "other.pem"), True)
    alone = tls(files, certificates=[A, B | {"client_ca": "ca.pem"}])
    assert alone.client_auth_for(alone.certificates[0]) is None
    required = alone.client_auth_for(alone.certificates[1])
    assert required is not None
    assert required.is_required


def test_a_key_that_is_another_one_s_is_an_error_at_the_key(files: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        tls(files, certificates=[A, B | {"key": "a.key"}])
    (error,) = caught.value.errors()
    assert error["loc"] == ("certificates", 1, "key")
    assert error["msg"] == (
        f"the file {quote_end(str(files / 'a.key'))} gives no usable key: the key is not that of the certificate beside it; "
        "name the key that the certificate was made for"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cert": "no.pem"}, 'the file "@/no.pem" cannot be read: No such file or directory; write the path of a readable file in PEM form, such as "tls/server.pem"'),
        ({"cert": 1}, 'is an integer, not the path of a file; write the path of a file such as "tls/server.pem"'),
        ({"cert": "tls/"}, '"tls/" is not the path of a file; write one such as "tls/server.pem"'),
        ({"cert": "."}, 'the file "@" cannot be read: it is no regular file; write the path of a readable file in PEM form, such as "tls/server.pem"'),
        ({"cert": "a.key"}, 'the file "@/a.key" gives no usable certificate: it holds a key and no certificate; name the file of the certificate'),
        ({"client_ca": "a.key"}, 'the file "@/a.key" gives no authorities: it holds a key and no certificate; name the file of the certificate'),
        ({"hosts": ["127.0.0.1"]}, '"127.0.0.1" is an address, and clients name none in a handshake; leave it out: the first certificate is for clients that name no host'),
        ({"hosts": ["a.com:80"]}, '"a.com:80" has a port; hosts match on any port; write "a.com"'),
        ({"client_auth": "yes"}, '"yes" is not a way to ask for certificates; write "required" or "optional"'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate(files: Path, keys: dict[str, Any], message: str) -> None:
    assert refusal(TypeAdapter(CertificateConfig), A | keys, around(files)) == told(message, files)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"certificates": []}, 'is an empty list; write at least one certificate, such as [{ cert = "tls/example.pem", key = "tls/example.key" }]'),
        ({"certificates": "a.pem"}, 'is a string, not a list of certificates; write a list such as [{ cert = "tls/example.pem", key = "tls/example.key" }]'),
        ({"min_version": "1.1"}, '"1.1" is not a version of TLS; did you mean "1.3"? "1.2" or "1.3" can stand here'),
        ({"ciphers": ["AES"]}, '"AES" is no cipher of this system; write the name of one of TLS 1.2 as OpenSSL has it, such as "ECDHE-ECDSA-AES128-GCM-SHA256"'),
        ({"ciphers": ["ECDHE-RSA-AES128-GCM-SHA265"]}, '"ECDHE-RSA-AES128-GCM-SHA265" is no cipher of this system; did you mean "ECDHE-RSA-AES128-GCM-SHA256"?'),
        ({"ciphers": ["ALL:@SECLEVEL=0"]}, '"ALL:@SECLEVEL=0" is no cipher of this system; write the name of one of TLS 1.2 as OpenSSL has it, such as "ECDHE-ECDSA-AES128-GCM-SHA256"'),
        ({"ciphers": ["TLS_AES_128_GCM_SHA256"]}, '"TLS_AES_128_GCM_SHA256" belongs to TLS 1.3, whose ciphers are all good and always there; leave it out, or write the name of one of TLS 1.2 as OpenSSL has it, such as "ECDHE-ECDSA-AES128-GCM-SHA256"'),
        ({"ciphers": ["ECDHE-RSA-NULL-SHA"]}, '"ECDHE-RSA-NULL-SHA" encrypts nothing; write the name of one of TLS 1.2 as OpenSSL has it, such as "ECDHE-ECDSA-AES128-GCM-SHA256"'),
        ({"ciphers": ["ADH-AES128-SHA"]}, '"ADH-AES128-SHA" is of no use with a certificate; write the name of one of TLS 1.2 as OpenSSL has it, such as "ECDHE-ECDSA-AES128-GCM-SHA256"'),
        ({"passthrough": {"127.0.0.1": "db"}}, '"127.0.0.1" is an address, and clients name none in a handshake; leave it out: the first certificate is for clients that name no host'),
        ({"passthrough": {"a.com": "db", "A.com": "db"}}, '"a.com" is there twice, in other cases; keep one of them'),
        ({"passthrough": ["a.com"]}, 'is an array, not a table of hosts; write hosts and pools such as { "db.example.com" = "db" }'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_tls_of_a_listener(files: Path, keys: dict[str, Any], message: str) -> None:
    assert refusal(TypeAdapter(TlsConfig), {"certificates": [A]} | keys, around(files)) == message


def test_ciphers_of_the_default_are_known_here() -> None:
    keys = {"min_version": "1.3", "ciphers": list(CIPHERS)}
    with pytest.raises(ValidationError) as caught:
        TlsConfig.model_validate(keys)
    assert [error["loc"] for error in caught.value.errors()] == [("certificates",)]


def test_tls_to_backends(files: Path) -> None:
    ROOT.issue("me", purpose="client").write(files, "me")
    given = {"ca": "ca.pem", "server_name": "a.internal", "certificate": {"cert": "me.pem", "key": "me.key"}}
    found = BackendTlsConfig.model_validate(given, context=around(files))
    assert found.ca is not None
    assert found.certificate is not None
    assert found.ca.content == ROOT.pem
    check_key(found.certificate.key.content, found.certificate.cert.content)
    assert BackendTlsConfig() == BackendTlsConfig.model_validate({})
    message = refusal(TypeAdapter(BackendTlsConfig), given | {"certificate": A}, around(files))
    assert "lacks clientAuth" in message


CONFIG = """
[listeners.web]
bind = "127.0.0.1:0"
pool = "web"
tls = { certificates = [{ cert = "a.pem", key = "a.key" }], client_ca = "ca.pem" }
[pools.web]
backends = ["127.0.0.1:1"]
"""


def test_no_key_shows_and_what_is_shown_can_be_loaded_again(files: Path) -> None:
    (files / "lbproc.toml").write_text(CONFIG)
    config = load_config(files / "lbproc.toml", {})
    text = render_config(config)
    for shown in (repr(config), str(config), text, str(config.model_dump()), config.model_dump_json()):
        assert "PRIVATE" not in shown
        assert "BEGIN" not in shown
    (files / "shown.toml").write_text(text)
    assert load_config(files / "shown.toml", {}) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_files_with_the_same_content_are_the_same_whenever_they_were_read() -> None:
    assert PemFile("a", b"x", stamp=(1, 2, 3, 4)) == PemFile("a", b"x")
    assert KeyFile("a", b"x", 0o644) == KeyFile("a", b"x")
    assert KeyFile("a", b"x") != KeyFile("a", b"y")
    assert hash(PemFile("a", b"x", stamp=(1, 2, 3, 4))) == hash(PemFile("a", b"x"))


def test_a_model_without_a_loader_reads_no_file() -> None:
    with pytest.raises(ValidationError, match="cannot be read here"):
        Config.model_validate({"listeners": {"web": {"bind": "127.0.0.1:0", "tls": {"certificates": [A]}}}})
