"""Rates go on when their numbers change, and counts stay with their key, however steps and deaths fall."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from lbproc.core.limits.gcra import Decision, RateLimit, carried_over
from lbproc.shm._atomics import Words
from lbproc.shm.keys import KeyTable, repair_claim, run
from lbproc.shm.layout import Capacities
from lbproc.shm.ledger import Ledger
from lbproc.shm.limited import NO_ROOM, REFUSED, Arithmetic, LimitedKeys, with_numbers
from lbproc.shm.repair import repair_ledger
from lbproc.shm.table import Table
from lbproc.types import Column
from tests.shm.interleaving import Process, Scenario, World, explore

SUPERVISOR, Q, C, D = Column(1), Column(2), Column(3), Column(4)
COLUMNS = {"q": Q, "c": C, "d": D}
CLAIMED = 1 << 63
KEY, OTHER_KEY, THIRD_KEY = 1 << 64 | 4, 3 << 64 | 12, 5 << 64 | 20
"""All begin their chains in the first cell."""
FAST, SLOW = RateLimit(interval=10, burst=5), RateLimit(interval=100, burst=3)
NOW = 1000

TINY = Capacities(columns=5, backends=1, pools=1, keys=2, ledger=1, membership_bytes=8, listeners=1, flows=1)


@pytest.fixture
def tiny() -> Iterator[Table]:
    made = Table.create(TINY)
    yield made
    made.close()


GCRA = Arithmetic(RateLimit, carried_over)


@pytest.fixture
def small() -> Iterator[Table]:
    made = Table.create(replace(TINY, keys=8))
    yield made
    made.close()


def charging(column: Column, rate: RateLimit, generation: int) -> Callable[[Table], Process]:
    return lambda table: LimitedKeys(table, column).charge_steps(KEY, NOW, rate, generation, GCRA)


def charge(
    keys: LimitedKeys, rate: RateLimit, now: int = NOW, key: int = KEY, generation: int = 1
) -> bool | None:
    decision = keys.charge(key, now, rate, generation, GCRA)
    return None if decision is None else decision.admitted


def cells_with(table: Table, rate: RateLimit) -> list[int]:
    return cells_of(table, with_numbers(KEY, rate.interval, rate.burst))


def holding(column: Column, key: int = KEY, at_most: int = 0, now: int = NOW) -> Callable[[Table], Process]:
    """Takes one of ``at_most`` + 1 places, by the first entry of the column's ledger."""

    def process(table: Table) -> Process:
        def take(word: int) -> int:
            return 0 if table.words.take(column, 0, word, 1, at_most) else REFUSED

        def release(entry: int) -> None:
            table.words.release(column, column, entry)

        return LimitedKeys(table, column).hold_steps(key, now, take, release)

    return process


def hold(table: Table, column: Column, at_most: int, now: int = NOW, key: int = KEY) -> int:
    ledger = Ledger(table, column)
    return LimitedKeys(table, column).hold(
        key, now, lambda word: ledger.take(word, 1, at_most), ledger.release
    )


def cells_of(table: Table, key: int) -> list[int]:
    found, keys, load = [], table.layout.keys, table.words.load
    for cell in range(keys.blocks):
        word = keys.at(cell, "arrival")
        if 0 < load(word) < CLAIMED >> 1 and (load(word + 1), load(word + 2)) == (
            key & (1 << 64) - 1,
            key >> 64 & (1 << 64) - 1 | 1,
        ):
            found.append(cell)
    return found


def counted(table: Table, key: int) -> int:
    words = tuple(table.layout.keys.at(cell, "concurrency") for cell in cells_of(table, key))
    return sum(table.words.counts(words))


def claimed_cells(table: Table) -> list[int]:
    keys = table.layout.keys
    return [cell for cell in range(keys.blocks) if table.words.load(keys.at(cell, "arrival")) & CLAIMED]


def repair(table: Table, column: Column) -> None:
    table.cells[table.layout.in_column(column, "ledger_high")] = TINY.ledger
    repair_ledger(table, column, SUPERVISOR)
    repair_claim(table, column, now=NOW + 1)


# Rates ------------------------------------------------------------------------------------------------------


