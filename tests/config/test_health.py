# ruff: noqa: E501  messages stand here word for word, one on a line
"""The table of active checks: values, defaults, and what its keys may be together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lbproc.config.crosscheck import crosscheck
from lbproc.config.diff import diff
from lbproc.config.health import HealthConfig, StatusRange
from lbproc.config.load import load_config
from lbproc.config.model import Config
from lbproc.config.place import Surroundings
from lbproc.config.positions import scan
from lbproc.config.problem import UnusableConfigError
from lbproc.config.secret import Secret
from lbproc.config.show import render_config
from lbproc.config.source import Source
from lbproc.types import TcpAddress, UnixAddress

CA = Path(__file__).parents[1] / "health" / "tls" / "ca.pem"
BASE = '[listeners.web]\nbind = "0.0.0.0:8080"\npool = "web"\n[pools.web]\nbackends = ["10.0.0.1:8000"]\n'
TABLE = BASE + "[pools.web.health]\n"


def crosschecked(text: str) -> list[str]:
    """What the rules across keys find in a text, one line each, without the file."""
    source = Source({}, Path("/etc/lbproc"), "a.toml")
    source.add("a.toml", tomllib.loads(text), scan(text))
    problems = crosscheck(source, Surroundings(base=source.base))
    return [str(problem).removeprefix("a.toml:") for problem in problems]


def health(tmp_path: Path, keys: str) -> HealthConfig:
    """The table, loaded from a file."""
    file = tmp_path / "lbproc.toml"
    file.write_text(TABLE + keys)
    found = load_config(file, {}).pools["web"].health
    assert found is not None
    return found


def refusal(tmp_path: Path, keys: str) -> str:
    """The one thing that is wrong, without the place."""
    with pytest.raises(UnusableConfigError) as caught:
        health(tmp_path, keys)
    (problem,) = caught.value.found
    return f"{problem.what}; {problem.right}"


def test_an_empty_table_is_enough(tmp_path: Path) -> None:
    found = health(tmp_path, "")
    assert (found.check, found.path, found.method, found.initial) == ("http", "/", "GET", "checking")
    assert (found.interval, found.timeout, found.rise, found.fall) == (2.0, 1.0, 2, 3)
    assert (found.doubt_interval, found.down_interval) == (1.0, 4.0)
    assert found.expect.status == (StatusRange(200, 299),)
    assert found.tls is None


def test_spans_follow_the_interval_unless_they_are_given(tmp_path: Path) -> None:
    found = health(tmp_path, 'interval = "500ms"')
    assert (found.timeout, found.doubt_interval, found.down_interval) == (0.5, 0.25, 1.0)
    found = health(tmp_path, 'interval = "10s"\ntimeout = "3s"\ndoubt_interval = "1s"\ndown_interval = "1m"')
    assert (found.timeout, found.doubt_interval, found.down_interval) == (3.0, 1.0, 60.0)


@pytest.mark.parametrize(
    "keys",
    [
        "",
        'interval = "101ms"',
        'check = "tcp"',
        'check = "tls"',
        "tls = {}",
        'headers = { A = "b" }',
        "interval = '1d'",
    ],
)
def test_what_is_shown_loads_again(tmp_path: Path, keys: str) -> None:
    file = tmp_path / "lbproc.toml"
    file.write_text(TABLE + keys)
    config = load_config(file, {})
    file.write_text(render_config(config))
    assert load_config(file, {}) == config


def test_statuses_are_ranges_or_single_ones(tmp_path: Path) -> None:
    (one, two) = health(tmp_path, 'expect.status = ["200-299", "404"]').expect.status
    assert (str(one), str(two)) == ("200-299", "404")
    assert 200 in one
    assert 300 not in one
    assert 404 in two
    assert health(tmp_path, 'expect.status = "204"').expect.status == (StatusRange(204, 204),)


def test_places_are_addresses(tmp_path: Path) -> None:
    assert health(tmp_path, 'address = "10.0.0.9:1"').address == TcpAddress("10.0.0.9", 1)
    assert health(tmp_path, 'address = "[::1]:1"').address == TcpAddress("::1", 1)
    assert health(tmp_path, 'address = "unix:a"').address == UnixAddress(str(tmp_path / "a"))


def test_authorities_are_read_with_the_configuration(tmp_path: Path) -> None:
    found = health(tmp_path, f'tls.ca = "{CA}"')
    assert found.tls is not None
    assert found.tls.ca is not None
    assert found.tls.ca.content == CA.read_bytes()
    assert "BEGIN" not in repr(found)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('path = "healthz"', '"healthz" does not begin with a slash; write "/healthz"'),
        ('path = "/a b"', '"/a b" is not the path of a request; write one such as "/healthz"; percent-encode what is not visible ASCII'),
        ('path = "a b"', '"a b" is not the path of a request; write one such as "/healthz"; percent-encode what is not visible ASCII'),
        ('host = "a b"', '"a b" is not a host; write one such as "app.internal" or "app.internal:8080"'),
        ('headers = { "a b" = "c" }', '"a b" is not the name of a header field; write names and strings such as { X-Probe = "1" }'),
        ('headers = { host = "c" }', '"host" has a key of its own; write host = "app.internal" instead'),
        ('headers = { Content-Length = "1" }', '"Content-Length" is set by lbproc itself; leave it out'),
        ("headers = { a = 1 }", 'the value of "a" is an integer, not a string; write a string such as "1", { env = "NAME" } or { file = "PATH" }'),
        ('headers = { a = "\\n" }', 'the value of "a" cannot be sent; write 1 to 4096 visible ASCII characters, with spaces only between them'),
        ("headers = { a = { env = 'SPACED_OUT' } }", 'the value of "a": the environment variable SPACED_OUT is not set; set it, name another one, or write { file = "PATH" }'),
        ("headers = { a = { file = '/no/gone' } }", 'the value of "a": the file "/no/gone" gives no secret: No such file or directory; name a readable text file that holds the secret and nothing else'),
        ("headers = { a = { env = 'A', file = 'B' } }", 'the value of "a": is a table, but not { env = "NAME" } or { file = "PATH" }; write { env = "NAME" }, { file = "PATH" } or a string'),
        ("headers = { " + ", ".join(f'a{n} = "b"' for n in range(51)) + " }", "holds 51 header fields; write at most 50"),
        ("expect.status = [204]", 'is an integer, not a string; write it in quotes: "204"'),
        ('expect.status = "2xx"', '"2xx" is not a status or a range of them; write a status of 200 to 599, such as "204", or two with a hyphen, such as "200-299"'),
        ('expect.status = "299-200"', '"299-200" is empty; write the lower one first: "200-299"'),
        ('expect.body = ""', 'the text is empty; write a text of the answer of 1 to 4096 bytes, such as "ok"'),
        ('address = "app.internal:1"', '"app.internal:1" names a host, and only a backend\'s own name is looked up; write an IP address and a port such as "10.0.0.9:9000", or unix:PATH'),
        ('tls.server_name = "a:b/"', '"a:b/" is not a host name; write one such as "app.internal", without a port'),
        ('tls.ca = "a/"', '"a/" is not the path of a file; write one such as "tls/ca.pem"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_explained(tmp_path: Path, keys: str, message: str) -> None:
    assert refusal(tmp_path, keys) == message


SECRETS = """headers = { X-Probe = "1", Authorization = { env = "PROBE" }, X-Token = { file = "token" } }
"""
LOGIN, TOKEN = "Basic aHVzaDpwdXBweQ==", "hush puppy"


def with_secrets(tmp_path: Path, *, login: str = LOGIN, token: str = TOKEN + "\n") -> Config:
    file = tmp_path / "lbproc.toml"
    file.write_text(TABLE + SECRETS)
    (tmp_path / "token").write_text(token)
    return load_config(file, {"PROBE": login})


def test_values_of_headers_may_be_secrets_with_blanks_and_never_show(tmp_path: Path) -> None:
    config = with_secrets(tmp_path)
    found = config.pools["web"].health
    assert found is not None
    login, token = found.headers["Authorization"], found.headers["X-Token"]
    assert isinstance(login, Secret)
    assert isinstance(token, Secret)
    assert (found.headers["X-Probe"], login.reveal(), token.reveal()) == ("1", LOGIN, TOKEN)
    shown = render_config(config)
    for text in (shown, repr(config), str(config.model_dump()), config.model_dump_json()):
        assert LOGIN not in text
        assert TOKEN not in text
    health = tomllib.loads(shown)["pools"]["web"]["health"]
    assert health["headers"] == {
        "X-Probe": "1",
        "Authorization": {"env": "PROBE"},
        "X-Token": {"file": str(tmp_path / "token")},
    }
    (tmp_path / "shown.toml").write_text(shown)
    assert load_config(tmp_path / "shown.toml", {"PROBE": LOGIN}) == config


def test_of_another_secret_in_a_header_it_is_said_that_it_is_another(tmp_path: Path) -> None:
    old = with_secrets(tmp_path)
    new = with_secrets(tmp_path, login="Basic b3RoZXI=", token="other")
    assert [str(change) for change in diff(old, new)] == [
        "pools.web.health.headers.Authorization: another value",
        "pools.web.health.headers.X-Token: another value",
    ]
    assert diff(old, with_secrets(tmp_path)) == ()


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", 'the value of "Authorization": the secret is empty; write it there, or name another { env = "NAME" }'),
        ("***", 'the value of "Authorization": three stars stand for a hidden secret; write the secret itself, or { env = "NAME" } to keep it out'),
        ("hush\r\nX: y", 'the value of "Authorization" cannot be sent; write 1 to 4096 visible ASCII characters, with spaces only between them'),
        ("hush\u00e9", 'the value of "Authorization" cannot be sent; write 1 to 4096 visible ASCII characters, with spaces only between them'),
        ("x" * 5000, 'the value of "Authorization" cannot be sent; write 1 to 4096 visible ASCII characters, with spaces only between them'),
    ],
    ids=["empty", "stars", "line end", "not ASCII", "long"],
)  # fmt: skip
def test_a_secret_that_cannot_be_sent_is_explained_without_it(
    tmp_path: Path, secret: str, message: str
) -> None:
    with pytest.raises(UnusableConfigError) as caught:
        with_secrets(tmp_path, login=secret)
    (problem,) = caught.value.found
    assert f"{problem.what}; {problem.right}" == message


def test_a_file_without_certificates_is_explained(tmp_path: Path) -> None:
    (tmp_path / "bytes.pem").write_bytes(b"\xff")
    for name, reason in (
        ("bytes", "gives no authorities: it holds no certificate in PEM form"),
        ("absent", "cannot be read: No such file or directory"),
    ):
        assert reason in refusal(tmp_path, f'tls.ca = "{name}.pem"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE + 'interval = "1s"\ntimeout = "2s"', '8: pools.web.health.timeout: is "2s", longer than pools.web.health.interval (a.toml:7); write at most "1s", or a longer interval'),
        (TABLE + 'timeout = "3s"', '7: pools.web.health.timeout: is "3s", longer than the default of interval; write at most "2s", or a longer interval'),
        (TABLE + 'doubt_interval = "3s"', '7: pools.web.health.doubt_interval: is "3s", longer than the default of interval; write at most "2s", or a longer interval'),
        (TABLE + 'check = "tcp"\npath = "/x"', '8: pools.web.health.path: is not looked at by check = "tcp"; leave it out, or write check = "http"'),
        (TABLE + 'check = "tls"\nliveness_path = "/x"', '8: pools.web.health.liveness_path: is not looked at by check = "tls"; leave it out, or write check = "http"'),
        (TABLE + 'check = "tcp"\ntls = {}', '8: pools.web.health.tls: is not looked at by check = "tcp"; leave it out, or write check = "http" or check = "tls"'),
        (TABLE + 'send = "x"', '7: pools.web.health.send: is not looked at by check = "http"; leave it out, or write check = "tcp", check = "tls" or check = "udp"'),
        (TABLE + 'check = "tcp"\nexpect.status = "204"', '8: pools.web.health.expect.status: is not looked at by check = "tcp"; leave it out, or write check = "http"'),
        (TABLE + 'method = "HEAD"\nexpect.body = "x"', '8: pools.web.health.expect.body: is never there: method = "HEAD" asks for no body; write method = "GET", or leave it out'),
        (TABLE + 'tls = { verify = false, ca = "x" }', "7: pools.web.health.tls.ca: is not looked at while pools.web.health.tls.verify is false; leave out one of them"),
        (TABLE + 'port = 1\naddress = "10.0.0.1:1"', "7: pools.web.health.port: is not looked at beside pools.web.health.address (a.toml:8); leave out one of them"),
        (TABLE.replace('"10.0.0.1:8000"', '{ address = "unix:/a" }') + "port = 1", '7: pools.web.health.port: "unix:/a" of pools.web.backends[0] (a.toml:5) has no ports; leave out port'),
        (TABLE + 'check = "udp"\naddress = "unix:/a"', '8: pools.web.health.address: is a Unix socket, which takes no datagrams here; write an address with a port, or check = "tcp"'),
        (TABLE.replace('"10.0.0.1:8000"', '"unix:/a"') + 'check = "udp"', '7: pools.web.health.check: "unix:/a" of pools.web.backends[0] (a.toml:5) is a Unix socket; write an address with a port, or check = "tcp"'),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_reported(text: str, message: str) -> None:
    assert crosschecked(text) == [message]


@pytest.mark.parametrize(
    "keys",
    [
        'interval = "1s"\ntimeout = "1s"\ndoubt_interval = "1s"\ndown_interval = "100ms"',
        'check = "tcp"\nsend = "x"\nexpect.body = "y"\nexpect.status = ["200-299"]\npath = "/"\nmethod = "GET"\nheaders = {}',
        'check = "tls"\ntls = { server_name = "x" }\nsend = "x"',
        'check = "udp"\nsend = "x"\nexpect.body = "y"',
        'check = "udp"\naddress = "10.0.0.1:1"',
        "port = 1",
        'method = "HEAD"',
        f'tls = {{ ca = "{CA}" }}',
    ],
)
def test_what_goes_together_passes(keys: str) -> None:
    assert crosschecked(TABLE + keys) == []


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace("[pools.web]", "[pools.web]\nhealth = 1"),
        TABLE + "interval = 1\ntimeout = 1\ncheck = []\nexpect = 1\ntls = 1\nport = 1",
        TABLE + "timeout = 1\nmethod = []\ncheck = 'x'\nexpect = { body = 1 }",
        TABLE.replace('["10.0.0.1:8000"]', "1") + "port = 1",
        TABLE.replace('["10.0.0.1:8000"]', "[1, {}]") + "port = 1",
        TABLE.replace('["10.0.0.1:8000"]', "1") + "check = 'udp'",
        TABLE.replace('["10.0.0.1:8000"]', "[1, {}]") + "check = 'udp'",
    ],
)
def test_what_is_wrong_in_itself_is_passed_over(text: str) -> None:
    assert crosschecked(text) == []
