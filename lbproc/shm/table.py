"""The shared table: one sealed, sparse memory file, mapped by every process.

Owns the segment's life: making, sealing, mapping, checking. Does not know what most fields mean; views read
and write them. The supervisor makes the table, children inherit the mapping by fork, and a program that gets
only the descriptor attaches to it.

The file is sealed against growing and shrinking, so no process can make another one fault on it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import astuple

from lbproc.errors import StartError
from lbproc.shm._atomics import Words
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.layout import HEADER, MAGIC, VERSION, WORD_BYTES, Capacities, Layout

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_CAPACITY_WORDS = next(field.words for field in HEADER.fields if field.name == "capacities")


class Table:
    """One mapping of the segment.

    Attributes:
        fd: the memory file; -1 once closed.
        layout: where everything is.
        words: the segment through the atomics.
        cells: the segment as plain 64-bit cells, for fields with a single writer.
        secret: what names of clients are hashed with. It is random, not in the segment, and the same in all
            processes that were forked from the one that made the table; b"" in a program that attached to it.
    """

    __slots__ = ("cells", "fd", "layout", "secret", "words")

    def __init__(self, fd: int, layout: Layout) -> None:
        memory = mmap.mmap(fd, layout.size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.fd = fd
        self.layout = layout
        self.secret = b""
        self.words = Words(memory, layout.geometry())
        self.cells = memoryview(memory).cast("Q")

    @classmethod
    def create(cls, capacities: Capacities | None = None) -> Table:
        """Makes a new table, all zero but its header.

        Raises:
            StartError: the system has no room or no descriptor for it.
        """
        layout = Layout(capacities or Capacities())
        fd = -1
        try:
            fd = os.memfd_create("lbproc-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, layout.size_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            table = cls(fd, layout)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise StartError(
                f"cannot make the shared table of {layout.size_bytes >> 20} MiB (sparse): {error.strerror}; "
                "lower the max_ values in [runtime] or raise the limits on memory and descriptors"
            ) from error
        table.secret = os.urandom(32)
        table._describe()
        return table

    def _describe(self) -> None:
        words, layout = self.words, self.layout
        for offset, value in enumerate(astuple(layout.capacities)):
            words.store(layout.in_header("capacities") + offset, value)
        words.store(layout.in_header("size_bytes"), layout.size_bytes)
        words.store(layout.in_header("version"), VERSION)
        words.store(layout.in_header("created_at"), monotonic_ns())
        words.store(layout.in_header("magic"), MAGIC)

    @classmethod
    def attach(cls, fd: int) -> Table:
        """Maps a table that another process made. Takes responsibility for closing ``fd`` once it succeeds.

        Raises:
            StartError: this is no table, one of another version, or one that could still change its size.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            size = os.fstat(fd).st_size
            head = memoryview(os.pread(fd, 4096, 0).ljust(4096, b"\0")).cast("Q").tolist()
        except OSError as error:
            raise StartError(f"descriptor {fd} is no shared table: {error.strerror}") from error
        place = Layout(Capacities()).in_header
        if head[place("magic")] != MAGIC:
            raise StartError(f"descriptor {fd} is no shared table: it does not start like one")
        if head[place("version")] != VERSION:
            raise StartError(
                f"the shared table has version {head[place('version')]}, this lbproc needs {VERSION}"
            )
        first = place("capacities")
        try:
            layout = Layout(Capacities(*head[first : first + _CAPACITY_WORDS]))
        except ValueError as error:
            raise StartError(f"the shared table's header is damaged: {error}") from error
        if not (seals & _SEALS == _SEALS and size == layout.size_bytes == head[place("size_bytes")]):
            raise StartError(f"the shared table has {size} bytes, against its header, or is not sealed")
        return cls(fd, layout)

    def close(self) -> None:
        """Closes the descriptor. The mapping goes when the last view of it does."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def change_status(self, word: int, value: int) -> None:
        """Stores a status cell and then tells everybody that one has changed, unless it says so already."""
        if self.words.load(word) != value:
            self.words.store(word, int(value))
            self.words.fetch_add(self.layout.in_header("status_epoch"), 1)

    def read_bytes(self, word: int, length: int) -> bytes:
        """A copy of ``length`` bytes from a word on; plain reads, so publish them with the atomics."""
        end = word + -(-length // WORD_BYTES)
        return self.cells[word:end].tobytes()[:length]

    def write_bytes(self, word: int, content: bytes) -> None:
        """Plain writes from a word on; the last word is filled up with zeros."""
        padded = content.ljust(-(-len(content) // WORD_BYTES) * WORD_BYTES, b"\0")
        self.cells[word : word + len(padded) // WORD_BYTES] = memoryview(padded).cast("Q")
