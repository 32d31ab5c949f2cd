"""The listeners' words as a worker uses them: what is open at each, over all workers, and what was refused.

Owns nothing; the places it takes stand in the worker's ledger. Blocks are given to names by the supervisor
(``SupervisorView.ensure_listener``), which takes one back when its configuration has no such listener and
nothing is open at it.

A worker may still hold to a listener that is gone, and meet one more connection for it. So a place counts
only if the block still has the name afterwards: the supervisor takes the name out first and then looks at the
count, a worker takes first and then looks at the name. At least one of them sees the other.
"""

from __future__ import annotations

from lbproc.shm.cells import Refusal
from lbproc.shm.identity import identity_of
from lbproc.shm.layout import UNLIMITED
from lbproc.shm.ledger import Ledger
from lbproc.shm.table import Table

FULL = -1
"""In place of a ledger entry: as many are open as may be."""

GONE = -2
"""In place of a ledger entry: there is no such listener any more, so nothing is counted."""


class ListenerWords:
    """One listener's words.

    Args:
        table: the shared one.
        ledger: of this process.
        name: of the listener. If it has no block, every place is GONE and what is refused is not counted.
    """

    __slots__ = ("_identity", "_ledger", "_name_word", "_open_word", "_refused_word", "_told_word", "_words")

    def __init__(self, table: Table, ledger: Ledger, name: str) -> None:
        self._words = table.words
        self._ledger = ledger
        self._identity = identity_of(name)
        listeners = table.layout.listeners
        block = find_listener(table, name)
        self._open_word = -1 if block is None else listeners.at(block, "open")
        self._name_word = self._open_word + listeners.offsets["identity"] - listeners.offsets["open"]
        self._refused_word = self._open_word + listeners.offsets["refused"] - listeners.offsets["open"]
        self._told_word = self._open_word + listeners.offsets["told_at"] - listeners.offsets["open"]

    def take(self, at_most: int = UNLIMITED) -> int:
        """Takes a place unless more than ``at_most`` are taken.

        Returns:
            The ledger entry, or FULL, or GONE.

        Raises:
            CapacityError: this process holds as much as its ledger has entries.
        """
        if self._open_word < 0:
            return GONE
        entry = self._ledger.take(self._open_word, 1, at_most)
        self._words.fence()
        if self._is_named():
            return entry
        if entry >= 0:
            self._ledger.release(entry)
        return GONE

    def open(self) -> int:
        """Places that are taken, over all processes."""
        return self._words.counts((self._open_word,))[0] if self._open_word >= 0 else 0

    def refuse(self, refusal: Refusal) -> int:
        """Counts a refusal; gives how many there are, with this one."""
        if self._open_word < 0 or not self._is_named():
            return 0
        return self._words.fetch_add(self._refused_word + refusal, 1) + 1

    def may_tell(self, refusal: Refusal, now: int, every: int) -> bool:
        """Whether it is this process's turn to tell of refusals: once in so many ns, over all processes."""
        if self._open_word < 0:
            return False
        word = self._told_word + refusal
        told_at = self._words.load(word)
        if told_at and now - told_at < every:
            return False
        return self._words.compare_exchange(word, told_at, now)

    def _is_named(self) -> bool:
        load = self._words.load
        return (load(self._name_word), load(self._name_word + 1)) == self._identity


def find_listener(table: Table, name: str) -> int | None:
    """The block of a listener, if it has one. Looks through all: nothing for each connection."""
    low, high = identity_of(name)
    layout, load = table.layout.listeners, table.words.load
    for block in range(layout.blocks):
        word = layout.at(block, "identity")
        identity = load(word), load(word + 1)
        if identity == (low, high):
            return block
        if identity == (0, 0):
            break
    return None
