"""The other workers as the table shows them, and the count of what waits in an inbox."""

from __future__ import annotations

import pytest

from lbproc.shm._atomics import Words
from lbproc.shm.cells import ProcessState, Role, WorkerCounter
from lbproc.shm.layout import Capacities
from lbproc.shm.siblings import Siblings
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.worker_view import WorkerView
from lbproc.types import Slot, SlotLoad

OWN, NEXT, LAST = Slot(0), Slot(1), Slot(2)


@pytest.fixture
def supervisor(table: Table) -> SupervisorView:
    view = SupervisorView(table)
    view.allocate_column(None, Role.CONTROLLER)
    return view


def begin(table: Table, supervisor: SupervisorView, slot: Slot, connections: int = 0) -> WorkerView:
    """A worker that is ready."""
    view = WorkerView(table, supervisor.allocate_column(slot, Role.WORKER))
    view.count(WorkerCounter.CONNECTIONS, connections)
    view.set_state(ProcessState.READY)
    return view


def test_loads_are_what_is_open_and_what_waits(table: Table, supervisor: SupervisorView) -> None:
    mine = begin(table, supervisor, OWN, 5)
    begin(table, supervisor, NEXT, 2)
    begin(table, supervisor, LAST)
    siblings = Siblings(table, OWN, 3)
    assert siblings.totals() == (5, 7)
    for _ in range(3):
        siblings.add_waiting(LAST)
    siblings.add_waiting(OWN)
    mine.count(WorkerCounter.CONNECTIONS)
    assert siblings.totals() == (7, 12)
    assert siblings.ready_loads() == [SlotLoad(OWN, 6, 1), SlotLoad(NEXT, 2, 0), SlotLoad(LAST, 0, 3)]
    assert Siblings(table, LAST, 3).totals() == (3, 12)


def test_only_workers_that_are_ready_and_beat_take_connections(
    table: Table, supervisor: SupervisorView
) -> None:
    begin(table, supervisor, OWN, 9).set_state(ProcessState.STARTING)
    draining, silent = begin(table, supervisor, NEXT, 1), begin(table, supervisor, LAST)
    siblings = Siblings(table, OWN, 3)
    assert siblings.ready_loads() == [SlotLoad(OWN, 9, 0), SlotLoad(NEXT, 1, 0), SlotLoad(LAST, 0, 0)]
    draining.set_state(ProcessState.DRAINING)
    table.cells[table.layout.in_column(silent.column, "heartbeat")] -= 6_000_000_000
    assert siblings.ready_loads() == [SlotLoad(OWN, 9, 0)]
    silent.beat()
    assert siblings.ready_loads() == [SlotLoad(OWN, 9, 0), SlotLoad(LAST, 0, 0)]
    assert siblings.totals() == (9, 10), "what a draining worker holds counts in the quick look"


def test_a_worker_that_was_replaced_is_found_in_its_new_column(
    table: Table, supervisor: SupervisorView
) -> None:
    begin(table, supervisor, OWN, 3)
    dead = begin(table, supervisor, NEXT, 4)
    siblings = Siblings(table, OWN, 2)
    supervisor.repair(dead.column)
    assert siblings.totals() == (3, 3)
    assert siblings.ready_loads() == [SlotLoad(OWN, 3, 0)]
    supervisor.allocate_column(None, Role.CONTROLLER)  # it takes the column of the dead
    begin(table, supervisor, NEXT, 1)
    assert siblings.totals() == (3, 3), "nobody has looked yet"
    assert siblings.ready_loads() == [SlotLoad(OWN, 3, 0), SlotLoad(NEXT, 1, 0)]
    assert siblings.totals() == (3, 4)


def test_slots_that_it_was_not_told_of_and_a_full_table_are_no_trouble() -> None:
    table = Table.create(
        Capacities(columns=5, backends=1, pools=1, keys=1, ledger=1, membership_bytes=8, listeners=2, flows=2)
    )
    supervisor = SupervisorView(table)
    for slot in range(3):
        begin(table, supervisor, Slot(slot), 1)
    assert Siblings(table, NEXT, 2).ready_loads() == [SlotLoad(OWN, 1, 0), SlotLoad(NEXT, 1, 0)]
    table.close()


def test_a_lone_worker_has_everything(table: Table, supervisor: SupervisorView) -> None:
    begin(table, supervisor, OWN, 4)
    siblings = Siblings(table, OWN, 1)
    assert (siblings.totals(), siblings.ready_loads()) == ((4, 4), [SlotLoad(OWN, 4, 0)])


def test_what_waits_never_falls_below_zero_and_an_empty_inbox_sets_it_right(table: Table) -> None:
    siblings = Siblings(table, OWN, 2)
    siblings.remove_waiting(NEXT)
    assert siblings.waiting(NEXT) == 0
    siblings.add_waiting(NEXT)
    siblings.add_waiting(NEXT)
    siblings.remove_waiting(NEXT)
    assert (siblings.waiting(NEXT), siblings.waiting(OWN)) == (1, 0)
    siblings.clear_waiting(NEXT)
    siblings.clear_waiting(NEXT)
    assert siblings.waiting(NEXT) == 0


class Quicker:
    """The words, of which somebody else takes one off after the first look."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.looks = 0
        self.counts = words.counts
        self.fetch_add = words.fetch_add
        self.compare_exchange = words.compare_exchange

    def load(self, index: int) -> int:
        value = self.words.load(index)
        self.looks += 1
        if self.looks == 1:
            self.words.fetch_add(index, -1)
        return value


def test_what_two_take_at_once_is_taken_off_twice(table: Table) -> None:
    siblings = Siblings(table, OWN, 2)
    for _ in range(3):
        siblings.add_waiting(NEXT)
    table.words, words = Quicker(table.words), table.words  # type: ignore[assignment]
    Siblings(table, OWN, 2).remove_waiting(NEXT)
    table.words = words
    assert siblings.waiting(NEXT) == 1
