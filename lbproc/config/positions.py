"""On which line of a TOML text each key stands. ``tomllib`` reads the values but forgets the places.

Owns the scan and the bounds on what is read at all: nesting, length of numbers, amount of values. It gives
no values and judges no syntax: for a text that ``tomllib`` accepts the positions are complete, for any
other they end where the scan lost the thread. It runs before ``tomllib``, which recurses, and so guards it.

A key stands where it is first written; a table with a header of its own stands at that header; an element
of an array stands where its value begins.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lbproc.config.wording import KeyPath

DEEPEST: Final = 32
"""The deepest nesting that is read; the model needs six."""

LONGEST_NUMBER: Final = 64
"""The most characters of a value outside quotes. Python converts long digits in quadratic time."""

MOST_VALUES: Final = 100_000
"""The most keys and array elements of one text; each costs about 250 bytes."""

_BLANK: Final = re.compile(r"[ \t]*+")
# Groups are repeated inside (?>...), not with *+, which Python before 3.11.5 matches wrongly.
_BLANK_LINES: Final = re.compile(r"(?>(?:[ \t\n]++|#[^\n]*+)*)")
_REST_OF_LINE: Final = re.compile(r"[ \t]*+(?:#[^\n]*+)?(?:\n|\Z)")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]++")
_STRING: Final = re.compile(
    r'"""(?>(?:[^"\\]++|\\.|"(?!""))*)"{3,5}'
    r"|'''(?>(?:[^']++|'(?!''))*)'{3,5}"
    r'|"(?>(?:[^"\\\n]++|\\[^\n])*)"'
    r"|'[^'\n]*+'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[^\s,\]}#]*+|[^\s,\[\]{}#=\"']++")


class RefusedError(Exception):
    """The text goes beyond a bound.

    Args:
        line: where.
        path: the key under which it happens, as far as it is known.
        what: what is wrong.
        right: what would be right.
    """

    def __init__(self, line: int, path: KeyPath, what: str, right: str) -> None:
        super().__init__(what)
        self.line = line
        self.path = path
        self.what = what
        self.right = right


class _LostError(Exception):
    """The text is not TOML from here on. ``tomllib`` says it better."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Lines, from 1, by path. The empty path is line 1."""

    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """The line of a path, or of the nearest table or array around it that stands in the text."""
        return self.lines.get(self.known(path), 1)

    def known(self, path: KeyPath) -> KeyPath:
        """The longest beginning of a path that stands in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return path


def scan(text: str) -> Positions:
    """Finds the line of every key and array element.

    Raises:
        RefusedError: the text nests too deeply, holds a number too long, or too many values.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with suppress(_LostError):
        scanner.document()
    return Positions(scanner.lines)


