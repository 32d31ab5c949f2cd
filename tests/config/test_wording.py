from __future__ import annotations

import datetime
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.config.wording import (
    count,
    dotted,
    is_bare,
    listed,
    nearest,
    quote,
    quote_end,
    toml_type,
    wrong,
    wrong_type,
)


def test_an_error_has_two_halves() -> None:
    assert str(wrong("is {right}", "write {what}")).count("; ") == 1
    assert wrong("is {right}", "write it").context == {"what": "is {right}", "right": "write it"}
    assert str(wrong_type(1, "a size", '"1KiB"')) == 'is an integer, not a size; write a size such as "1KiB"'


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "a boolean"),
        ("x", "a string"),
        (1, "an integer"),
        (1.5, "a float"),
        ([], "an array"),
        ((), "an array"),
        ({}, "a table"),
        (datetime.date(1979, 5, 27), "a date or time"),
        (datetime.datetime(1979, 5, 27, tzinfo=datetime.UTC), "a date or time"),
        (datetime.time(7), "a date or time"),
        (None, "of no type that TOML has"),
    ],
)
def test_values_are_named_by_their_toml_type(value: object, name: str) -> None:
    assert toml_type(value) == name


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a", '"a"'),
        ('a"\\', '"a\\"\\\\"'),
        ("\n\t\r", '"\\n\\t\\r"'),
        ("\x1b[2J\x00", '"\\u001B[2J\\u0000"'),
        ("\u202e", '"\\u202E"'),
        ("\U000e0001", '"\\U000E0001"'),
        ("ä ☃", '"ä ☃"'),
        ("x" * 61, f'"{"x" * 60}..."'),
    ],
)
def test_a_quoted_text_is_safe_to_print(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_quoted_path_keeps_its_end(text: str) -> None:
    assert quote_end(text).isprintable()
    assert len(text) > 60 or quote_end(text) == quote(text)
    assert quote_end("/" + "x" * 70 + "/a.pem") == f'"...{"x" * 51}/a.pem"'


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_short_quoted_text_is_that_text_in_toml(text: str) -> None:
    assert quote(text).isprintable()
    assert tomllib.loads(f"a = {quote(text)}") == {"a": text}


def test_a_path_is_written_as_in_toml_with_places_in_brackets() -> None:
    assert dotted(("pools", "web", "backends", 0, "weight")) == "pools.web.backends[0].weight"
    assert dotted(("pools", "a b", "x\n")) == 'pools."a b"."x\\n"'
    assert dotted(()) == ""
    assert is_bare("a-B_9")
    assert not is_bare("")
    assert not is_bare("x" * 61)


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("bnd", ["bind", "pool"], "bind"),
        ("Round-Robin", ["random", "round_robin"], "round_robin"),
        ("zzz", ["bind"], None),
        ("x" * 61, ["x" * 61], None),
        ("bind", [], None),
    ],
)
def test_the_nearest_word_is_what_was_meant(word: str, known: list[str], meant: str | None) -> None:
    assert nearest(word, known) == meant


def test_words_are_listed_and_counted() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a or b"
    assert listed(["a", "b", "c"], "and") == "a, b and c"
    assert count(1, "backend") == "1 backend"
    assert count(0, "backend") == "0 backends"
