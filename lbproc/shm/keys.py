"""The keys of limits: an open-addressed table in which each key has at most one cell, without locks.

Owns the cells of the keys section. Does not own what an arrival time means: the caller passes the rule.

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
- A column writes the cell into its claim word before it claims it; ``repair_claim`` gives such a cell back.
- Who counts in a cell's concurrency word must then swap its arrival word to one more (release and look again
  if that fails): a claim looks at the time first and the count after, so it cannot miss both.

The operations are generators that pause before every access to shared memory, so that tests can go through
all interleavings and stop at every point; ``KeyTable`` runs them to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeAlias, TypeVar

from lbproc.shm.layout import COUNT_BITS, NO_COLUMN
from lbproc.shm.table import Table
from lbproc.types import Column

CHAIN = 64
"""Cells that are looked through before the table counts as full for a key."""

_CLAIMED = 1 << 63
_PROPOSED = 1 << 62
_WORD = (1 << 64) - 1
_COUNT_MASK = (1 << COUNT_BITS) - 1

_KEY_LOW, _KEY_HIGH, _CLAIMED_AT, _CONCURRENCY = 1, 2, 3, 4
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

    __slots__ = ("_base", "_chain", "_claim_word", "_column", "_mask", "_stride", "_words")

    def __init__(self, table: Table, column: Column) -> None:
        if column == NO_COLUMN:
            raise ValueError("column 0 belongs to nobody")
        keys = table.layout.keys
        self._words = table.words
        self._base = keys.base
        self._stride = keys.stride
        self._mask = keys.blocks - 1
        self._chain = min(CHAIN, keys.blocks)
        self._column = column
        self._claim_word = table.layout.in_column(column, "claim")

    def claim(self, hash128: int, now: int) -> int | None:
        """The cell of a key, made if there is none; None if its chain is full.

        Args:
            hash128: a keyed hash of 128 bits, so that nobody outside can aim at a chain.
            now: ns, monotonic, above 0.
        """
        return run(self.claim_steps(hash128, now))

    def update(self, hash128: int, now: int, rule: Callable[[int], DecisionType]) -> DecisionType | None:
        """Applies a rule to the arrival time of a key, in one swap.

        Args:
            hash128: as in ``claim``.
            now: as in ``claim``.
            rule: pure, from the present arrival time to a decision; may be asked several times.

        Returns:
            The decision that holds; None if the chain is full.
        """
        return run(self.update_steps(hash128, now, rule))

    def arrival(self, cell: int) -> int:
        """The arrival word of a cell."""
        return self._words.load(self._word(cell))

    def concurrency_word(self, cell: int) -> int:
        """Where the counted word of a cell is."""
        return self._word(cell) + _CONCURRENCY

    def update_steps(
        self, hash128: int, now: int, rule: Callable[[int], DecisionType]
    ) -> Steps[DecisionType | None]:
        """``update``, pausing before every access."""
        key = _split(hash128)
        while True:
            cell = yield from self.claim_steps(hash128, now)
            if cell is None:
                return None
            arrival, is_key = yield from self._read(cell, key)
            if not is_key or arrival & _CLAIMED:
                continue
            decision = rule(arrival)
            if decision.arrival_at == arrival:
                return decision
            if not arrival < decision.arrival_at < _PROPOSED:
                raise ValueError(f"an arrival time must grow: {arrival} to {decision.arrival_at}")
            yield
            if self._words.compare_exchange(self._word(cell), arrival, decision.arrival_at):
                return decision

    def claim_steps(self, hash128: int, now: int) -> Steps[int | None]:
        """``claim``, pausing before every access."""
        key = _split(hash128)
        while True:
            cell, seen = yield from self._look_for(key, now)
            if cell is None:
                return None
            if seen & _PROPOSED:
                yield from self._decide(key, cell, seen)
            elif seen == _CLAIMED:
                return cell
            else:
                yield from self._propose(key, cell, seen, now)

    def _look_for(self, key: Key, now: int) -> Steps[tuple[int | None, int]]:
        """The confirmed cell of the key with _CLAIMED for "found", or its lowest proposal, or a free cell."""
        proposal: tuple[int, int] | None = None
        free: tuple[int, int] | None = None
        for position in range(self._chain):
            cell = (key[0] + position) & self._mask
            arrival, is_key = yield from self._read(cell, key)
            if is_key and not arrival & _CLAIMED:
                return cell, _CLAIMED
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
            if arrival == 0 or arrival & (_CLAIMED | _PROPOSED) == _CLAIMED:
                return arrival, False
            yield
            if load(word + _KEY_LOW) != key[0]:
                return arrival, False
            yield
            if load(word + _KEY_HIGH) != key[1]:
                return arrival, False
            yield
            if load(word) == arrival:
                return arrival, True

    def _propose(self, key: Key, cell: int, seen: int, now: int) -> Steps[None]:
        words, word = self._words, self._word(cell)
        sequence = (words.load(self._claim_word) >> 32) + 1 & 0xFFFFFFFF
        mine = _CLAIMED | self._column << 32 | sequence
        yield
        words.store(self._claim_word, sequence << 32 | cell + 1)
        yield
        if words.compare_exchange(word, seen, mine):
            yield
            words.store(word + _KEY_LOW, key[0])
            yield
            words.store(word + _KEY_HIGH, key[1])
            yield
            words.store(word + _CLAIMED_AT, now)
            yield
            words.store(word, mine | _PROPOSED)
            yield from self._decide(key, cell, mine | _PROPOSED)
            yield
            if words.load(word) == mine:
                yield from _give_back(self._words.store, word, now)
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
                if is_lowest or not arrival & _CLAIMED:
                    yield
                    swap(word, proposal, proposal & ~_PROPOSED)
                    return
                yield
                if swap(self._word(other), arrival, arrival & ~_PROPOSED):
                    break
                arrival, is_key = yield from self._read(other, key)
            if arrival == 0:
                break
        yield
        confirmed = self._words.load(word + _CLAIMED_AT)
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
    yield
    claim = words.load(claim_word)
    sequence = claim >> 32
    cell = (claim & 0xFFFFFFFF) - 1
    if cell < 0:
        return False
    word = table.layout.keys.at(cell, "arrival")
    mine = _CLAIMED | column << 32 | sequence
    yield
    words.compare_exchange(word, mine | _PROPOSED, mine)
    yield
    is_mine = words.load(word) == mine
    if is_mine:
        yield from _give_back(words.store, word, now)
    yield
    words.store(claim_word, sequence << 32)
    return is_mine


def _give_back(store: Callable[[int, int], None], word: int, now: int) -> Steps[None]:
    """Leaves a cell without a key, at a time that it never had."""
    yield
    store(word + _KEY_LOW, 0)
    yield
    store(word + _KEY_HIGH, 0)
    yield
    store(word, now)


def _split(hash128: int) -> Key:
    """The two words of a key. The high one is odd, so no key is (0, 0)."""
    return hash128 & _WORD, hash128 >> 64 & _WORD | 1
