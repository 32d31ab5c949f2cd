"""The operations of the C extension and the repair, step by step, so that tests can pause them anywhere.

The tests compare every write of these with what the extension writes, so they cannot drift apart.
"""

from __future__ import annotations

from lbproc.shm.table import Table
from tests.shm.interleaving import Process

COUNT = 0xFFFFFF
TAKE, RELEASE = 1, 2


def take(table: Table, column: int, entry: int, word: int, at_most: int = COUNT - 1) -> Process:
    words, place = table.words, table.layout.columns.at
    yield
    seen = words.load(word)
    if seen & COUNT > at_most:
        return False
    tag = yield from _begin(table, column, TAKE << 30 | column << 22 | entry)
    cell = place(column, "ledger") + entry
    yield
    words.store(cell, word << 24 | 1)
    swapped = False
    while not swapped and seen & COUNT <= at_most:
        swapped, seen = yield from _swap(table, column, word, seen, tag | (seen & COUNT) + 1)
    if not swapped:
        yield
        words.store(cell, 0)
    yield
    words.store(place(column, "intent"), tag >> 32 << 32)
    return swapped


def release(table: Table, column: int, owner: int, entry: int) -> Process:
    words, place = table.words, table.layout.columns.at
    cell = place(owner, "ledger") + entry
    yield
    held = words.load(cell)
    tag = yield from _begin(table, column, RELEASE << 30 | owner << 22 | entry)
    word = held >> 24
    yield
    seen = words.load(word)
    swapped = False
    while not swapped:
        swapped, seen = yield from _swap(table, column, word, seen, tag | (seen & COUNT) - (held & COUNT))
    yield
    words.store(cell, 0)
    yield
    words.store(place(column, "intent"), tag >> 32 << 32)


def repair(table: Table, column: int, by: int) -> Process:
    words, place = table.words, table.layout.columns.at
    yield
    intent = words.load(place(column, "intent"))
    sequence, kind = intent >> 32, intent >> 30 & 3
    if kind:
        cell = place(intent >> 22 & 0xFF, "ledger") + (intent & 0x3FFFFF)
        yield
        held = words.load(cell)
        if held:
            yield
            seen = words.load(held >> 24)
            took_place = seen >> 24 == sequence << 8 | column
            writer = 1
            while not took_place and writer < table.layout.capacities.columns:
                yield
                took_place = words.load(place(column, "notes") + writer) == 1 << 32 | sequence
                writer += 1
            if took_place != (kind == TAKE):
                yield
                words.store(cell, 0)
        yield
        words.store(place(column, "intent"), sequence << 32)
    entry = 0
    while entry < table.layout.capacities.ledger:
        yield
        held = words.load(place(column, "ledger") + entry)
        if held:
            yield from release(table, by, column, entry)
        entry += 1


def _begin(table: Table, column: int, intention: int) -> Process:
    words, word = table.words, table.layout.columns.at(column, "intent")
    yield
    sequence = (words.load(word) >> 32) + 1 & 0xFFFFFFFF
    yield
    words.store(word, sequence << 32 | intention)
    return sequence << 32 | column << 24


def _swap(table: Table, column: int, word: int, seen: int, desired: int) -> Process:
    words, place = table.words, table.layout.columns.at
    other = seen >> 24 & 0xFF
    if other not in {0, column}:
        yield
        intent = words.load(place(other, "intent"))
        if intent >> 32 == seen >> 32 and intent >> 30 & 3:
            yield
            words.store(place(other, "notes") + column, 1 << 32 | seen >> 32)
    yield
    if words.compare_exchange(word, seen, desired):
        return True, desired
    # The extension gets the value with the failed swap; reading it in the same step is the same.
    return False, words.load(word)
