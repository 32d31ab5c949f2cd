# ruff: noqa: E501  messages stand here word for word, one on a line
"""What works and should be looked at is told when it is loaded, and when certificates are read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproc.config.certified import DAY, Certified, certified, date, listed_names
from lbproc.config.load import check_config, renew_config
from lbproc.config.problem import UnusableConfigError
from lbproc.config.tls import CertificateConfig, TlsConfig
from lbproc.config.warnings import warnings
from lbproc.config.wording import dotted, quote_end
from tests.certificates import Authority, Pair

ROOT = Authority()
TEXT = """
[listeners.web]
bind = "127.0.0.1:0"
pool = "web"
tls = { certificates = [{ cert = "a.pem", key = "a.key" }], watch = true }
[pools.web]
backends = ["127.0.0.1:1"]
"""

Load = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a certificate and a configuration; gives the warnings without the file."""

    def write_and_load(pair: Pair, text: str = TEXT, mode: int = 0o600) -> list[str]:
        pair.write(tmp_path, "a")
        (tmp_path / "a.key").chmod(mode)
        (tmp_path / "l.toml").write_text(text)
        checked = check_config(tmp_path / "l.toml", {})
        return [str(warning).removeprefix(f"{tmp_path / 'l.toml'}:") for warning in checked.warnings]

    return write_and_load


def test_of_what_is_good_there_is_none(load: Load) -> None:
    assert load(ROOT.issue("a.example.com", days=15)) == []


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (ROOT.issue("a", days=13.5), "expires in 13 days, on {end}; renew it, and reload"),
        (ROOT.issue("a", days=1.5), "expires in 1 day, on {end}; renew it, and reload"),
        (ROOT.issue("a", days=-1), "expired on {end}; renew it, and reload"),
        (ROOT.issue("a", began=-2), "is valid from {begin} on only; set the clock of this machine right, or wait"),
    ],
)  # fmt: skip
def test_dates(load: Load, tmp_path: Path, pair: Pair, message: str) -> None:
    begin, end = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
    shown = message.format(begin=begin.date(), end=end.date())
    assert load(pair) == [
        f"5: listeners.web.tls.certificates[0].cert: the certificate in {quote_end(str(tmp_path / 'a.pem'))} {shown}"
    ]


def test_a_key_that_others_may_read(load: Load, tmp_path: Path) -> None:
    (line,) = load(ROOT.issue("a"), mode=0o644)
    assert line == (
        f"5: listeners.web.tls.certificates[0].key: others may read or write {quote_end(str(tmp_path / 'a.key'))}: "
        "its mode is 0644; take that from them: mode 0600, or 0640 with a group for keys"
    )


def test_a_key_that_its_group_may_read(load: Load) -> None:
    assert load(ROOT.issue("a"), mode=0o640) == []


def test_hosts_that_are_not_in_the_certificate(load: Load) -> None:
    hosts = 'key = "a.key", hosts = ["a.com", "b.x.com", "c.b.x.com", "x.com"]'
    lines = load(ROOT.issue("a.com", "*.x.com"), TEXT.replace('key = "a.key"', hosts))
    assert [line.split(": ")[2].split(" ")[0] for line in lines] == ['"c.b.x.com"', '"x.com"']


def test_ciphers_that_are_not_recommended(load: Load) -> None:
    named = 'ciphers = ["ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "AES128-SHA"]'
    lines = load(ROOT.issue("a"), TEXT.replace("watch = true", named))
    assert [line.partition(": ")[2] for line in lines] == [
        'listeners.web.tls.ciphers[2]: "ECDHE-RSA-AES128-SHA" has no authenticated encryption; leave it out unless old clients of yours need it',
        'listeners.web.tls.ciphers[3]: "AES128-SHA" has no forward secrecy and no authenticated encryption; leave it out unless old clients of yours need it',
    ]


def test_authorities_that_have_expired(load: Load, tmp_path: Path) -> None:
    ROOT.write(tmp_path)
    asked = 'key = "a.key", client_ca = "ca.pem" }], client_ca = "ca.pem'
    text = (
        TEXT.replace('key = "a.key" }], watch = true', f'{asked}"')
        + 'tls = { ca = "ca.pem" }\nhealth = { tls = { ca = "ca.pem" } }\n'
    )
    assert load(ROOT.issue("a"), text) == []
    config = check_config(tmp_path / "l.toml", {}).config
    end = ROOT.certificate.not_valid_after_utc
    found = warnings(config, end.timestamp() + 1)
    what = (
        f"the authorities in {quote_end(str(tmp_path / 'ca.pem'))} expired on {end.date()}: nobody is trusted"
    )
    assert [(dotted(path), text) for path, text, _ in found if path[-1] != "cert"] == [
        ("listeners.web.tls.client_ca", what),
        ("listeners.web.tls.certificates[0].client_ca", what),
        ("pools.web.tls.ca", what),
        ("pools.web.health.tls.ca", what),
    ]


