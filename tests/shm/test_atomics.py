"""The extension: exact over processes, and no argument whatever brings the interpreter down."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.shm._atomics import Halted, Words

WORDS = 64
GEOMETRY = (3, 8, 16, 0, 1, 8, 8)
"""Three columns of 16 words from word 8 on: the intent, notes in 1 to 3, ledger entries in 8 to 15."""


@pytest.fixture
def words() -> Words:
    return Words(bytearray(WORDS * 8), GEOMETRY)


class Sly(int):
    """An int with an opinion; using it would run code in the middle of an operation."""

    def __index__(self) -> int:
        raise AssertionError("an argument's __index__ was called")


def test_a_word_keeps_what_is_stored(words: Words) -> None:
    words.store(3, 2**64 - 1)
    assert words.load(3) == 2**64 - 1
    assert words.load(2) == 0
    assert len(words) == WORDS


def test_fetch_add_gives_the_old_value_and_wraps(words: Words) -> None:
    assert words.fetch_add(0, 5) == 0
    assert words.fetch_add(0, -6) == 5
    assert words.load(0) == 2**64 - 1


def test_compare_exchange_swaps_only_the_expected_value(words: Words) -> None:
    assert words.compare_exchange(0, 0, 7)
    assert not words.compare_exchange(0, 0, 8)
    assert words.load(0) == 7


def test_counts_are_the_low_24_bits(words: Words) -> None:
    words.store(0, 1 << 24 | 5)
    words.store(1, 2**64 - 1)
    assert words.counts((0, 1, 2)) == [5, 2**24 - 1, 0]
    assert words.counts(()) == []


def test_a_fence_is_silent(words: Words) -> None:
    words.fence()


def test_take_is_refused_above_the_given_count(words: Words) -> None:
    assert words.take(1, 0, 0, 2, 0)
    assert not words.take(1, 1, 0, 1, 1)
    assert words.take(1, 1, 0, 1, 2)
    assert words.counts((0,)) == [3]
    words.release(1, 1, 0)
    assert words.counts((0,)) == [1]


def test_take_is_refused_when_the_count_would_overflow(words: Words) -> None:
    assert words.take(1, 0, 0, 2**24 - 2, 0)
    assert not words.take(1, 1, 0, 2, 2**64 - 1)
    assert words.take(1, 1, 0, 1, 2**64 - 1)
    assert not words.take(1, 2, 0, 1, 2**64 - 1)
    assert words.counts((0,)) == [2**24 - 1]


def test_a_refused_take_writes_nothing(words: Words) -> None:
    words.take(1, 0, 0, 1, 0)
    before = [words.load(index) for index in range(WORDS)]
    assert not words.take(1, 1, 0, 1, 0)
    assert [words.load(index) for index in range(WORDS)] == before


def test_the_sequence_wraps_around(words: Words) -> None:
    words.store(8 + 16, (2**32 - 1) << 32)
    assert words.take(1, 0, 0, 1, 0)
    assert words.load(0) == 1 << 24 | 1
    words.release(1, 1, 0)
    assert words.load(0) == 1 << 32 | 1 << 24


def test_a_count_below_what_is_released_heals_at_zero(words: Words) -> None:
    words.take(1, 0, 0, 5, 0)
    words.store(0, 3)
    words.release(1, 1, 0)
    assert words.counts((0,)) == [0]


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (IndexError, lambda w: w.load(WORDS)),
        (OverflowError, lambda w: w.load(-1)),
        (OverflowError, lambda w: w.load(2**64)),
        (TypeError, lambda w: w.load(1.0)),
        (TypeError, lambda w: w.load(True)),
        (TypeError, lambda w: w.load(Sly(1))),
        (TypeError, lambda w: w.load()),
        (TypeError, lambda w: w.load(1, 2)),
        (IndexError, lambda w: w.store(WORDS, 0)),
        (OverflowError, lambda w: w.store(0, 2**64)),
        (OverflowError, lambda w: w.store(0, -1)),
        (TypeError, lambda w: w.store(0)),
        (IndexError, lambda w: w.fetch_add(WORDS, 0)),
        (OverflowError, lambda w: w.fetch_add(0, 2**63)),
        (TypeError, lambda w: w.fetch_add(0, Sly(1))),
        (TypeError, lambda w: w.fetch_add(0, "1")),
        (IndexError, lambda w: w.compare_exchange(WORDS, 0, 0)),
        (OverflowError, lambda w: w.compare_exchange(0, -1, 0)),
        (TypeError, lambda w: w.compare_exchange(0, 0, None)),
        (TypeError, lambda w: w.compare_exchange(0, 0)),
        (TypeError, lambda w: w.counts([0])),
        (TypeError, lambda w: w.counts()),
        (TypeError, lambda w: w.counts((0, Sly(1)))),
        (IndexError, lambda w: w.counts((0, WORDS))),
        (IndexError, lambda w: w.take(0, 0, 0, 1, 0)),
        (IndexError, lambda w: w.take(3, 0, 0, 1, 0)),
        (IndexError, lambda w: w.take(1, 8, 0, 1, 0)),
        (IndexError, lambda w: w.take(1, 0, WORDS, 1, 0)),
        (ValueError, lambda w: w.take(1, 0, 0, 0, 0)),
        (ValueError, lambda w: w.take(1, 0, 0, 2**24, 0)),
        (TypeError, lambda w: w.take(1, 0, 0, 1, Sly(0))),
        (TypeError, lambda w: w.take(1, 0, 0, 1)),
        (IndexError, lambda w: w.release(0, 1, 0)),
        (IndexError, lambda w: w.release(1, 3, 0)),
        (IndexError, lambda w: w.release(1, 1, 8)),
        (ValueError, lambda w: w.release(1, 1, 0)),
        (TypeError, lambda w: w.release(1, 1)),
        (TypeError, lambda w: w.halt_after("1")),
        (TypeError, lambda w: w.halt_after()),
        (TypeError, lambda w: w.fence(1)),
    ],
)
def test_wrong_arguments_are_refused(
    words: Words, error: type[Exception], call: Callable[[Any], object]
) -> None:
    with pytest.raises(error):
        call(words)
    assert all(words.load(index) == 0 for index in range(WORDS))


def test_an_entry_holds_one_thing_at_a_time(words: Words) -> None:
    words.take(1, 0, 0, 1, 0)
    with pytest.raises(ValueError, match="in use"):
        words.take(1, 0, 0, 1, 100)


def test_a_damaged_entry_is_refused(words: Words) -> None:
    words.store(8 + 16 + 8, WORDS << 24 | 1)
    with pytest.raises(ValueError, match="damaged"):
        words.release(1, 1, 0)


def test_a_column_does_one_thing_at_a_time(words: Words) -> None:
    words.halt_after(1)
    with pytest.raises(Halted):
        words.take(1, 0, 0, 1, 0)
    with pytest.raises(RuntimeError, match="under way"):
        words.take(1, 1, 0, 1, 0)
    words.store(8 + 16 + 8, 1)
    with pytest.raises(RuntimeError, match="under way"):
        words.release(1, 1, 0)


def test_a_halt_comes_after_so_many_writes_and_only_once(words: Words) -> None:
    words.halt_after(2)
    words.store(0, 1)
    with pytest.raises(Halted):
        words.store(0, 2)
    assert words.load(0) == 2
    words.store(0, 3)
    words.halt_after(1)
    with pytest.raises(Halted):
        words.fetch_add(0, 1)
    words.halt_after(1)
    assert not words.compare_exchange(0, 0, 1)
    with pytest.raises(Halted):
        words.compare_exchange(0, 4, 5)
    words.halt_after(1)
    words.halt_after(0)
    words.store(0, 6)


def test_a_tag_of_a_column_that_does_not_exist_needs_no_note(words: Words) -> None:
    words.store(0, 1 << 32 | 200 << 24 | 1)
    assert words.take(1, 0, 0, 1, 1)
    assert words.counts((0,)) == [2]


@pytest.mark.parametrize(
    "geometry",
    [
        (0, 8, 16, 0, 1, 8, 8),
        (257, 0, 0, 0, 0, 0, 0),
        (3, 65, 0, 0, 0, 0, 0),
        (3, 8, 19, 0, 1, 8, 8),
        (3, 8, 16, 16, 1, 8, 8),
        (3, 8, 16, 0, 14, 8, 8),
        (3, 8, 16, 0, 17, 8, 8),
        (3, 8, 16, 0, 1, 8, 9),
        (3, 8, 16, 0, 1, 17, 0),
        (3, 8, 16, 0, 1, 8, 2**22 + 1),
        (1, 2**64 - 1, 2**64 - 1, 2**64 - 1, 0, 0, 0),
    ],
)
def test_a_geometry_that_does_not_fit_is_refused(geometry: tuple[int, int, int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Words(bytearray(WORDS * 8), geometry)


@pytest.mark.parametrize("geometry", [(), [3, 8, 16, 0, 1, 8, 8], (3, 8, 16, 0, 1, 8, Sly(8)), 5])
def test_a_geometry_is_seven_exact_ints(geometry: Any) -> None:
    with pytest.raises(TypeError):
        Words(bytearray(WORDS * 8), geometry)


@pytest.mark.parametrize("buffer", [b"8 bytes.", "text", None, memoryview(bytearray(32))[::2]])
def test_a_buffer_must_be_writable_and_contiguous(buffer: Any) -> None:
    with pytest.raises((TypeError, BufferError, ValueError)):
        Words(buffer)


def test_a_buffer_must_be_whole_words() -> None:
    with pytest.raises(ValueError, match="whole 8-byte words"):
        Words(bytearray(12))
    with pytest.raises(ValueError, match="whole 8-byte words"):
        Words(memoryview(bytearray(17))[1:])


@pytest.mark.parametrize("arguments", [(), (bytearray(8), None, None)])
def test_the_constructor_counts_its_arguments(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        Words(*arguments)


def test_the_type_is_closed() -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Open", (Words,), {})
    with pytest.raises(TypeError, match="immutable"):
        Words.load = None  # type: ignore[method-assign, assignment]
    made = Words.__new__(Words, bytearray(8))
    assert made.load(0) == 0
    made.__init__(None)  # type: ignore[call-arg]
    assert made.load(0) == 0


def test_without_a_geometry_there_are_no_columns() -> None:
    bare = Words(bytearray(64))
    with pytest.raises(IndexError):
        bare.take(1, 0, 0, 1, 0)
    with pytest.raises(IndexError):
        bare.release(1, 1, 0)


def test_the_buffer_is_held_while_the_object_lives() -> None:
    memory = bytearray(64)
    made = Words(memory)
    with pytest.raises(BufferError):
        memory.clear()
    del made
    memory.clear()


MEMORYVIEW_IN_A_CYCLE = """
import gc
from lbproc.shm._atomics import Words

