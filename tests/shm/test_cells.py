"""The numbers are part of the layout: they must not move."""

from __future__ import annotations

from lbproc.shm.cells import GAUGES, BackendCounter, ProcessState, Role, WorkerCounter
from lbproc.shm.layout import COLUMNS
from lbproc.types import Admin, Health


def test_counters_fit_into_their_fields() -> None:
    lengths = {field.name: field.words for field in COLUMNS.fields}
    assert max(WorkerCounter) < lengths["counters"] == lengths["baseline"]
    assert max(BackendCounter) < lengths["backend_counters"]


def test_numbers_run_from_zero_without_holes() -> None:
    for numbers in (WorkerCounter, BackendCounter, Role, ProcessState):
        assert [member.value for member in numbers] == list(range(len(numbers)))


def test_zero_is_what_an_untouched_page_should_mean() -> None:
    assert (Role(0), ProcessState(0), Health(0), Admin(0)) == (
        Role.FREE,
        ProcessState.STARTING,
        Health.UP,
        Admin.READY,
    )


def test_gauges_are_what_ends_with_a_process() -> None:
    assert set(GAUGES) == {WorkerCounter.CONNECTIONS, WorkerCounter.TUNNELS}
