"""Every interleaving of takes, releases, deaths and repairs leaves totals equal to what ledgers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbproc.shm._atomics import Halted
from lbproc.shm.layout import Capacities
from lbproc.shm.repair import repair_ledger
from lbproc.shm.table import Table
from lbproc.types import Column, Row
from tests.shm import protocol_model as model
from tests.shm.interleaving import Process, Scenario, World, explore

TINY = Capacities(columns=5, backends=2, pools=1, keys=1, ledger=2, membership_bytes=8, listeners=2, flows=2)
SUPERVISOR, Q, C, D = 1, 2, 3, 4


@pytest.fixture
def tiny() -> Iterator[Table]:
    made = Table.create(TINY)
    yield made
    made.close()


def word(table: Table, row: int = 0) -> int:
    return table.layout.in_row(Row(row), "in_flight")


def held(table: Table, column: int) -> list[int]:
    first = table.layout.columns.at(column, "ledger")
    return [entry for entry in table.cells[first : first + TINY.ledger].tolist() if entry]


def totals_are_right(table: Table) -> bool:
    entries = [entry for column in (SUPERVISOR, Q, C, D) for entry in held(table, column)]
    return all(
        table.words.counts((word(table, row),))[0]
        == sum(e & 0xFFFFFF for e in entries if e >> 24 == word(table, row))
        for row in range(TINY.backends)
    )


def each_holds_one(table: Table) -> None:
    for column in (Q, C, D):
        table.words.take(column, 0, word(table), 1, 100)
        table.cells[table.layout.columns.at(column, "ledger_high")] = TINY.ledger


def one_after_the_other(*operations: Callable[[Table], Process]) -> Callable[[Table], Process]:
    def process(table: Table) -> Process:
        for operation in operations:
            yield from operation(table)

    return process


def taking(column: int, entry: int, row: int = 0, at_most: int = 100) -> Callable[[Table], Process]:
    return lambda table: model.take(table, column, entry, word(table, row), at_most)


def releasing(column: int, entry: int) -> Callable[[Table], Process]:
    return lambda table: model.release(table, column, column, entry)


def repairing(column: int, by: int = SUPERVISOR) -> Callable[[Table], Process]:
    return lambda table: model.repair(table, column, by)


def check_at_the_end(world: World) -> None:
    """When all have come to an end, totals are right and the dead hold nothing."""
    if world.running:
        return
    assert totals_are_right(world.table)
    for name in world.dead:
        assert not held(world.table, {"q": Q, "c": C, "d": D}[name])


VICTIMS = {
    "take": taking(Q, 1),
    "refused take": taking(Q, 1, at_most=3),
    "release": releasing(Q, 0),
    "take and release": one_after_the_other(taking(Q, 1), releasing(Q, 1)),
    "release and take": one_after_the_other(releasing(Q, 0), taking(Q, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS.values(), ids=VICTIMS)
@pytest.mark.parametrize("other", [taking(C, 1), releasing(C, 0)], ids=["take", "release"])
def test_repair_beside_another_column_is_exact(
    tiny: Table, victim: Callable[[Table], Process], other: Callable[[Table], Process]
) -> None:
    scenario = Scenario(each_holds_one, {"q": victim, "c": other}, ["q"], {"q": repairing(Q)})
    assert explore(tiny, scenario, check_at_the_end) > 500


@pytest.mark.slow
def test_repair_beside_two_other_columns_is_exact(tiny: Table) -> None:
    scenario = Scenario(
        each_holds_one,
        {"q": taking(Q, 1), "c": releasing(C, 0), "d": taking(D, 1)},
        ["q"],
    )

    def repaired_at_once(world: World) -> None:
        if world.dead:
            repair_ledger(world.table, Column(Q), Column(SUPERVISOR))
            world.finish()
            assert totals_are_right(world.table)
            assert not held(world.table, Q)

    assert explore(tiny, scenario, repaired_at_once) > 2000


def test_a_note_about_an_old_operation_does_not_displace_the_one_that_is_needed(tiny: Table) -> None:
    """C erases the tag of Q's second operation on row 1, then that of its first, still there, on row 0."""
    scenario = Scenario(
        lambda table: None,
        {
            "q": one_after_the_other(taking(Q, 0, row=0), taking(Q, 1, row=1)),
            "c": one_after_the_other(taking(C, 0, row=1), taking(C, 1, row=0)),
        },
        ["q"],
    )

    def repaired_at_once(world: World) -> None:
        if "q" in world.dead:
            world.finish()
            table = world.table
            table.cells[table.layout.columns.at(Q, "ledger_high")] = TINY.ledger
            repair_ledger(table, Column(Q), Column(SUPERVISOR))
            assert totals_are_right(table)
            assert not held(table, Q)

    assert explore(tiny, scenario, repaired_at_once) > 200


