"""The JSON Schema says of real configurations what lbproc says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lbproc.config.load import load_config
from lbproc.config.outline import TABLES
from lbproc.config.problem import UnusableConfigError
from lbproc.config.schema import render_schema
from lbproc.config.starter import STARTER
from tests.config.complete import COMPLETE

ROOT = Path(__file__).parents[2]
SCHEMA = render_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = [*sorted((ROOT / "conf").glob("*.toml")), ROOT / "conf" / "directory"]

SMALL = '[listeners.web]\nbind = "127.0.0.1:1"\npool = "a"\n[pools.a]\nbackends = ["127.0.0.1:2"]\n'


def problems(text: str) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(tomllib.loads(text))]


def test_it_is_a_schema_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def merged(tables: Any, more: Any) -> Any:
    """Two files of one directory: tables merge, lists append."""
    if isinstance(tables, list):
        return tables + more
    both = {key: merged(tables[key], more[key]) for key in tables.keys() & more.keys()}
    return {**tables, **more, **both}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_right(path: Path) -> None:
    found: dict[str, Any] = {}
    for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
        found = merged(found, tomllib.loads(file.read_text()))
    assert [error.message for error in VALIDATOR.iter_errors(found)] == []


@pytest.mark.parametrize("text", [COMPLETE, STARTER, SMALL], ids=["complete", "starter", "small"])
def test_configurations_that_lbproc_takes_are_right(text: str) -> None:
    assert problems(text) == []


WRONG = [
    'pools.a.policy = "fastest"',
    "pools.a.backends = []\n[pools.b]\nbackend = 1",
    'runtime.workers = "all"',
    "runtime.workers = 0",
    "runtime.drain_timeout = 30",
    'runtime.drain_timeout = "30"',
    'runtime.unknown = "x"',
    "runtime.max_requests = 0",
    'runtime.max_requests = "many"',
    "runtime.pid_file = 1",
    'log.format = "xml"',
    'log.access = "syslog"',
    "log.level = 3",
    "listeners.web.max_header_count = 0",
    'listeners.web.max_header_size = "32 KiB"',
    "listeners.web.bind = 8080",
    "listeners.web.routes = [{ name = 'x' }]",
    "listeners.web.routes = [{ pool = 'a', match = { path = 'x' } }]",
    "pools.a.backends = [{ weight = 1 }]",
    'pools.a.backends = [{ address = "127.0.0.1:1", backup = "yes" }]',
    'admin.token = { env = "A", file = "B" }',
    'listeners.web.protocol = "tls"',
    'listeners.web.redirect_https = "yes"',
    "listeners.web.redirect_https = 0",
    "listeners.web.tls = {}",
    "listeners.web.tls = { certificates = [{ cert = 1, key = 2 }] }",
    'listeners.web.tls = { certificates = [{ cert = "a", key = "b", client_auth = "no" }] }',
    'listeners.web.tls = { certificates = [{ cert = "a", key = "b" }], passthrough = ["a"] }',
    "listeners.web.limits = [1]",
    'pools.a.proxy_protocol = "v3"',
    'pools.a.tls = { min_version = "1.0" }',
    'pools.a.hash_key = "alpn"',
    'limits.x.new_connections = "many"',
    'limits.x.key = "bearer"',
    'pools.a.health.check = "icmp"',
    "pools.a.health.headers = { X = 1 }",
    'pools.a.health.headers = { X = { env = "A", file = "B" } }',
]


@pytest.mark.parametrize("line", WRONG)
def test_what_the_schema_refuses_lbproc_refuses(line: str, tmp_path: Path) -> None:
    key = line.partition(" ")[0]
    kept = SMALL.replace('bind = "127.0.0.1:1"\n', "") if key.endswith("bind") else SMALL
    kept = kept.replace('backends = ["127.0.0.1:2"]\n', "") if key.endswith("backends") else kept
    text = f"{line}\n{kept}"
    # A table that is begun by a dotted key cannot be begun again: put the key into the table instead.
    table, _, name = key.rpartition(".")
    inside = f"{name}{line.removeprefix(key)}\n"
    if table in {"listeners.web", "pools.a"}:
        text = kept.replace(f"[{table}]\n", f"[{table}]\n{inside}")
    elif table == "pools.a.health":
        text = f"{kept}[{table}]\n{inside}"
    assert problems(text), text
    file = tmp_path / "lbproc.toml"
    file.write_text(text)
    with pytest.raises(UnusableConfigError):
        load_config(file, {})


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The table of a definition: of a backend the one besides the string."""
    return (
        next((part for part in schema["anyOf"] if "properties" in part), schema)
        if "anyOf" in schema
        else schema
    )


def test_every_key_has_a_title_and_a_description() -> None:
    for table in set(TABLES.values()):
        definition = SCHEMA if table.__name__ == "Config" else SCHEMA["$defs"][table.__name__]
        found = described(definition)["properties"]
        assert found.keys() == table.model_fields.keys()
        for key, field in table.model_fields.items():
            assert found[key]["description"] == field.description
            assert found[key].get("title") or "$ref" in found[key] or "items" in found[key]
            assert found[key].keys() & {"type", "anyOf", "enum", "const", "$ref", "additionalProperties"}, key


def test_defaults_are_written_as_in_a_file() -> None:
    defs = SCHEMA["$defs"]
    assert defs["RuntimeConfig"]["properties"]["drain_timeout"]["default"] == "10m"
    assert defs["ListenerConfig"]["properties"]["max_header_size"]["default"] == "32KiB"
    assert "default" not in defs["RuntimeConfig"]["properties"]["user"]