class Holder:
    pass

gc.disable()
words = Words(memoryview(bytearray(64)))
holder = Holder()
holder.words, holder.itself = words, holder
del holder, words
gc.collect()
"""


def test_a_memoryview_in_a_cycle_is_collected_without_harm() -> None:
    """In a process of its own: it died on Pythons up to 3.12."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORYVIEW_IN_A_CYCLE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_reference_is_kept_or_lost() -> None:
    memory, big = bytearray(64), 2**60 + 1
    gc.collect()  # what earlier tests left behind refers to the types as well
    counts = (sys.getrefcount(memory), sys.getrefcount(Words), sys.getrefcount(Halted), sys.getrefcount(big))
    for _ in range(100):
        made = Words(memory, (2, 0, 4, 0, 1, 3, 1))
        made.store(0, big)
        for wrong in ((), (1,)):
            with pytest.raises(TypeError):
                Words(memory, wrong)  # type: ignore[arg-type]
        with pytest.raises(IndexError):
            made.counts((0, 1, 8))
        made.counts((0, 1))
        del made
    gc.collect()
    assert counts == (
        sys.getrefcount(memory),
        sys.getrefcount(Words),
        sys.getrefcount(Halted),
        sys.getrefcount(big),
    )


ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, WORDS),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.none(),
    st.text(max_size=3),
    st.tuples(st.integers(-1, 2**64)),
    st.just(Sly(1)),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from([n for n in dir(Words) if n[0] != "_"]), st.lists(ANYTHING, max_size=6))
    )
)
def test_no_sequence_of_calls_breaks_anything(calls: list[tuple[str, list[Any]]]) -> None:
    guard = bytearray(b"\xaa" * (WORDS + 16) * 8)
    inner = memoryview(guard)[64:-64]
    made = Words(inner, GEOMETRY)
    for name, arguments in calls:
        with suppress(TypeError, ValueError, IndexError, OverflowError, RuntimeError, Halted):
            getattr(made, name)(*arguments)
    assert guard[:64] == guard[-64:] == b"\xaa" * 64


@settings(max_examples=200)
@given(st.lists(ANYTHING, max_size=3), st.lists(st.integers(0, 2**64 - 1), min_size=7, max_size=7))
def test_no_construction_breaks_anything(arguments: list[Any], geometry: list[int]) -> None:
    for given_arguments in (arguments, [bytearray(512), tuple(geometry)]):
        try:
            made = Words(*given_arguments)
        except (TypeError, ValueError, OverflowError):
            continue
        assert len(made) <= 64
