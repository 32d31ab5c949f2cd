"""What every process may know of the table, for status and metrics: sums over all columns.

Owns the sums. Writes nothing. Counters stay in their column when it is reused, so a sum never goes back, and
nothing has to be carried over when a process dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add

from lbproc.shm.cells import BackendCounter, ProcessState, Refusal, Role, WorkerCounter
from lbproc.shm.ejections import is_ejected
from lbproc.shm.identity import identity_of, row_identity
from lbproc.shm.layout import NO_COLUMN
from lbproc.shm.table import Table
from lbproc.types import Admin, Column, Health, Liveness, Row, Slot

_BACKEND_COUNTERS = len(BackendCounter)
_WORKER_COUNTERS = len(WorkerCounter)


@dataclass(frozen=True, slots=True)
class ColumnState:
    """A process, as its column tells.

    Attributes:
        slot: None for a process without listeners.
        pid: 0 until the fork is done.
        heartbeat: ns, monotonic.
        generation: of the configuration it follows.
        counters: by ``WorkerCounter``, since this process got the column.
    """

    column: Column
    role: Role
    slot: Slot | None
    pid: int
    state: ProcessState
    heartbeat: int
    generation: int
    counters: tuple[int, ...]

    @property
    def connections(self) -> int:
        """Client connections that it has open."""
        return self.counters[WorkerCounter.CONNECTIONS]

    @property
    def requests(self) -> int:
        """Requests that it has served."""
        return self.counters[WorkerCounter.REQUESTS]


@dataclass(frozen=True, slots=True)
class RowStatus:
    """The three cells that say whether a backend may take traffic, each with a writer of its own."""

    health: Health
    admin: Admin
    ejected: bool


@dataclass(frozen=True, slots=True)
class RowChecks:
    """What active checks left in a row.

    Attributes:
        checked_at: of the last check, ns, monotonic; 0: there was none.
        since: of the last change of health, likewise.
    """

    liveness: Liveness
    checked_at: int
    since: int


@dataclass(frozen=True, slots=True)
class ListenerCounts:
    """A listener's connections.

    Attributes:
        open: now, those that took a place.
        refused: ever, by ``Refusal``.
    """

    open: int
    refused: tuple[int, ...]


class Reader:
    """Reads everything, changes nothing. Cheap to make."""

    __slots__ = ("_cells", "_layout", "_words")

    def __init__(self, table: Table) -> None:
        self._cells = table.cells
        self._words = table.words
        self._layout = table.layout

    def generation(self) -> int:
        """The generation of the configuration in force."""
        return self._words.load(self._layout.in_header("generation"))

    def created_at(self) -> int:
        """When the table was made: ns, monotonic."""
        return self._words.load(self._layout.in_header("created_at"))

    def column(self, column: Column) -> ColumnState:
        """One column, whether a process has it or not."""
        cells, place = self._cells, self._layout.in_column
        role = Role(cells[place(column, "role")])  # first: a column gets its role when all else is there
        slot = cells[place(column, "slot")]
        counters = self._run(place(column, "counters"), _WORKER_COUNTERS)
        baseline = self._run(place(column, "baseline"), _WORKER_COUNTERS)
        return ColumnState(
            column=column,
            role=role,
            slot=Slot(slot - 1) if slot else None,
            pid=cells[place(column, "pid")],
            state=ProcessState(cells[place(column, "state")]),
            heartbeat=cells[place(column, "heartbeat")],
            generation=cells[place(column, "generation")],
            counters=tuple(now - before for now, before in zip(counters, baseline, strict=True)),
        )

    def columns(self) -> list[ColumnState]:
        """The columns that processes have, the supervisor's among them."""
        return [state for state in map(self.column, self._used_columns()) if not _is_between(state)]

    def followed(self, *roles: Role) -> list[int]:
        """The publications that processes of these roles say they follow; 0: none yet."""
        cells, place = self._cells, self._layout.in_column
        return [cells[place(state.column, "membership")] for state in self.columns() if state.role in roles]

    def in_flight(self, row: Row) -> int:
        """Requests and tunnels to a backend, of all processes."""
        return self._words.counts((self._layout.in_row(row, "in_flight"),))[0]

    def listeners(self, names: Iterable[str]) -> dict[str, ListenerCounts]:
        """What is open at listeners, and what was refused; those that have no words are left out."""
        sought = {identity_of(name): name for name in names}
        found = {}
        layout = self._layout.listeners
        for block in range(layout.blocks if sought else 0):
            word = layout.at(block, "identity")
            identity = self._words.load(word), self._words.load(word + 1)
            if identity in sought:
                found[sought[identity]] = ListenerCounts(
                    self._words.counts((layout.at(block, "open"),))[0],
                    tuple(self._run(layout.at(block, "refused"), len(Refusal))),
                )
            if identity == (0, 0):
                break
        return found

    def backend_totals(self, row: Row) -> tuple[int, ...]:
        """The counters of a backend by ``BackendCounter``, over all processes that ever were."""
        return self.backends_totals((row,))[0]

    def backends_totals(self, rows: Sequence[Row]) -> list[tuple[int, ...]]:
        """The counters of several backends, each as `backend_totals` gives them.

        One pass over the columns for all of them, from the lowest row to the highest.
        """
        if not rows:
            return []
        stride, lowest = self._layout.backend_counters, min(rows)
        length = (max(rows) - lowest) * stride + _BACKEND_COUNTERS
        totals = [0] * length
        for column in self._used_columns():
            first = self._layout.in_column(column, "backend_counters") + lowest * stride
            totals = list(map(add, totals, self._run(first, length)))
        starts = ((row - lowest) * stride for row in rows)
        return [tuple(totals[start : start + _BACKEND_COUNTERS]) for start in starts]

    def backend_total(self, row: Row, counter: BackendCounter) -> int:
        """One counter of a backend, over all processes that ever were."""
        return self.backend_totals(row)[counter]

    def worker_totals(self) -> tuple[int, ...]:
        """The counters of processes by ``WorkerCounter``, over all that ever were."""
        totals = [0] * _WORKER_COUNTERS
        for column in self._used_columns():
            counters = self._run(self._layout.in_column(column, "counters"), _WORKER_COUNTERS)
            totals = [total + one for total, one in zip(totals, counters, strict=True)]
        return tuple(totals)

    def worker_total(self, counter: WorkerCounter) -> int:
        """One counter of processes, over all that ever were."""
        return self.worker_totals()[counter]

    def status(self, row: Row) -> RowStatus:
        """Health, admin state and ejection of a backend."""
        place = self._layout.in_row
        return RowStatus(
            Health(self._words.load(place(row, "health"))),
            Admin(self._words.load(place(row, "admin"))),
            is_ejected(self._words.load(place(row, "ejected"))),
        )

    def ejected_until(self, row: Row) -> int:
        """When the ejection of a backend ends: ns, monotonic; 0: it is not ejected."""
        word = self._words.load(self._layout.in_row(row, "ejected"))
        return word if is_ejected(word) else 0

    def ejections(self, row: Row) -> int:
        """How often a backend was ejected without a long good time in between."""
        return self._words.load(self._layout.in_row(row, "ejections"))

    def started_at(self, row: Row) -> int:
        """When the slow start of a backend began: ns, monotonic; 0: never."""
        return self._words.load(self._layout.in_row(row, "started_at"))

    def panic(self, pool_index: int) -> bool:
        """Whether too few backends of a pool are available, so that all are used."""
        return bool(self._words.load(self._layout.pools.at(pool_index, "panic")))

    def find_rows(self, backends: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        """The rows of some backends, by pool and address; those that have none are left out.

        Looks through all rows, so it is nothing for a request.
        """
        sought = {row_identity(*backend): backend for backend in backends}
        found = {}
        for number in range(self._layout.rows.blocks if sought else 0):
            word = self._layout.in_row(Row(number), "identity")
            backend = sought.get((self._words.load(word), self._words.load(word + 1)))
            if backend is not None:
                found[backend] = Row(number)
        return found

    def checks(self, row: Row) -> RowChecks:
        """Liveness of a backend, and the instants of its last check and its last change of health."""
        place = self._layout.in_row
        return RowChecks(
            Liveness(self._words.load(place(row, "liveness"))),
            self._words.load(place(row, "checked_at")),
            self._words.load(place(row, "health_since")),
        )

    def _run(self, first: int, length: int) -> list[int]:
        return self._cells[first : first + length].tolist()

    def _used_columns(self) -> list[Column]:
        """Columns that ever had a process: handed out lowest first, so the first new one ends them."""
        used = []
        for number in range(NO_COLUMN + 1, self._layout.capacities.columns):
            column = Column(number)
            if not self._cells[self._layout.in_column(column, "started_at")]:
                break
            used.append(column)
        return used


def _is_between(state: ColumnState) -> bool:
    """Whether the column is free, or is just being freed: its slot goes before its role."""
    return state.role is Role.FREE or (state.role is Role.WORKER and state.slot is None)
