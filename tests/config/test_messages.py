from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.config.load import load_config
from lbproc.config.outline import TABLES
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.wording import KeyPath, dotted
from tests.config.complete import COMPLETE, ENVIRON, index, with_line

LINES = index(COMPLETE)
FORM = re.compile(
    r"""(?P<file>[^:]+\.toml):(?P<line>[0-9]+): """
    r"""(?P<key>(?:"(?:[^"\\]|\\.)*"|[^:"])+): (?P<what>.+?); (?P<right>.+)"""
)
REMEDY = re.compile(
    r"\b(write|add|leave (?:it )?out|did you mean|begin|it is a key of|the keys here are|name one|set it)\b"
)


def keys() -> list[KeyPath]:
    """Every key of the model that is no table, at its place in the complete configuration."""
    return [
        path
        for path in LINES
        if path and isinstance(path[-1], str) and path[:-1] in LINES and path[:-1] and not is_table(path)
    ]


def is_table(path: KeyPath) -> bool:
    return any(len(pattern) == len(path) and matches(pattern, path) for pattern in TABLES)


def matches(pattern: tuple[str | None, ...], path: KeyPath) -> bool:
    return all(want is None or want == step for want, step in zip(pattern, path, strict=True))


def problems(tmp_path: Path, text: str) -> tuple[Problem, ...]:
    """What is wrong with a text; none means that it loads."""
    file = tmp_path / "lbproc.toml"
    file.write_text(text)
    try:
        load_config(file, ENVIRON)
    except UnusableConfigError as error:
        check_form(error, file)
        return error.found
    return ()


def check_form(error: UnusableConfigError, file: Path) -> None:
    """Every line has file, line, key and remedy."""
    assert error.problems
    assert error.problems == tuple(map(str, error.found))
    for line in error.problems:
        found = FORM.fullmatch(line)
        assert found is not None, line
        assert found["file"] == str(file)
        assert REMEDY.search(found["right"]), line
        assert "Input should" not in line


def at_key(found: tuple[Problem, ...], path: KeyPath) -> list[Problem]:
    """The problems of a key and of what is in it, which must be there and stand on its line."""
    own = [problem for problem in found if problem.key[: len(path)] == path]
    assert own, f"nothing about {dotted(path)} in {found}"
    assert {problem.line for problem in own} == {LINES[path]}
    return own


def test_the_complete_configuration_has_every_key_of_the_model_and_is_right(tmp_path: Path) -> None:
    shapes = {
        (*pattern, key)
        for pattern, table in TABLES.items()
        for key in table.model_fields
        if (*pattern, key) not in TABLES and (*pattern, key, None) not in TABLES
    }
    given_shapes = {
        next(
            (*pattern, str(path[-1]))
            for pattern in TABLES
            if len(pattern) == len(path) - 1 and matches(pattern, path[:-1])
        )
        for path in keys()
    }
    assert given_shapes == shapes
    assert problems(tmp_path, COMPLETE) == ()


WRONG_VALUES = {
    "a boolean": "true",
    "a float": "2.5",
    "a negative number": "-1",
    "an enormous number": "99999999999999999999",
    "a date": "1979-05-27",
    "a time": "07:32:00",
    "an infinite float": "inf",
    "an empty string": '""',
    "a string of controls": '"\\u0000\\u001b[31m"',
    "a long string": f'"{"x" * 5000}"',
    "a foreign string": '"ünïcödé ☃"',
    "an empty list": "[]",
    "a list of lists": "[[]]",
    "a list of numbers": "[1, 2]",
    "a table": "{ nonsense = 1 }",
    "an empty table": "{}",
}
NOT_WRONG = {
    ("a boolean", "listeners", "web", "proxy_protocol"),
    ("a boolean", "strict_sni"),
    ("a boolean", "tickets"),
    ("a boolean", "watch"),
    ("a boolean", "redirect_https"),
    ("an empty list", "limits"),
    ("an empty table", "passthrough"),
    ("a boolean", "backup"),
    ("a boolean", "verify"),
    ("an empty table", "headers"),
    ("a string of controls", "expect", "body"),
    ("a foreign string", "expect", "body"),
    ("a string of controls", "send"),
    ("a foreign string", "send"),
    ("a foreign string", "control_socket"),
    ("a foreign string", "pid_file"),
}


@pytest.mark.parametrize("path", keys(), ids=dotted)
def test_a_wrong_value_is_reported_with_file_line_key_and_remedy(tmp_path: Path, path: KeyPath) -> None:
    for kind, value in WRONG_VALUES.items():
        found = problems(tmp_path, with_line(LINES[path], f"{path[-1]} = {value}"))
        if {(kind, path[-1]), (kind, *path[-2:]), (kind, *path)} & NOT_WRONG:
            assert found == ()
        else:
            own = at_key(found, path)
            assert all(str(problem).isprintable() and len(str(problem)) < 500 for problem in own)


