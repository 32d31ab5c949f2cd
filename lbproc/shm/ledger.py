"""What one process holds of the table's counted words, and where each holding is written down.

Owns the choice of free entries, which is private to the process; the entries themselves are in its column, so
that the supervisor can give back what a dead process held (``repair``). Taking and releasing are single calls
of the C extension, whose source explains why a death between any two of their writes leaves nothing behind.

Invariants:
- One ledger per column, one column per process: make it after the fork.
- The column was repaired before, so every entry is free.
- Entries are handed out lowest first and used again last-in first-out, and the column's high-water mark is
  raised before an entry above it is used: untouched pages stay untouched, and repair looks no further.
"""

from __future__ import annotations

from lbproc.errors import CapacityError
from lbproc.shm.layout import NO_COLUMN, UNLIMITED
from lbproc.shm.table import Table
from lbproc.types import Column


class Ledger:
    """The holdings of one column."""

    __slots__ = ("_capacity", "_cells", "_column", "_free", "_high_cell", "_next", "_release", "_take")

    def __init__(self, table: Table, column: Column) -> None:
        if column == NO_COLUMN:
            raise ValueError("column 0 belongs to nobody")
        self._take = table.words.take
        self._release = table.words.release
        self._cells = table.cells
        self._column = column
        self._high_cell = table.layout.in_column(column, "ledger_high")
        self._capacity = table.layout.capacities.ledger
        self._free: list[int] = []
        self._next = 0

    def take(self, word: int, amount: int = 1, at_most: int = UNLIMITED) -> int:
        """Adds to a counted word if its count is not above ``at_most``.

        Returns:
            The ledger entry that holds it, to be released later; -1 if the count was above.

        Raises:
            CapacityError: the process holds as many things as its ledger has entries.
        """
        free = self._free
        entry = free.pop() if free else self._next_entry()
        if self._take(self._column, entry, word, amount, at_most):
            return entry
        free.append(entry)
        return -1

    def release(self, entry: int) -> None:
        """Gives back what an entry holds.

        Raises:
            ValueError: the entry holds nothing.
        """
        self._release(self._column, self._column, entry)
        self._free.append(entry)

    def __len__(self) -> int:
        """How many entries hold something."""
        return self._next - len(self._free)

    def _next_entry(self) -> int:
        entry = self._next
        if entry == self._capacity:
            raise CapacityError(f"one process cannot hold more than {entry} places at one time")
        self._next = entry + 1
        # A plain cell: the release store of the intent that follows puts it before the entry.
        self._cells[self._high_cell] = max(self._cells[self._high_cell], self._next)
        return entry
