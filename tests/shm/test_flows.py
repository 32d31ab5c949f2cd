"""A flow has one backend, whichever worker sees it, and keeps it as long as it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbproc.shm.flows import Flows
from lbproc.shm.keys import Beginning, flow_time, repair_claim
from lbproc.shm.layout import Capacities
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.types import Column, Row
from tests.shm.interleaving import Process, Scenario, World, explore

Q, C, D = Column(2), Column(3), Column(4)
CLAIMED = 1 << 63
KEY, OTHER_KEY, THIRD_KEY = 1 << 64 | 4, 3 << 64 | 12, 5 << 64 | 20
"""All begin their chains in the first cell."""

MS = 1_000_000
NOW = 1000 * MS
TINY = Capacities(columns=5, backends=1, pools=1, keys=1, ledger=1, membership_bytes=8, listeners=1, flows=2)


@pytest.fixture
def tiny() -> Iterator[Table]:
    made = Table.create(TINY)
    yield made
    made.close()


def test_a_flow_keeps_its_row_in_every_process(table: Table) -> None:
    mine, theirs = Flows(table, Q), Flows(table, C)
    assert mine.row_of(KEY, NOW) is None
    assert mine.open(KEY, NOW, Row(3), 30_000) == 3
    assert theirs.row_of(KEY, NOW + 29_000 * MS) == 3
    assert theirs.open(KEY, NOW, Row(1), 30_000) == 3
    assert theirs.row_of(OTHER_KEY, NOW) is None


def test_the_first_row_is_a_row(table: Table) -> None:
    flows = Flows(table, Q)
    assert flows.open(KEY, NOW, Row(0), 1) == 0
    assert flows.row_of(KEY, NOW) == 0


def test_a_flow_that_nobody_keeps_is_forgotten_and_its_cell_used_again(tiny: Table) -> None:
    flows = Flows(tiny, Q)
    flows.open(KEY, NOW, Row(1), 100)
    flows.open(OTHER_KEY, NOW, Row(2), 200)
    assert flows.open(THIRD_KEY, NOW, Row(3), 100) is None, "there is no room"
    assert flows.row_of(THIRD_KEY, NOW) is None
    later = NOW + 101 * MS
    assert flows.row_of(KEY, later) is None
    assert flows.open(THIRD_KEY, later, Row(3), 100) == 3
    assert flows.row_of(OTHER_KEY, later) == 2
    assert flows.open(KEY, later, Row(1), 100) is None


def test_a_flow_that_is_over_gets_the_row_that_was_picked_now(table: Table) -> None:
    flows = Flows(table, Q)
    flows.open(KEY, NOW, Row(1), 100)
    assert flows.open(KEY, NOW + 500 * MS, Row(2), 100) == 2
    assert flows.row_of(KEY, NOW + 600 * MS) == 2


def test_keeping_extends_a_flow_and_mostly_only_looks(table: Table) -> None:
    flows = Flows(table, Q)
    flows.open(KEY, NOW, Row(1), 1000)
    before = bytes(table.cells)
    assert flows.keep(KEY, NOW + 200 * MS, Row(1), 1000) == 1
    assert bytes(table.cells) == before
    assert flows.keep(KEY, NOW + 300 * MS, Row(1), 1000) == 1
    assert flows.row_of(KEY, NOW + 1300 * MS) == 1
    assert flows.row_of(KEY, NOW + 1301 * MS) is None
    assert flows.keep(KEY, NOW + 2000 * MS, Row(1), 1000) == 1, "it begins again"
    assert flows.row_of(KEY, NOW + 2000 * MS) == 1


def test_a_shorter_lifetime_shortens_nothing(table: Table) -> None:
    flows = Flows(table, Q)
    flows.open(KEY, NOW, Row(1), 1000)
    assert flows.open(KEY, NOW, Row(2), 10) == 1
    assert flows.row_of(KEY, NOW + 1000 * MS) == 1


def test_a_flow_moves_from_a_departed_row_once(table: Table) -> None:
    mine, theirs = Flows(table, Q), Flows(table, C)
    mine.open(KEY, NOW, Row(1), 1000)
    assert mine.move(KEY, NOW, Row(1), Row(0), 1000) == 0
    assert theirs.move(KEY, NOW, Row(1), Row(2), 1000) == 0, "somebody was quicker"
    assert theirs.keep(KEY, NOW, Row(1), 1000) == 0
    assert theirs.row_of(KEY, NOW + 1000 * MS) == 0


def test_flows_and_keys_do_not_meet(table: Table) -> None:
    flows = Flows(table, Q)
    flows.open(KEY, NOW, Row(1), 1000)
    assert not any(table.cells[table.layout.keys.base : table.layout.keys.end])
    assert flows.open(KEY, NOW, Row(1), 1000) == 1


def test_the_supervisor_gives_back_the_claim_of_a_dead_worker(table: Table) -> None:
    supervisor = SupervisorView(table)
    steps = Flows(table, Q).claim_steps(KEY, flow_time(NOW), Beginning(flow_time(NOW) + 7))
    place = table.layout.flows.at(0, "place")
    while not table.words.load(place) & CLAIMED:
        next(steps)
    assert supervisor.repair(Q).claim_freed
    assert table.words.load(place) < CLAIMED
    assert Flows(table, C).open(KEY, NOW * 1_000_000, Row(2), 1000) == 2


def opening(column: Column, row: int, key: int = KEY) -> Callable[[Table], Process]:
    until = flow_time(NOW + 100 * MS) + row + 1
    return lambda table: Flows(table, column).claim_steps(key, flow_time(NOW), Beginning(until))


def over(table: Table) -> None:
    """Both cells had other flows."""
    flows = Flows(table, D)
    flows.open(OTHER_KEY, 1 * MS, Row(7), 1)
    flows.open(THIRD_KEY, 1 * MS, Row(7), 1)


def empty(table: Table) -> None:
    """A new table."""


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [empty, over])
def test_two_workers_that_see_the_first_datagrams_agree(
    tiny: Table, prepare: Callable[[Table], None]
) -> None:
    def check(world: World) -> None:
        flows = Flows(world.table, D)
        row = flows.row_of(KEY, NOW)
        if row is not None:
            assert row in {0, 5}
            ends.add(row)
        for name in world.dead:
            repair_claim(world.table, {"q": Q, "c": C}[name], NOW + MS)
        if world.dead:
            world.finish()
            row = flows.row_of(KEY, NOW)
            assert flows.open(KEY, NOW + 2 * MS, Row(3), 1) == (3 if row is None else row)
            if world.results["c"] is not None:  # there was room, beside what Q had claimed
                assert row in {0, 5}
        elif not world.running:
            assert row in {0, 5}
        places = range(world.table.layout.flows.blocks)
        if not world.running:
            words = [world.table.words.load(world.table.layout.flows.at(cell, "place")) for cell in places]
            assert not any(word & CLAIMED for word in words)

    ends: set[int] = set()
    scenario = Scenario(prepare, {"q": opening(Q, 0), "c": opening(C, 5)}, ["q"])
    assert explore(tiny, scenario, check) > 200
    assert ends == {0, 5}
