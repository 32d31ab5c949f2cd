from __future__ import annotations

import pytest

from lbproc.errors import CapacityError
from lbproc.shm.cells import BackendCounter, ProcessState, Role, WorkerCounter
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.controller_view import ControllerView
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.worker_view import WorkerView
from lbproc.types import Admin, Column, Health, Row, Slot

ROW, OTHER = Row(0), Row(3)


@pytest.fixture
def supervisor(table: Table) -> SupervisorView:
    return SupervisorView(table)


def worker(table: Table, supervisor: SupervisorView, slot: int = 0) -> WorkerView:
    return WorkerView(table, supervisor.allocate_column(Slot(slot), Role.WORKER))


def test_places_are_counted_over_all_workers(table: Table, supervisor: SupervisorView) -> None:
    mine, theirs = worker(table, supervisor), worker(table, supervisor, 1)
    words = (mine.load_word(ROW), mine.load_word(OTHER))
    entry = mine.take(ROW, 0)
    assert theirs.take(ROW, 0) == -1
    assert theirs.take(ROW, 1) >= 0
    assert theirs.take(OTHER) >= 0
    assert mine.loads(words) == theirs.loads(words) == [2, 1]
    mine.release(entry)
    assert mine.loads(words) == [1, 1]
    assert len(mine.ledger) == 0
    assert len(theirs.ledger) == 2


def test_a_full_ledger_is_a_capacity_error(table: Table, supervisor: SupervisorView) -> None:
    view = worker(table, supervisor)
    for _ in range(table.layout.capacities.ledger):
        view.take(ROW)
    with pytest.raises(CapacityError):
        view.take(ROW)


def test_tickets_are_given_out_once(table: Table, supervisor: SupervisorView) -> None:
    mine, theirs = worker(table, supervisor), worker(table, supervisor, 1)
    pool, other = supervisor.ensure_pool("web"), supervisor.ensure_pool("api")
    assert [mine.ticket(pool), theirs.ticket(pool), mine.ticket(pool)] == [0, 1, 2]
    assert mine.ticket(other) == 0


def test_retry_credit_is_one_word_for_each_pool_and_wraps(table: Table, supervisor: SupervisorView) -> None:
    mine, theirs = worker(table, supervisor), worker(table, supervisor, 1)
    pool, other = supervisor.ensure_pool("web"), supervisor.ensure_pool("api")
    assert mine.retry_credit(pool) == 0
    assert mine.swap_retry_credit(pool, 0, 2**64 - 1000)
    assert not theirs.swap_retry_credit(pool, 0, 7)
    theirs.add_retry_credit(pool, 200)
    assert mine.retry_credit(pool) == 2**64 - 800
    mine.add_retry_credit(pool, 900)
    assert theirs.retry_credit(pool) == 100
    assert theirs.retry_credit(other) == 0


def test_counters_are_kept_by_column(table: Table, supervisor: SupervisorView) -> None:
    mine, theirs = worker(table, supervisor), worker(table, supervisor, 1)
    mine.count(WorkerCounter.CONNECTIONS)
    mine.count(WorkerCounter.CONNECTIONS)
    mine.count(WorkerCounter.CONNECTIONS, -1)
    mine.count(WorkerCounter.BYTES_IN, 1000)
    theirs.count(WorkerCounter.BYTES_IN, 1)
    mine.count_backend(ROW, BackendCounter.REQUESTS)
    theirs.count_backend(OTHER, BackendCounter.RESPONSE_NS, 5)
    reader = supervisor.reader
    assert reader.column(mine.column).connections == 1
    assert reader.worker_total(WorkerCounter.BYTES_IN) == 1001
    assert reader.backend_total(ROW, BackendCounter.REQUESTS) == 1
    assert reader.backend_total(OTHER, BackendCounter.RESPONSE_NS) == 5
    assert reader.backend_total(OTHER, BackendCounter.REQUESTS) == 0


