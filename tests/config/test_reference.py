"""The reference has every key, and the page says the same."""

from __future__ import annotations

from pathlib import Path

from lbproc.config.outline import TABLES, header
from lbproc.config.reference import ABSENT, DERIVED, references, render_markdown, render_text

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def documented() -> dict[str, dict[str, str]]:
    """Key and default of each row of each section of the page."""
    found = {}
    for section in PAGE.split("\n### ")[1:]:
        title = section.split("`")[1]
        cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        found[title] = {row[0].strip("| `"): row[1].strip("`") for row in cells}
    return found


def test_every_table_and_key_of_the_model_is_there() -> None:
    found = {table.header: {key.name for key in table.keys} for table in references()}
    assert list(found) == [header(pattern) for pattern in TABLES if pattern]
    for pattern, table in TABLES.items():
        if pattern:
            inner = {
                path[len(pattern)]
                for path in TABLES
                if len(path) > len(pattern) and path[: len(pattern)] == pattern
            }
            required = {key for key, field in table.model_fields.items() if field.is_required()}
            assert found[header(pattern)] == table.model_fields.keys() - inner | required
    assert all(key.meaning for table in references() for key in table.keys)


def test_the_page_has_the_same_keys_and_defaults() -> None:
    page = documented()
    for table in references():
        shown = page[table.header]
        assert shown.keys() == {key.name for key in table.keys}, table.header
        for key in table.keys:
            if key.default != DERIVED and shown[key.name] != "see below":
                assert shown[key.name] == key.default, (table.header, key.name)


def test_the_text_reads_well_on_a_terminal() -> None:
    text = render_text()
    assert text.startswith("[runtime]\n  How lbproc runs")
    assert '  workers  (default "auto")\n      worker processes' in text
    assert "  bind  (required)\n" in text
    assert "  pool  (not set)\n" in text
    assert "  name  (default follows from other keys)\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_markdown_has_a_row_for_each_key() -> None:
    text = render_markdown()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(table.keys) for table in references())
    assert all(len(row.replace("\\|", "").split("|")) == 5 for row in rows)
    assert '| `drain_timeout` | `"10m"` |' in text
    assert f"| `user` | {ABSENT} |" in text
