"""How the configuration speaks of values and keys in its messages.

Owns quoting (so that nothing in a file can reach a terminal as a control sequence), the names of TOML's
types, suggestions, and the two halves of every message: what is wrong, and what would be right. Knows no
key by name.
"""

from __future__ import annotations

import datetime
import difflib
import re
from typing import TYPE_CHECKING, Final

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
"""The way to a value: table names and, inside arrays, places from 0."""

EXPLAINED: Final = "lbproc_explained"
"""The pydantic error type of messages that are already in our words."""

_LONGEST_QUOTE: Final = 60
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TYPES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "a boolean"),  # before int, which it is too
    (str, "a string"),
    (int, "an integer"),
    (float, "a float"),
    ((list, tuple), "an array"),
    (dict, "a table"),
    ((datetime.date, datetime.time), "a date or time"),
)
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def wrong(what: str, right: str) -> PydanticCustomError:
    """The error a validator raises: what is wrong, and what would be right."""
    return PydanticCustomError(EXPLAINED, "{what}; {right}", {"what": what, "right": right})


def wrong_type(value: object, wanted: str, example: str) -> PydanticCustomError:
    """A value of the wrong TOML type. Never quotes the value, which may be a misplaced secret."""
    return wrong(f"is {toml_type(value)}, not {wanted}", f"write {wanted} such as {example}")


def toml_type(value: object) -> str:
    """What TOML calls the type of a value, with its article."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "of no type that TOML has")


def quote(text: str) -> str:
    """A text as a TOML string that is safe to print: escapes, and a cut where it grows long."""
    cut = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."
    return '"' + "".join(map(_escape, cut)) + '"'


def quote_end(text: str) -> str:
    """The same, with a cut where it begins: what a path leads to stands at its end."""
    return quote(text if len(text) <= _LONGEST_QUOTE else "..." + text[3 - _LONGEST_QUOTE :])


def dotted(path: KeyPath) -> str:
    """A path as one writes it: ``listeners.web.routes[0].match``; keys that need quotes have them."""
    words: list[str] = []
    for step in path:
        if isinstance(step, int):
            words.append(f"[{step}]")
        else:
            words.append(("." if words else "") + (step if is_bare(step) else quote(step)))
    return "".join(words)


def is_bare(key: str) -> bool:
    """Whether a key stands in TOML without quotes, and is short enough to print whole."""
    return len(key) <= _LONGEST_QUOTE and _BARE_KEY.fullmatch(key) is not None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most probably meant, or None. Looks through case and ``-`` for ``_``."""
    if len(word) > _LONGEST_QUOTE:
        return None
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    matches = difflib.get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.6)
    return plain[matches[0]] if matches else None


def listed(words: Iterable[str], joint: str = "or") -> str:
    """``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} {joint} {last}" if most else last


def count(number: int, noun: str) -> str:
    """``1 backend``, ``2 backends``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _escape(char: str) -> str:
    """One character as it may stand in a TOML string on a terminal."""
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if char.isprintable():
        return char
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"
