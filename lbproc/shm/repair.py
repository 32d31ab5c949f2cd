"""Gives back everything that a dead process held, exactly, whatever instruction it died at.

Owns what to conclude from a dead column. Called by the supervisor after it has reaped the process, so nobody
writes in the column any more except others that leave notes.

Theory of operation. The column's intent says which operation was under way, if any:

    intent            entry     the swap took place    then the entry is
    none              any                              held, if not free
    take              free                             free: died before it wrote the entry
    take              set       yes                    held
    take              set       no                     not held: cleared
    release           free                             free: died after it cleared the entry
    release           set       yes                    given back already: cleared
    release           set       no                     held

The swap took place if the word still carries the tag of the operation, or else if a note in the column says
so. Look in this order: a note is written before the tag is erased. After that the intent is set to none (its
sequence stays, so that the next process in this column goes on with it), and every held entry is released by
the repairing column with the ordinary operation, which leaves notes for others that are dead and not yet
repaired. What the dead column noted about others stays: one of those may need it.

Each step leaves a state that repair can start from again. If the repairing process dies, its own column is
repaired first: its release of a foreign entry is settled like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lbproc.shm.layout import COUNT_BITS
from lbproc.shm.table import Table
from lbproc.types import Column

_ENTRY_MASK = (1 << 22) - 1
_COLUMN_MASK = 0xFF
_NOTE_VALID = 1 << 32


class Interrupted(Enum):
    """The operation that a process died in."""

    NOTHING = 0
    TAKE = 1
    RELEASE = 2


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair found and did.

    Attributes:
        interrupted: the operation that was under way.
        took_place: whether it had changed its total already.
        returned: entries that were held and are given back.
        claim_freed: a key cell was being claimed, and is free again.
    """

    column: Column
    interrupted: Interrupted
    took_place: bool
    returned: int
    claim_freed: bool = False


def repair_ledger(table: Table, column: Column, by: Column) -> RepairReport:
    """Settles the operation that a dead column was in, and gives back what it held.

    Args:
        table: where to repair.
        column: whose process is dead and reaped.
        by: the column of the calling process.
    """
    interrupted, took_place = _settle(table, column)
    returned = 0
    for entry in _held_entries(table, column):
        table.words.release(by, column, entry)
        returned += 1
    _clear_notes(table, column)
    return RepairReport(column, interrupted, took_place, returned)


def _settle(table: Table, column: Column) -> tuple[Interrupted, bool]:
    words, layout = table.words, table.layout
    intent_word = layout.in_column(column, "intent")
    intent = words.load(intent_word)
    sequence = intent >> 32
    interrupted = Interrupted(intent >> 30 & 3)
    took_place = False
    if interrupted is not Interrupted.NOTHING:
        owner = Column(intent >> 22 & _COLUMN_MASK)
        entry_word = layout.in_column(owner, "ledger") + (intent & _ENTRY_MASK)
        entry = words.load(entry_word)
        if entry:
            took_place = _took_place(table, entry >> COUNT_BITS, column, sequence)
            is_held = took_place if interrupted is Interrupted.TAKE else not took_place
            if not is_held:
                words.store(entry_word, 0)
        else:
            # A take writes its entry before it swaps, a release clears it after.
            took_place = interrupted is Interrupted.RELEASE
        words.store(intent_word, sequence << 32)
    return interrupted, took_place


def _took_place(table: Table, word: int, column: Column, sequence: int) -> bool:
    value = table.words.load(word)
    if value >> 32 == sequence and value >> COUNT_BITS & _COLUMN_MASK == column:
        return True
    first, count = _notes_of(table, column)
    return any(table.words.load(note) == _NOTE_VALID | sequence for note in range(first, first + count))


def _notes_of(table: Table, column: Column) -> tuple[int, int]:
    return table.layout.in_column(column, "notes"), table.layout.capacities.columns


def _held_entries(table: Table, column: Column) -> list[int]:
    first = table.layout.in_column(column, "ledger")
    high = min(table.cells[table.layout.in_column(column, "ledger_high")], table.layout.capacities.ledger)
    entries = table.cells[first : first + high].tolist()
    return [entry for entry, held in enumerate(entries) if held]


def _clear_notes(table: Table, column: Column) -> None:
    first, count = _notes_of(table, column)
    for note in range(first, first + count):
        if table.words.load(note):
            table.words.store(note, 0)
