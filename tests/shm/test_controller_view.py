from __future__ import annotations

from lbproc.shm.cells import ProcessState, Role
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.controller_view import ControllerView
from lbproc.shm.reader import RowChecks
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.types import Health, Liveness, Row


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


def test_a_change_of_health_is_stamped_and_one_to_up_begins_the_slow_start(table: Table) -> None:
    supervisor = SupervisorView(table)
    view = ControllerView(table, supervisor.allocate_column(None, Role.CONTROLLER))
    row, place = Row(1), table.layout.in_row
    assert view.health_age(row) is None
    view.set_health(row, Health.DOWN)
    assert view.health(row) is Health.DOWN
    assert table.words.load(place(row, "started_at")) == 0
    before = monotonic_ns()
    view.set_health(row, Health.UP)
    age = view.health_age(row)
    assert age is not None
    assert 0 <= age < 60
    assert before <= view.reader.checks(row).since <= table.words.load(place(row, "started_at"))
    started_at = table.words.load(place(row, "started_at"))
    view.set_health(row, Health.UP)
    assert table.words.load(place(row, "started_at")) == started_at


def test_liveness_and_the_last_check_concern_no_pick(table: Table) -> None:
    supervisor = SupervisorView(table)
    view = ControllerView(table, supervisor.allocate_column(None, Role.CONTROLLER))
    epoch = table.layout.in_header("status_epoch")
    assert view.reader.checks(Row(1)) == RowChecks(Liveness.UNKNOWN, 0, 0)
    view.set_liveness(Row(1), Liveness.DEAD)
    view.set_checked(Row(1))
    assert view.liveness(Row(1)) is Liveness.DEAD
    assert 0 < view.reader.checks(Row(1)).checked_at <= monotonic_ns()
    assert table.words.load(epoch) == 0
