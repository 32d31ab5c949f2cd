"""From what pydantic found to sentences for the operator.

Owns the words for what the model cannot say itself: keys that are missing or unknown, and values where a
table should be. Everything else was worded by the validators. Never quotes a value of its own accord.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproc.config.outline import TABLES, Pattern, header, pattern_at, table_at
from lbproc.config.problem import MOST_SHOWN, Problem
from lbproc.config.wording import EXPLAINED, KeyPath, dotted, listed, nearest, quote, toml_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from lbproc.config.source import Source

_ALSO_FOUND: Final = frozenset({"default_factory_not_called"})
"""Errors that only follow from another one at the same place."""


_ABSENT: Final[dict[Pattern, tuple[str, ...]]] = {
    (): ("priorities",),
    ("listeners", None, "routes", None): (
        "limits",
        "mirror",
        "redirect",
        "request_headers",
        "respond",
        "response_headers",
        "retries",
        "rewrite",
        "split",
        "timeouts",
    ),
    ("listeners", None, "routes", None, "match"): (
        "client_ip",
        "cookies",
        "headers",
        "path_regex",
        "query",
    ),
    ("pools", None): (
        "discovery",
        "queue",
        "sticky",
    ),
}
"""Keys that one may well look for in a table and that this version does not have: a guess would mislead."""


def explain(errors: Iterable[ErrorDetails], source: Source) -> list[Problem]:
    """Words every error, with the place of its key."""
    primary = [error for error in errors if error["type"] not in _ALSO_FOUND]
    primary.sort(key=lambda error: source.place(error["loc"]))
    return [_explain(error, source, with_guess=place < MOST_SHOWN) for place, error in enumerate(primary)]


def _explain(error: ErrorDetails, source: Source, *, with_guess: bool) -> Problem:
    """Words one error. Guessing what was meant costs time, which a hostile file could make long."""
    path: KeyPath = error["loc"]
    match error["type"]:
        case "missing":
            return source.problem(path, "is missing", _addition(path))
        case "extra_forbidden":
            if path[-1] in _ABSENT.get(pattern_at(path[:-1]), ()):
                return source.problem(path, "is not a key of this version", "leave it out")
            return source.problem(
                path, "is not a known key", _suggestion(path) if with_guess else "leave it out"
            )
        case _ if error["type"] == EXPLAINED:
            # What is written short, a string for a list or an address for a backend, has no keys inside.
            return source.problem(source.known(path), error["ctx"]["what"], error["ctx"]["right"])
        case _:
            return source.problem(path, f"is {toml_type(error['input'])}, not a table", _as_table(path))


def _addition(path: KeyPath) -> str:
    """How a missing key is added."""
    key = str(path[-1])
    examples = table_at(path[:-1]).model_fields[key].examples
    assert examples, f"{dotted(path)} is required and has no example"
    return f"add {examples[0]}"


def _suggestion(path: KeyPath) -> str:
    """What was meant by an unknown key: one spelled alike, one of another table, or any of this one."""
    key = str(path[-1])
    here = table_at(path[:-1]).model_fields
    guess = nearest(key, here)
    if guess is not None:
        return f"did you mean {quote(guess)}?"
    elsewhere = [
        header(pattern) for pattern, table in TABLES.items() if pattern and key in table.model_fields
    ]
    if elsewhere:
        return f"it is a key of {listed(elsewhere)}"
    return f"the keys here are {listed(sorted(here), 'and')}"


def _as_table(path: KeyPath) -> str:
    """How a table is written where something else stands."""
    if len(path) == 1 and (path[0], None) in TABLES:
        return f"begin one with [{path[0]}.NAME]"
    if any(isinstance(step, int) for step in path[:-1]):
        return f"write {path[-1]} = {{ key = value }}"
    return f"begin it with {header(path)}"