def test_a_rate_is_that_of_all_processes(table: Table) -> None:
    mine, theirs = LimitedKeys(table, Q), LimitedKeys(table, C)
    admitted = [charge(keys, SLOW) for keys in (mine, theirs) * 3]
    assert admitted == [True] * SLOW.burst + [False] * 3
    assert charge(mine, SLOW, NOW + 100)
    assert not charge(theirs, SLOW, NOW + 100)
    assert charge(theirs, SLOW, NOW, OTHER_KEY)


def test_a_full_table_counts_nothing(tiny: Table) -> None:
    keys = LimitedKeys(tiny, Q)
    assert charge(keys, SLOW, NOW, OTHER_KEY)
    assert charge(keys, SLOW, NOW, THIRD_KEY)
    assert charge(keys, SLOW) is None
    assert hold(tiny, Q, 5) == NO_ROOM
    assert charge(keys, SLOW, NOW + 101)


def test_what_is_owed_goes_on_in_requests_when_the_numbers_change(table: Table) -> None:
    keys = LimitedKeys(table, Q)
    assert [charge(keys, SLOW), charge(keys, SLOW)] == [True, True]
    new = LimitedKeys(table, C)
    assert [charge(new, FAST, generation=2) for _ in range(4)] == [True, True, True, False]
    assert not cells_with(table, SLOW), "it is carried over once"
    assert charge(keys, SLOW, NOW + 10), "who has not heard of the new numbers obeys them, too"
    assert charge(keys, SLOW, NOW + 10) is False
    assert not cells_with(table, SLOW)
    assert not claimed_cells(table)


def test_numbers_that_come_back_begin_with_what_is_owed_then(table: Table) -> None:
    keys = LimitedKeys(table, Q)
    assert charge(keys, SLOW)
    assert [charge(keys, FAST, generation=2) for _ in range(5)] == [True] * 4 + [False]
    assert charge(keys, SLOW, generation=3) is False, "five are more than a whole burst"
    assert charge(keys, SLOW, NOW + 100, generation=3)
    assert charge(keys, SLOW, NOW + 100, generation=3) is False


def test_numbers_that_come_back_do_not_find_a_cell_that_was_paid(table: Table) -> None:
    keys = LimitedKeys(table, Q)
    assert charge(keys, SLOW)
    later = NOW + 101
    assert [charge(keys, FAST, later, generation=2) for _ in range(5)] == [True] * 5
    assert charge(keys, SLOW, later, generation=3) is False


def test_what_is_owed_is_not_carried_over_again_when_it_is_paid(table: Table) -> None:
    keys = LimitedKeys(table, Q)
    assert [charge(keys, SLOW), charge(keys, SLOW)] == [True, True]
    assert charge(keys, FAST, generation=2)
    later = NOW + 31
    assert charge(keys, FAST, later, OTHER_KEY, generation=2)
    assert [charge(keys, FAST, later, generation=2) for _ in range(6)] == [True] * 5 + [False]


def test_numbers_that_stay_change_nothing(table: Table) -> None:
    keys = LimitedKeys(table, Q)
    for _ in range(3):
        charge(keys, SLOW)
    (cell,) = cells_with(table, SLOW)
    before = bytes(table.cells)
    assert charge(LimitedKeys(table, Q), RateLimit(SLOW.interval, SLOW.burst), generation=2) is False
    assert bytes(table.cells) == before
    assert keys.stands_at(KEY, SLOW) == keys.arrival(cell)
    assert keys.stands_at(KEY, FAST) == 0


def in_debt(table: Table) -> None:
    """Two requests are owed, by the old numbers."""
    for _ in range(2):
        charge(LimitedKeys(table, D), SLOW)


@pytest.mark.soak
def test_two_processes_carry_what_is_owed_over_once(tiny: Table) -> None:
    def check(world: World) -> None:
        table = world.table
        assert len(cells_with(table, FAST)) <= 1
        if not world.running:
            # The old cell and one that is being claimed are all there is: the other may find no room.
            charged = sum(result is not None for result in world.results.values())
            assert charged >= 1
            assert LimitedKeys(table, D).stands_at(KEY, FAST) == NOW + (2 + charged) * FAST.interval
            assert not cells_with(table, SLOW)
            assert not claimed_cells(table)

    scenario = Scenario(in_debt, {"q": charging(Q, FAST, 2), "c": charging(C, FAST, 2)})
    assert explore(tiny, scenario, check) > 500


