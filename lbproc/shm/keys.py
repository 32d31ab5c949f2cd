"""Keys and their cells: an open-addressed table in which each key has at most one cell, without locks.

Owns the cells of the sections keys and flows. Does not own what an arrival time means: the caller passes the
rule. How limits use it is in ``limited``, how flows do in ``flows``; there a place takes the time's part, of
which all that matters here is that it grows and is comparable to the present.

Theory of operation. A cell's *arrival* word says everything:

    0                        never used
    a time (62 bits)         a key, or none if the key words are 0; once the time is past, free to be reused
    claimed(column, seq)     being written by that column; holds no key
    proposed(column, seq)    the key words are written, but another cell might have the same key

    never used | time in the past, nothing counted --claim--> claimed --propose--> proposed --confirm--> time
                                                              claimed <---withdraw---  |
                                                                 '---give back---> time, no key

- A key is looked for in its chain, a bounded run of cells. A claim takes the first free cell of the chain,
  and no cell is ever "never used" again, so the first one of those ends every chain.
- Two processes may propose the same key in two cells. Whoever decides a proposal looks through the whole
  chain after it was made: a confirmed cell or a lower proposal withdraws it, higher proposals are withdrawn
  for it, then it is confirmed. Of two proposals at least one decider sees the other, so at most one is
  confirmed. Anybody can decide a proposal, so nobody waits for a process that is slow or dead.
- The times in a cell only grow, also when the key changes, and sequences are used once. So no value ever
  comes back, and swapping the arrival word from the value that was seen with the key proves that the cell
  still had that key.
- The cell remembers the time that its key begins with, so whoever confirms confirms with that. It is the
  present, or later.
- A column writes the cell into its claim word before it claims it; ``repair_claim`` gives such a cell back.
- Who counts in a cell's concurrency word must then swap its arrival word to one more (release and look again
  if the cell has lost the key): a claim looks at the time first and the count after, so it cannot miss both.

The operations are generators that pause before every access to shared memory, so that tests can go through
all interleavings and stop at every point; ``KeyTable`` runs them to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from lbproc.shm.layout import COUNT_BITS, FLOW_ROW_BITS, NO_COLUMN, Placed
from lbproc.shm.table import Table
from lbproc.types import Column

CHAIN = 64
"""Cells that are looked through before the table counts as full for a key."""

CLAIMED = 1 << 63
PROPOSED = 1 << 62
WORD = (1 << 64) - 1
_COUNT_MASK = (1 << COUNT_BITS) - 1

_OF_FLOWS = 1 << 31
KEY_LOW, KEY_HIGH, _BEGINS_AT, _CONCURRENCY, INTERVAL, BURST, GENERATION = 1, 2, 3, 4, 5, 6, 7
"""Offsets in a cell; the arrival word is at 0."""

Result = TypeVar("Result")
Steps: TypeAlias = Generator[None, None, Result]
Key: TypeAlias = tuple[int, int]


class Decision(Protocol):
    """What a rule says about an arrival time."""

    @property
    def arrival_at(self) -> int:
        """The new arrival time: later than the present one, or the same."""
        ...


DecisionType = TypeVar("DecisionType", bound=Decision)


class Beginning(NamedTuple):
    """What a key that is new begins with.

    Attributes:
        arrival_at: its time, the present or later.
        interval: of the rate limit that the time was made with, ns; 0: of none.
        burst: likewise.
        generation: of the configuration that has these numbers.
    """

    arrival_at: int
    interval: int = 0
    burst: int = 0
    generation: int = 0


def run(steps: Steps[Result]) -> Result:
    """Goes through all steps without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


