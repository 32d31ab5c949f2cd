"""Contexts towards backends are shared by what they are made of, and names are those of the backends."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.config.tls import BackendTlsConfig
from lbproc.net.memory import memory_pair
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.upstream import NO_ALPN, ClientContexts, Way, server_name_of
from lbproc.types import parse_address
from tests.certificates import Authority
from tests.net.waiting import NEVER_SWEPT


def table(**keys: Any) -> BackendTlsConfig:
    surroundings = Surroundings(base=Path("/"), read_pem=read_pem)
    return BackendTlsConfig.model_validate(keys, context=surroundings)


@pytest.mark.parametrize(
    ("configured", "address", "name"),
    [
        (None, "app.internal:443", "app.internal"),
        (None, "app.internal.:443", "app.internal"),
        (None, "10.0.0.1:443", "10.0.0.1"),
        (None, "[fe80::1%eth0]:443", "fe80::1"),
        (None, "unix:/run/app.sock", "localhost"),
        ("other.internal", "app.internal:443", "other.internal"),
        ("other.internal.", "unix:/run/app.sock", "other.internal"),
    ],
)
def test_the_name_is_the_one_that_is_configured_or_the_host(
    configured: str | None, address: str, name: str
) -> None:
    assert server_name_of(configured, parse_address(address)) == name


def test_equal_rules_are_one_context_and_others_another(tmp_path: Path) -> None:
    one, other = Authority("one"), Authority("other")
    ca = str(one.write(tmp_path))
    cert, key = one.issue("lbproc.test", purpose="client").write(tmp_path, "own")
    contexts = ClientContexts()
    rules: list[dict[str, Any]] = [
        {},
        {"verify": False},
        {"ca": ca},
        {"ca": ca, "min_version": "1.3"},
        {"ca": ca, "certificate": {"cert": str(cert), "key": str(key)}},
    ]
    found = [contexts.for_pool(table(**keys)) for keys in rules]
    again = [contexts.for_pool(table(**keys)) for keys in rules]
    assert found == again
    made = {id(context) for tls in found for context in (tls.http, tls.relay)}
    assert len(made) == 2 * len(rules)
    assert contexts.find(table(ca=ca), NO_ALPN) is found[2].relay
    named = contexts.for_pool(table(ca=ca, server_name="app.test"))
    assert named.http is found[2].http
    assert named != found[2]  # what was verified by one name is not by another
    other.write(tmp_path)
    assert contexts.for_pool(table(ca=ca)) != found[2]


async def test_a_name_that_no_certificate_can_be_for_is_a_failure() -> None:
    near, far = memory_pair()
    way = ClientContexts().for_pool(table(server_name="a")).http
    with pytest.raises(TlsFailed) as caught:
        await Way(way, ".internal").encrypt(near, NEVER_SWEPT, 0)
    assert caught.value.reason == "certificate_rejected"
    assert near.is_closed
    assert far.recv(1) == b""


def test_a_context_goes_with_the_last_one_who_has_it() -> None:
    contexts = ClientContexts()
    kept = contexts.for_pool(table(verify=False))
    assert len(contexts._known) == 2
    del kept
    assert len(contexts._known) == 0


def test_changed_authorities_of_the_system_are_another_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Authority("system").write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    contexts = ClientContexts()
    before = contexts.find(table())
    assert before.cert_store_stats()["x509_ca"] == 1
    assert contexts.find(table()) is before
    assert contexts.find(table(verify=False)) is (unverified := contexts.find(table(verify=False)))
    file.write_bytes(file.read_bytes() + Authority("another").pem)
    os.utime(file, ns=(1, 1))
    after = contexts.find(table())
    assert after is not before
    assert after.cert_store_stats()["x509_ca"] == 2
    assert contexts.find(table(verify=False)) is unverified
    assert unverified.verify_mode is ssl.CERT_NONE
