from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lbproc.cli.group import main
from lbproc.config.load import load_config
from lbproc.config.outline import TABLES, header
from lbproc.config.show import effective

ROOT = Path(__file__).parents[2]
TLS = ROOT / "tests" / "health" / "tls"
CONF = ROOT / "conf"
EXAMPLES = [*sorted(path.name for path in CONF.glob("*.toml")), "directory"]
COMMAND = re.compile(r"^#.* lbproc (cert self-signed .+)$", re.MULTILINE)
REFERENCE = (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, and the certificates that the commands make which they name."""
    root = tmp_path_factory.mktemp("examples")
    copied = Path(shutil.copytree(CONF, root / "conf", ignore=shutil.ignore_patterns("tls")))
    with contextlib.chdir(root):
        for path in copied.glob("*.toml"):
            for command in COMMAND.findall(path.read_text()):
                made = CliRunner().invoke(main, command.split())
                assert made.exit_code == 0, made.output
    return copied


@pytest.mark.parametrize("name", EXAMPLES)
def test_check_finds_an_example_right_with_no_environment_and_has_nothing_to_warn_of(
    conf: Path, name: str
) -> None:
    checked = CliRunner().invoke(main, ["check", "-c", str(conf / name)], env=dict.fromkeys(os.environ))
    assert checked.exit_code == 0, checked.output
    assert ": ok, " in checked.output
    assert "warning" not in checked.output


def test_the_examples_show_every_protocol(conf: Path) -> None:
    protocols = {
        listener.protocol for name in EXAMPLES for listener in load_config(conf / name, {}).listeners.values()
    }
    assert protocols == {"http", "tcp", "udp", "tls_passthrough"}


def test_the_examples_show_every_policy(conf: Path) -> None:
    policies = {pool.policy for name in EXAMPLES for pool in load_config(conf / name, {}).pools.values()}
    assert policies >= {"least_connections", "round_robin", "power_of_two", "ip_hash", "consistent_hash"}


def test_the_smallest_example_has_five_lines() -> None:
    text = (CONF / "minimal.toml").read_text()
    assert sum(bool(line) and not line.startswith("#") for line in text.splitlines()) == 5


def rows(section: str) -> dict[str, str]:
    """Key and default of each row of a table in the reference."""
    cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("| `"): row[1].strip("`") for row in cells}


def test_the_reference_has_every_key_with_its_default(tmp_path: Path) -> None:
    defaults = effective_defaults(tmp_path)
    sections = REFERENCE.split("\n### ")
    for pattern, table in TABLES.items():
        if not pattern:
            continue
        (section,) = (part for part in sections if part.startswith(f"`{header(pattern)}`"))
        expected = {}
        for key, field in table.model_fields.items():
            if field.is_required():
                expected[key] = "required"
            elif (*pattern, key) not in TABLES and (*pattern, key, None) not in TABLES:
                expected[key] = defaults.get((*pattern, key), "-")
        assert rows(section) == expected | {
            key: value for key, value in rows(section).items() if value == "see below"
        }


def effective_defaults(tmp_path: Path) -> dict[tuple[str | None, ...], str]:
    """The default of every key that has one, as it is written in TOML, by the pattern of its path."""
    file = tmp_path / "a.toml"
    file.write_text(
        '[listeners.x]\nbind = "127.0.0.1:1"\n[[listeners.x.routes]]\npool = "x"\n'
        '[pools.x]\nbackends = ["a:1"]\n[admin]\nbind = "127.0.0.1:2"\n'
        "[pools.x.health.tls]\n[pools.x.retries]\n[pools.x.outlier]\n[limits.x]\nconnections = 1\n"
        f'[[listeners.x.tls.certificates]]\ncert = "{TLS}/server.pem"\nkey = "{TLS}/server.key"\n'
        f'[pools.x.tls.certificate]\ncert = "{TLS}/own.pem"\nkey = "{TLS}/own.key"\n'
    )
    found: dict[tuple[str | None, ...], str] = {("limits", None, "connections"): "-"}

    def walk(value: object, pattern: tuple[str | None, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*pattern, None if pattern in {("listeners",), ("pools",), ("limits",)} else key))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            walk(value[0], (*pattern, None))
        else:
            found.setdefault(pattern, json.dumps(value))

    walk(effective(load_config(file, {})), ())
    return found
