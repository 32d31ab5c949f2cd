"""A place is given to another backend or pool only when nobody can touch it in the name of the old one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbproc.core.control.departures import Departures, Key
from lbproc.types import Row

A, B, C = ("web", "a"), ("web", "b"), ("web", "c")


Rows = Departures[Key, Row]


def nobody(_key: Key, _row: Row) -> bool:
    return False


def test_what_is_published_stays() -> None:
    departures = Rows()
    departures.published({A: Row(0), B: Row(1)}, 1)
    assert not departures.has_gone()
    assert departures.free([1], nobody) == []


def test_one_that_is_gone_is_free_when_all_follow_and_nobody_holds_it() -> None:
    departures = Rows()
    departures.published({A: Row(0), B: Row(1)}, 1)
    departures.published({B: Row(1)}, 2)
    assert departures.is_gone(A)
    assert departures.free([2, 1], nobody) == []
    assert departures.free([2, 0], nobody) == []
    assert departures.free([2, 3], lambda key, row: True) == []
    assert departures.free([2, 3], nobody, {A}) == []
    assert departures.free([2, 3], nobody) == [A]
    assert departures.free([2, 3], nobody) == []
    assert not departures.has_gone()


def test_who_holds_it_is_asked_only_when_all_have_left_it_behind() -> None:
    departures = Rows()
    departures.published({A: Row(0)}, 1)
    departures.published({}, 2)
    asked: list[tuple[Key, Row]] = []

    def is_held(key: Key, row: Row) -> bool:
        asked.append((key, row))
        return False

    departures.free([1], is_held)
    assert asked == []
    departures.free([], is_held)  # nobody is there to hold it
    assert asked == [(A, 0)]


def test_one_that_comes_back_keeps_its_row() -> None:
    departures = Rows()
    departures.published({A: Row(0)}, 1)
    departures.published({}, 2)
    departures.published({A: Row(0)}, 3)
    assert departures.free([3], nobody) == []
    departures.published({}, 4)
    assert departures.free([3], nobody) == []
    assert departures.free([4], nobody) == [A]


def test_what_was_prepared_and_discarded_is_free_when_its_trial_is_over() -> None:
    departures = Rows()
    departures.published({A: Row(0), C: Row(2)}, 1)
    departures.published({A: Row(0)}, 2)
    prepared = {A: Row(0), B: Row(1), C: Row(2)}
    assert departures.are_published([A])
    assert not departures.are_published(prepared)
    assert departures.free([2], nobody, prepared) == [], "one of them is gone, and wanted again"
    departures.published({A: Row(0)}, 3)
    departures.discarded(prepared, epoch=3)
    assert departures.free([2], nobody) == []
    assert departures.free([3], nobody) == [C, B]


def test_what_was_tried_although_it_is_gone_is_free_when_the_trial_is_over() -> None:
    departures = Rows()
    departures.published({A: Row(0), B: Row(1)}, 1)
    departures.published({B: Row(1)}, 2)
    departures.tried([A, B, C], 4)
    departures.tried([A], 3)
    assert departures.free([3], nobody) == []
    assert departures.free([4], nobody) == [A]
    assert not departures.has_gone()


class Workers(RuleBasedStateMachine):
    """Processes that follow when they please and hold places; rows that go from one backend to another.

    Each process remembers the rows of what it follows, and what is left of it picks by rows that it keeps. A
    checker is told of what is prepared, or is not told any more; it follows only while it checks none of it.
    Judged is that a free row is in nobody's memory, and that nobody holds a place on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.departures = Rows()
        self.rows: dict[Key, Row] = {}
        self.owners: dict[Row, Key] = {}
        self.epoch = 0
        self.blob: dict[Key, Row] = {}
        self.followed = [0, 0, 0]
        self.known: list[dict[Key, Row]] = [{}, {}, {}]
        self.kept: list[dict[Key, Row]] = [{}, {}, {}]
        self.held: list[list[tuple[Key, Row]]] = [[], [], []]
        self.prepared: dict[Key, Row] = {}
        self.checked: dict[Key, Row] = {}
        self.checker_follows = 0

    def row_of(self, key: Key) -> Row:
        if key not in self.rows:
            row = next(Row(number) for number in range(9) if Row(number) not in self.owners)
            self.rows[key], self.owners[row] = row, key
        return self.rows[key]

    def _publish(self, keys: Iterable[Key]) -> None:
        self.epoch += 1
        self.blob = {key: self.row_of(key) for key in keys}
        self.departures.published(self.blob, self.epoch)

    @rule(keys=st.sets(st.sampled_from([A, B, C])))
    def publish(self, keys: set[Key]) -> None:
        self._publish(keys)

    @precondition(lambda self: not self.prepared)
    @rule(keys=st.sets(st.sampled_from([A, B, C]), min_size=1))
    def prepare(self, keys: set[Key]) -> None:
        self.prepared = {key: self.row_of(key) for key in keys}

    @precondition(lambda self: self.prepared)
    @rule()
    def rehearse(self) -> None:
        """A message that comes late finds that nothing is prepared any more, so this needs no rule."""
        self.checked = dict(self.prepared)

    @precondition(lambda self: self.prepared)
    @rule()
    def discard(self) -> None:
        prepared, self.prepared = self.prepared, {}
        if not self.departures.are_published(prepared):
            self._publish(self.blob)
            self.departures.discarded(prepared, self.epoch)

    @precondition(lambda self: self.prepared)
    @rule()
    def commit(self) -> None:
        prepared, self.prepared = self.prepared, {}
        self._publish(prepared)
        self.departures.tried(prepared, self.epoch)

    @precondition(lambda self: self.checked)
    @rule()
    def end_checks(self) -> None:
        self.checked = {}

    @precondition(lambda self: not self.checked and self.checker_follows < self.epoch)
    @rule()
    def follow_as_checker(self) -> None:
        self.checker_follows = self.epoch

    @rule(who=st.integers(0, 2), keeps=st.booleans())
    def follow(self, who: int, keeps: bool) -> None:
        if keeps:
            self.kept[who] |= self.known[who]
        self.known[who], self.followed[who] = self.blob, self.epoch

    @rule(keeps=st.booleans())
    def follow_all(self, keeps: bool) -> None:
        for who in range(3):
            self.keep_no_more(who)
            self.follow(who, keeps)
        if not self.checked:
            self.follow_as_checker()

    @rule(who=st.integers(0, 2))
    def keep_no_more(self, who: int) -> None:
        self.kept[who] = {}

    @rule(who=st.integers(0, 2), data=st.data())
    def take(self, who: int, data: st.DataObject) -> None:
        # It may have looked at the epoch before it changed, so it takes by whatever it knows.
        if known := sorted({**self.known[who], **self.kept[who]}.items()):
            self.held[who].append(data.draw(st.sampled_from(known)))

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([held for held in self.held if held])).pop()

    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        self.known[who], self.kept[who], self.followed[who], self.held[who] = {}, {}, 0, []

    @rule()
    def free(self) -> None:
        def is_held(key: Key, row: Row) -> bool:
            kept = any(key in kept for kept in self.kept)
            return kept or any(held_row == row for held in self.held for _, held_row in held)

        for key in self.departures.free([*self.followed, self.checker_follows], is_held, self.prepared):
            del self.owners[self.rows.pop(key)]

    @invariant()
    def nobody_knows_or_holds_the_row_of_another(self) -> None:
        places = [self.prepared, self.checked, *self.known, *self.kept]
        for key, row in [*chain.from_iterable(place.items() for place in places), *chain(*self.held)]:
            assert self.owners.get(row) == key


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
