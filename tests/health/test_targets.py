"""What is asked of a backend follows from its pool's table."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.config.place import Surroundings
from lbproc.core.health import Cadence, Subject
from lbproc.health.questions import ByteQuestion, HttpQuestion
from lbproc.health.targets import Contexts, Key, Member, Target, read_members, targets
from lbproc.types import Row, TcpAddress, UnixAddress

CA = Path(__file__).parent / "tls" / "ca.pem"
B1 = Member("web", "b1", "app.internal:80", Row(1), ("10.0.0.1:80", "[::1]:80"))
B2 = Member("web", "b2", "unix:/b2.sock", Row(2), ("unix:/b2.sock",))


def of(
    health: dict[str, Any] | None, *members: Member, contexts: Contexts | None = None
) -> dict[Key, Target]:
    pool = {"backends": ["a:1"]} | ({} if health is None else {"health": health})
    config = Config.model_validate(
        {"listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}}, "pools": {"web": pool}},
        context=Surroundings(read_file=Path.read_text),
    )
    return targets(config, members or (B1,), contexts or Contexts())


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


def test_contexts_are_made_once_and_forgotten_when_nobody_asks() -> None:
    contexts = Contexts()

    def context(health: dict[str, Any]) -> ssl.SSLContext:
        (target,) = of(health, contexts=contexts).values()
        assert target.probe.encryption is not None
        contexts.forget_others()
        return target.probe.encryption.context

    strict = context({"tls": {}})
    assert context({"tls": {}}) is strict
    assert context({"tls": {"verify": False}}) is not strict
    assert context({"tls": {}}) is not strict
