"""The views together, in several processes, as the supervisor and its children use them."""

from __future__ import annotations

import os
import signal

import pytest

from lbproc.shm import views
from lbproc.shm.table import Table
from lbproc.types import Column, Row, Slot


def test_every_kind_of_process_finds_its_view_here() -> None:
    for name in ("SupervisorView", "WorkerView", "ControllerView", "Reader"):
        assert name in views.__all__
    assert all(hasattr(views, name) for name in views.__all__)


@pytest.mark.slow
def test_killed_workers_leave_totals_at_zero_and_counters_whole(table: Table) -> None:
    """Workers take and release as fast as they can until they are killed, wherever they are."""
    supervisor = views.SupervisorView(table)
    row = supervisor.ensure_row("web", "127.0.0.1:9001")
    for _ in range(10):
        children = []
        for slot in range(3):
            column = supervisor.allocate_column(Slot(slot), views.Role.WORKER)
            ready_reader, ready_writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    work_until_killed(table, column, row, ready_writer)
                finally:
                    os._exit(1)
            os.close(ready_writer)
            supervisor.set_pid(column, child)
            children.append((child, column, ready_reader))
        for child, column, ready_reader in children:
            assert os.read(ready_reader, 1) == b"r"
            os.close(ready_reader)
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            supervisor.repair(column)
        assert supervisor.reader.in_flight(row) == 0
    requests = supervisor.reader.backend_total(row, views.BackendCounter.REQUESTS)
    assert requests >= 30 * 100
    assert [column.role for column in supervisor.reader.columns()] == [views.Role.SUPERVISOR]


def work_until_killed(table: Table, column: Column, row: Row, ready: int) -> None:
    view = views.WorkerView(table, column)
    for turn in range(1 << 40):
        view.count_backend(row, views.BackendCounter.REQUESTS)
        entries = [view.take(row), view.take(row)]
        for entry in entries:
            view.release(entry)
        if turn == 100:
            os.write(ready, b"r")