@pytest.mark.parametrize(
    ("protocol", "health", "message"),
    [
        ("udp", "{}", '8: pools.web.health.check: asks by HTTP where requests come by UDP; write check = "udp", or the port where that is answered'),
        ("udp", '{ check = "tls" }', '8: pools.web.health.check: asks by TLS where requests come by UDP; write check = "udp", or the port where that is answered'),
        ("tcp", '{ check = "udp" }', '8: pools.web.health.check: asks by UDP, which no listener brings to this pool; write "http", "tcp" or "tls"'),
        ("udp", '{ check = "udp" }', None),
        ("udp", '{ check = "tcp" }', None),
        ("udp", "{ port = 80 }", None),
        ("tcp", "{}", None),
    ],
)  # fmt: skip
def test_checks_that_ask_what_nobody_serves(
    load: Load, protocol: str, health: str, message: str | None
) -> None:
    tls = 'tls = { certificates = [{ cert = "a.pem", key = "a.key" }], watch = true }'
    text = TEXT.replace(tls, f'protocol = "{protocol}"') + f"health = {health}\n"
    assert load(ROOT.issue("a"), text) == ([] if message is None else [message])


def test_a_limit_that_nobody_names(load: Load) -> None:
    (line,) = load(ROOT.issue("a"), TEXT + "[limits.x]\nconnections = 5\n")
    assert (
        line
        == '8: limits.x: is not in the limits of any listener; add limits = ["x"] to a listener, or leave it out'
    )


def test_what_the_facts_say_of_chain_and_signatures(tmp_path: Path, load: Load) -> None:
    load(ROOT.issue("a"))
    config = check_config(tmp_path / "l.toml", {}).config
    listener = config.listeners["web"]
    assert listener.tls is not None
    (pair,) = listener.tls.certificates
    now = pair.cert.facts.not_after - 50 * DAY

    def told(**facts: object) -> list[str]:
        cert = dataclasses.replace(pair.cert, facts=dataclasses.replace(pair.cert.facts, **facts))  # type: ignore[arg-type]
        certificates = (CertificateConfig.model_construct(**(dict(pair) | {"cert": cert})),)
        tls = TlsConfig.model_construct(**(dict(listener.tls or ()) | {"certificates": certificates}))
        changed = listener.model_copy(update={"tls": tls})
        other = config.model_copy(update={"listeners": {"web": changed}})
        return [what for _, what, _ in warnings(other, now)]

    assert told() == []
    assert "a signature with SHA-1" in told(is_signed_with_sha1=True)[0]
    assert f"expires on {date(now + DAY)}" in told(chain_not_after=now + DAY)[0]
    assert f"expired on {date(now - DAY)}" in told(chain_not_after=now - DAY)[0]


def test_certificates_are_found_wherever_they_are(tmp_path: Path) -> None:
    ROOT.issue("a").write(tmp_path, "a")
    ROOT.issue(purpose="client", common_name="me").write(tmp_path, "me")
    own = 'tls = { certificate = { cert = "me.pem", key = "me.key" } }\n'
    (tmp_path / "l.toml").write_text(TEXT + own)
    first, second = certified(check_config(tmp_path / "l.toml", {}).config)
    assert (dotted(first.path), first.listener, first.pool) == (
        "listeners.web.tls.certificates[0]",
        "web",
        "",
    )
    assert (dotted(second.path), second.listener, second.pool) == ("pools.web.tls.certificate", "", "web")
    assert (first.names, second.names) == (("a",), ("CN=me",))
    end = first.cert.facts.not_after
    assert [Certified.days_left(first, end - seconds) for seconds in (DAY, DAY - 1, 1, 0, -1)] == [
        1,
        0,
        0,
        0,
        -1,
    ]


def test_names_and_dates_in_a_line() -> None:
    assert listed_names(("a", "b c", "d", "e", "f")) == 'a, "b c", d and 2 more'
    assert date(0.0) == "1970-01-01"
    assert date(1e15) == "9999-12-31"


def test_files_are_read_again_and_the_configuration_is_not(tmp_path: Path, load: Load) -> None:
    load(ROOT.issue("a"))
    config = check_config(tmp_path / "l.toml", {}).config
    (tmp_path / "l.toml").unlink()
    assert renew_config(config).config == config
    new = ROOT.issue("b", days=3)
    new.write(tmp_path, "a")
    renewed = renew_config(config)
    assert renewed.config != config
    assert [one.names for one in certified(renewed.config)] == [("b",)]
    assert renewed.config.pools == config.pools
    (warning,) = renewed.warnings
    assert str(warning).startswith(
        "the certificates: listeners.web.tls.certificates[0].cert: the certificate in"
    )


def test_a_half_written_pair_is_refused_when_files_are_read_again(tmp_path: Path, load: Load) -> None:
    load(ROOT.issue("a"))
    config = check_config(tmp_path / "l.toml", {}).config
    (tmp_path / "a.pem").write_bytes(ROOT.issue("a").chain)
    with pytest.raises(UnusableConfigError) as caught:
        renew_config(config)
    (line,) = caught.value.problems
    assert line.startswith("the certificates: listeners.web.tls.certificates[0].key: the file ")
    assert "the key is not that of the certificate beside it" in line
    ROOT.issue().write(tmp_path, "a")
    with pytest.raises(UnusableConfigError, match="is for no host name"):
        renew_config(config)


def test_only_watched_files_are_read_again(tmp_path: Path, load: Load) -> None:
    load(ROOT.issue("a"), TEXT.replace("watch = true", "watch = false"))
    config = check_config(tmp_path / "l.toml", {}).config
    (tmp_path / "a.pem").unlink()
    assert renew_config(config).config == config
