from __future__ import annotations

import json
import tomllib
from itertools import count
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.config.positions import DEEPEST, LONGEST_NUMBER, MOST_VALUES, Positions, RefusedError, scan
from lbproc.config.wording import KeyPath

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80)


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every key and array element of what tomllib read."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return {(*path, step) for step, _ in inner}.union(*(paths(one, (*path, step)) for step, one in inner))


class Writer:
    """Writes a valid document of all of TOML's notations and notes on which line each key goes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}
        self.names = count()
        self.newline = draw(st.sampled_from(["\n", "\r\n"]))

    def put(self, text: str) -> None:
        self.text += text.replace("\n", self.newline)

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def pick(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def blank(self) -> None:
        self.put(self.pick("", "", " ", "\t "))

    def blank_lines(self) -> None:
        self.put(self.pick("", "", " ", "\n", "\n\n  ", " # ] } , a = 1\n", '# """\n'))

    def key_part(self) -> tuple[str, str]:
        """A name that is new, and one way to write it."""
        name = f"k{next(self.names)}" + self.pick(
            "", "", "-_", ".", " ", "]", "=", '"', "'", "#", "ä", "\\", "\t"
        )
        bare = (
            name.replace("-", "").replace("_", "").isascii()
            and name.replace("-", "").replace("_", "").isalnum()
        )
        ways = [json.dumps(name), json.dumps(name, ensure_ascii=False).replace("k", "\\u006b")]
        ways += [name] if bare else []
        ways += [f"'{name}'"] if "'" not in name else []
        return name, self.pick(*ways)

    def key(self, table: KeyPath) -> KeyPath:
        """A key of one or more parts; notes each."""
        path = table
        for number in range(self.draw(st.integers(1, 3))):
            if number:
                self.blank()
                self.put(".")
                self.blank()
            name, written = self.key_part()
            path = (*path, name)
            self.note(path)
            self.put(written)
        return path

    def key_and_value(self, table: KeyPath, depth: int) -> None:
        path = self.key(table)
        self.blank()
        self.put("=")
        self.blank()
        self.value(path, depth)

    def value(self, path: KeyPath, depth: int) -> None:
        kind = self.draw(st.integers(0, 8 if depth else 6))
        if kind == 8:
            self.inline_table(path, depth - 1)
        elif kind == 7:
            self.array(path, depth - 1)
        else:
            self.put(self.pick(*SCALARS))

    def array(self, path: KeyPath, depth: int) -> None:
        self.put("[")
        self.blank_lines()
        length = self.draw(st.integers(0, 3))
        for place in range(length):
            self.note((*path, place))
            self.value((*path, place), depth)
            self.blank_lines()
            if place < length - 1 or self.draw(st.booleans()):
                self.put(",")
                self.blank_lines()
        self.put("]")

    def inline_table(self, path: KeyPath, depth: int) -> None:
        self.put("{")
        self.blank()
        for place in range(self.draw(st.integers(0, 2))):
            if place:
                self.put(",")
                self.blank()
            self.key_and_value(path, depth)
            self.blank()
        self.put("}")

    def rest_of_line(self) -> None:
        self.blank()
        self.put(self.pick("\n", "\n", "# a = [\n", "\n\n"))

    def statements(self, table: KeyPath) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.blank()
            self.key_and_value(table, 2)
            self.rest_of_line()

    def header(self, written: list[str], path: KeyPath, marks: str) -> None:
        for length in range(1, len(path) + 1):
            self.note(path[:length])
        self.lines[path] = self.text.count("\n") + 1
        self.put("[" * len(marks) + self.pick(".", " . ").join(written) + "]" * len(marks))
        self.rest_of_line()
        self.statements(path)

    def table(self, written: list[str], path: KeyPath, depth: int) -> None:
        """A table with a header, tables below it, and perhaps the header after those."""
        below_first = depth > 0 and self.draw(st.booleans())
        if below_first:
            self.sections(written, path, depth - 1, at_least=1)
        if not below_first or self.draw(st.booleans()):
            self.header(written, path, "[")
        if not below_first and depth > 0:
            self.sections(written, path, depth - 1)

    def array_of_tables(self, written: list[str], path: KeyPath, depth: int) -> None:
        for place in range(self.draw(st.integers(1, 3))):
            self.note(path)
            first_line = self.lines[path]
            self.header(written, (*path, place), "[[")
            self.lines[path] = first_line
            if depth > 0:
                self.sections(written, (*path, place), depth - 1)

    def sections(self, written: list[str], path: KeyPath, depth: int, at_least: int = 0) -> None:
        for _ in range(self.draw(st.integers(at_least, 2))):
            name, way = self.key_part()
            section = self.array_of_tables if self.draw(st.booleans()) else self.table
            section([*written, way], (*path, name), depth)