class _Scanner:
    """One pass over a text. Recursion into values is bounded by ``DEEPEST``."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [found.start() for found in re.finditer("\n", text)]
        self._table: KeyPath = ()
        self._array_lengths: dict[KeyPath, int] = {}

    def document(self) -> None:
        """Goes through all statements of the text."""
        while True:
            self._skip(_BLANK_LINES)
            if self._at == len(self._text):
                return
            if self._text.startswith("[[", self._at):
                self._array_header()
            elif self._text.startswith("[", self._at):
                self._header()
            else:
                self._key_and_value(self._table)
            if not self._skip(_REST_OF_LINE):
                raise _LostError

    def _header(self) -> None:
        """``[a.b]``: the keys that follow belong to this table."""
        line = self._line()
        self._at += 1
        path = self._resolve(self._key())
        self._expect("]")
        self._note_way(path, line)
        self.lines[path] = line
        self._table = path

    def _array_header(self) -> None:
        """``[[a.b]]``: the keys that follow belong to a new element of this array."""
        line = self._line()
        self._at += 2
        *way, last = self._key()
        path = (*self._resolve(way), last)
        self._expect("]]")
        self._note_way(path, line)
        place = self._array_lengths.get(path, 0)
        self._array_lengths[path] = place + 1
        self._table = (*path, place)
        self._note(self._table, line)

    def _key_and_value(self, table: KeyPath) -> None:
        """``a.b = value``, in the document or in an inline table."""
        line = self._line()
        path = (*table, *self._key())
        if len(path) > DEEPEST:
            raise self._too_deep(path)
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], line)
        self._expect("=")
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        """Any value, whose path is noted already."""
        match self._text[self._at : self._at + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                if len(self._take(_PLAIN)) > LONGEST_NUMBER:
                    raise RefusedError(
                        self._line(),
                        path,
                        f"a value of more than {LONGEST_NUMBER} characters stands outside quotes",
                        "put text in quotes, or write a shorter number",
                    )

    def _array(self, path: KeyPath) -> None:
        """``[value, value]``, over several lines if need be."""
        if len(path) >= DEEPEST:
            raise self._too_deep(path)
        self._at += 1
        place = 0
        while True:
            self._skip(_BLANK_LINES)
            if self._text.startswith("]", self._at):
                break
            self._note((*path, place), self._line())
            self._value((*path, place))
            place += 1
            self._skip(_BLANK_LINES)
            if self._text.startswith("]", self._at):
                break
            self._expect(",")
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        """``{ key = value, key = value }``."""
        if len(path) >= DEEPEST:
            raise self._too_deep(path)
        self._at += 1
        while True:
            self._skip(
                _BLANK_LINES
            )  # TOML 1.1 lets it go over several lines, as later versions of tomllib do
            if self._text.startswith("}", self._at):
                break
            self._key_and_value(path)
            self._skip(_BLANK_LINES)
            if self._text.startswith("}", self._at):
                break
            self._expect(",")
        self._at += 1

    def _key(self) -> list[str]:
        """The parts of a dotted key, and the blanks around it."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            parts.append(self._key_part())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            if len(parts) >= DEEPEST:
                raise self._too_deep(tuple(parts))
            self._at += 1

    def _key_part(self) -> str:
        """One part of a key, without its quotes and escapes."""
        if self._text[self._at : self._at + 1] not in {'"', "'"}:
            return self._take(_BARE_KEY)
        if self._text.startswith(('"""', "'''"), self._at):
            raise _LostError
        quoted = self._take(_STRING)
        if "\\" not in quoted:
            return quoted[1:-1]
        try:
            return str(tomllib.loads(f"key = {quoted}")["key"])
        except tomllib.TOMLDecodeError:
            raise _LostError from None

    def _resolve(self, parts: list[str]) -> KeyPath:
        """The path of a header's key: an array of tables on the way means its last element."""
        path: KeyPath = ()
        for part in parts:
            path = (*path, part)
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
        return path

    def _note_way(self, path: KeyPath, line: int) -> None:
        """Notes every table on the way to a path that was not written before."""
        if len(path) > DEEPEST:
            raise self._too_deep(path)
        for length in range(1, len(path) + 1):
            self._note(path[:length], line)

    def _note(self, path: KeyPath, line: int) -> None:
        """Notes where a path is first written."""
        self.lines.setdefault(path, line)
        if len(self.lines) > MOST_VALUES:
            raise RefusedError(
                line,
                path[:1],
                f"the file holds more than {MOST_VALUES} values",
                "split it into a directory of files",
            )

    def _too_deep(self, path: KeyPath) -> RefusedError:
        """The error for what nests beyond the bound."""
        return RefusedError(
            self._line(),
            path[:4],
            f"nests more than {DEEPEST} deep",
            "write plain tables; no key needs more than six",
        )

    def _line(self) -> int:
        """The line of the place the scan has come to."""
        return bisect_left(self._newlines, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Goes past what a pattern finds here; False if it finds nothing."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found is not None

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Goes past what a pattern finds here and gives it."""
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found.group()

    def _expect(self, mark: str) -> None:
        """Goes past a mark that must stand here."""
        if not self._text.startswith(mark, self._at):
            raise _LostError
        self._at += len(mark)
