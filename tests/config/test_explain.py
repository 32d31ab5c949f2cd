# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from lbproc.config.explain import _ABSENT, explain
from lbproc.config.model import Config
from lbproc.config.outline import TABLES
from lbproc.config.positions import scan
from lbproc.config.problem import MOST_SHOWN
from lbproc.config.source import Source


def explained(text: str) -> list[str]:
    """How what the model finds in a text is put, one line each, without the file."""
    source = Source({}, Path("/etc/lbproc"), "a.toml")
    source.add("a.toml", tomllib.loads(text), scan(text))
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(source.document)
    return [str(problem).removeprefix("a.toml:") for problem in explain(caught.value.errors(), source)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '1: listeners: is missing; add [listeners.web] with bind = "0.0.0.0:8080"'),
        ("listeners = 1", "1: listeners: is an integer, not a table; begin one with [listeners.NAME]"),
        ("[[listeners]]", "1: listeners: is an array, not a table; begin one with [listeners.NAME]"),
        ("[listeners]\nweb = 1", "2: listeners.web: is an integer, not a table; begin it with [listeners.web]"),
        ("[[listeners.web]]", "1: listeners.web: is an array, not a table; begin it with [listeners.web]"),
        ("log = 1\n[listeners]", "1: log: is an integer, not a table; begin it with [log]"),
        ('[listeners.web]\npool = "x"', '1: listeners.web.bind: is missing; add bind = "0.0.0.0:8080"'),
        ("[listeners]\n[pools.a]", '2: pools.a.backends: is missing; add backends = ["10.0.0.1:8000"]'),
        ("[listeners]\n[pools.a]\nbackends = [{}]", '3: pools.a.backends[0].address: is missing; add address = "10.0.0.1:8000"'),
        ('[listeners]\n[admin]\ntoken = "x"', '2: admin.bind: is missing; add bind = "127.0.0.1:9900"'),
        ('[listeners.a]\nbind = "127.0.0.1:1"\nroutes = [\n1]', "4: listeners.a.routes[0]: is an integer, not a table; begin it with [[listeners.a.routes]]"),
        ('[listeners.a]\nbind = "127.0.0.1:1"\n[[listeners.a.routes]]\npool = "b"\nmatch = 1', "5: listeners.a.routes[0].match: is an integer, not a table; write match = { key = value }"),
        ("[listeners]\n[pool.web]", '2: pool: is not a known key; did you mean "pools"?'),
        ("connect = 1\n[listeners]", "1: connect: is not a known key; it is a key of [pools.NAME.timeouts]"),
        ("bind = 1\n[listeners]", "1: bind: is not a known key; it is a key of [admin] or [listeners.NAME]"),
        ("priorities = 1\n[listeners]", "1: priorities: is not a key of this version; leave it out"),
        ('[listeners.a]\nbind = "127.0.0.1:1"\n[[listeners.a.routes]]\npool = "b"\nsplit = 1', "5: listeners.a.routes[0].split: is not a key of this version; leave it out"),
        ('[listeners]\n[pools.a]\nsticky = 1\nbackends = ["a:1"]', "3: pools.a.sticky: is not a key of this version; leave it out"),
        ('[listeners.a]\nbind = "127.0.0.1:1"\n[listeners.a.tls]\nwatch = true', '3: listeners.a.tls.certificates: is missing; add certificates = [{ cert = "tls/web.pem", key = "tls/web.key" }]'),
        ('[listeners.a]\nbind = "127.0.0.1:1"\n[[listeners.a.routes]]\npool = "b"\nmatch = {query = 1}', "5: listeners.a.routes[0].match.query: is not a key of this version; leave it out"),
        ("[listeners]\n[pools.a]\nmax_connections = 1\nbackends = [\"a:1\"]", "3: pools.a.max_connections: is not a known key; it is a key of [listeners.NAME] or [[pools.NAME.backends]]"),
        ("zzz = 1\n[listeners]", "1: zzz: is not a known key; the keys here are admin, limits, listeners, log, pools and runtime"),
        ('[listeners]\n[pools.a]\nbackends = [\n"x"]', '4: pools.a.backends[0]: "x" is not an address; write the port too: "x:8000"'),
        ('[listeners.a]\nbind = "x"', '2: listeners.a.bind: "x" is not an address; write the port too: "x:8080"'),
    ],
)  # fmt: skip
def test_what_the_model_finds_is_put_in_words(text: str, message: str) -> None:
    assert explained(text) == [message]


def test_only_the_first_unknown_keys_are_guessed_at() -> None:
    text = "[listeners]\n" + "\n".join(f"[listenersx.k{place}]" for place in range(2)) + "\n[log]\n"
    text += "\n".join(f"levels{place} = 1" for place in range(MOST_SHOWN + 10))
    lines = explained(text)
    assert sum('; did you mean "level"?' in line for line in lines) == MOST_SHOWN - 1
    assert lines[-1].endswith("is not a known key; leave it out")
    assert lines[0] == '2: listenersx: is not a known key; did you mean "listeners"?'


def test_a_key_that_is_told_to_be_absent_is_absent() -> None:
    for pattern, keys in _ABSENT.items():
        assert not TABLES[pattern].model_fields.keys() & set(keys)