class KeyTable:
    """The keys as one process works with them."""

    __slots__ = (
        "_base", "_chain", "_claim_word", "_column", "_first_claim", "_mask", "_stride", "_words",
    )  # fmt: skip

    def __init__(self, table: Table, column: Column) -> None:
        if column == NO_COLUMN:
            raise ValueError("column 0 belongs to nobody")
        cells = self._cells_of(table)
        self._words = table.words
        self._base = cells.base
        self._stride = cells.stride
        self._mask = cells.blocks - 1
        self._chain = min(CHAIN, cells.blocks)
        self._column = column
        self._claim_word = table.layout.in_column(column, "claim")
        self._first_claim = 1 + (_OF_FLOWS if cells is table.layout.flows else 0)

    @staticmethod
    def _cells_of(table: Table) -> Placed:
        return table.layout.keys

    def claim(self, hash128: int, now: int, beginning: Beginning | None = None) -> int | None:
        """The cell of a key, made if there is none; None if its chain is full.

        Args:
            hash128: a keyed hash of 128 bits, so that nobody outside can aim at a chain.
            now: ns, monotonic, above 0.
            beginning: what the key begins with if it is new; None: with the present.
        """
        return run(self.claim_steps(hash128, now, beginning))

    def find(self, hash128: int) -> tuple[int, int] | None:
        """The cell of a key and its arrival time, if the key is confirmed.

        The accesses are those of ``_read``, without generators: 1 µs where the key is in its first cell.
        """
        load, stride, mask = self._words.load, self._stride, self._mask
        low, high = split(hash128)
        for position in range(self._chain):
            cell = (low + position) & mask
            word = self._base + cell * stride
            while True:
                arrival = load(word)
                if not arrival:
                    return None
                if load(word + KEY_LOW) != low or load(word + KEY_HIGH) != high or arrival & CLAIMED:
                    break
                if load(word) == arrival:
                    return cell, arrival
        return None

    def update(
        self,
        hash128: int,
        now: int,
        rule: Callable[[int], DecisionType],
        beginning: Beginning | None = None,
    ) -> DecisionType | None:
        """Applies a rule to the arrival time of a key, in one swap.

        Args:
            hash128: as in ``claim``.
            now: as in ``claim``.
            rule: pure, from the present arrival time to a decision; may be asked several times.
            beginning: as in ``claim``.

        Returns:
            The decision that holds; None if the chain is full.
        """
        return run(self.update_steps(hash128, now, rule, beginning))

    def try_update(self, hash128: int, rule: Callable[[int], DecisionType]) -> DecisionType | None:
        """``update`` of a key that is there, for speed; None also if somebody else was quicker."""
        found = self.find(hash128)
        if found is None:
            return None
        cell, arrival = found
        decision = rule(arrival)
        is_done = decision.arrival_at == arrival or self._words.compare_exchange(
            self._word(cell), arrival, _grown(arrival, decision.arrival_at)
        )
        return decision if is_done else None

    def arrival(self, cell: int) -> int:
        """The arrival word of a cell."""
        return self._words.load(self._word(cell))

    def concurrency_word(self, cell: int) -> int:
        """Where the counted word of a cell is."""
        return self._word(cell) + _CONCURRENCY

    def update_steps(
        self,
        hash128: int,
        now: int,
        rule: Callable[[int], DecisionType],
        beginning: Beginning | None = None,
    ) -> Steps[DecisionType | None]:
        """``update``, pausing before every access."""
        key = split(hash128)
        while True:
            cell = yield from self.claim_steps(hash128, now, beginning)
            if cell is None:
                return None
            arrival, is_key = yield from self._read(cell, key)
            if not is_key or arrival & CLAIMED:
                continue
            decision = rule(arrival)
            if decision.arrival_at == arrival:
                return decision
            desired = _grown(arrival, decision.arrival_at)
            yield
            if self._words.compare_exchange(self._word(cell), arrival, desired):
                return decision

    def claim_steps(self, hash128: int, now: int, beginning: Beginning | None = None) -> Steps[int | None]:
        """``claim``, pausing before every access."""
        key = split(hash128)
        beginning = beginning or Beginning(now)
        while True:
            cell, seen = yield from self._look_for(key, now)
            if cell is None:
                return None
            if seen & PROPOSED:
                yield from self._decide(key, cell, seen)
            elif seen == CLAIMED:
                return cell
            else:
                yield from self._propose(key, cell, seen, now, beginning)

    def _look_for(self, key: Key, now: int) -> Steps[tuple[int | None, int]]:
        """The confirmed cell of the key with CLAIMED for "found", or its lowest proposal, or a free cell."""
        proposal: tuple[int, int] | None = None
        free: tuple[int, int] | None = None
        for position in range(self._chain):
            cell = (key[0] + position) & self._mask
            arrival, is_key = yield from self._read(cell, key)
            if is_key and not arrival & CLAIMED:
                return cell, CLAIMED
            if is_key:
                proposal = proposal or (cell, arrival)
            elif free is None and arrival < now:
                yield
                if not self._words.load(self._word(cell) + _CONCURRENCY) & _COUNT_MASK:
                    free = (cell, arrival)
            if arrival == 0:
                break
        return proposal or free or (None, 0)

    def _read(self, cell: int, key: Key) -> Steps[tuple[int, bool]]:
        """A cell's arrival word, and whether the cell had the key, proposed or confirmed, at that value."""
        load, word = self._words.load, self._word(cell)
        while True:
            yield
            arrival = load(word)
            if arrival == 0 or arrival & (CLAIMED | PROPOSED) == CLAIMED:
                return arrival, False
            yield
            if load(word + KEY_LOW) != key[0]:
                return arrival, False
            yield
            if load(word + KEY_HIGH) != key[1]:
                return arrival, False
            yield
            if load(word) == arrival:
                return arrival, True

    def _propose(self, key: Key, cell: int, seen: int, now: int, beginning: Beginning) -> Steps[None]:
        words, word = self._words, self._word(cell)
        sequence = (words.load(self._claim_word) >> 32) + 1 & 0xFFFFFFFF
        mine = CLAIMED | self._column << 32 | sequence
        yield
        words.store(self._claim_word, sequence << 32 | cell + self._first_claim)
        yield
        if words.compare_exchange(word, seen, mine):
            yield
            words.store(word + KEY_LOW, key[0])
            yield
            words.store(word + KEY_HIGH, key[1])
            yield
            words.store(word + _BEGINS_AT, beginning.arrival_at)
            yield
            words.store(word + INTERVAL, beginning.interval)
            if beginning.interval:
                yield
                words.store(word + BURST, beginning.burst)
                yield
                words.store(word + GENERATION, beginning.generation)
            yield
            words.store(word, mine | PROPOSED)
            yield from self._decide(key, cell, mine | PROPOSED)
            yield
            if words.load(word) == mine:
                yield from give_back(self._words.store, word, now)
        yield
        words.store(self._claim_word, sequence << 32)

    def _decide(self, key: Key, cell: int, proposal: int) -> Steps[None]:
        """Confirms or withdraws a proposal; when it returns, somebody has."""
        swap, word = self._words.compare_exchange, self._word(cell)
        is_lowest = True
        for position in range(self._chain):
            other = (key[0] + position) & self._mask
            if other == cell:
                is_lowest = False
                continue
            arrival, is_key = yield from self._read(other, key)
            while is_key:
                if is_lowest or not arrival & CLAIMED:
                    yield
                    swap(word, proposal, proposal & ~PROPOSED)
                    return
                yield
                if swap(self._word(other), arrival, arrival & ~PROPOSED):
                    break
                arrival, is_key = yield from self._read(other, key)
            if arrival == 0:
                break
        yield
        confirmed = self._words.load(word + _BEGINS_AT)
        yield
        swap(word, proposal, confirmed)

    def _word(self, cell: int) -> int:
        return self._base + cell * self._stride