def test_exchanges_are_counted_in_one_call_as_one_by_one(table: Table, supervisor: SupervisorView) -> None:
    mine = worker(table, supervisor)
    mine.count_pick(OTHER)
    mine.count_reuse(OTHER)
    mine.count_exchange(5, 10, 20)
    mine.count_answer(OTHER, 2, 10, 20, 30)
    reader = supervisor.reader
    workers = {WorkerCounter.REQUESTS: 1, WorkerCounter.RESPONSES_5XX: 1}
    workers |= {WorkerCounter.BYTES_IN: 10, WorkerCounter.BYTES_OUT: 20}
    assert {c: reader.worker_total(c) for c in WorkerCounter if reader.worker_total(c)} == workers
    answered = {BackendCounter.REQUESTS: 1, BackendCounter.REUSES: 1, BackendCounter.RESPONSES_2XX: 1}
    answered |= {BackendCounter.BYTES_IN: 10, BackendCounter.BYTES_OUT: 20, BackendCounter.RESPONSE_NS: 30}
    totals = {c: reader.backend_total(OTHER, c) for c in BackendCounter}
    assert {c: total for c, total in totals.items() if total} == answered
    assert not any(reader.backend_totals(ROW))


def test_what_is_relayed_is_counted_for_the_client_and_for_the_backend(
    table: Table, supervisor: SupervisorView
) -> None:
    mine = worker(table, supervisor)
    mine.count_relayed(OTHER, 10, 20)
    mine.count_relayed(OTHER, 1, 2)
    assert (mine.counted(WorkerCounter.BYTES_IN), mine.counted(WorkerCounter.BYTES_OUT)) == (11, 22)
    reader = supervisor.reader
    assert reader.backend_total(OTHER, BackendCounter.BYTES_IN) == 11
    assert reader.backend_total(OTHER, BackendCounter.BYTES_OUT) == 22


def test_a_pick_may_go_over_an_idle_connection_at_once_or_be_found_to_later(
    table: Table, supervisor: SupervisorView
) -> None:
    mine = worker(table, supervisor)
    picked, reused = BackendCounter.REQUESTS, BackendCounter.REUSES
    mine.count_pick(OTHER, reuses=True)
    totals = supervisor.reader.backend_total
    assert (totals(OTHER, picked), totals(OTHER, reused)) == (1, 1)
    mine.count_reuse(OTHER)
    assert (totals(OTHER, picked), totals(OTHER, reused)) == (1, 2)
    assert not any(supervisor.reader.backend_totals(ROW))


def test_a_worker_tells_how_it_is(table: Table, supervisor: SupervisorView) -> None:
    view = worker(table, supervisor)
    before = monotonic_ns()
    view.beat()
    view.set_state(ProcessState.READY)
    view.follow(3)
    state = supervisor.reader.column(view.column)
    assert before <= state.heartbeat == supervisor.heartbeat_at(view.column) <= monotonic_ns()
    assert (state.state, state.generation) == (ProcessState.READY, 3)


def test_what_the_others_publish_is_seen(table: Table, supervisor: SupervisorView) -> None:
    view = worker(table, supervisor)
    controller = ControllerView(table, Column(3))
    assert (view.generation(), view.membership_epoch(), view.status_epoch()) == (0, 0, 0)
    supervisor.set_generation(2)
    supervisor.publish_membership(b"blob")
    assert (view.generation(), view.membership_epoch(), view.read_membership()) == (2, 1, (1, b"blob"))
    assert view.status_epoch() == 2
    controller.set_health(ROW, Health.DOWN)
    supervisor.set_admin(OTHER, Admin.DRAIN)
    assert view.status_epoch() == 4
    table.change_status(table.layout.in_row(OTHER, "ejected"), 2)
    assert view.statuses([ROW, OTHER]) == [
        (Health.DOWN, Admin.READY, False),
        (Health.UP, Admin.DRAIN, True),
    ]
