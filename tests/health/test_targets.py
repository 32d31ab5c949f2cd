"""What is asked of a backend follows from its pool's table."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.core.health import Cadence, Subject
from lbproc.health.questions import ByteQuestion, HttpQuestion
from lbproc.health.targets import Key, Member, Target, read_members, targets
from lbproc.net.tls.upstream import ClientContexts
from lbproc.types import Row, TcpAddress, UnixAddress
from tests.certificates import Authority

CA = Path(__file__).parent / "tls" / "ca.pem"
B1 = Member("web", "b1", "app.internal:80", Row(1), ("10.0.0.1:80", "[::1]:80"))
B2 = Member("web", "b2", "unix:/b2.sock", Row(2), ("unix:/b2.sock",))


def of(
    health: dict[str, Any] | None,
    *members: Member,
    contexts: ClientContexts | None = None,
    tls: dict[str, Any] | None = None,
) -> dict[Key, Target]:
    pool = {"backends": ["a:1"]} | ({} if health is None else {"health": health})
    pool |= {} if tls is None else {"tls": tls}
    config = Config.model_validate(
        {"listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}}, "pools": {"web": pool}},
        context=Surroundings(read_pem=read_pem),
    )
    return targets(config, members or (B1,), contexts or ClientContexts())


def one(health: dict[str, Any], member: Member = B1) -> Target:
    (target,) = of(health, member).values()
    return target


def test_a_pool_without_the_table_is_not_checked_and_an_unknown_pool_is_not() -> None:
    assert of(None) == {}
    assert of({}, B1._replace(pool="other")) == {}


def test_members_are_read_from_what_is_published() -> None:
    published = {"web": {"ticket": 0, "backends": [["b1", "a:1", 1, None, False, 7, ["10.0.0.1:1"]]]}}
    assert read_members(published) == [Member("web", "b1", "a:1", Row(7), ("10.0.0.1:1",))]


def test_a_request_is_the_default() -> None:
    found = of({})
    assert list(found) == [Key("web", "app.internal:80", Subject.READINESS)]
    (target,) = found.values()
    assert target.cadence == Cadence(2.0, 1.0, 1.0, 4.0, 2, 3)
    assert target.probe.addresses == (TcpAddress("10.0.0.1", 80), TcpAddress("::1", 80))
    assert target.probe.encryption is None
    question = target.probe.question
    assert isinstance(question, HttpQuestion)
    assert (question.method, question.target, question.body) == ("GET", "/", b"")
    assert question.headers == (
        ("Host", "app.internal:80"),
        ("User-Agent", f"lbproc/{__version__} (health check)"),
        ("Connection", "close"),
    )


def test_the_request_is_as_the_table_says() -> None:
    question = one(
        {
            "path": "/ready?full",
            "method": "POST",
            "headers": {"X-A": "1", "user-agent": "me"},
            "host": "app",
            "expect": {"status": "204", "body": "ok"},
        }
    ).probe.question
    assert isinstance(question, HttpQuestion)
    assert (question.method, question.target, question.body) == ("POST", "/ready?full", b"ok")
    assert question.headers == (
        ("Host", "app"),
        ("X-A", "1"),
        ("user-agent", "me"),
        ("Content-Length", "0"),
        ("Connection", "close"),
    )
    assert [str(status) for status in question.statuses] == ["204"]
    assert not question.is_secret


def test_secrets_are_sent_and_show_nowhere() -> None:
    config = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
            "pools": {"web": {"backends": ["a:1"], "health": {"headers": {"X-A": "1", "X-B": {"env": "B"}}}}},
        },
        context=Surroundings(environ={"B": "hush puppy"}),
    )
    (target,) = targets(config, [B1], ClientContexts()).values()
    question = target.probe.question
    assert isinstance(question, HttpQuestion)
    assert ("X-B", "hush puppy") in question.headers
    assert question.is_secret
    assert "hush" not in repr(target)


def test_liveness_is_a_check_of_its_own_without_the_text() -> None:
    found = of({"liveness_path": "/live", "expect": {"body": "ready"}})
    question = found[Key("web", B1.address, Subject.LIVENESS)].probe.question
    assert isinstance(question, HttpQuestion)
    assert (question.target, question.body) == ("/live", b"")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("health", "addresses"),
    [
        (
            {"port": 9000},
            [(TcpAddress("10.0.0.1", 9000), TcpAddress("::1", 9000)), (UnixAddress("/b2.sock"),)],
        ),
        ({"address": "10.0.0.9:9"}, [(TcpAddress("10.0.0.9", 9),)] * 2),
    ],
)
def test_another_place_may_be_checked(health: dict[str, Any], addresses: list[object]) -> None:
    assert [target.probe.addresses for target in of(health, B1, B2).values()] == addresses


def test_bytes_are_sent_and_expected() -> None:
    target = one({"check": "tcp", "send": "PING\r\n", "expect": {"body": "PONG"}})
    assert target.probe.question == ByteQuestion(b"PING\r\n", b"PONG")
    assert target.probe.encryption is None
    assert one({"check": "tcp"}).probe.question == ByteQuestion(b"", b"")


@pytest.mark.parametrize(
    ("health", "member", "name"),
    [
        ({"check": "tls"}, B1, "app.internal"),
        ({"check": "tls"}, B2, "localhost"),
        ({"check": "tls"}, B1._replace(address="[fe80::1%eth0]:80"), "fe80::1"),
        ({"tls": {}}, B1, "app.internal"),
        ({"tls": {}, "host": "web.internal:443"}, B1, "web.internal"),
        ({"tls": {}, "host": "[::1]:443"}, B1, "::1"),
        ({"tls": {"server_name": "x.internal"}, "host": "web.internal"}, B1, "x.internal"),
    ],
)
def test_tls_verifies_the_name_of_the_host(health: dict[str, Any], member: Member, name: str) -> None:
    encryption = one(health, member).probe.encryption
    assert encryption is not None
    assert encryption.server_name == name
    assert encryption.context.verify_mode is ssl.CERT_REQUIRED
    assert encryption.context.check_hostname


def test_verification_can_be_given_up_and_authorities_named() -> None:
    lax = one({"tls": {"verify": False}}).probe.encryption
    assert lax is not None
    assert (lax.context.verify_mode, lax.context.check_hostname) == (ssl.CERT_NONE, False)
    ours = one({"tls": {"ca": str(CA)}}).probe.encryption
    assert ours is not None
    assert ["lbproc tests" in str(ca["subject"]) for ca in ours.context.get_ca_certs()] == [True]


def test_a_context_is_made_once_for_all_who_have_it() -> None:
    contexts = ClientContexts()

    def context(health: dict[str, Any]) -> ssl.SSLContext:
        (target,) = of(health, contexts=contexts).values()
        assert target.probe.encryption is not None
        return target.probe.encryption.context

    strict = context({"tls": {}})
    assert context({"tls": {}}) is strict
    assert context({"tls": {"verify": False}}) is not strict
    assert context({"check": "tls"}) is not strict  # which names no protocol


# A pool with TLS


@pytest.mark.parametrize(
    ("health", "member", "tls", "name"),
    [
        ({}, B1, {}, "app.internal"),
        ({"check": "tls"}, B1, {}, "app.internal"),
        ({"host": "other.internal"}, B1, {}, "app.internal"),
        ({}, B2, {}, "localhost"),
        ({}, B1, {"server_name": "a.internal."}, "a.internal"),
        ({}, Member("web", "b3", "[fe80::1%eth0]:443", Row(3), ()), {}, "fe80::1"),
    ],
)
def test_checks_of_a_pool_with_tls_speak_it_as_requests_do(
    health: dict[str, Any], member: Member, tls: dict[str, Any], name: str
) -> None:
    (target,) = of(health, member, tls=tls).values()
    encryption = target.probe.encryption
    assert encryption is not None
    assert encryption.server_name == name
    assert encryption.context.verify_mode is ssl.CERT_REQUIRED


def test_they_trust_whom_the_pool_trusts(tmp_path: Path) -> None:
    ca = str(Authority("backends").write(tmp_path))
    contexts = ClientContexts()
    encryption = [
        target.probe.encryption
        for _ in range(2)
        for target in of({}, tls={"ca": ca}, contexts=contexts).values()
    ]
    assert encryption[0] is not None
    assert encryption[0].context.cert_store_stats()["x509_ca"] == 1
    assert encryption[0] == encryption[1]  # a reload that changes nothing changes nothing here
    (other,) = of({}, tls={"ca": ca, "min_version": "1.3"}, contexts=contexts).values()
    assert other.probe.encryption != encryption[0]


@pytest.mark.parametrize(
    "health",
    [{"check": "tcp"}, {"port": 81}, {"address": "127.0.0.1:81"}],
)
def test_checks_that_are_no_tls_or_made_elsewhere_speak_in_clear(health: dict[str, Any]) -> None:
    (target,) = of(health, tls={}).values()
    assert target.probe.encryption is None


def test_a_table_of_their_own_goes_before_the_one_of_the_pool(tmp_path: Path) -> None:
    ca = str(Authority("backends").write(tmp_path))
    (target,) = of({"tls": {"verify": False, "server_name": "x"}}, tls={"ca": ca}).values()
    encryption = target.probe.encryption
    assert encryption is not None
    assert (encryption.server_name, encryption.context.verify_mode) == ("x", ssl.CERT_NONE)


@pytest.mark.parametrize(
    ("version", "greeting"),
    [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), (None, b"")],
)
def test_checks_of_pools_with_proxy_headers_say_that_they_are_nobodys(
    version: str | None, greeting: bytes
) -> None:
    def probe(**health: Any) -> bytes:
        pool = {"backends": ["a:1"], "health": health} | ({"proxy_protocol": version} if version else {})
        config = Config.model_validate(
            {"listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}}, "pools": {"web": pool}}
        )
        (target,) = targets(config, (B1,), ClientContexts()).values()
        return target.probe.greeting

    assert probe() == greeting
    assert probe(port=9000) == probe(address="10.0.0.9:80") == b""  # another service listens there
