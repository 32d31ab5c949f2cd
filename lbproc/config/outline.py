"""The tables of the model by the paths at which they may stand.

Owns the walk over the model's annotations, done once: which table belongs at a path, which fields it has,
and how its header is written. Messages, documentation and tests go by it, so none of them names a key
twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args, get_origin

from lbproc.config.model import Config
from lbproc.config.table import Table
from lbproc.config.wording import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lbproc.config.wording import KeyPath

Pattern = tuple[str | None, ...]
"""A path with None for a name that the operator chooses, and for a place in an array."""


def _tables_below(pattern: Pattern, table: type[Table]) -> Iterator[tuple[Pattern, type[Table]]]:
    """A table and all tables inside it."""
    yield pattern, table
    for key, field in table.model_fields.items():
        for way, inner in _tables_in(field.annotation):
            yield from _tables_below((*pattern, key, *way), inner)


def _tables_in(annotation: object) -> Iterator[tuple[Pattern, type[Table]]]:
    """The tables that an annotation speaks of, and how far below its key they stand."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield (), annotation
    else:
        step: Pattern = (None,) if get_origin(annotation) in {dict, tuple} else ()
        for argument in get_args(annotation):
            for way, table in _tables_in(argument):
                yield (*step, *way), table


TABLES: Final[dict[Pattern, type[Table]]] = dict(_tables_below((), Config))
"""Every table of the model, outermost first."""


def pattern_at(path: KeyPath) -> Pattern:
    """The pattern of the table that belongs at a path.

    Raises:
        KeyError: the model has no table there.
    """
    for pattern in TABLES:
        if len(pattern) == len(path) and all(
            want is None or want == step for want, step in zip(pattern, path, strict=True)
        ):
            return pattern
    raise KeyError(path)


def table_at(path: KeyPath) -> type[Table]:
    """The table that belongs at a path.

    Raises:
        KeyError: the model has no table there.
    """
    return TABLES[pattern_at(path)]


def header(pattern: Sequence[str | int | None]) -> str:
    """How a table is begun: ``[pools.NAME.timeouts]``, ``[[listeners.web.routes]]``.

    Args:
        pattern: the path or pattern of a table other than the whole document.
    """
    # In the first two steps the operator chooses a name; further in stands a place in an array.
    names = tuple(step or "NAME" for step in pattern[:2]) + tuple(
        step for step in pattern[2:] if isinstance(step, str)
    )
    is_element = len(names) < len(pattern) and not isinstance(pattern[-1], str)
    return f"[[{dotted(names)}]]" if is_element else f"[{dotted(names)}]"
