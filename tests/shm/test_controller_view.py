from __future__ import annotations

from lbproc.shm.cells import ProcessState, Role
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.controller_view import ControllerView
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.types import Health, Row


def test_the_controller_tells_how_it_is(table: Table) -> None:
    supervisor = SupervisorView(table)
    view = ControllerView(table, supervisor.allocate_column(None, Role.CONTROLLER))
    before = monotonic_ns()
    view.beat()
    view.set_state(ProcessState.READY)
    view.follow(4)
    state = supervisor.reader.column(view.column)
    assert before <= state.heartbeat <= monotonic_ns()
    assert (state.role, state.slot, state.state, state.generation) == (
        Role.CONTROLLER,
        None,
        ProcessState.READY,
        4,
    )


def test_health_is_announced_only_when_it_changes(table: Table) -> None:
    supervisor = SupervisorView(table)
    view = ControllerView(table, supervisor.allocate_column(None, Role.CONTROLLER))
    epoch = table.layout.in_header("status_epoch")
    view.set_health(Row(1), Health.CHECKING)
    view.set_health(Row(1), Health.CHECKING)
    assert table.words.load(epoch) == 1
    assert view.reader.status(Row(1)).health is Health.CHECKING
    assert view.reader.status(Row(0)).health is Health.UP


def test_the_membership_is_read(table: Table) -> None:
    supervisor = SupervisorView(table)
    view = ControllerView(table, supervisor.allocate_column(None, Role.CONTROLLER))
    supervisor.publish_membership(b"blob")
    assert view.membership_epoch() == 1
    assert view.read_membership() == (1, b"blob")
