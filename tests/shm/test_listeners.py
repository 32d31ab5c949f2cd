"""Places at listeners are exact over all workers, and outlive the configuration while something is open."""

from __future__ import annotations

import pytest

from lbproc.errors import CapacityError
from lbproc.shm.layout import UNLIMITED
from lbproc.shm.listeners import FULL, GONE, ListenerWords
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.views import Refusal, WorkerView
from lbproc.types import Column

Q, C = Column(2), Column(3)
SECOND = 1_000_000_000


@pytest.fixture
def supervisor(table: Table) -> SupervisorView:
    made = SupervisorView(table)
    made.ensure_listener("web")
    return made


def words(table: Table, column: Column, name: str = "web") -> ListenerWords:
    return WorkerView(table, column).listener(name)


def test_places_are_those_of_all_workers(table: Table, supervisor: SupervisorView) -> None:
    mine, theirs = WorkerView(table, Q), WorkerView(table, C)
    at_mine, at_theirs = mine.listener("web"), theirs.listener("web")
    entry = at_mine.take(1)
    assert entry >= 0
    assert at_theirs.take(1) >= 0
    assert at_mine.take(1) == at_theirs.take(1) == FULL
    assert at_mine.open() == supervisor.reader.listeners(["web"])["web"].open == 2
    mine.release(entry)
    assert at_theirs.take(1) >= 0
    supervisor.repair(C)
    assert at_mine.open() == 0


def test_a_listener_keeps_its_words_over_reloads(table: Table, supervisor: SupervisorView) -> None:
    block = supervisor.ensure_listener("web")
    assert words(table, Q).take() >= 0
    assert supervisor.ensure_listener("web") == block
    assert SupervisorView(table).ensure_listener("web") == block
    assert words(table, C).open() == 1


def test_the_words_of_a_listener_are_freed_when_nothing_is_open(
    table: Table, supervisor: SupervisorView
) -> None:
    view = WorkerView(table, Q)
    there = view.listener("web")
    entry = there.take()
    there.refuse(Refusal.CONNECTIONS)
    assert there.may_tell(Refusal.CONNECTIONS, 5, SECOND)
    assert not supervisor.release_listener("web")
    assert there.take(UNLIMITED) >= 0, "it is still there"
    view.release(entry)
    supervisor.repair(Q)
    assert supervisor.release_listener("web")
    assert supervisor.release_listener("web"), "nothing is left to free"
    assert there.take() == GONE
    assert words(table, C).take() == GONE
    assert there.refuse(Refusal.CONNECTIONS) == 0
    other = words(table, C, "other")
    assert (other.open(), other.refuse(Refusal.CONNECTIONS)) == (0, 0)
    assert not other.may_tell(Refusal.CONNECTIONS, 5, SECOND)


def test_a_place_is_never_taken_at_the_listener_that_came_after(
    table: Table, supervisor: SupervisorView
) -> None:
    stale = words(table, Q)
    block = supervisor.ensure_listener("web")
    assert supervisor.release_listener("web")
    assert supervisor.ensure_listener("next") == block
    assert stale.take() == GONE
    assert stale.take(0) == GONE
    now = words(table, C, "next")
    assert now.open() == 0
    assert now.take(0) >= 0
    assert stale.take(0) == GONE, "not full: it is no longer asked"
    counts = supervisor.reader.listeners(["web", "next"])
    assert list(counts) == ["next"]
    assert not any(counts["next"].refused)


def test_there_is_room_for_so_many_listeners(table: Table, supervisor: SupervisorView) -> None:
    supervisor.check_room((), (), ["web", "two"])
    with pytest.raises(CapacityError, match="room for 2 listeners"):
        supervisor.check_room((), (), ["web", "two", "three"])
    supervisor.ensure_listener("two")
    with pytest.raises(CapacityError, match="room for 2 listeners"):
        supervisor.ensure_listener("three")
    assert set(supervisor.reader.listeners(["web", "two", "three"])) == {"web", "two"}
    assert words(table, Q, "three").take() == GONE
    assert supervisor.release_listener("web")
    supervisor.ensure_listener("three")


def test_refusals_are_counted_and_told_of_now_and_then_over_all_workers(
    table: Table, supervisor: SupervisorView
) -> None:
    mine, theirs = words(table, Q), words(table, C)
    assert [mine.refuse(Refusal.CONNECTIONS), theirs.refuse(Refusal.CONNECTIONS)] == [1, 2]
    assert mine.refuse(Refusal.MAX_CONNECTIONS) == 1
    refused = supervisor.reader.listeners(["web"])["web"].refused
    assert (refused[Refusal.CONNECTIONS], refused[Refusal.MAX_CONNECTIONS]) == (2, 1)
    assert mine.may_tell(Refusal.CONNECTIONS, 10 * SECOND, SECOND)
    assert not theirs.may_tell(Refusal.CONNECTIONS, 11 * SECOND - 1, SECOND)
    assert theirs.may_tell(Refusal.MAX_CONNECTIONS, 11 * SECOND - 1, SECOND)
    assert theirs.may_tell(Refusal.CONNECTIONS, 11 * SECOND, SECOND)
    assert not mine.may_tell(Refusal.CONNECTIONS, 11 * SECOND, SECOND)
