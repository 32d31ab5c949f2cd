"""Every key of the configuration with its default and its meaning, as text or as Markdown.

Made from the model, so it is always that of the installed version. docs/configuration.md says more of some
keys; a test holds the two together.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lbproc.config.outline import TABLES, header

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from lbproc.config.outline import Pattern
    from lbproc.config.table import Table

REQUIRED: Final = "required"
ABSENT: Final = "-"
DERIVED: Final = "derived"
"""The default follows from other keys; the meaning says how."""

WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class KeyReference:
    """One key of a table.

    Args:
        name: of the key.
        default: as it is written in a file, or one of the words above.
        meaning: half a sentence.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TableReference:
    """One table.

    Args:
        header: as it begins in a file.
        meaning: a sentence or two.
        keys: in the order of the model. What holds tables has references of its own, and stands here only
            where it must not be missing.
    """

    header: str
    meaning: str
    keys: tuple[KeyReference, ...]


def references() -> Iterator[TableReference]:
    """All tables, outermost first."""
    for pattern, table in TABLES.items():
        if pattern:
            yield TableReference(header(pattern), _meaning(table), tuple(_keys(pattern, table)))


def written_default(table: type[Table], key: str) -> Any:  # noqa: ANN401  whatever TOML can hold
    """The default of a key, as values that TOML has; None when there is none that is always the same."""
    field = table.model_fields[key]
    if field.is_required() or field.default_factory_takes_validated_data:
        return None
    value = field.get_default(call_default_factory=True)
    dumped = table.model_construct(**{key: value}).model_dump(include={key})[key]
    return list(dumped) if isinstance(dumped, tuple) else dumped


def render_text() -> str:
    """The reference for a terminal."""
    return "\n".join(_text_of(table) for table in references())


def render_markdown() -> str:
    """The reference for a page: a section with a table for each table."""
    return "\n".join(_markdown_of(table) for table in references())


def _meaning(table: type[Table]) -> str:
    """The sentences of the docstring, which is written for readers of the code: ``x`` stands for `x`."""
    return " ".join((table.__doc__ or "").split()).replace("``", "`")


def _keys(pattern: Pattern, table: type[Table]) -> Iterator[KeyReference]:
    for key, field in table.model_fields.items():
        is_table = (*pattern, key) in TABLES or (*pattern, key, None) in TABLES
        if field.is_required() or not is_table:
            yield KeyReference(key, _default(table, key, field), field.description or "")


def _default(table: type[Table], key: str, field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    if field.default_factory_takes_validated_data:
        return DERIVED
    value = written_default(table, key)
    empty: tuple[object, ...] = (None, [], "")
    return ABSENT if value in empty else json.dumps(value, ensure_ascii=False)


def _text_of(table: TableReference) -> str:
    lines = [table.header, *textwrap.wrap(table.meaning, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    for key in table.keys:
        default = {REQUIRED: REQUIRED, ABSENT: "not set", DERIVED: "default follows from other keys"}.get(
            key.default, f"default {key.default}"
        )
        head = f"  {key.name}  ({default})"
        lines += ["", *textwrap.wrap(head, WIDTH, subsequent_indent="      ", break_on_hyphens=False)]
        lines += textwrap.wrap(key.meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def _markdown_of(table: TableReference) -> str:
    rows = [f"| `{key.name}` | {_code(key.default)} | {_cell(key.meaning)} |" for key in table.keys]
    heads = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join([f"## `{table.header}`", "", table.meaning, "", *heads, *rows]) + "\n"


def _code(default: str) -> str:
    return default if default in {REQUIRED, ABSENT, DERIVED} else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