NEEDED: dict[KeyPath, list[str | int]] = {
    ("listeners", "web", "trusted_proxies"): ["trusted_proxies"],
    ("listeners", "web", "tls", "client_ca"): ["client_auth"],
    ("listeners", "plain", "redirect_https"): ["pool"],
    ("listeners", "database", "protocol"): ["alpn", "sni"],
    ("listeners", "database", "routes", 0, "pool"): ["pool"],
    ("limits", "per_ip", "new_connections"): ["burst"],
    ("pools", "raw", "health", "check"): ["send"],
}
"""Keys that others need, and the keys that are complained of without them."""

EXAMPLE = re.compile(r"such as (\"[^\"]+\"|[0-9]+(?:\.[0-9]+)?)|^write (\"[^\"]+\"|[a-z]+)(?:,|;| or|$)")


@pytest.mark.parametrize("path", keys(), ids=dotted)
def test_the_example_for_a_wrong_type_is_right(tmp_path: Path, path: KeyPath) -> None:
    (problem,) = at_key(problems(tmp_path, with_line(LINES[path], f"{path[-1]} = 1979-05-27")), path)
    assert "a date or time" in problem.what
    found = EXAMPLE.search(problem.right)
    if path[-1] == "token":
        assert problem.right == 'write { env = "NAME" }, { file = "PATH" } or a string'
    elif path[-1] == "headers":
        assert problem.right == 'write names and strings such as { X-Probe = "1" }'
    elif path[-1] == "passthrough":
        assert problem.right == 'write hosts and pools such as { "db.example.com" = "db" }'
    elif path in NEEDED:
        assert found is not None  # right in itself, and others here need another value
    elif path[-1] in {"ca", "client_ca", "cert", "key"} and path[0] != "limits":
        name = {"cert": "client" if path[0] == "pools" else "server", "key": "server"}.get(
            str(path[-1]), "ca"
        )
        suffix = "key" if path[-1] == "key" else "pem"
        assert (
            problem.right == f'write the path of a file such as "tls/{name}.{suffix}"'
        )  # which is not there
    else:
        assert found is not None, problem
        assert problems(tmp_path, with_line(LINES[path], f"{path[-1]} = {found[1] or found[2]}")) == ()


@pytest.mark.parametrize("path", keys(), ids=dotted)
def test_a_misspelt_key_is_reported_with_the_key_that_was_meant(tmp_path: Path, path: KeyPath) -> None:
    line = COMPLETE.splitlines()[LINES[path] - 1]
    key, _, value = line.partition(" = ")
    found = problems(tmp_path, with_line(LINES[path], f"{key}{key[-1]} = {value}"))
    misspelt = (*path[:-1], f"{key}{key[-1]}")
    (problem,) = (problem for problem in found if problem.key == misspelt)
    assert (problem.line, problem.what) == (LINES[path], "is not a known key")
    assert problem.right == f'did you mean "{key}"?'


@pytest.mark.parametrize("path", keys(), ids=dotted)
def test_a_key_of_nothing_known_is_answered_with_the_keys_that_are(tmp_path: Path, path: KeyPath) -> None:
    text = with_line(LINES[path], f"{COMPLETE.splitlines()[LINES[path] - 1]}\nzzzzzz = 1")
    (problem,) = problems(tmp_path, text)
    assert problem.key == (*path[:-1], "zzzzzz")
    assert problem.line == LINES[path] + 1
    assert str(path[-1]) in problem.right


@pytest.mark.parametrize("path", keys(), ids=dotted)
def test_a_required_key_that_is_missing_is_reported_at_its_table(tmp_path: Path, path: KeyPath) -> None:
    table = next(
        table
        for pattern, table in TABLES.items()
        if len(pattern) == len(path) - 1 and matches(pattern, path[:-1])
    )
    found = problems(tmp_path, with_line(LINES[path], ""))
    if path in NEEDED:
        assert sorted(str(problem.key[-1]) for problem in found) == NEEDED[path]
        return
    if not table.model_fields[str(path[-1])].is_required():
        assert found == ()
        return
    (problem,) = found
    assert (problem.key, problem.line, problem.what) == (path, LINES[path[:-1]], "is missing")
    assert problem.right.startswith("add ")


TABLE_PATHS = [path for path in LINES if is_table(path)]


@pytest.mark.parametrize("path", TABLE_PATHS, ids=dotted)
@pytest.mark.parametrize("value", ["3", '"text"', "[1]", "true"])
def test_a_value_in_place_of_a_table_is_reported_at_its_key(
    tmp_path: Path, path: KeyPath, value: str
) -> None:
    key = path if isinstance(path[-1], str) else path[:-1]
    lines = [line for line in COMPLETE.splitlines() if line]
    kept: list[str] = []
    dropping = False
    for line in lines:
        if line.startswith("["):
            header = tuple(line.strip("[]").split("."))
            plain = tuple(step for step in key if isinstance(step, str))
            dropping = header[: len(plain)] == plain
        if not dropping:
            kept.append(line)
    parent = tuple(step for step in key[:-1] if isinstance(step, str))
    opening = f"[{'.'.join(parent)}]"
    array = f"[{opening}]"
    text_line = f"{key[-1]} = {value}"
    if not parent:
        kept.insert(0, text_line)
    elif opening in kept:
        kept.insert(kept.index(opening) + 1, text_line)
    elif array in kept:
        kept.insert(kept.index(array) + 1, text_line)
    else:
        kept.append(opening)
        kept.append(text_line)
    found = problems(tmp_path, "\n".join(kept))
    own = [problem for problem in found if problem.key[: len(key)] == key]
    assert own, found
    assert own[0].line == kept.index(text_line) + 1