SCALARS = (
    "1",
    "-0x1f".removeprefix("-"),
    "1_000.5e3",
    "true",
    "inf",
    "1979-05-27T07:32:00Z",
    "1979-05-27 07:32:00.5",
    "1979-05-27",
    "07:32:00",
    '""',
    "''",
    '"a # ] } , \\" = \\\\"',
    "'a \" # ] \\'",
    '"""\na ""\n# b\n\\"""\n""" ',
    '""""two""\\\n  three"""""',
    "'''\na ''\n[x]\n\\'''",
    "''''x'''''",
    '""""""',
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    writer = Writer(draw)
    writer.blank_lines()
    writer.statements(())
    writer.sections([], (), draw(st.integers(0, 2)))
    return writer.text, writer.lines


@UNHURRIED
@given(documents())
def test_every_key_of_any_document_has_its_line(made: tuple[str, dict[KeyPath, int]]) -> None:
    text, lines = made
    assert paths(tomllib.loads(text)) == lines.keys()
    assert scan(text).lines == lines


PLAIN = st.text(max_size=5)
TREE = st.recursive(
    PLAIN | st.integers() | st.booleans() | st.floats() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=20,
)


@UNHURRIED
@given(tree=st.dictionaries(PLAIN, TREE, max_size=5), multiline=st.booleans())
def test_every_key_of_a_document_by_another_writer_is_found(tree: dict[str, Any], *, multiline: bool) -> None:
    text = tomli_w.dumps(tree, multiline_strings=multiline)
    assert scan(text).lines.keys() == paths(tomllib.loads(text))


@UNHURRIED
@given(st.lists(st.sampled_from(list("[]{}=.,\"'#\\\n\r ab1-:\u00e4")), max_size=40).map("".join))
def test_a_text_that_is_not_toml_is_scanned_as_far_as_it_goes(text: str) -> None:
    found = scan(text).lines
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert paths(document) == found.keys()


def test_keys_of_inline_tables_over_several_lines_are_found() -> None:
    lines = scan("a = {\n  b = 1,  # one\n  c = [\n 2 ],\n}\nd = 1\n").lines
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("d",): 6}


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a b = 1",
        "a = ",
        'a = "x',
        "a = 'x",
        'a = """x',
        "a = '''x",
        "a = [1",
        "a = [1 2]",
        "a = {b = 1",
        "a = {b = 1 c = 2}",
        "a = {b}",
        "a = 1 b = 2",
        "[a",
        "[[a]",
        "[a] b = 1",
        "[]",
        ". = 1",
        '"\\q" = 1',
        '"""a""" = 1',
        "a = \ud800".encode("utf-8", "replace").decode(),
        "=",
    ],
)
def test_the_scan_ends_where_the_text_is_not_toml(text: str) -> None:
    positions = scan(f"first = 1\n{text}\nlast = 2\n")
    assert positions.line(("first",)) == 1
    if text != 'a = """x':
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "\na = " + "[" * 100_000,
        "\na = " + "{b = " * 100_000,
        "\na = " + "[{b = " * 100_000,
        "\n" + ".".join("a" * 100_000) + " = 1",
        "\n[" + ".".join("a" * 100_000) + "]",
        "\n[[" + ".".join("a" * 100_000) + "]]",
        "\n[" + ".".join("a" * DEEPEST) + "]\n" + ".".join("a" * DEEPEST) + " = 1",
        "\n[[" + "]]\n[[".join(".".join("abcdefghijklmnopqrst"[:length]) for length in range(1, 21)) + "]]",
    ],
)
def test_deep_nesting_is_refused_before_anything_recurses(text: str) -> None:
    with pytest.raises(RefusedError, match="nests more than") as caught:
        scan(text)
    assert caught.value.line >= 2
    assert caught.value.right


def test_nesting_up_to_the_bound_is_read() -> None:
    text = "a = " + "[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1)
    assert max(map(len, scan(text).lines)) == DEEPEST
    assert tomllib.loads(text)


def test_a_number_without_end_is_refused_and_quoted_text_is_not() -> None:
    assert scan(f"a = {'9' * LONGEST_NUMBER}").lines == {("a",): 1}
    assert scan(f'a = "{"9" * 100_000}"').lines == {("a",): 1}
    with pytest.raises(RefusedError, match="outside quotes") as caught:
        scan(f"b = 1\na = {'9' * 100_000}")
    assert (caught.value.line, caught.value.path) == (2, ("a",))


@pytest.mark.slow
def test_too_many_values_are_refused() -> None:
    with pytest.raises(RefusedError, match="more than 100000 values") as caught:
        scan("a = [\n" + "1," * MOST_VALUES + "]")
    assert (caught.value.line, caught.value.path) == (2, ("a",))


def test_what_does_not_stand_in_the_text_has_the_line_of_what_is_around_it() -> None:
    positions = scan("\n[a]\nb = ['x']\n")
    assert positions.line(("a", "b", 0, "c")) == 3
    assert positions.line(("a", "d")) == 2
    assert positions.line(("e",)) == 1
    assert positions.known(("a", "d")) == ("a",)
    assert Positions().line(()) == 1