def owing_nothing(table: Table) -> None:
    """A new table."""


@pytest.mark.soak
def test_a_process_with_old_numbers_beside_one_with_new_ones(tiny: Table) -> None:
    """In the end only the new ones count, and at most what the old ones let in just then is not owed on."""

    def check(world: World) -> None:
        table = world.table
        assert len(cells_with(table, FAST)) <= 1
        assert len(cells_with(table, SLOW)) <= 1
        if not world.running:
            assert not claimed_cells(table)
            assert not cells_with(table, SLOW)
            stands_at = LimitedKeys(table, D).stands_at(KEY, FAST)
            ends.add((stands_at - NOW) // FAST.interval)

    ends: set[int] = set()
    scenario = Scenario(in_debt, {"q": charging(Q, FAST, 2), "c": charging(C, SLOW, 1)})
    assert explore(tiny, scenario, check) > 500
    assert ends == {3, 4}


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [in_debt, owing_nothing])
def test_three_generations_at_once_in_random_interleavings_with_deaths(
    small: Table, prepare: Callable[[Table], None]
) -> None:
    """The latest numbers are left, and no others, and nothing is claimed."""
    random = Random(6)
    rates = {"q": (FAST, 2), "c": (SLOW, 1), "d": (RateLimit(interval=50, burst=9), 3)}
    processes = {name: charging(COLUMNS[name], *rate) for name, rate in rates.items()}
    scenario = Scenario(prepare, processes, ["q"])
    scenario.begin(small)
    for turn in range(2000):
        world = World(small, scenario, ())
        while world.running:
            # In runs of several steps, so that processes get far ahead of each other.
            name = random.choice(list(world.running))
            if turn % 2 and name == "q" and random.random() < 0.03:
                world.act(("kill", name))
            for _ in range(random.choice([1, 1, 3, 10])):
                if name in world.running:
                    world.act(("step", name))
        for name in world.dead:
            repair(small, COLUMNS[name])
        assert all(result.admitted for result in world.results.values())
        assert not claimed_cells(small)
        left = [len(cells_with(small, rate)) for rate, _ in rates.values()]
        assert left[1:] == [0, 1]
        assert left[0] == 0 or world.dead


def test_repair_completes_a_cell_that_was_being_retired(tiny: Table) -> None:
    """Stopped after every step. The time grows, although it lies in the future."""
    in_debt(tiny)
    start = bytes(tiny.cells)
    (cell,) = cells_with(tiny, SLOW)
    stood_at = KeyTable(tiny, D).arrival(cell)
    caught = 0
    for steps in range(200):
        tiny.cells[:] = memoryview(start).cast("Q")
        process = charging(Q, FAST, 2)(tiny)
        if any(next(process, "ended") == "ended" for _ in range(steps)):
            break
        process.close()
        was_claimed = bool(KeyTable(tiny, D).arrival(cell) & CLAIMED)
        assert repair_claim(tiny, Q, NOW + 1) or not was_claimed
        assert KeyTable(tiny, D).arrival(cell) >= stood_at
        assert not claimed_cells(tiny)
        assert tiny.words.load(tiny.layout.in_column(Q, "claimed_from")) == 0
        caught += was_claimed
    assert caught == 3


# Counts -----------------------------------------------------------------------------------------------------


def test_no_more_are_held_than_may_be_and_all_come_back(table: Table) -> None:
    entries = [hold(table, Q, 1), hold(table, C, 1), hold(table, D, 1)]
    assert entries == [0, 0, REFUSED]
    assert counted(table, KEY) == 2
    table.words.release(Q, Q, 0)
    table.words.release(C, C, 0)
    assert counted(table, KEY) == 0


def test_a_cell_that_counts_keeps_its_key(tiny: Table) -> None:
    assert hold(tiny, Q, 0) == 0
    assert hold(tiny, C, 0, NOW + 500, OTHER_KEY) == 0
    assert hold(tiny, D, 0, NOW + 1000, THIRD_KEY) == NO_ROOM
    tiny.words.release(Q, Q, 0)
    assert hold(tiny, D, 0, NOW + 1000, THIRD_KEY) == 0
    assert hold(tiny, Q, 0, NOW + 1000) == NO_ROOM


