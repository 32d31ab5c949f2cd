"""When a worker asks for a successor."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import Role, SupervisorView, WorkerCounter, WorkerView
from lbproc.types import Slot
from lbproc.worker.wearing import Wear


@pytest.fixture
def view() -> Iterator[WorkerView]:
    table = Table.create(Capacities(columns=8, backends=4, pools=4, keys=1024))
    column = SupervisorView(table).allocate_column(Slot(0), Role.WORKER)
    yield WorkerView(table, column)
    table.close()


def test_it_is_reached_once_within_a_tenth_of_what_is_configured(view: WorkerView) -> None:
    reached = []
    for seed in range(50):
        wear = Wear(view, Random(seed))
        for served in range(1, 1200):
            view.count(WorkerCounter.REQUESTS)
            if wear.is_reached(1000):
                reached.append(served)
    assert len(reached) == 50
    assert 900 <= min(reached) < 920
    assert 1080 < max(reached) <= 1101


def test_without_a_number_it_is_never_reached(view: WorkerView) -> None:
    view.count(WorkerCounter.REQUESTS, 10**9)
    assert not Wear(view, Random(1)).is_reached(None)


def test_a_reload_may_set_change_and_remove_it(view: WorkerView) -> None:
    wear = Wear(view, Random(1))
    view.count(WorkerCounter.REQUESTS, 500)
    assert not wear.is_reached(None)
    assert not wear.is_reached(1000)
    assert wear.is_reached(100)
    assert not wear.is_reached(100)
