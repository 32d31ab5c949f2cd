"""Rows of backends, and words of pools, that are gone are given to others, with nothing left in them."""

from __future__ import annotations

import os

import pytest

from lbproc.errors import CapacityError
from lbproc.shm.table import Table
from lbproc.shm.views import BackendCounter, ControllerView, Role, SupervisorView, WorkerView
from lbproc.types import Admin, Health, Liveness, Slot


def test_a_row_that_was_given_back_is_the_next_one_that_is_handed_out(table: Table) -> None:
    view = SupervisorView(table)
    rows = {name: view.ensure_row("web", name) for name in "abc"}
    view.release_row("web", "c")
    view.release_row("web", "a")
    assert view.ensure_row("web", "b") == rows["b"]
    assert view.ensure_row("web", "x") == rows["a"]
    assert view.ensure_row("web", "a") == rows["c"]
    assert view.ensure_row("web", "y") == len(rows)


def test_a_full_table_has_room_again(table: Table) -> None:
    view = SupervisorView(table)
    for number in range(table.layout.capacities.backends):
        view.ensure_row("web", str(number))
    with pytest.raises(CapacityError, match="all are taken"):
        view.ensure_row("web", "one more")
    view.release_row("web", "3")
    assert view.ensure_row("web", "one more") == 3


def test_nothing_is_left_of_the_one_before(table: Table) -> None:
    view = SupervisorView(table)
    other, row = view.ensure_row("web", "other"), view.ensure_row("web", "a", Health.CHECKING)
    worker = WorkerView(table, view.allocate_column(Slot(0), Role.WORKER))
    controller = ControllerView(table, view.allocate_column(None, Role.CONTROLLER))
    for each in (other, row):
        worker.count_backend(each, BackendCounter.FAILURES)
        worker.release(worker.take(each))
        view.set_admin(each, Admin.DRAIN)
        controller.set_health(each, Health.DOWN)
        controller.set_liveness(each, Liveness.DEAD)
        controller.set_checked(each)
        ejections = worker.ejections
        ejections.confirm(each, ejections.claim(each, 1001), 2, 4000)
        ejections.failed(each)
    reader = view.reader
    before = (reader.status(other), reader.checks(other), reader.backend_totals(other))
    view.release_row("web", "a")
    assert view.ensure_row("web", "new") == row
    status = reader.status(row)
    assert (status.health, status.admin, status.ejected) == (Health.UP, Admin.READY, False)
    checks = reader.checks(row)
    assert (checks.liveness, checks.checked_at) == (Liveness.UNKNOWN, 0)
    assert reader.ejections(row) == 0
    assert worker.ejections.failed(row) == 1
    assert not any(reader.backend_totals(row))
    assert (reader.status(other), reader.checks(other), reader.backend_totals(other)) == before
    assert worker.take(row, 0) >= 0, "places are taken as before"


def test_only_what_is_there_and_idle_is_given_back(table: Table) -> None:
    view = SupervisorView(table)
    row = view.ensure_row("web", "a")
    worker = WorkerView(table, view.allocate_column(Slot(0), Role.WORKER))
    worker.take(row)
    with pytest.raises(ValueError, match="1 in flight to a in pool web"):
        view.release_row("web", "a")
    with pytest.raises(KeyError, match="b in pool web"):
        view.release_row("web", "b")
    assert view.ensure_row("web", "a") == row


def test_a_supervisor_that_attaches_finds_gaps_again(table: Table) -> None:
    view = SupervisorView(table)
    rows = {name: view.ensure_row("web", name) for name in "abc"}
    view.release_row("web", "b")
    attached = Table.attach(os.dup(table.fd))
    other = SupervisorView(attached)
    assert other.ensure_row("web", "c") == rows["c"]
    assert other.ensure_row("web", "new") == rows["b"]
    assert other.ensure_row("web", "newer") == len(rows)
    attached.close()


def test_processes_say_which_publication_they_follow(table: Table) -> None:
    view = SupervisorView(table)
    worker = WorkerView(table, view.allocate_column(Slot(0), Role.WORKER))
    column = view.allocate_column(None, Role.CONTROLLER)
    controller = ControllerView(table, column)
    reader = view.reader
    assert reader.followed(Role.WORKER, Role.CONTROLLER) == [0, 0]
    worker.follow_membership(7)
    controller.follow_membership(8)
    assert reader.followed(Role.WORKER) == [7]
    assert reader.followed(Role.WORKER, Role.CONTROLLER) == [7, 8]
    view.repair(worker.column)
    assert reader.followed(Role.WORKER) == []
    view.allocate_column(Slot(0), Role.WORKER)
    assert reader.followed(Role.WORKER) == [0], "who is new follows nothing yet"


def test_words_of_a_pool_that_was_given_back_are_anothers(table: Table) -> None:
    view = SupervisorView(table)
    worker = WorkerView(table, view.allocate_column(Slot(0), Role.WORKER))
    other, index = view.ensure_pool("other"), view.ensure_pool("web")
    for each in (other, index):
        worker.ticket(each)
        worker.add_retry_credit(each, 5)
        worker.set_panic(each, panic=True)
    with pytest.raises(CapacityError, match="room for 2 pools"):
        view.ensure_pool("new")
    view.release_pool("web")
    assert view.ensure_pool("new") == index
    assert worker.ticket(index) == 0
    assert worker.retry_credit(index) == 0
    assert not view.reader.panic(index)
    assert (worker.ticket(other), worker.retry_credit(other), view.reader.panic(other)) == (1, 5, True)


def test_a_pool_that_a_worker_keeps_stays_until_it_is_released_or_the_worker_is_dead(table: Table) -> None:
    view = SupervisorView(table)
    index = view.ensure_pool("web")
    workers = [WorkerView(table, view.allocate_column(Slot(number), Role.WORKER)) for number in range(2)]
    assert not view.is_pool_kept("web")
    assert not view.is_pool_kept("unknown")
    entry = workers[0].keep_pool(index)
    workers[1].keep_pool(index)
    workers[0].release(entry)
    assert view.is_pool_kept("web")
    with pytest.raises(ValueError, match="a worker keeps pool web"):
        view.release_pool("web")
    with pytest.raises(KeyError, match="unknown"):
        view.release_pool("unknown")
    assert view.repair(workers[1].column).returned == 1
    assert not view.is_pool_kept("web")
    view.release_pool("web")
    assert view.ensure_pool("new") == index
    assert not view.is_pool_kept("new")
    assert view.ensure_pool("web") == index + 1


def test_a_supervisor_that_attaches_finds_gaps_among_pools_again(table: Table) -> None:
    view = SupervisorView(table)
    view.ensure_pool("a")
    kept = view.ensure_pool("b")
    view.release_pool("a")
    attached = Table.attach(os.dup(table.fd))
    other = SupervisorView(attached)
    assert other.ensure_pool("b") == kept
    assert other.ensure_pool("c") == 0
