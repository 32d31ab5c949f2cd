"""What limits count for their keys: rates in the time of a cell, what is open at once in its counted word.

Owns how a rate goes on when its numbers change, and the rule by which something counts in a cell that could
lose its key at any moment. Does not own the arithmetic of rates: the caller passes it.

Theory of operation.

*Rates.* A time means something only with the numbers, interval and burst, that it was made with. So the
numbers are part of the key: with other numbers a key has another cell, made when it is first needed. All
cells of one key have the same chain and low word, and each remembers its numbers and their generation.

Whoever finds no cell with the numbers it knows looks for others. If one is of a later generation, it charges
by those numbers instead. Else it makes a cell, which begins with what is owed in the others, in requests.
Then it looks once more, and *retires* all but the latest: it claims the cell, takes the key out, and leaves
it at one more than the time it had, so times go on growing. Of two that make cells at once at least one sees
the other. So what is owed goes on, once, whoever comes first, also if no process is left that knew the old
numbers, and when they come back later. Each cell is never charged beyond its own numbers. What is let in by
the old ones between the look and the retirement is the only thing that may be owed to nobody.

A process may die before it has retired a cell. Then what is owed there may be carried over again when the new
cell has been given up: somebody waits too long, and nobody is let in too often. A death in the middle of
retiring is completed by ``repair_claim``: ``claimed_from`` says which time must be exceeded.

*Counts.* See the last rule of ``keys``. The place is taken through the ledger, so a death at any instruction
gives it back. For an instant a place may be taken in a cell that another key has just got; that key can be
refused for it, but nobody is let in too much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from lbproc.shm.keys import (
    BURST,
    CLAIMED,
    GENERATION,
    INTERVAL,
    KEY_LOW,
    PROPOSED,
    WORD,
    Beginning,
    Decision,
    KeyTable,
    Steps,
    give_back,
    run,
    split,
)
from lbproc.shm.table import Table
from lbproc.types import Column

REFUSED = -1
"""In place of a ledger entry: the key counts as many as it may."""

NO_ROOM = -2
"""In place of a ledger entry: the chain of the key is full."""

_MIX_INTERVAL, _MIX_BURST = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
"""Odd numbers with bits all over: different numbers of a limit give different keys."""


class RateDecision(Decision, Protocol):
    """What a rate limit says."""

    @property
    def admitted(self) -> bool:
        """Whether there is room."""
        ...

    @property
    def retry_after(self) -> int:
        """How long until there is, ns."""
        ...

    @property
    def remaining(self) -> int:
        """For how many more there would be room."""
        ...


class Rate(Protocol):
    """A rate limit: its numbers, and its rule."""

    @property
    def interval(self) -> int:
        """Nanoseconds between two at exactly the rate, at least 1."""
        ...

    @property
    def burst(self) -> int:
        """What is let in at once, at least 1."""
        ...

    def decide(self, arrival_at: int, now: int, cost: int = 1) -> RateDecision:
        """The rule, from the present arrival time."""
        ...


RateType = TypeVar("RateType", bound=Rate)


class Arithmetic(NamedTuple, Generic[RateType]):
    """How to reckon with rates.

    Attributes:
        make: a rate of an interval and a burst.
        carry: an arrival time of the first rate, as the second has it; with the present in between.
    """

    make: Callable[[int, int], RateType]
    carry: Callable[[int, int, RateType, RateType], int]


class _Cell(NamedTuple):
    """A cell with a rate."""

    number: int
    arrival_at: int
    interval: int
    burst: int
    generation: int


Taker = Callable[[int], int]
"""Takes a place in a counted word; gives the ledger entry, or REFUSED."""


class LimitedKeys(KeyTable):
    """The keys of limits as one process works with them."""

    __slots__ = ("_from_word",)

    def __init__(self, table: Table, column: Column) -> None:
        super().__init__(table, column)
        self._from_word = table.layout.in_column(column, "claimed_from")

    def charge(
        self,
        hash128: int,
        now: int,
        rate: RateType,
        generation: int,
        arithmetic: Arithmetic[RateType],
        cost: int = 1,
    ) -> RateDecision | None:
        """Applies the rule of a rate limit to the arrival time of a key.

        Args:
            hash128: of the key, without the numbers.
            now: ns, monotonic, above 0.
            rate: of the limit.
            generation: of the configuration that says so.
            arithmetic: of such rates.
            cost: how much is asked for.

        Returns:
            The decision that holds; None if the chain is full.
        """
        decision = self.try_update(
            with_numbers(hash128, rate.interval, rate.burst), lambda at: rate.decide(at, now, cost)
        )
        return decision or run(self.charge_steps(hash128, now, rate, generation, arithmetic, cost))

    def stands_at(self, hash128: int, rate: Rate) -> int:
        """The arrival time of a key by these numbers, to look ahead; 0: it is not there."""
        found = self.find(with_numbers(hash128, rate.interval, rate.burst))
        return 0 if found is None else found[1]

    def charge_steps(
        self,
        hash128: int,
        now: int,
        rate: RateType,
        generation: int,
        arithmetic: Arithmetic[RateType],
        cost: int = 1,
    ) -> Steps[RateDecision | None]:
        """``charge``, pausing before every access."""
        cells = yield from self._rated_cells(hash128)
        newest = max(cells, key=_generation_of, default=None)
        if newest is not None and newest.generation > generation:
            rate, generation = arithmetic.make(newest.interval, newest.burst), newest.generation
        own = with_numbers(hash128, rate.interval, rate.burst)
        numbers = rate.interval, rate.burst
        owed = [
            arithmetic.carry(cell.arrival_at, now, arithmetic.make(cell.interval, cell.burst), rate)
            for cell in cells
            if (cell.interval, cell.burst) != numbers
        ]
        beginning = Beginning(max([now, *owed]), *numbers, generation)
        decision = yield from self.update_steps(own, now, lambda at: rate.decide(at, now, cost), beginning)
        if decision is not None:
            yield from self._retire_old(hash128)
        return decision

    def _retire_old(self, hash128: int) -> Steps[None]:
        """Retires all cells of a key but that of the latest generation."""
        while True:
            cells = yield from self._rated_cells(hash128)
            latest = max(map(_generation_of, cells), default=0)
            old = [cell for cell in cells if cell.generation < latest]
            if not old:
                return
            yield from self._retire(old[0].number, old[0].arrival_at)

    def hold(self, hash128: int, now: int, take: Taker, release: Callable[[int], None]) -> int:
        """Counts something for a key, as long as the entry is held.

        Args:
            hash128: of the key.
            now: ns, monotonic, above 0.
            take: from the ledger, with the most that there may be.
            release: gives such an entry back.

        Returns:
            The entry, or REFUSED, or NO_ROOM.
        """
        entry = self._try_hold(hash128, take, release)
        return run(self.hold_steps(hash128, now, take, release)) if entry is None else entry

    def _try_hold(self, hash128: int, take: Taker, release: Callable[[int], None]) -> int | None:
        """``hold`` for a key that is there, by the same accesses, for speed; None: go the long way."""
        found = self.find(hash128)
        if found is None:
            return None
        cell, arrival = found
        word = self._word(cell)
        entry = take(self.concurrency_word(cell))
        if entry < 0:
            return REFUSED if self._words.load(word) == arrival else None
        while not self._words.compare_exchange(word, arrival, arrival + 1):
            found = self.find(hash128)
            if found is None or found[0] != cell:
                release(entry)
                return None
            arrival = found[1]
        return entry

    def hold_steps(self, hash128: int, now: int, take: Taker, release: Callable[[int], None]) -> Steps[int]:
        """``hold``, pausing before every access."""
        key = split(hash128)
        while True:
            cell = yield from self.claim_steps(hash128, now)
            if cell is None:
                return NO_ROOM
            arrival, is_key = yield from self._read(cell, key)
            if not is_key or arrival & CLAIMED:
                continue
            yield
            entry = take(self.concurrency_word(cell))
            if entry < 0:
                yield
                if self._words.load(self._word(cell)) == arrival:
                    return REFUSED
                continue  # was it the count of this key?
            while is_key and not arrival & CLAIMED:
                yield
                if self._words.compare_exchange(self._word(cell), arrival, arrival + 1):
                    return entry
                arrival, is_key = yield from self._read(cell, key)
            yield
            release(entry)

    def _rated_cells(self, hash128: int) -> Steps[list[_Cell]]:
        """The confirmed cells of a key that have a rate, with whatever numbers."""
        low, _ = split(hash128)
        found = []
        for position in range(self._chain):
            number = (low + position) & self._mask
            arrival, cell = yield from self._read_rated(number, low)
            if cell is not None:
                found.append(cell)
            if arrival == 0:
                break
        return found

    def _read_rated(self, number: int, low: int) -> Steps[tuple[int, _Cell | None]]:
        load, word = self._words.load, self._word(number)
        while True:
            yield
            arrival = load(word)
            if arrival == 0 or arrival >= PROPOSED:
                return arrival, None
            yield
            if load(word + KEY_LOW) != low:
                return arrival, None
            yield
            interval = load(word + INTERVAL)
            if not interval:
                return arrival, None
            yield
            burst = load(word + BURST)
            yield
            generation = load(word + GENERATION)
            yield
            if load(word) == arrival:
                return arrival, _Cell(number, arrival, interval, burst, generation)

    def _retire(self, cell: int, arrival: int) -> Steps[None]:
        """Takes the key out of a cell, unless its time has changed."""
        words, word = self._words, self._word(cell)
        sequence = (words.load(self._claim_word) >> 32) + 1 & 0xFFFFFFFF
        mine = CLAIMED | self._column << 32 | sequence
        yield
        words.store(self._from_word, arrival)
        yield
        words.store(self._claim_word, sequence << 32 | cell + self._first_claim)
        yield
        if words.compare_exchange(word, arrival, mine):
            yield from give_back(words.store, word, arrival + 1)
        yield
        words.store(self._claim_word, sequence << 32)
        yield
        words.store(self._from_word, 0)


def _generation_of(cell: _Cell) -> int:
    return cell.generation


def with_numbers(hash128: int, interval: int, burst: int) -> int:
    """The hash of a key with the numbers of its rate: another high word."""
    return hash128 ^ (interval * _MIX_INTERVAL ^ burst * _MIX_BURST) % (WORD >> 1) << 65
