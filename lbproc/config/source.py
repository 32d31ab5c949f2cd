"""Files: reading them within bounds, parsing them, and merging the files of a directory.

Owns the way from a path to one merged document that knows in which file and on which line each key stands.
Every file is opened once. Judges syntax only, not what the keys mean.

Merging goes in the order of the files' names: tables merge, arrays append, and a key that is set in two
files otherwise is a problem of the later one.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lbproc.config.positions import MOST_VALUES, Positions, RefusedError, scan
from lbproc.config.problem import Problem, UnusableConfigError
from lbproc.config.wording import KeyPath, quote, toml_type

LARGEST_BYTES: Final = 4 * 1024**2
"""The most that is read, over all files."""

MOST_FILES: Final = 256

_PLACE: Final = re.compile(r"\(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")


@dataclass(slots=True)
class Source:
    """The merged document, and where its keys stand.

    Args:
        document: the tables of all files as one.
        base: the directory that relative paths count from; absolute.
        first: the file that stands for the whole where no key does.
    """

    document: dict[str, Any]
    base: Path
    first: str
    _places: dict[KeyPath, tuple[str, int]] = field(default_factory=dict)

    def place(self, path: KeyPath) -> tuple[str, int]:
        """The file and line of a path, or of the nearest table or array around it that stands in a file."""
        return self._places.get(self.known(path), (self.first, 1))

    def known(self, path: KeyPath) -> KeyPath:
        """The longest beginning of a path that stands in a file."""
        while path and path not in self._places:
            path = path[:-1]
        return path

    def problem(self, path: KeyPath, what: str, right: str) -> Problem:
        """A problem of the key at a path, which may be missing."""
        return Problem(*self.place(path), path, what, right)

    def add(self, file: str, document: dict[str, Any], positions: Positions) -> list[Problem]:
        """Merges one more file; gives the problems of keys that both set, or of all that is too much."""
        if len(self._places) + len(positions.lines) > MOST_VALUES:
            what = f"the configuration holds more than {MOST_VALUES} values"
            return [Problem(file, 0, (), what, "write fewer files, or make them smaller")]
        return _Merge(self._places, file, positions).tables(self.document, document, (), ())


@dataclass(slots=True)
class _Merge:
    """Merges one file into a document. Bounded recursion: the scan has bounded the nesting."""

    places: dict[KeyPath, tuple[str, int]]
    file: str
    positions: Positions
    problems: list[Problem] = field(default_factory=list)

    def tables(self, into: dict[str, Any], new: dict[str, Any], to: KeyPath, at: KeyPath) -> list[Problem]:
        """Merges table ``new``, which stands at ``at`` in the file, into a table at ``to``."""
        for key, value in new.items():
            target, origin = (*to, key), (*at, key)
            if key not in into:
                into[key] = value
                self.note(value, target, origin)
            elif isinstance(value, dict) and isinstance(into[key], dict):
                self.tables(into[key], value, target, origin)
            elif isinstance(value, list) and isinstance(into[key], list):
                for place, element in enumerate(value):
                    self.note(element, (*target, len(into[key])), (*origin, place))
                    into[key].append(element)
            else:
                self.problems.append(self.clash(into[key], value, target, origin))
        return self.problems

    def note(self, value: object, target: KeyPath, origin: KeyPath) -> None:
        """Notes where a value and all in it stand."""
        self.places[target] = (self.file, self.positions.line(origin))
        if isinstance(value, dict):
            for key, element in value.items():
                self.note(element, (*target, key), (*origin, key))
        elif isinstance(value, list):
            for place, element in enumerate(value):
                self.note(element, (*target, place), (*origin, place))

    def clash(self, old: object, new: object, target: KeyPath, origin: KeyPath) -> Problem:
        """The problem of a key that two files set."""
        file, line = self.places[target]
        what = f"is set in {file}:{line} already"
        if toml_type(old) != toml_type(new):
            what += f", there as {toml_type(old)} and here as {toml_type(new)}"
        return Problem(self.file, self.positions.line(origin), target, what, "keep one of the two")


def read_source(path: Path) -> Source:
    """Reads a file, or all ``*.toml`` files of a directory.

    Raises:
        UnusableConfigError: with every file that cannot be read or is not TOML, and every key set twice.
    """
    base, files = _files(path)
    source = Source({}, base, shown(path))
    problems: list[Problem] = []
    left = LARGEST_BYTES
    for file in files:
        try:
            text = _read_text(file, left)
            left -= len(text)
            document, positions = _parse(shown(file), text)
        except UnusableConfigError as error:
            problems.extend(error.found)
        else:
            problems.extend(source.add(shown(file), document, positions))
    if problems:
        raise UnusableConfigError(problems)
    return source


def shown(path: Path) -> str:
    """A path as it stands in messages: as it was given, in quotes if a terminal could stumble over it."""
    return str(path) if str(path).isprintable() else quote(str(path))


def _read_text(path: Path, at_most: int) -> str:
    """The text of a file of bounded size, which may also be a pipe.

    Raises:
        UnusableConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    file = shown(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(at_most + 1)
    except FileNotFoundError:
        right = 'name another one with -c, or write a first one with "lbproc init"'
        raise UnusableConfigError([Problem(file, 0, (), "there is no such file", right)]) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UnusableConfigError(
            [Problem(file, 0, (), what, "name a file that this user may read")]
        ) from None
    if len(content) > at_most:
        what = f"the configuration is larger than {LARGEST_BYTES // 1024**2} MiB"
        raise UnusableConfigError([Problem(file, 0, (), what, "name a TOML file, or make it smaller")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what, right = "is not UTF-8 text", "save the file as UTF-8"
        raise UnusableConfigError([Problem(file, line, (), what, right)]) from None


def _files(path: Path) -> tuple[Path, list[Path]]:
    """Where relative paths count from, and the file itself or the files of a directory by name."""
    try:
        if not path.is_dir():
            return path.parent.absolute(), [path]
        base = path.absolute()
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UnusableConfigError(
            [Problem(shown(path), 0, (), what, "name one that this user may read")]
        ) from None
    files = [path / name for name in names if name.endswith(".toml") and not name.startswith(".")]
    if not 0 < len(files) <= MOST_FILES:
        what = f"the directory holds {len(files) or 'no'} files whose names end in .toml"
        right = f"put 1 to {MOST_FILES} there, such as 10-main.toml"
        raise UnusableConfigError([Problem(shown(path), 0, (), what, right)])
    return base, files


def _parse(file: str, text: str) -> tuple[dict[str, Any], Positions]:
    """The tables of a text and their places."""
    if text.startswith("\ufeff"):
        what, right = "begins with a byte order mark", "save the file as UTF-8 without it"
        raise UnusableConfigError([Problem(file, 1, (), what, right)])
    try:
        positions = scan(text)
        return tomllib.loads(text), positions
    except RefusedError as error:
        raise UnusableConfigError([Problem(file, error.line, error.path, error.what, error.right)]) from None
    except tomllib.TOMLDecodeError as error:
        raise UnusableConfigError([_syntax_problem(file, text, positions, str(error))]) from None


def _syntax_problem(file: str, text: str, positions: Positions, message: str) -> Problem:
    """What ``tomllib`` found, at the last key that stands before it, with what to do about it.

    Nothing of the line is quoted: it may hold a secret.
    """
    found = _PLACE.search(message)
    lines = text.count("\n") + 1
    line, column = lines, 0
    if found is not None and found[1]:
        line, column = int(found[1]), int(found[2])
    before = [path for path, at in positions.lines.items() if at <= line]
    key = max(before, key=lambda path: (positions.lines[path], len(path)), default=())
    reason = _PLACE.sub("", message).strip()
    what, right = next(
        (words for beginning, *words in _SYNTAX if reason.startswith(beginning)),
        ("is not TOML", "correct the line"),
    )
    where = f" (column {column})" if column else " (at the end of the file)"
    return Problem(file, line, key, what + where, right)


_SYNTAX: Final = (
    ("Expected '='", "a key has no = after it", "write key = value, or [table] for a table"),
    ("Invalid value", "there is no value that TOML knows", 'put text in quotes: key = "text"'),
    ("Invalid date or datetime", "there is no such date", 'put text in quotes: key = "text"'),
    (
        "Expected newline",
        "something follows the value",
        "write one key = value on a line, and text in quotes",
    ),
    ("Invalid statement", "the line begins with no key", "write key = value, [table] or # comment"),
    ("Invalid initial character", "a key begins with what no key may hold", "put such a key in quotes"),
    ("Cannot declare", "the table is written already", "put its keys where it stands first"),
    ("Cannot overwrite", "the key stands here a second time", "keep one of the two"),
    ("Duplicate inline table key", "a key stands twice in the table", "keep one of the two"),
    (
        "Cannot mutate immutable",
        "adds to a table or list that is closed already",
        "write all of it in one place",
    ),
    ("Cannot redefine", "adds to a table or list that is closed already", "write all of it in one place"),
    ("Expected ']]'", "the table's name has no ]] after it", "write [[table]]"),
    ("Expected ']'", "the table's name has no ] after it", "write [table]"),
    ("Unclosed array", "a list is not closed", "put commas between its values and ] after the last"),
    (
        "Unclosed inline table",
        "a table is not closed",
        "put commas between its keys and } after the last, on one line",
    ),
    (
        "Unescaped '\\'",
        "a backslash is followed by nothing it can escape",
        "write \\\\, or single quotes around",
    ),
    ("Invalid hex value", "\\u is not followed by hexadecimal digits", "write \\\\, or single quotes around"),
    ("Escaped character", "\\u names no character", "write \\\\, or single quotes around"),
    ("Unterminated string", "a string is not closed", "end it with the quotes it began with"),
    ("Expected '", "a string is not closed", "end it with the quotes it began with"),
    ('Expected "', "a string is not closed", "end it with the quotes it began with"),
    (
        "Illegal character",
        "a string or comment holds what must be escaped",
        "close the string on its line, or escape it",
    ),
    (
        "Found invalid character",
        "a string or comment holds what must be escaped",
        "close the string on its line",
    ),
)
