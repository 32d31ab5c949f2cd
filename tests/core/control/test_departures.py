"""A row is given to another backend only when nobody can touch it in the name of the old one."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbproc.core.control.departures import Departures, Key
from lbproc.types import Row

A, B, C = ("web", "a"), ("web", "b"), ("web", "c")


def nothing(_: Row) -> int:
    return 0


def test_what_is_published_stays() -> None:
    departures = Departures()
    departures.published({A: Row(0), B: Row(1)}, 1)
    assert not departures.has_gone()
    assert departures.free([1], nothing) == []


def test_one_that_is_gone_is_free_when_all_follow_and_nothing_is_in_flight() -> None:
    departures = Departures()
    departures.published({A: Row(0), B: Row(1)}, 1)
    departures.published({B: Row(1)}, 2)
    assert departures.is_gone(A)
    assert departures.free([2, 1], nothing) == []
    assert departures.free([2, 0], nothing) == []
    assert departures.free([2, 3], lambda row: 1) == []
    assert departures.free([2, 3], nothing) == [(A, Row(0))]
    assert departures.free([2, 3], nothing) == []
    assert not departures.has_gone()


def test_in_flight_is_asked_only_when_all_have_left_it_behind() -> None:
    departures = Departures()
    departures.published({A: Row(0)}, 1)
    departures.published({}, 2)
    asked: list[Row] = []

    def in_flight(row: Row) -> int:
        asked.append(row)
        return 0

    departures.free([1], in_flight)
    assert asked == []
    departures.free([], in_flight)  # nobody is there to hold it
    assert asked == [0]


def test_one_that_comes_back_keeps_its_row() -> None:
    departures = Departures()
    departures.published({A: Row(0)}, 1)
    departures.published({}, 2)
    departures.published({A: Row(0)}, 3)
    assert departures.free([3], nothing) == []
    departures.published({}, 4)
    assert departures.free([3], nothing) == []
    assert departures.free([4], nothing) == [(A, Row(0))]


def test_what_was_prepared_and_discarded_is_free_when_its_trial_is_over() -> None:
    departures = Departures()
    departures.published({A: Row(0)}, 1)
    prepared = {A: Row(0), B: Row(1)}
    assert departures.are_new(prepared)
    departures.discarded(prepared, epoch=2)
    assert not departures.are_new(prepared)
    departures.published({A: Row(0)}, 2)
    assert departures.free([1], nothing) == []
    assert departures.free([2], nothing) == [(B, Row(1))]


class Workers(RuleBasedStateMachine):
    """Processes that follow when they please and hold places; rows that go from one backend to another.

    Each process remembers the rows of what it follows. Judged is that a free row is in nobody's memory, and
    that nobody holds a place on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.departures = Departures()
        self.rows: dict[Key, Row] = {}
        self.owners: dict[Row, Key] = {}
        self.epoch = 0
        self.blob: dict[Key, Row] = {}
        self.followed = [0, 0, 0]
        self.known: list[dict[Key, Row]] = [{}, {}, {}]
        self.held: list[list[tuple[Key, Row]]] = [[], [], []]

    def row_of(self, key: Key) -> Row:
        if key not in self.rows:
            row = next(Row(number) for number in range(9) if Row(number) not in self.owners)
            self.rows[key], self.owners[row] = row, key
        return self.rows[key]

    @rule(keys=st.sets(st.sampled_from([A, B, C])))
    def publish(self, keys: set[Key]) -> None:
        self.epoch += 1
        self.blob = {key: self.row_of(key) for key in keys}
        self.departures.published(self.blob, self.epoch)

    @rule(who=st.integers(0, 2))
    def follow(self, who: int) -> None:
        self.known[who], self.followed[who] = self.blob, self.epoch

    @rule(who=st.integers(0, 2), data=st.data())
    def take(self, who: int, data: st.DataObject) -> None:
        # It may have looked at the epoch before it changed, so it takes by whatever it knows.
        if self.known[who]:
            self.held[who].append(data.draw(st.sampled_from(sorted(self.known[who].items()))))

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([held for held in self.held if held])).pop()

    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        self.known[who], self.followed[who], self.held[who] = {}, 0, []

    @rule()
    def free(self) -> None:
        def in_flight(row: Row) -> int:
            return sum(held_row == row for held in self.held for _, held_row in held)

        for key, row in self.departures.free(list(self.followed), in_flight):
            assert self.rows.pop(key) == row
            del self.owners[row]

    @invariant()
    def nobody_knows_or_holds_the_row_of_another(self) -> None:
        for known, held in zip(self.known, self.held, strict=True):
            for key, row in [*known.items(), *held]:
                assert self.owners.get(row) == key


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
