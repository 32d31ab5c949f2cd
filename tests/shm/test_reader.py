from __future__ import annotations

from lbproc.shm.cells import BackendCounter, ProcessState, Role, WorkerCounter
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.reader import Reader, RowStatus
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.worker_view import WorkerView
from lbproc.types import Admin, Health, Row, Slot


def test_an_empty_table_reads_as_nothing(table: Table) -> None:
    reader = Reader(table)
    assert reader.columns() == []
    assert reader.generation() == 0
    assert 0 < reader.created_at() <= monotonic_ns()
    assert reader.in_flight(Row(0)) == 0
    assert set(reader.worker_totals()) == set(reader.backend_totals(Row(0))) == {0}
    assert reader.status(Row(0)) == RowStatus(Health.UP, Admin.READY, ejected=False)


def test_columns_tell_of_their_processes(table: Table) -> None:
    supervisor = SupervisorView(table)
    column = supervisor.allocate_column(Slot(7), Role.WORKER)
    supervisor.set_pid(column, 4242)
    view = WorkerView(table, column)
    view.count(WorkerCounter.REQUESTS, 3)
    view.count(WorkerCounter.CONNECTIONS, 2)
    mine, child = Reader(table).columns()
    assert (mine.column, mine.role, mine.slot) == (supervisor.column, Role.SUPERVISOR, None)
    assert (child.column, child.role, child.slot, child.pid) == (column, Role.WORKER, 7, 4242)
    assert (child.state, child.requests, child.connections) == (ProcessState.STARTING, 3, 2)


def test_a_column_that_becomes_free_is_left_out_and_those_after_it_are_not(table: Table) -> None:
    supervisor = SupervisorView(table)
    first = supervisor.allocate_column(Slot(0), Role.WORKER)
    second = supervisor.allocate_column(Slot(1), Role.WORKER)
    WorkerView(table, second).count(WorkerCounter.REQUESTS, 5)
    supervisor.repair(first)
    reader = Reader(table)
    assert [state.column for state in reader.columns()] == [supervisor.column, second]
    assert reader.worker_total(WorkerCounter.REQUESTS) == 5


def test_a_worker_that_is_just_being_freed_is_left_out(table: Table) -> None:
    supervisor, reader = SupervisorView(table), Reader(table)
    column = supervisor.allocate_column(Slot(0), Role.WORKER)
    table.cells[table.layout.in_column(column, "slot")] = 0
    assert [state.column for state in reader.columns()] == [supervisor.column]


def test_totals_of_several_backends_are_those_of_each(table: Table) -> None:
    supervisor, reader = SupervisorView(table), Reader(table)
    rows = [supervisor.ensure_row("web", f"{name}:1") for name in "abcd"]
    for slot in range(2):
        view = WorkerView(table, supervisor.allocate_column(Slot(slot), Role.WORKER))
        for row in rows:
            for counter in BackendCounter:
                view.count_backend(row, counter, 1 + row * 100 + counter)
    asked = [rows[3], rows[1]]
    assert reader.backends_totals(asked) == [reader.backend_totals(row) for row in asked]
    assert reader.backends_totals([rows[1]])[0][-1] == 2 * (1 + rows[1] * 100 + max(BackendCounter))
    assert reader.backends_totals([]) == []


def test_sums_include_processes_that_are_gone(table: Table) -> None:
    supervisor, reader = SupervisorView(table), Reader(table)
    row = supervisor.ensure_row("web", "a:1")
    for _ in range(3):
        column = supervisor.allocate_column(Slot(0), Role.WORKER)
        view = WorkerView(table, column)
        view.count(WorkerCounter.REQUESTS, 10)
        view.count(WorkerCounter.CONNECTIONS)
        view.count_backend(row, BackendCounter.BYTES_OUT, 100)
        assert reader.column(column).requests == 10
        assert reader.column(column).connections == 1
        supervisor.repair(column)
    assert reader.worker_total(WorkerCounter.REQUESTS) == 30
    assert reader.worker_total(WorkerCounter.CONNECTIONS) == 0
    assert reader.backend_total(row, BackendCounter.BYTES_OUT) == 300


def test_a_full_table_has_all_its_columns_read(table: Table) -> None:
    supervisor = SupervisorView(table)
    for slot in range(table.layout.capacities.columns - 2):
        supervisor.allocate_column(Slot(slot), Role.WORKER)
    assert len(Reader(table).columns()) == table.layout.capacities.columns - 1


def test_rows_are_found_by_pool_and_address(table: Table) -> None:
    supervisor = SupervisorView(table)
    one, two = supervisor.ensure_row("web", "a:1"), supervisor.ensure_row("api", "a:1")
    sought = [("web", "a:1"), ("api", "a:1"), ("web", "b:1")]
    assert supervisor.reader.find_rows(sought) == {("web", "a:1"): one, ("api", "a:1"): two}
    assert supervisor.reader.find_rows([]) == {}
