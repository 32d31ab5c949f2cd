"""Deaths at every write of the extension itself; ``test_protocol`` goes through the interleavings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproc.shm._atomics import Halted
from lbproc.shm.layout import UNLIMITED
from lbproc.shm.ledger import Ledger
from lbproc.shm.repair import Interrupted, RepairReport, repair_ledger
from lbproc.shm.table import Table
from lbproc.types import Column, Row

SUPERVISOR, Q, C, D = Column(1), Column(2), Column(3), Column(4)


def word(table: Table, row: int = 0) -> int:
    return table.layout.in_row(Row(row), "in_flight")


def dies(table: Table, operation: Callable[[], object], writes: int) -> bool:
    """Whether the operation needs more than so many writes; it is stopped after them."""
    table.words.halt_after(writes)
    try:
        operation()
    except Halted:
        return True
    table.words.halt_after(0)
    return False


def take(table: Table) -> Callable[[], object]:
    ledger = Ledger(table, Q)
    return lambda: ledger.take(word(table))


def release(table: Table) -> Callable[[], object]:
    ledger = Ledger(table, Q)
    entry = ledger.take(word(table))
    return lambda: ledger.release(entry)


def hand_over_given(table: Table) -> Callable[[], object]:
    """Q gives to D, and dies giving."""
    giver, receiver = Ledger(table, Q), Ledger(table, D)
    entry = giver.take(word(table))
    receiver.take(word(table), 1, UNLIMITED)
    return lambda: giver.release(entry)


def hand_over_received(table: Table) -> Callable[[], object]:
    """D gives to Q, and Q dies receiving."""
    giver, receiver = Ledger(table, D), Ledger(table, Q)
    giver.take(word(table))
    return lambda: receiver.take(word(table), 1, UNLIMITED)


def meanwhile_nothing(_ledger: Ledger, _word: int) -> None:
    """The tag of the dead stays on the word."""


def meanwhile_take(ledger: Ledger, word: int) -> None:
    ledger.take(word)


def meanwhile_much(ledger: Ledger, word: int) -> None:
    for _ in range(3):
        ledger.release(ledger.take(word))


OPERATIONS = [take, release, hand_over_given, hand_over_received]


@pytest.mark.parametrize("meanwhile", [meanwhile_nothing, meanwhile_take, meanwhile_much])
@pytest.mark.parametrize("before", [meanwhile_nothing, meanwhile_much])
@pytest.mark.parametrize("prepare", OPERATIONS)
@pytest.mark.parametrize("writes", range(1, 6))
def test_totals_are_right_after_a_death_at_any_write(
    table: Table,
    prepare: Callable[[Table], Callable[[], object]],
    before: Callable[[Ledger, int], None],
    meanwhile: Callable[[Ledger, int], None],
    writes: int,
) -> None:
    operation = prepare(table)
    other = Ledger(table, C)
    before(other, word(table))
    died = dies(table, operation, writes)
    assert died or writes > 4
    meanwhile(other, word(table))
    report = repair_ledger(table, Q, SUPERVISOR)
    of_d = 1 if prepare in {hand_over_given, hand_over_received} else 0
    assert table.words.counts((word(table),)) == [len(other) + of_d]
    assert (report.interrupted is Interrupted.NOTHING) == (writes >= 4)
    assert not any(table.cells[table.layout.in_column(Q, "notes") :][: table.layout.capacities.columns])
    assert repair_ledger(table, Q, SUPERVISOR) == RepairReport(Q, Interrupted.NOTHING, False, 0)


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("q_writes", range(1, 5))
@pytest.mark.parametrize("c_writes", range(1, 6))
def test_two_deaths_in_the_same_word_are_both_settled(
    table: Table, first: Callable[[Table], Callable[[], object]], q_writes: int, c_writes: int
) -> None:
    """C's operation begins after Q's death, sees its tag, and dies as well, before or after it noted that."""
    operation = first(table)
    other = Ledger(table, C)
    held = other.take(word(table))
    dies(table, operation, q_writes)
    dies(table, lambda: other.release(held), c_writes)
    start = bytes(table.cells)
    of_d = 1 if first in {hand_over_given, hand_over_received} else 0
    for order in ((Q, C), (C, Q)):
        table.cells[:] = memoryview(start).cast("Q")
        for column in order:
            repair_ledger(table, column, SUPERVISOR)
        assert table.words.counts((word(table),)) == [of_d]


@pytest.mark.parametrize("writes", range(1, 40))
def test_a_repair_that_is_cut_off_is_done_by_the_next_supervisor(table: Table, writes: int) -> None:
    """The repairer's own column is repaired first, by another."""
    ledger = Ledger(table, Q)
    for _ in range(3):
        ledger.take(word(table))
    dies(table, lambda: ledger.take(word(table)), 3)
    dies(table, lambda: repair_ledger(table, Q, by=C), writes)
    assert repair_ledger(table, C, SUPERVISOR).returned == 0
    repair_ledger(table, Q, SUPERVISOR)
    assert table.words.counts((word(table),)) == [0]


