"""A certificate to begin with: what is made, what is printed, and what is never overwritten."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbproc.cli import main
from lbproc.config.certified import DAY, certified, date, today
from lbproc.config.load import check_config
from lbproc.config.local_authority import Made, checked_name, issue, make_authority, read_authority
from tests.certificates import Authority


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def self_signed(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cert", "self-signed", *arguments])


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def handshake(directory: Path, stem: str, host: str) -> None:
    """A client that trusts the authority alone speaks with a server that shows the certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / f"{stem}.pem", directory / f"{stem}.key")
    client = ssl.create_default_context(cafile=directory / "lbproc-ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not ends


def test_a_certificate_that_lbproc_takes_without_a_warning_and_clients_accept(here: Path) -> None:
    result = self_signed("localhost", "127.0.0.1", "::1", "*.Example.com")
    assert (result.exit_code, result.stderr) == (0, "")
    assert modes(here / "tls") == {
        "lbproc-ca.pem": 0o644,
        "lbproc-ca.key": 0o600,
        "localhost.pem": 0o644,
        "localhost.key": 0o600,
    }
    table = "[listeners.web.tls]\n" + result.stdout.split("[listeners.web.tls]\n")[1].split("\n\n")[0]
    text = '[listeners.web]\nbind = "127.0.0.1:0"\npool = "p"\n[pools.p]\nbackends = ["127.0.0.1:1"]\n'
    (here / "lbproc.toml").write_text(text + table)
    checked = check_config(here / "lbproc.toml", {})
    assert checked.warnings == ()
    (one,) = certified(checked.config)
    assert one.names == ("localhost", "*.example.com")
    assert one.cert.facts.addresses == ("127.0.0.1", "::1")
    assert one.days_left(today()) in {364, 365}
    for host in ("localhost", "127.0.0.1", "::1", "a.example.com"):
        handshake(here / "tls", "localhost", host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(here / "tls", "localhost", "example.com")


def test_what_it_says(here: Path) -> None:
    said = self_signed("a.example.com", "--out", "keys", "--days", "30").stdout
    end = date(today() + 30 * DAY)
    assert said.startswith(
        f"keys/a.example.com.pem and keys/a.example.com.key: a.example.com, until {end}\n"
        "A new authority signed it: keys/lbproc-ca.pem\n"
    )
    assert "curl --cacert keys/lbproc-ca.pem https://a.example.com:PORT/" in said
    assert "Keep keys/lbproc-ca.key to yourself" in said
    assert "https://[::1]:PORT/" in self_signed("::1", "--out", "keys").stdout
    assert (here / "keys" / "__1.pem").exists()
    said = self_signed("*.b.example", "--out", "keys").stdout
    assert "https://www.b.example:PORT/" in said
    assert "The authority that was there signed it" in said
    handshake(here / "keys", "wildcard.b.example", "x.b.example")


def test_what_is_there_stays_unless_it_is_forced_and_the_authority_in_any_case(here: Path) -> None:
    assert self_signed("a.com").exit_code == 0
    before = contents(here / "tls")
    result = self_signed("a.com", "b.com")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr == "lbproc: tls/a.com.pem is there already; name another directory, or write --force\n"
    )
    assert contents(here / "tls") == before
    assert self_signed("a.com", "b.com", "--force").exit_code == 0
    after = contents(here / "tls")
    assert {name for name in after if after[name] != before[name]} == {"a.com.pem", "a.com.key"}
    assert modes(here / "tls")["a.com.key"] == 0o600
    handshake(here / "tls", "a.com", "b.com")
    result = self_signed("lbproc-ca", "--force")
    assert "is the name of the authority's files" in result.stderr


@pytest.mark.parametrize(
    "name", ["a b", "https://a.com", "a.com:443", "b\u00fccher.example", "*", "1.2.3", "", "-x/../y"]
)
def test_what_is_no_name_is_refused_before_anything_is_made(here: Path, name: str) -> None:
    result = self_signed("good.com", "--", name)
    assert result.exit_code == 1
    assert "is no host name and no IP address; write one such as" in result.stderr
    assert not (here / "tls").exists()


def test_an_authority_that_is_of_no_use_is_told(here: Path) -> None:
    self_signed("a.com")
    key = here / "tls" / "lbproc-ca.key"
    content = key.read_bytes()
    key.unlink()
    assert "tls/lbproc-ca.key is missing; bring it back" in self_signed("b.com").stderr
    key.write_bytes((here / "tls" / "a.com.key").read_bytes())
    assert "the key is not that of the certificate beside it" in self_signed("b.com").stderr
    key.write_bytes(content)
    assert self_signed("b.com").exit_code == 0


def test_an_authority_signs_certificates_alone_and_not_beyond_its_own_end() -> None:
    now = 1_800_000_000.0
    made = make_authority(now)
    assert "PRIVATE" not in repr(made)
    assert issue(made, ["a.com"], 825, made.not_after - 5 * DAY).not_after == made.not_after
    long_name = ".".join(["a" * 60] * 4)
    assert issue(made, [long_name], 1, now).not_after == now + DAY
    assert read_authority(made.cert, made.key, now) == made
    with pytest.raises(ValueError, match="it has expired; move it away"):
        read_authority(made.cert, made.key, made.not_after)
    leaf = issue(made, ["a.com"], 1, now)
    with pytest.raises(ValueError, match="it is no authority that lbproc has made"):
        read_authority(leaf.cert, leaf.key, now)
    foreign = Authority().issue("a.com", kind="RSA")
    with pytest.raises(ValueError, match="it is no authority"):
        read_authority(foreign.chain, foreign.key, now)
    assert isinstance(leaf, Made)


def test_names_are_written_as_certificates_have_them() -> None:
    written = ["A.example.COM.", "[::1]", "0:0::1", "*.x", "127.0.0.1"]
    assert [checked_name(name) for name in written] == ["a.example.com", "::1", "::1", "*.x", "127.0.0.1"]
