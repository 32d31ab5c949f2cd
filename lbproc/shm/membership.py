"""The published membership: which backends exist, as bytes that one process writes and all others read.

Owns the protocol of the two buffers. What the bytes mean is the publisher's and the readers' affair.

The epoch counts publications; its last bit names the buffer with the newest. The publisher fills the other
buffer and then stores the epoch. A reader copies the newest and looks at the epoch again: if it moved on, the
copied buffer may have been written meanwhile, and the reader copies again. So readers never wait for a
publisher, dead or slow, and copy twice only if a publication came in between.
"""

from __future__ import annotations

from lbproc.errors import CapacityError
from lbproc.shm.table import Table


class Membership:
    """Both ends of the publication; only the supervisor publishes."""

    __slots__ = ("_buffers", "_capacity", "_epoch_word", "_length_cell", "_table")

    def __init__(self, table: Table) -> None:
        layout = table.layout
        self._table = table
        self._epoch_word = layout.in_header("membership_epoch")
        self._length_cell = layout.in_header("membership_length")
        self._buffers = (layout.membership.at(0, "bytes"), layout.membership.at(1, "bytes"))
        self._capacity = layout.capacities.membership_bytes

    def epoch(self) -> int:
        """Publications so far; 0 while there is none."""
        return self._table.words.load(self._epoch_word)

    def publish(self, content: bytes) -> int:
        """Makes ``content`` the newest membership; gives its epoch.

        Raises:
            CapacityError: it is longer than a buffer.
        """
        if len(content) > self._capacity:
            raise CapacityError(
                f"the membership takes {len(content)} bytes, the shared table has room for {self._capacity}; "
                "use fewer backends or shorter names"
            )
        words = self._table.words
        epoch = words.load(self._epoch_word) + 1
        newest = epoch & 1
        # The store of the last epoch comes before these plain writes, also where the processor reorders them.
        words.fence()
        self._table.cells[self._length_cell + newest] = len(content)
        self._table.write_bytes(self._buffers[newest], content)
        words.store(self._epoch_word, epoch)
        return epoch

    def read(self) -> tuple[int, bytes]:
        """The newest epoch and its bytes; (0, b"") while there is none."""
        words = self._table.words
        while True:
            epoch = words.load(self._epoch_word)
            newest = epoch & 1
            length = min(self._table.cells[self._length_cell + newest], self._capacity)
            content = self._table.read_bytes(self._buffers[newest], length)
            words.fence()
            if words.load(self._epoch_word) == epoch:
                return epoch, content