def empty(table: Table) -> None:
    """A new table."""


def past_keys(table: Table) -> None:
    """Every cell was used by a key whose time is past."""
    for number in (7, 9):
        assert KeyTable(table, D).claim(number << 64, now=10) is not None


def key_past(table: Table) -> None:
    """The key itself is there, alone with another one, both with times in the past."""
    KeyTable(table, D).claim(OTHER_KEY, now=10)
    KeyTable(table, D).claim(KEY, now=10)


def entries_held(table: Table, column: Column) -> int:
    return int(table.cells[table.layout.in_column(column, "ledger")] != 0)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [empty, past_keys, key_past])
def test_of_two_that_want_the_last_place_one_gets_it(tiny: Table, prepare: Callable[[Table], None]) -> None:
    def check(world: World) -> None:
        got = [name for name, result in world.results.items() if result == 0]
        assert len(got) <= 1
        assert counted(world.table, KEY) >= len(got)
        if not world.running and not world.dead:
            assert len(got) == 1
            assert counted(world.table, KEY) == 1
        elif world.dead:
            for name in world.dead:
                repair(world.table, COLUMNS[name])
            world.finish()
            assert counted(world.table, KEY) == sum(result == 0 for result in world.results.values())
            assert not claimed_cells(world.table)

    scenario = Scenario(prepare, {"q": holding(Q), "c": holding(C)}, ["q"])
    assert explore(tiny, scenario, check) > 200


@pytest.mark.slow
def test_a_place_is_never_counted_for_a_key_that_has_taken_the_cell(tiny: Table) -> None:
    """Both cells are in the past: C wants one for a key of its own while Q counts in it, and may die."""

    def check(world: World) -> None:
        table = world.table
        if world.results.get("q") == 0:
            assert counted(table, KEY) == 1
        if world.results.get("c") == 0:
            assert counted(table, THIRD_KEY) >= 1
        if world.dead:
            repair(table, Q)
            world.finish()
            assert counted(table, KEY) == 0
            assert counted(table, THIRD_KEY) == (world.results["c"] == 0)
        elif not world.running:
            assert counted(table, KEY) == (world.results["q"] == 0) == entries_held(table, Q)
            assert counted(table, THIRD_KEY) == (world.results["c"] == 0) == entries_held(table, C)
            outcomes.add((world.results["q"], world.results["c"]))

    outcomes: set[tuple[int, int]] = set()

    def prepare(table: Table) -> None:
        key_past(table)
        keys = KeyTable(table, D)
        keys.update(OTHER_KEY, NOW, partial(_later, NOW + 500))

    scenario = Scenario(prepare, {"q": holding(Q), "c": holding(C, THIRD_KEY)}, ["q"])
    assert explore(tiny, scenario, check) > 200
    assert outcomes >= {(0, NO_ROOM), (NO_ROOM, 0)}


def _later(until: int, arrival: int) -> Decision:
    return Decision(admitted=True, arrival_at=max(arrival, until), retry_after=0, remaining=0)


def test_a_claim_after_a_hold_sees_that_the_time_has_moved(tiny: Table) -> None:
    key_past(tiny)
    (cell,) = cells_of(tiny, KEY)
    before = KeyTable(tiny, C).arrival(cell)
    assert run(holding(Q)(tiny)) == 0
    assert KeyTable(tiny, C).arrival(cell) == before + 1


class Interrupting:
    """The words of a table, with something that happens before the next swap, or before a load."""

    def __init__(self, words: Words, before_swap: Callable[[], object], loads: int = -1) -> None:
        self._load, self._swap = words.load, words.compare_exchange
        self._before = [before_swap]
        self._loads = loads

    def load(self, word: int) -> int:
        self._loads -= 1
        if self._loads == 0:
            self._before.pop()()
        return self._load(word)

    def compare_exchange(self, word: int, expected: int, desired: int) -> bool:
        while self._before:
            self._before.pop()()
        return self._swap(word, expected, desired)


def interrupted(table: Table, by: Callable[[], object], loads: int = -1) -> LimitedKeys:
    keys = LimitedKeys(table, Q)
    keys._words = Interrupting(table.words, by, loads)  # type: ignore[assignment]
    return keys


