from __future__ import annotations

from dataclasses import replace

import pytest

from lbproc.errors import CapacityError
from lbproc.shm._atomics import Halted
from lbproc.shm.cells import Role, WorkerCounter
from lbproc.shm.keys import KeyTable
from lbproc.shm.repair import Interrupted
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.worker_view import WorkerView
from lbproc.types import Admin, Column, Row, Slot
from tests.shm.conftest import SMALL


def test_columns_are_handed_out_once_until_there_is_none(table: Table) -> None:
    supervisor = SupervisorView(table)
    columns = [supervisor.allocate_column(Slot(0), Role.WORKER) for _ in range(4)]
    assert columns == [2, 3, 4, 5]
    with pytest.raises(CapacityError, match=r"room for 4 processes .* max_columns"):
        supervisor.allocate_column(None, Role.CONTROLLER)
    supervisor.repair(columns[1])
    assert supervisor.allocate_column(None, Role.CONTROLLER) == columns[1]


def test_the_default_table_has_room_for_254_children() -> None:
    made = Table.create(replace(SMALL, columns=256))
    supervisor = SupervisorView(made)
    columns = {supervisor.allocate_column(None, Role.WORKER) for _ in range(254)}
    assert len(columns) == 254
    with pytest.raises(CapacityError):
        supervisor.allocate_column(None, Role.WORKER)
    assert WorkerView(made, Column(255)).take(Row(0), 0) == 0
    assert supervisor.repair(Column(255)).returned == 1
    made.close()


def test_repair_gives_back_and_frees(table: Table) -> None:
    supervisor = SupervisorView(table)
    row = supervisor.ensure_row("web", "a:1")
    column = supervisor.allocate_column(Slot(1), Role.WORKER)
    supervisor.set_pid(column, 99)
    view = WorkerView(table, column)
    view.count(WorkerCounter.CONNECTIONS, 3)
    view.count(WorkerCounter.REQUESTS, 7)
    view.take(row)
    view.take(row)
    report = supervisor.repair(column)
    assert (report.column, report.interrupted, report.returned) == (column, Interrupted.NOTHING, 2)
    assert not report.claim_freed
    assert supervisor.reader.in_flight(row) == 0
    state = supervisor.reader.column(column)
    assert (state.role, state.pid, state.slot, state.connections) == (Role.FREE, 0, None, 0)


def test_repair_gives_back_a_cell_that_was_being_claimed(table: Table) -> None:
    supervisor = SupervisorView(table)
    column = supervisor.allocate_column(Slot(0), Role.WORKER)
    table.words.halt_after(3)
    with pytest.raises(Halted):
        KeyTable(table, column).claim(5, now=1)
    assert supervisor.repair(column).claim_freed
    assert not supervisor.repair(column).claim_freed
    assert KeyTable(table, column).claim(5, now=2) is not None


@pytest.mark.parametrize("column", [0, 1])
def test_only_columns_of_children_are_repaired(table: Table, column: int) -> None:
    with pytest.raises(ValueError, match="no child"):
        SupervisorView(table).repair(Column(column))


def test_rows_are_found_by_pool_and_address(table: Table) -> None:
    supervisor = SupervisorView(table)
    row = supervisor.ensure_row("web", "a:1")
    assert supervisor.ensure_row("api", "a:1") != row
    assert supervisor.ensure_row("web", "a:2") != row
    assert supervisor.ensure_row("web", "a:1") == row
    assert supervisor.ensure_row("web\udc00", "a:1") == 3
    with pytest.raises(CapacityError, match="max_backends"):
        supervisor.ensure_row("web", "a:3")
    with pytest.raises(CapacityError, match="max_backends"):
        supervisor.ensure_row("web", "a:3")
    assert supervisor.ensure_row("web", "a:1") == row


def test_pools_are_found_by_name(table: Table) -> None:
    supervisor = SupervisorView(table)
    assert [supervisor.ensure_pool(name) for name in ("web", "api", "web")] == [0, 1, 0]
    with pytest.raises(CapacityError, match="room for 2 pools"):
        supervisor.ensure_pool("third")


def test_a_supervisor_that_attaches_finds_rows_and_pools_again(table: Table) -> None:
    first = SupervisorView(table)
    first.ensure_row("web", "a:1")
    row, pool = first.ensure_row("web", "a:2"), first.ensure_pool("web")
    second = SupervisorView(table)
    assert (second.ensure_row("web", "a:2"), second.ensure_pool("web")) == (row, pool)
    assert second.ensure_row("web", "a:3") == 2


def test_a_full_directory_is_found_again_whole(table: Table) -> None:
    first = SupervisorView(table)
    pools = [first.ensure_pool(name) for name in ("web", "api")]
    assert [SupervisorView(table).ensure_pool(name) for name in ("web", "api")] == pools


def test_admin_states_and_publications_are_announced(table: Table) -> None:
    supervisor = SupervisorView(table)
    epoch = table.layout.in_header("status_epoch")
    supervisor.set_admin(Row(2), Admin.MAINTENANCE)
    supervisor.set_admin(Row(2), Admin.MAINTENANCE)
    assert supervisor.reader.status(Row(2)).admin is Admin.MAINTENANCE
    assert table.words.load(epoch) == 1
    assert supervisor.publish_membership(b"one") == 1
    assert table.words.load(epoch) == 2
    supervisor.set_generation(9)
    assert supervisor.reader.generation() == 9


def test_a_fresh_column_has_a_heartbeat(table: Table) -> None:
    supervisor = SupervisorView(table)
    column = supervisor.allocate_column(Slot(0), Role.WORKER)
    assert supervisor.heartbeat_at(column) > 0
