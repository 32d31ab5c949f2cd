"""A key has at most one cell, at every moment of every interleaving, also with processes that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest

from lbproc.shm.keys import CHAIN, KeyTable, repair_claim, repair_claim_steps, run
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.types import Column
from tests.shm.interleaving import Process, Scenario, World, explore

SUPERVISOR, Q, C, D = Column(1), Column(2), Column(3), Column(4)
CLAIMED = 1 << 63
KEY, OTHER_KEY, THIRD_KEY = 1 << 64 | 4, 3 << 64 | 4, 5 << 64 | 4
"""All begin their chains in the first cell."""

TINY = Capacities(columns=5, backends=1, pools=1, keys=2, ledger=1, membership_bytes=8, listeners=2, flows=2)


@pytest.fixture
def tiny() -> Iterator[Table]:
    made = Table.create(TINY)
    yield made
    made.close()


@dataclass(frozen=True)
class Later:
    """What a rule says."""

    arrival_at: int


def by(amount: int) -> Callable[[int], Later]:
    return lambda arrival: Later(arrival + amount)


def cells_of(table: Table, key: int) -> list[int]:
    """Cells that confirmedly have a key."""
    keys, words = table.layout.keys, table.words
    found = []
    for cell in range(keys.blocks):
        word = keys.at(cell, "arrival")
        arrival = words.load(word)
        if 0 < arrival < CLAIMED and (words.load(word + 1), words.load(word + 2)) == (
            key & (1 << 64) - 1,
            key >> 64,
        ):
            found.append(cell)
    return found


def claimed_cells(table: Table) -> list[int]:
    keys = table.layout.keys
    return [cell for cell in range(keys.blocks) if table.words.load(keys.at(cell, "arrival")) & CLAIMED]


def claiming(column: Column, key: int, now: int) -> Callable[[Table], Process]:
    return lambda table: KeyTable(table, column).claim_steps(key, now)


def updating(column: Column, key: int, now: int, amount: int) -> Callable[[Table], Process]:
    return lambda table: KeyTable(table, column).update_steps(key, now, by(amount))


def test_a_claimed_key_is_found_again(table: Table) -> None:
    mine, theirs = KeyTable(table, Q), KeyTable(table, C)
    cell = mine.claim(KEY, now=100)
    assert cell is not None
    assert theirs.claim(KEY, now=200) == cell
    assert mine.claim(OTHER_KEY, now=100) != cell
    assert mine.arrival(cell) == 100


def test_a_full_chain_says_so_and_has_room_again_when_a_time_is_past(table: Table) -> None:
    keys = KeyTable(table, Q)
    cells = [keys.claim(number << 64 | 1, now=100) for number in (1, 3, 5, 7)]
    assert sorted(cell for cell in cells if cell is not None) == [0, 1, 2, 3]
    assert keys.claim(9 << 64 | 1, now=100) is None
    assert keys.update(9 << 64 | 1, 100, by(1)) is None
    assert keys.claim(9 << 64 | 1, now=101) == cells[0]
    assert keys.claim(1 << 64 | 1, now=101) == cells[1], (
        "the key lost its cell and takes the next that is free"
    )


def test_a_chain_is_bounded() -> None:
    table = Table.create(
        Capacities(
            columns=3, backends=1, pools=1, keys=2 * CHAIN, ledger=1, membership_bytes=8, listeners=2, flows=2
        )
    )
    keys = KeyTable(table, Q)
    assert None not in {keys.claim(number << 65, now=1) for number in range(CHAIN)}
    assert keys.claim(CHAIN << 65, now=1) is None
    assert keys.claim(1, now=1) == CHAIN
    table.close()


def test_a_cell_that_counts_something_is_not_reused(table: Table) -> None:
    keys = KeyTable(table, Q)
    cells = [keys.claim(number << 64 | 1, now=100) for number in (1, 3, 5, 7)]
    assert cells[0] is not None
    assert table.words.take(Q, 0, keys.concurrency_word(cells[0]), 1, 0)
    assert keys.claim(9 << 64 | 1, now=200) == cells[1]


def test_an_update_moves_the_time_by_the_rule(table: Table) -> None:
    keys = KeyTable(table, Q)
    assert keys.update(KEY, 100, by(7)) == Later(107)
    assert keys.update(KEY, 100, by(7)) == Later(114)
    assert keys.update(KEY, 100, by(0)) == Later(114), "refused: nothing changes"
    cell = keys.claim(KEY, 100)
    assert cell is not None
    assert keys.arrival(cell) == 114


@pytest.mark.parametrize("amount", [-1, 1 << 62])
def test_a_rule_that_does_not_let_time_grow_is_a_defect(table: Table, amount: int) -> None:
    with pytest.raises(ValueError, match="must grow"):
        KeyTable(table, Q).update(KEY, 100, by(amount))


def test_nobody_has_no_keys(table: Table) -> None:
    with pytest.raises(ValueError, match="nobody"):
        KeyTable(table, Column(0))


def test_random_keys_behave_like_a_dictionary(table: Table) -> None:
    random, keys = Random(7), KeyTable(table, Q)
    expected: dict[int, int] = {}
    for now in range(1, 200):
        hash128 = random.choice([KEY, OTHER_KEY, THIRD_KEY])
        arrival = max(expected.get(hash128, now), now)
        decision = keys.update(hash128, now, lambda stored, now=now: Later(max(stored, now) + 3))  # type: ignore[misc]
        expected[hash128] = arrival + 3
        assert decision == Later(arrival + 3)


def check_one_cell(world: World) -> None:
    assert len(cells_of(world.table, KEY)) <= 1
    if not world.running and not world.dead:
        assert len(cells_of(world.table, KEY)) == 1
        assert not claimed_cells(world.table)


def check_repaired(world: World) -> None:
    check_one_cell(world)
    if world.dead:
        for name in world.dead:
            repair_claim(world.table, {"q": Q, "c": C}[name], now=1000)
        world.finish()
        assert not claimed_cells(world.table)
        assert len(cells_of(world.table, KEY)) <= 1
        assert run(KeyTable(world.table, D).claim_steps(KEY, 2000)) is not None
        assert len(cells_of(world.table, KEY)) == 1


def empty(table: Table) -> None:
    """A new table."""


def past_keys(table: Table) -> None:
    """Every cell was used by a key whose time is past."""
    for number in (7, 9):
        assert KeyTable(table, D).claim(number << 64, now=10) is not None


def key_past(table: Table) -> None:
    """The key itself is there, after another one, both with times in the past."""
    KeyTable(table, D).claim(OTHER_KEY, now=10)
    KeyTable(table, D).claim(KEY, now=10)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [empty, past_keys, key_past])
def test_two_claims_of_one_key_at_once_and_deaths(tiny: Table, prepare: Callable[[Table], None]) -> None:
    scenario = Scenario(prepare, {"q": claiming(Q, KEY, 100), "c": claiming(C, KEY, 90)}, ["q", "c"])
    assert explore(tiny, scenario, check_repaired) > 20


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [past_keys, key_past])
def test_a_claim_beside_the_reuse_of_cells_for_another_key(
    tiny: Table, prepare: Callable[[Table], None]
) -> None:
    scenario = Scenario(prepare, {"q": claiming(Q, KEY, 100), "c": claiming(C, THIRD_KEY, 100)}, ["q", "c"])

    def check(world: World) -> None:
        assert len(cells_of(world.table, KEY)) <= 1
        assert len(cells_of(world.table, THIRD_KEY)) <= 1
        if "q" in world.results and "c" in world.results:
            assert len({world.results["q"], world.results["c"]}) == 2
        elif world.dead:
            for name in world.dead:
                repair_claim(world.table, {"q": Q, "c": C}[name], now=1000)
            world.finish()
            assert not claimed_cells(world.table)

    assert explore(tiny, scenario, check) > 100


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [empty, past_keys, key_past])
def test_two_updates_of_one_key_both_count(tiny: Table, prepare: Callable[[Table], None]) -> None:
    scenario = Scenario(prepare, {"q": updating(Q, KEY, 100, 7), "c": updating(C, KEY, 100, 30)})

    def check(world: World) -> None:
        check_one_cell(world)
        if not world.running:
            (cell,) = cells_of(world.table, KEY)
            arrival = KeyTable(world.table, D).arrival(cell)
            assert arrival == (47 if prepare is key_past else 137)

    assert explore(tiny, scenario, check) > 100


@pytest.mark.slow
def test_an_update_never_lands_on_another_key_that_takes_the_cell(tiny: Table) -> None:
    """The key's time is past, and its cell is the only one that C's key can take."""

    def prepare(table: Table) -> None:
        KeyTable(table, D).update(OTHER_KEY, 10, by(1000))
        KeyTable(table, D).claim(KEY, 10)

    def check(world: World) -> None:
        if not world.running:
            (cell,) = cells_of(world.table, THIRD_KEY)
            assert KeyTable(world.table, D).arrival(cell) == 150
            assert not cells_of(world.table, KEY)
            outcomes.add(world.results["q"])

    outcomes: set[Later | None] = set()
    processes = {"q": updating(Q, KEY, 100, 7), "c": updating(C, THIRD_KEY, 100, 50)}
    assert explore(tiny, Scenario(prepare, processes), check) > 100
    assert outcomes == {None, Later(17)}


@pytest.mark.slow
def test_claims_beside_the_proposal_of_a_dead_process(tiny: Table) -> None:
    """D died with its proposal in the second cell, and the first cell has become free again."""

    def prepare(table: Table) -> None:
        past_keys(table)
        first, second = (table.layout.keys.at(cell, "arrival") for cell in (0, 1))
        table.words.store(first, 1000)
        steps = KeyTable(table, D).claim_steps(KEY, 50)
        while not table.words.load(second) & 1 << 62:
            next(steps)
        table.words.store(first, 10)

    scenario = Scenario(prepare, {"q": claiming(Q, KEY, 100), "c": claiming(C, KEY, 90)})

    def check(world: World) -> None:
        assert len(cells_of(world.table, KEY)) <= 1
        if not world.running:
            assert len(cells_of(world.table, KEY)) == 1
            repair_claim(world.table, D, now=1000)
            assert len(cells_of(world.table, KEY)) == 1
            assert not claimed_cells(world.table)
            world.finish()

    assert explore(tiny, scenario, check) > 100


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [empty, past_keys])
def test_three_claims_of_one_key_in_random_interleavings(
    tiny: Table, prepare: Callable[[Table], None]
) -> None:
    """Three at once have too many interleavings for all of them."""
    random = Random(5)
    processes = {"q": claiming(Q, KEY, 100), "c": claiming(C, KEY, 90), "d": claiming(D, KEY, 80)}
    scenario = Scenario(prepare, processes)
    scenario.begin(tiny)
    for _ in range(3000):
        world = World(tiny, scenario, ())
        while world.running:
            # In runs of several steps, so that processes get far ahead of each other.
            name = random.choice(list(world.running))
            for _ in range(random.choice([1, 1, 3, 10])):
                if name in world.running:
                    world.act(("step", name))
                    assert len(cells_of(tiny, KEY)) <= 1
        check_one_cell(world)


@pytest.mark.slow
def test_a_repair_that_stops_anywhere_can_begin_again(tiny: Table) -> None:
    def repairs(table: Table) -> Process:
        return repair_claim_steps(table, Q, 1000)

    def check(world: World) -> None:
        if "q" in world.dead:
            repair_claim(world.table, Q, 1001)
            world.running.pop("after q", None)
            world.finish()
            assert not claimed_cells(world.table)

    scenario = Scenario(
        past_keys,
        {"q": claiming(Q, KEY, 100), "c": claiming(C, KEY, 90)},
        ["q"],
        {"q": repairs},
    )
    assert explore(tiny, scenario, check) > 100


def test_repair_of_a_column_that_claims_nothing_changes_nothing(tiny: Table) -> None:
    KeyTable(tiny, Q).claim(KEY, 100)
    before = bytes(tiny.cells)
    assert not repair_claim(tiny, Q, 1000)
    assert bytes(tiny.cells) == before
