from __future__ import annotations

import pytest

from lbproc.errors import CapacityError
from lbproc.shm.layout import UNLIMITED, Capacities
from lbproc.shm.ledger import Ledger
from lbproc.shm.table import Table
from lbproc.types import Column, Row

Q, C = Column(2), Column(3)


def test_what_is_taken_is_counted_until_it_is_released(table: Table) -> None:
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    first = ledger.take(word)
    second = ledger.take(word, 3)
    assert table.words.counts((word,)) == [4]
    assert len(ledger) == 2
    ledger.release(second)
    ledger.release(first)
    assert table.words.counts((word,)) == [0]
    assert len(ledger) == 0


def test_a_refused_take_holds_nothing_and_uses_no_entry(table: Table) -> None:
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    entry = ledger.take(word, 1, 0)
    assert [ledger.take(word, 1, 0) for _ in range(10)] == [-1] * 10
    assert len(ledger) == 1
    ledger.release(entry)
    assert ledger.take(word, 1, 0) >= 0


def test_entries_are_used_again_and_new_ones_come_lowest_first(table: Table) -> None:
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    high = table.layout.in_column(Q, "ledger_high")
    for _ in range(3):
        ledger.release(ledger.take(word))
    assert table.cells[high] == 1
    assert [ledger.take(word) for _ in range(3)] == [0, 1, 2]
    assert table.cells[high] == 3


def test_a_full_ledger_is_a_capacity_error_that_passes(table: Table) -> None:
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    entries = [ledger.take(word) for _ in range(table.layout.capacities.ledger)]
    with pytest.raises(CapacityError, match="more than 4 places"):
        ledger.take(word)
    ledger.release(entries[1])
    assert ledger.take(word) == entries[1]


def test_releasing_twice_is_refused_and_changes_nothing(table: Table) -> None:
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    entry = ledger.take(word)
    ledger.release(entry)
    with pytest.raises(ValueError, match="free"):
        ledger.release(entry)
    assert ledger.take(word) == entry
    assert ledger.take(word) != entry


def test_ledgers_of_different_columns_share_totals_but_not_entries(table: Table) -> None:
    mine, theirs, word = Ledger(table, Q), Ledger(table, C), table.layout.in_row(Row(0), "in_flight")
    assert mine.take(word) == theirs.take(word) == 0
    mine.release(0)
    assert table.words.counts((word,)) == [1]


def test_a_hand_over_is_a_take_without_a_cap_and_then_a_release(table: Table) -> None:
    giver, receiver, word = Ledger(table, Q), Ledger(table, C), table.layout.in_row(Row(0), "in_flight")
    given = giver.take(word, 1, 0)
    taken = receiver.take(word, 1, UNLIMITED)
    giver.release(given)
    assert table.words.counts((word,)) == [1]
    receiver.release(taken)
    assert table.words.counts((word,)) == [0]


def test_the_next_process_in_a_column_begins_at_the_first_entry_and_keeps_the_mark(table: Table) -> None:
    word = table.layout.in_row(Row(0), "in_flight")
    before = Ledger(table, Q)
    for entry in [before.take(word), before.take(word)]:
        before.release(entry)
    after = Ledger(table, Q)
    assert after.take(word) == 0
    assert table.cells[table.layout.in_column(Q, "ledger_high")] == 2


def test_nobody_holds_nothing(table: Table) -> None:
    with pytest.raises(ValueError, match="nobody"):
        Ledger(table, Column(0))


def test_untouched_pages_of_the_ledger_stay_untouched() -> None:
    table = Table.create(Capacities())
    ledger, word = Ledger(table, Q), table.layout.in_row(Row(0), "in_flight")
    for _ in range(2000):
        ledger.release(ledger.take(word))
    first = table.layout.in_column(Q, "ledger")
    assert len(ledger) == 0
    assert table.cells[table.layout.in_column(Q, "ledger_high")] == 1
    assert not any(table.cells[first : first + 512])
    table.close()