def test_ten_messages_word_for_word(tmp_path: Path) -> None:
    file = tmp_path / "lbproc.toml"
    file.write_text("""\
[runtime]
workers = 0
drain_timeout = 10
[admin]
bind = "0.0.0.0:9900"
[log]
access = "sydout"
format = "xml"
[listeners.web]
bind = ["0.0.0.0:8080", "127.0.0.1:8080",
  "localhost:80"]
pool = "wbe"
max_header_size = "32K"
trusted_proxies = ["10.0.0.1/8"]
[[listeners.web.routes]]
match = { host = "a.example.com", path_prefixx = "/v1" }
pool = "web"
[[listeners.web.routes]]
match = { host = "a.example.com" }
[[listeners.web.routes]]
match = { host = "a.example.com", method = "GET" }
pool = "web"
[pools.web]
policy = "round-robin"
backends = ["10.0.0.1", { address = "10.0.0.2:80", weight = "2" }, "10.0.0.2:80", "http://x:80"]
health = { check = "htp" }
[pools.web.timeouts]
connect = "2"
""")
    with pytest.raises(UnusableConfigError) as caught:
        load_config(file, {})
    expected = """
:2: runtime.workers: is 0, not a number of workers; write "auto" or a whole number of 1 to 200, such as 4
:3: runtime.drain_timeout: is an integer, not a duration; write the unit too, as a string such as "10s" or "10m"
:4: admin.token: is missing, and other machines may reach 0.0.0.0:9900; add token = { env = "LBPROC_ADMIN_TOKEN" }, or bind to "127.0.0.1:9900"
:7: log.access: "sydout" is not "stdout", "off" or a path; did you mean "stdout"? write "stdout", "off" or a path; a file beside this one is "./NAME"
:8: log.format: "xml" is not a format of the access log; write "json" or "combined"
:10: listeners.web.bind[1]: "127.0.0.1:8080" overlaps the address of listeners.web.bind[0] (:10); write another address or port
:11: listeners.web.bind[2]: "localhost:80" names a host, and only an IP address can be listened on; write one such as "127.0.0.1:80"
:12: listeners.web.pool: there is no pool "wbe"; did you mean "web"?
:13: listeners.web.max_header_size: "32K" has an unclear unit; write "32KiB" for units of 1024, or use kB, MB, GB
:14: listeners.web.trusted_proxies[0]: "10.0.0.1/8" has bits set after its prefix; write "10.0.0.0/8", or "10.0.0.1" alone
:16: listeners.web.routes[0].match.path_prefixx: is not a known key; did you mean "path_prefix"?
:18: listeners.web.routes[1].pool: is missing; add pool = "web"
:20: listeners.web.routes[2]: is never taken: listeners.web.routes[1] (:18) takes all its requests; move it above that route, or narrow that one
:24: pools.web.policy: "round-robin" is not a policy; did you mean "round_robin"? "least_connections", "round_robin", "random", "power_of_two", "ip_hash", "consistent_hash" or "first_available" can stand here
:25: pools.web.backends[0]: "10.0.0.1" is not an address; write the port too: "10.0.0.1:8000"
:25: pools.web.backends[1].weight: is a string, not a whole number of 0 to 1000; write a whole number of 0 to 1000 such as 2
:25: pools.web.backends[2]: "10.0.0.2:80" is the address of pools.web.backends[1] (:25) already; keep one of them; its "weight" gives it a larger share
:25: pools.web.backends[3]: "http://x:80" is not an address; leave out the scheme and the path: "10.0.0.1:8000"
:26: pools.web.health.check: "htp" is not a kind of check; did you mean "http"? "http", "tcp", "tls" or "udp" can stand here
:28: pools.web.timeouts.connect: "2" has no unit; write "2s" for seconds, or another unit of ms, m, h or d
"""  # noqa: E501
    assert "\n" + str(caught.value).replace(str(file), "") == expected[:-1]


TEXT = st.text(max_size=12) | st.sampled_from(
    ["web", "10.0.0.1:80", "unix:x", "auto", "30s", "1KiB", "\x1b[2J", "a.b", "listeners", "pool", "backends"]
)
VALUE = st.recursive(
    st.booleans() | st.integers() | st.floats() | TEXT | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(sorted(LINES, key=dotted)), value=VALUE, name=TEXT)
def test_whatever_stands_in_a_table_every_message_has_its_form(
    tmp_path_factory: pytest.TempPathFactory, path: KeyPath, value: object, name: str
) -> None:
    document: dict[str, Any] = tomllib.loads(COMPLETE)
    table: Any = document
    for step in path[:-1]:
        table = table[step]
    table[path[-1]] = value
    if name and isinstance(document["listeners"], dict):
        document["listeners"][name] = value
    problems(tmp_path_factory.mktemp("any"), tomli_w.dumps(document))