def test_a_key_whose_time_moves_while_it_is_looked_for_is_found(table: Table) -> None:
    other = LimitedKeys(table, C)
    assert charge(other, SLOW)
    looking = interrupted(table, lambda: charge(other, SLOW), loads=4)
    assert looking.stands_at(KEY, SLOW) == NOW + 2 * SLOW.interval


def test_a_charge_counts_when_somebody_else_was_quicker(table: Table) -> None:
    other = LimitedKeys(table, C)
    assert charge(other, SLOW)
    assert charge(interrupted(table, lambda: charge(other, SLOW)), SLOW)
    assert other.stands_at(KEY, SLOW) == NOW + 3 * SLOW.interval


def test_a_place_is_kept_when_somebody_else_has_only_moved_the_time(table: Table) -> None:
    assert hold(table, C, 5) == 0
    ledger = Ledger(table, Q)
    keys = interrupted(table, lambda: hold(table, D, 5))
    assert keys.hold(KEY, NOW, lambda word: ledger.take(word, 1, 5), ledger.release) == 0
    assert counted(table, KEY) == 3


def test_a_place_is_given_back_where_the_key_has_lost_its_cell(tiny: Table) -> None:
    """Beside one in which another key counts already, and a third takes the key's own."""
    KeyTable(tiny, D).update(OTHER_KEY, 10, partial(_later, NOW + 500))
    KeyTable(tiny, D).claim(KEY, 10)
    (cell,) = cells_of(tiny, KEY)
    word = tiny.layout.keys.at(cell, "arrival")

    def lose() -> None:
        tiny.words.store(word + 1, THIRD_KEY & 0xFFFF)
        tiny.words.store(word, NOW + 500)

    ledger = Ledger(tiny, Q)
    keys = interrupted(tiny, lose)
    assert keys.hold(KEY, NOW, lambda word: ledger.take(word, 1, 5), ledger.release) == NO_ROOM
    assert len(ledger) == 0
    assert tiny.words.counts((keys.concurrency_word(cell),)) == [0]


def test_a_rate_and_a_count_of_one_key_do_not_meet(table: Table) -> None:
    assert hold(table, Q, 0) == 0
    assert charge(LimitedKeys(table, C), SLOW)
    assert charge(LimitedKeys(table, C), FAST, generation=2)
    assert counted(table, KEY) == 1


# Processes --------------------------------------------------------------------------------------------------


def forked(work: Callable[[int], int], count: int) -> list[int]:
    """What each of so many processes comes to, 0 to 255."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(work(number))
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.mark.slow
def test_four_processes_share_one_rate_exactly(table: Table) -> None:
    rate = RateLimit(interval=10, burst=200)

    def work(number: int) -> int:
        keys = LimitedKeys(table, Column(2 + number))
        return sum(bool(charge(keys, rate)) for _ in range(200))

    assert sum(forked(work, 4)) == 200


@pytest.mark.slow
def test_each_numbers_hold_while_four_processes_change_them(table: Table) -> None:
    """At one instant: what the old ones let in, and then what the new ones do."""
    wide, narrow = RateLimit(interval=10, burst=90), RateLimit(interval=1000, burst=60)

    def work(number: int) -> int:
        keys = LimitedKeys(table, Column(2 + number))
        rate, generation = (narrow, 2) if number % 2 else (wide, 1)
        return sum(bool(charge(keys, rate, generation=generation)) for _ in range(200))

    admitted = forked(work, 4)
    assert narrow.burst <= sum(admitted) <= wide.burst + narrow.burst
    assert not cells_with(table, wide)
    assert LimitedKeys(table, Q).stands_at(KEY, narrow) == NOW + narrow.burst * narrow.interval
    assert not claimed_cells(table)


@pytest.mark.slow
def test_four_processes_never_hold_more_than_may_be(table: Table) -> None:
    def work(number: int) -> int:
        ledger = Ledger(table, Column(2 + number))
        keys = LimitedKeys(table, Column(2 + number))
        too_many = 0
        for turn in range(2000):
            entry = keys.hold(KEY, NOW + turn, lambda word: ledger.take(word, 1, 1), ledger.release)
            too_many += counted(table, KEY) > 2
            if entry >= 0:
                ledger.release(entry)
        return min(too_many, 255)

    assert forked(work, 4) == [0, 0, 0, 0]
    assert counted(table, KEY) == 0