def test_the_report_tells_what_was_found(table: Table) -> None:
    ledger = Ledger(table, Q)
    ledger.take(word(table))
    dies(table, lambda: ledger.take(word(table)), 2)
    assert repair_ledger(table, Q, SUPERVISOR) == RepairReport(Q, Interrupted.TAKE, False, 1)
    ledger = Ledger(table, Q)
    dies(table, lambda: ledger.take(word(table)), 3)
    assert repair_ledger(table, Q, SUPERVISOR) == RepairReport(Q, Interrupted.TAKE, True, 1)
    ledger = Ledger(table, Q)
    entry = ledger.take(word(table))
    dies(table, lambda: ledger.release(entry), 3)
    assert repair_ledger(table, Q, SUPERVISOR) == RepairReport(Q, Interrupted.RELEASE, True, 0)


def test_the_sequence_goes_on_in_the_next_life_of_a_column(table: Table) -> None:
    """So a note or a tag of the last life matches nothing in the next."""
    intent = table.layout.in_column(Q, "intent")
    ledger = Ledger(table, Q)
    dies(table, lambda: ledger.take(word(table)), 3)
    sequence = table.words.load(intent) >> 32
    repair_ledger(table, Q, SUPERVISOR)
    assert table.words.load(intent) == sequence << 32
    Ledger(table, Q).take(word(table))
    assert table.words.load(intent) == sequence + 1 << 32


def test_a_stale_note_about_an_old_operation_settles_nothing(table: Table) -> None:
    ledger = Ledger(table, Q)
    table.words.store(table.layout.in_column(Q, "notes") + C, 1 << 32 | 1)
    ledger.release(ledger.take(word(table)))
    dies(table, lambda: ledger.take(word(table)), 2)
    assert repair_ledger(table, Q, SUPERVISOR) == RepairReport(Q, Interrupted.TAKE, False, 0)


def test_notes_that_the_dead_wrote_about_others_stay(table: Table) -> None:
    """Q is stuck after its swap, C notes that and dies: Q's evidence must survive C's repair."""
    dies(table, take(table), 3)
    other = Ledger(table, C)
    dies(table, lambda: other.take(word(table)), 4)
    repair_ledger(table, C, SUPERVISOR)
    note = table.words.load(table.layout.in_column(Q, "notes") + C)
    assert note == 1 << 32 | table.words.load(table.layout.in_column(Q, "intent")) >> 32
    assert repair_ledger(table, Q, SUPERVISOR).took_place
    assert table.words.counts((word(table),)) == [0]


def test_repair_looks_no_further_than_the_high_water_mark(table: Table) -> None:
    table.words.store(table.layout.in_column(Q, "ledger") + 3, word(table) << 24 | 1)
    assert repair_ledger(table, Q, SUPERVISOR).returned == 0