def test_two_dead_columns_are_repaired_one_after_the_other(tiny: Table) -> None:
    scenario = Scenario(each_holds_one, {"q": taking(Q, 1), "c": releasing(C, 0)}, ["q", "c"])

    def repaired_in_both_orders(world: World) -> None:
        if len(world.dead) < 2:
            return
        before = bytes(world.table.cells)
        for order in ((Q, C), (C, Q)):
            world.table.cells[:] = memoryview(before).cast("Q")
            for column in order:
                repair_ledger(world.table, Column(column), Column(SUPERVISOR))
            assert totals_are_right(world.table)
            assert not held(world.table, Q)
            assert not held(world.table, C)
        world.finish()

    assert explore(tiny, scenario, repaired_in_both_orders) > 100


def test_a_repairer_that_dies_is_repaired_first_and_its_work_is_done_again(tiny: Table) -> None:
    """D repairs Q and is killed anywhere, while C goes on."""
    scenario = Scenario(each_holds_one, {"d": repairing(Q, by=D), "c": releasing(C, 0)}, ["d"])

    def repaired_again(world: World) -> None:
        if world.dead:
            repair_ledger(world.table, Column(D), Column(SUPERVISOR))
            repair_ledger(world.table, Column(Q), Column(SUPERVISOR))
            world.finish()
            assert totals_are_right(world.table)
            assert not held(world.table, Q)
            assert not held(world.table, D)

    def interrupted_take(table: Table) -> None:
        each_holds_one(table)
        table.words.halt_after(3)
        with pytest.raises(Halted):
            table.words.take(Q, 1, word(table), 1, 100)

    assert explore(tiny, scenario, repaired_again) > 100
    scenario.prepare = interrupted_take
    assert explore(tiny, scenario, repaired_again) > 100


def tagged_by_nobody(table: Table) -> None:
    each_holds_one(table)
    table.words.store(word(table), 3)


def tagged_by_itself(table: Table) -> None:
    each_holds_one(table)
    table.words.take(Q, 1, word(table), 1, 100)
    table.words.release(Q, Q, 1)


def tagged_by_an_operation_under_way(table: Table) -> None:
    each_holds_one(table)
    table.words.halt_after(3)
    with pytest.raises(Halted):
        table.words.take(C, 1, word(table), 1, 100)


BY_MODEL_AND_EXTENSION: dict[str, tuple[Callable[[Table], Process], Callable[[Table], object]]] = {
    "take": (lambda t: model.take(t, Q, 1, word(t), 100), lambda t: t.words.take(Q, 1, word(t), 1, 100)),
    "refused": (lambda t: model.take(t, Q, 1, word(t), 2), lambda t: t.words.take(Q, 1, word(t), 1, 2)),
    "release": (lambda t: model.release(t, Q, Q, 0), lambda t: t.words.release(Q, Q, 0)),
    "foreign": (lambda t: model.release(t, Q, D, 0), lambda t: t.words.release(Q, D, 0)),
}


@pytest.mark.parametrize("prepare", [tagged_by_nobody, tagged_by_itself, tagged_by_an_operation_under_way])
@pytest.mark.parametrize(
    ("by_model", "by_extension"), BY_MODEL_AND_EXTENSION.values(), ids=BY_MODEL_AND_EXTENSION
)
def test_the_extension_writes_what_the_model_writes(
    tiny: Table,
    prepare: Callable[[Table], None],
    by_model: Callable[[Table], Process],
    by_extension: Callable[[Table], object],
) -> None:
    """Stopped after one write, after two and so on, it leaves the memory as the model does."""
    start = Scenario(prepare, {})
    start.begin(tiny)
    snapshots = [bytes(tiny.cells)]
    steps = by_model(tiny)
    while next(steps, "ended") != "ended":
        snapshots += [bytes(tiny.cells)] if bytes(tiny.cells) != snapshots[-1] else []
    snapshots += [bytes(tiny.cells)] if bytes(tiny.cells) != snapshots[-1] else []
    for writes, snapshot in enumerate(snapshots[1:], start=1):
        start.begin(tiny)
        tiny.words.halt_after(writes)
        with pytest.raises(Halted):
            by_extension(tiny)
        assert bytes(tiny.cells) == snapshot
    start.begin(tiny)
    by_extension(tiny)
    assert bytes(tiny.cells) == snapshots[-1]
