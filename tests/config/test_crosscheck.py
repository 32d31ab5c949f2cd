# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lbproc.config.crosscheck import crosscheck
from lbproc.config.place import Surroundings
from lbproc.config.positions import scan
from lbproc.config.source import Source

GOOD = """
[listeners.web]
bind = "0.0.0.0:8080"
pool = "web"
[pools.web]
backends = ["10.0.0.1:8000"]
"""


def found(text: str) -> list[str]:
    """What the rules find in a text, one line each, without the file."""
    source = Source({}, Path("/etc/lbproc"), "a.toml")
    source.add("a.toml", tomllib.loads(text), scan(text))
    problems = crosscheck(source, Surroundings(base=source.base))
    return [str(problem).removeprefix("a.toml:") for problem in problems]


def test_a_good_configuration_passes() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listeners]", '1: listeners: holds no listener; add [listeners.web] with bind = "0.0.0.0:8080"'),
        (
            GOOD + '[pools."a/b"]\nbackends = ["b:1"]',
            '7: pools."a/b": "a/b" is not a name; write 1 to 64 letters, digits, "_", "-" or ".", beginning with a letter or digit',
        ),
        (
            GOOD.replace("listeners.web", 'listeners.""'),
            '2: listeners."": "" is not a name; write 1 to 64 letters, digits, "_", "-" or ".", beginning with a letter or digit',
        ),
        (
            GOOD.replace('pool = "web"', ""),
            '2: listeners.web.pool: is missing, and there are no routes; add pool = "NAME", or a route',
        ),
        (GOOD.replace('pool = "web"', 'pool = "wbe"'), '4: listeners.web.pool: there is no pool "wbe"; did you mean "web"?'),
        (
            GOOD.replace('pool = "web"', 'pool = "other"'),
            '4: listeners.web.pool: there is no pool "other"; name one that is there, such as "web", or add [pools.other]',
        ),
        (
            '[listeners.web]\nbind = "0.0.0.0:80"\npool = "web"',
            '3: listeners.web.pool: there is no pool "web"; add [pools.web] with backends = ["10.0.0.1:8000"]',
        ),
        (
            GOOD + '[[listeners.web.routes]]\nmatch.path = "/a"\npool = "b"',
            '9: listeners.web.routes[0].pool: there is no pool "b"; name one that is there, such as "web", or add [pools.b]',
        ),
        (
            GOOD + '[listeners.b]\nbind = ["0.0.0.0:8080"]\npool = "web"',
            '8: listeners.b.bind[0]: "0.0.0.0:8080" is the address of listeners.web.bind (a.toml:3); write another address or port',
        ),
        (
            GOOD + '[listeners.b]\nbind = "10.0.0.1:8080"\npool = "web"',
            '8: listeners.b.bind: "10.0.0.1:8080" overlaps the address of listeners.web.bind (a.toml:3); write another address or port',
        ),
        (
            GOOD.replace("0.0.0.0", "10.0.0.1") + '[admin]\nbind = "0.0.0.0:8080"\ntoken = "t"',
            '8: admin.bind: "0.0.0.0:8080" overlaps the address of listeners.web.bind (a.toml:3); write another address or port',
        ),
        (
            GOOD.replace("0.0.0.0:8080", "unix:a.sock") + '[runtime]\ncontrol_socket = "/etc/lbproc/a.sock"',
            '8: runtime.control_socket: "unix:/etc/lbproc/a.sock" is the address of listeners.web.bind (a.toml:3); write another address or port',
        ),
        (
            GOOD + '[admin]\nbind = "10.0.0.1:9900"',
            '7: admin.token: is missing, and other machines may reach 10.0.0.1:9900; add token = { env = "LBPROC_ADMIN_TOKEN" }, or bind to "127.0.0.1:9900"',
        ),
        (
            GOOD + '[[listeners.web.routes]]\nname = "a"\nmatch.path = "/a"\npool = "web"\n[[listeners.web.routes]]\nname = "a"\npool = "web"',
            '12: listeners.web.routes[1].name: "a" is the name of listeners.web.routes[0] (a.toml:7) already; give each route of a listener a name of its own',
        ),
        (
            GOOD + '[[listeners.web.routes]]\nname = "1"\nmatch.path = "/a"\npool = "web"\n[[listeners.web.routes]]\npool = "web"',
            '11: listeners.web.routes[1].name: "1" is the name of listeners.web.routes[0] (a.toml:7) already; give each route of a listener a name of its own',
        ),
        (
            GOOD + '[[listeners.web.routes]]\npool = "web"\n[[listeners.web.routes]]\nmatch.path = "/a"\npool = "web"',
            "9: listeners.web.routes[1]: is never taken: listeners.web.routes[0] (a.toml:7) takes all its requests; move it above that route, or narrow that one",
        ),
        (
            GOOD.replace('"10.0.0.1:8000"', '"a:1",\n{ address = "A:01", name = "b" }'),
            '7: pools.web.backends[1]: "a:1" is the address of pools.web.backends[0] (a.toml:6) already; keep one of them; its "weight" gives it a larger share',
        ),
        (
            GOOD.replace('"10.0.0.1:8000"', '"a:1",\n{ address = "b:1", name = "a:1" }'),
            '7: pools.web.backends[1].name: "a:1" is the name of pools.web.backends[0] (a.toml:6) already; give each backend of a pool a name of its own',
        ),
        (
            GOOD + 'policy = "ip_hash"\nhash_key = "path"',
            '8: pools.web.hash_key: is not looked at by policy = "ip_hash"; write policy = "consistent_hash", or leave out hash_key',
        ),
        (
            GOOD.replace('"10.0.0.1:8000"', '"a:1", "b:1"') + "[runtime]\nmax_backends = 1",
            "8: runtime.max_backends: is 1, and the pools have 2 backends; write at least 2",
        ),
        (
            GOOD + "[runtime]\nworkers = 8\nmax_columns = 8",
            "9: runtime.max_columns: is 8, too few for 8 workers; write at least 11, or have fewer workers",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_reported(text: str, message: str) -> None:
    assert found(text) == [message]


@pytest.mark.parametrize(
    "more",
    [
        '[listeners.b]\nbind = "[::]:8080"\npool = "web"',
        '[listeners.b]\nbind = ["127.0.0.1:0", "127.0.0.1:0"]\npool = "web"',
        '[listeners.b]\nbind = ["10.0.0.1:1", "10.0.0.2:1", "[::1]:1", "unix:a", "unix:b"]\npool = "web"',
        '[listeners.b]\nbind = "0.0.0.0:81"\nroutes = [{ pool = "web" }]',
        '[admin]\nbind = "127.0.0.1:9900"',
        '[admin]\nbind = "[::1]:9900"',
        '[admin]\nbind = "unix:admin.sock"',
        '[admin]\nbind = "0.0.0.0:9900"\ntoken = "t"',
        '[pools.b]\nbackends = ["10.0.0.1:8000"]\npolicy = "ip_hash"\nhash_key = "client_ip"',
        '[pools.b]\nbackends = ["10.0.0.1:8000"]\nhash_key = "path"',
        "[runtime]\nworkers = 5\nmax_columns = 8\nmax_backends = 1",
        '[runtime]\nworkers = "auto"\nmax_columns = 8',
    ],
)
def test_what_goes_together_passes(more: str) -> None:
    assert found(GOOD + more) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "listeners = 1\npools = 2\nadmin = 3\nruntime = 4",
        "[listeners]\nweb = 1\n[pools]\nweb = []",
        "[listeners.web]\npool = 1\nbind = 1\nroutes = 1",
        '[listeners.web]\nbind = ["x", 1, []]\nroutes = [1, { pool = 1, name = 1, match = 1 }, { match = { path = 1 } }]',
        '[pools.web]\nbackends = 1\n[pools.b]\nbackends = [1, {}, { address = 1 }, "x", { address = "a:1", name = 1 }]',
        GOOD
        + 'routes = 1\n[listeners.b]\nbind = "[::1]:1"\nroutes = [1, { matc = 1, pool = "web" }, { pool = "web" }]',
        "[admin]\nbind = 1\n[runtime]\ncontrol_socket = 1\nworkers = 'x'",
    ],
)
def test_what_is_wrong_in_itself_is_passed_over(text: str) -> None:
    assert found(text) == []
