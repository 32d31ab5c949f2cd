from __future__ import annotations

import json
from pathlib import Path

import pytest

from lbproc.config.load import load_config
from lbproc.config.outline import TABLES, header
from lbproc.config.show import effective

ROOT = Path(__file__).parents[2]
EXAMPLES = [*sorted((ROOT / "conf").glob("*.toml")), ROOT / "conf" / "directory"]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_right_with_no_environment(path: Path) -> None:
    assert load_config(path, {}).pools


def test_the_examples_show_every_policy() -> None:
    policies = {pool.policy for path in EXAMPLES for pool in load_config(path, {}).pools.values()}
    assert policies >= {"least_connections", "round_robin", "power_of_two", "ip_hash", "consistent_hash"}


def test_the_smallest_example_has_five_lines() -> None:
    text = (ROOT / "conf" / "minimal.toml").read_text()
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
        "[pools.x.health.tls]\n[pools.x.retries]\n[pools.x.outlier]\n"
    )
    found: dict[tuple[str | None, ...], str] = {}

    def walk(value: object, pattern: tuple[str | None, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*pattern, None if pattern in {("listeners",), ("pools",)} else key))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            walk(value[0], (*pattern, None))
        else:
            found[pattern] = json.dumps(value)

    walk(effective(load_config(file, {})), ())
    return found
