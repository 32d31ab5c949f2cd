"""The table as a worker sees and changes it: its own column, and the shared words it takes places in.

Owns nothing but the column it was given. Counters are plain cells with one writer; totals go through the
ledger, so that the death of the worker at any instruction leaves them right.

Measured on two shared x86-64 cores in November 2026: take and release together 0.2 µs, a counter 0.1 µs, the
loads of three backends 0.06 µs, an epoch 0.05 µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lbproc.shm.cells import BackendCounter, ProcessState, WorkerCounter
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.ejections import Ejections, is_ejected
from lbproc.shm.flows import Flows
from lbproc.shm.key_hash import KeyHash
from lbproc.shm.layout import UNLIMITED
from lbproc.shm.ledger import Ledger
from lbproc.shm.limited import LimitedKeys
from lbproc.shm.listeners import ListenerWords
from lbproc.shm.membership import Membership
from lbproc.shm.table import Table
from lbproc.types import Admin, Column, Health, Row

_PICKS = int(BackendCounter.REQUESTS)
_REUSES = int(BackendCounter.REUSES)
_REQUESTS = int(WorkerCounter.REQUESTS)
_CLASSES = int(WorkerCounter.RESPONSES_1XX) - 1
_BYTES_IN = int(WorkerCounter.BYTES_IN)
_BYTES_OUT = int(WorkerCounter.BYTES_OUT)
_ANSWERS = int(BackendCounter.RESPONSES_1XX) - 1
_ROW_BYTES_IN = int(BackendCounter.BYTES_IN)
_ROW_BYTES_OUT = int(BackendCounter.BYTES_OUT)
_ROW_NS = int(BackendCounter.RESPONSE_NS)
"""An IntEnum member as an index costs 0.1 µs more than the number."""


class WorkerView:
    """One column, made in its own process after the fork."""

    __slots__ = (
        "_backend_counters",
        "_beat_cell",
        "_cells",
        "_counters",
        "_first_credit",
        "_first_kept",
        "_first_load",
        "_first_panic",
        "_first_started",
        "_first_ticket",
        "_layout",
        "_membership",
        "_pool_words",
        "_row_counters",
        "_row_words",
        "_status_word",
        "_table",
        "_words",
        "column",
        "ejections",
        "flows",
        "generation",
        "keys",
        "ledger",
        "release",
    )

    def __init__(self, table: Table, column: Column) -> None:
        layout = table.layout
        self.column = column
        self.ledger = Ledger(table, column)
        self.release = self.ledger.release
        """Gives back what an entry holds; ValueError if it holds nothing."""
        self.ejections = Ejections(table)
        """The words of passive checks."""
        self.keys = LimitedKeys(table, column)
        """The keys of limits."""
        self.flows = Flows(table, column)
        """The backends of UDP flows."""
        self._table = table
        self._layout = layout
        self._words = table.words
        self._cells = table.cells
        self._membership = Membership(table)
        self._beat_cell = layout.in_column(column, "heartbeat")
        first = layout.in_column(column, "counters")
        self._counters = table.cells[first : first + len(WorkerCounter)]
        first = layout.in_column(column, "backend_counters")
        self._row_counters = layout.backend_counters
        self._backend_counters = table.cells[first : first + layout.capacities.backends * self._row_counters]
        self._first_load = layout.in_row(Row(0), "in_flight")
        self._first_started = layout.in_row(Row(0), "started_at")
        self._row_words = layout.rows.stride
        self._first_ticket = layout.pools.at(0, "ticket")
        self._first_credit = layout.pools.at(0, "retry_credit")
        self._first_kept = layout.pools.at(0, "kept")
        self._first_panic = layout.pools.at(0, "panic")
        self._pool_words = layout.pools.stride
        self.generation = partial(table.words.load, layout.in_header("generation"))
        """The generation of the configuration in force. Called for every request."""
        self._status_word = layout.in_header("status_epoch")

    def beat(self) -> None:
        """Says that the event loop turns; called from a task of it."""
        self._cells[self._beat_cell] = monotonic_ns()

    def set_state(self, state: ProcessState) -> None:
        """Says how far this process is."""
        self._cells[self._layout.in_column(self.column, "state")] = state

    def follow(self, generation: int) -> None:
        """Says which generation of the configuration this process follows."""
        self._cells[self._layout.in_column(self.column, "generation")] = generation

    def follow_membership(self, epoch: int) -> None:
        """Says which publication this process follows: from now on it uses no backend that is not in it."""
        self._cells[self._layout.in_column(self.column, "membership")] = epoch

    def load_word(self, row: Row) -> int:
        """Where the in-flight total of a backend is; for ``loads``."""
        return self._first_load + row * self._row_words

    def loads(self, words: tuple[int, ...]) -> list[int]:
        """In-flight totals over all processes, by words from ``load_word``."""
        return self._words.counts(words)

    def take(self, row: Row, at_most: int = UNLIMITED) -> int:
        """Takes a place at a backend unless more than ``at_most`` are taken.

        Returns:
            The ledger entry to release later; -1 if there were more.

        Raises:
            CapacityError: this process holds as much as its ledger has entries.
        """
        return self.ledger.take(self._first_load + row * self._row_words, 1, at_most)

    def keep_pool(self, pool_index: int) -> int:
        """Keeps the words of a pool, and the rows of its backends, from being given to others.

        Call it before `follow_membership` says that the pool is gone.

        Returns:
            The ledger entry to release later.

        Raises:
            CapacityError: this process holds as much as its ledger has entries.
        """
        return self.ledger.take(self._first_kept + pool_index * self._pool_words)

    def listener(self, name: str) -> ListenerWords:
        """The words of a listener, for its places; looked up now."""
        return ListenerWords(self._table, self.ledger, name)

    def key_hash(self, *kind: str) -> KeyHash:
        """Hashes names of one kind for ``keys`` and ``flows``."""
        return KeyHash(self._table.secret, kind)

    def ticket(self, pool_index: int) -> int:
        """The next ticket of a pool; each is given out once over all processes."""
        return self._words.fetch_add(self._first_ticket + pool_index * self._pool_words, 1)

    def add_retry_credit(self, pool_index: int, amount: int) -> None:
        """Adds to the retry budget of a pool, as ``core.retry`` counts it."""
        self._words.fetch_add(self._first_credit + pool_index * self._pool_words, amount)

    def retry_credit(self, pool_index: int) -> int:
        """The word of the retry budget of a pool."""
        return self._words.load(self._first_credit + pool_index * self._pool_words)

    def swap_retry_credit(self, pool_index: int, expected: int, desired: int) -> bool:
        """Stores another word if it is still the expected one; says whether it was."""
        return self._words.compare_exchange(
            self._first_credit + pool_index * self._pool_words, expected, desired
        )

    def count(self, counter: WorkerCounter, amount: int = 1) -> None:
        """Adds to a counter of this process. Only gauges take a negative amount, and never fall below 0."""
        self._counters[counter] += amount

    def counted(self, counter: WorkerCounter) -> int:
        """What this process has counted; what the column's former owners counted is carried elsewhere."""
        return self._counters[counter]

    def count_backend(self, row: Row, counter: BackendCounter, amount: int = 1) -> None:
        """Adds to this process's counter of a backend."""
        self._backend_counters[row * self._row_counters + counter] += amount

    def count_pick(self, row: Row, *, reuses: bool = False) -> None:
        """Counts a request that a backend was picked for, and whether it goes over an idle connection."""
        first = row * self._row_counters
        self._backend_counters[first + _PICKS] += 1
        if reuses:
            self._backend_counters[first + _REUSES] += 1

    def count_reuse(self, row: Row) -> None:
        """Counts a request that was picked for before, and goes over an idle connection."""
        self._backend_counters[row * self._row_counters + _REUSES] += 1

    def count_exchange(self, status_class: int, bytes_in: int, bytes_out: int) -> None:
        """Counts a request that was answered.

        Args:
            status_class: 1 to 5.
            bytes_in: from the client.
            bytes_out: to the client.
        """
        counters = self._counters  # these run for every request, hence plain numbers and one call
        counters[_REQUESTS] += 1
        counters[_CLASSES + status_class] += 1
        counters[_BYTES_IN] += bytes_in
        counters[_BYTES_OUT] += bytes_out

    def count_answer(self, row: Row, status_class: int, bytes_in: int, bytes_out: int, spent: int) -> None:
        """Counts a request that a backend answered, ``spent`` nanoseconds after it was sent there."""
        counters = self._backend_counters
        first = row * self._row_counters
        counters[first + _ANSWERS + status_class] += 1
        counters[first + _ROW_BYTES_IN] += bytes_in
        counters[first + _ROW_BYTES_OUT] += bytes_out
        counters[first + _ROW_NS] += spent

    def count_relayed(self, row: Row, bytes_in: int, bytes_out: int) -> None:
        """Counts what was relayed from a client to a backend, and back."""
        counters, first = self._backend_counters, row * self._row_counters
        self._counters[_BYTES_IN] += bytes_in
        self._counters[_BYTES_OUT] += bytes_out
        counters[first + _ROW_BYTES_IN] += bytes_in
        counters[first + _ROW_BYTES_OUT] += bytes_out

    def membership_epoch(self) -> int:
        """Changes when there is a newer membership to read."""
        return self._membership.epoch()

    def read_membership(self) -> tuple[int, bytes]:
        """The newest membership with its epoch; (0, b"") while there is none."""
        return self._membership.read()

    def status_epoch(self) -> int:
        """Changes after any health, admin or ejected cell or the membership did.

        Read it before what it announces, not after, so that a change in between is seen next time.
        """
        return self._words.load(self._status_word)

    def statuses(self, rows: Sequence[Row]) -> list[tuple[Health, Admin, bool]]:
        """Health, admin state and ejection of each of these backends."""
        load, place = self._words.load, self._layout.in_row
        return [
            (
                Health(load(place(row, "health"))),
                Admin(load(place(row, "admin"))),
                is_ejected(load(place(row, "ejected"))),
            )
            for row in rows
        ]

    def started_at(self, row: Row) -> int:
        """When the slow start of a backend began: ns, monotonic; 0: never."""
        return self._words.load(self._first_started + row * self._row_words)

    def set_panic(self, pool_index: int, *, panic: bool) -> bool:
        """Says whether a pool is in panic; returns whether that is news."""
        word = self._first_panic + pool_index * self._pool_words
        return self._words.compare_exchange(word, int(not panic), int(panic))