def repair_claim(table: Table, column: Column, now: int) -> bool:
    """Gives back the cell that a dead process was claiming, if there is one; says whether there was.

    Args:
        table: where to repair.
        column: whose process is dead and reaped.
        now: ns, monotonic, later than the claim.
    """
    return run(repair_claim_steps(table, column, now))


def repair_claim_steps(table: Table, column: Column, now: int) -> Steps[bool]:
    """``repair_claim``, pausing before every access. Can be begun again after a stop at any pause."""
    words, claim_word = table.words, table.layout.in_column(column, "claim")
    from_word = table.layout.in_column(column, "claimed_from")
    yield
    claim = words.load(claim_word)
    yield
    claimed_from = words.load(from_word)
    sequence = claim >> 32
    cell = (claim & _OF_FLOWS - 1) - 1
    is_mine = False
    if cell >= 0:
        if claim & _OF_FLOWS:
            word, now = table.layout.flows.at(cell, "place"), flow_time(now)
        else:
            word = table.layout.keys.at(cell, "arrival")
        mine = CLAIMED | column << 32 | sequence
        yield
        words.compare_exchange(word, mine | PROPOSED, mine)
        yield
        is_mine = words.load(word) == mine
        if is_mine:
            yield from give_back(words.store, word, max(now, claimed_from + 1))
        yield
        words.store(claim_word, sequence << 32)
    if claimed_from:
        yield
        words.store(from_word, 0)
    return is_mine


def flow_time(now: int) -> int:
    """The present, in ns, as the places of flows tell it."""
    return now // 1_000_000 << FLOW_ROW_BITS


def _grown(arrival: int, arrival_at: int) -> int:
    if not arrival < arrival_at < PROPOSED:
        raise ValueError(f"an arrival time must grow: {arrival} to {arrival_at}")
    return arrival_at


def give_back(store: Callable[[int, int], None], word: int, time: int) -> Steps[None]:
    """Leaves a cell without a key, at a time that it never had."""
    yield
    store(word + KEY_LOW, 0)
    yield
    store(word + KEY_HIGH, 0)
    yield
    store(word, time)


def split(hash128: int) -> Key:
    """The two words of a key. The high one is odd, so no key is (0, 0)."""
    return hash128 & WORD, hash128 >> 64 & WORD | 1
