"""When slow starts began, which ejections there are, whether a pool is in panic: who says it, who sees it."""

from __future__ import annotations

from lbproc.shm.clock import monotonic_ns
from lbproc.shm.ejections import Ejections
from lbproc.shm.table import Table
from lbproc.shm.views import Reader, Role, SupervisorView, WorkerView
from lbproc.types import Row, Slot


def make_worker(supervisor: SupervisorView, table: Table) -> WorkerView:
    return WorkerView(table, supervisor.allocate_column(Slot(0), Role.WORKER))


def test_a_new_row_starts_now_and_a_known_one_keeps_its_start(table: Table) -> None:
    supervisor, before = SupervisorView(table), monotonic_ns()
    row = supervisor.ensure_row("web", "a:1")
    started_at = supervisor.reader.started_at(row)
    assert before <= started_at <= monotonic_ns()
    assert supervisor.ensure_row("web", "a:1") == row
    assert supervisor.reader.started_at(row) == started_at
    assert make_worker(supervisor, table).started_at(row) == started_at


def test_a_row_that_comes_back_starts_anew(table: Table) -> None:
    supervisor = SupervisorView(table)
    row = supervisor.ensure_row("web", "a:1")
    supervisor.start_row(row, 7)
    assert supervisor.reader.started_at(row) == 7
    supervisor.start_row(row)
    assert supervisor.reader.started_at(row) > 7


def test_ejections_are_seen_and_claims_are_not(table: Table) -> None:
    reader, ejections = Reader(table), Ejections(table)
    claim = ejections.claim(Row(1), 1000)
    assert reader.ejected_until(Row(1)) == 0
    assert not reader.status(Row(1)).ejected
    ejections.confirm(Row(1), claim, 2, 5000)
    assert reader.ejected_until(Row(1)) == 5000
    assert reader.status(Row(1)).ejected
    assert (reader.ejections(Row(1)), reader.ejections(Row(0))) == (2, 0)


def test_one_of_all_workers_brings_the_news_of_a_panic_and_of_its_end(table: Table) -> None:
    supervisor = SupervisorView(table)
    one, other = make_worker(supervisor, table), make_worker(supervisor, table)
    assert not one.set_panic(1, panic=False)
    assert one.set_panic(1, panic=True)
    assert not other.set_panic(1, panic=True)
    assert (supervisor.reader.panic(1), supervisor.reader.panic(0)) == (True, False)
    assert other.set_panic(1, panic=False)
    assert not one.set_panic(1, panic=False)
    assert not supervisor.reader.panic(1)
