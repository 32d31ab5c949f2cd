"""The table as the supervisor sees and changes it: who has which column, row and pool, and what is in force.

Owns the hand-out of columns, rows and pools, the repair of columns, the generation, the admin cells and the
published membership. Rows and pools carry the hash of their name, so that a program which attaches to a table
finds them again.

Invariants:
- A column is handed out only when it is free, and free only after repair.
- Columns are handed out lowest first; readers rely on it.
- Counters stay in the column. The baseline remembers where a new process began; gauges begin at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from heapq import heappop, heappush

from lbproc.errors import CapacityError
from lbproc.shm.cells import GAUGES, ProcessState, Role, WorkerCounter
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.identity import Identity, identity_of, row_name
from lbproc.shm.keys import repair_claim
from lbproc.shm.layout import LISTENERS, ROWS, SUPERVISOR_COLUMN, WORD_BYTES, Placed
from lbproc.shm.membership import Membership
from lbproc.shm.reader import Reader
from lbproc.shm.repair import RepairReport, repair_ledger
from lbproc.shm.table import Table
from lbproc.types import Admin, Column, Health, Row, Slot

_NEVER_USED: Identity = (0, 0)
_GIVEN_BACK: Identity = (1, 0)
"""No identity: its second word is odd."""


class SupervisorView:
    """Everything that only the supervisor may change."""

    __slots__ = ("_listeners", "_membership", "_pools", "_rows", "_table", "column", "reader")

    def __init__(self, table: Table) -> None:
        self.column = SUPERVISOR_COLUMN
        self.reader = Reader(table)
        self._table = table
        self._membership = Membership(table)
        self._rows = _Directory(table, table.layout.rows)
        self._pools = _Directory(table, table.layout.pools)
        self._listeners = _Directory(table, table.layout.listeners)
        self._hand_out(self.column, Role.SUPERVISOR, None)

    def allocate_column(self, slot: Slot | None, role: Role) -> Column:
        """A free column for a process that is about to be forked.

        Raises:
            CapacityError: all are in use.
        """
        columns = self._table.layout.capacities.columns
        for number in range(SUPERVISOR_COLUMN + 1, columns):
            column = Column(number)
            if self._table.cells[self._cell(column, "role")] == Role.FREE:
                self._hand_out(column, role, slot)
                return column
        raise CapacityError(
            f"the shared table has room for {columns - 2} processes at one time and all are there; "
            "raise max_columns in [runtime] (at most 256) or run fewer workers"
        )

    def set_pid(self, column: Column, pid: int) -> None:
        """Notes the process that has the column, after the fork."""
        self._table.cells[self._cell(column, "pid")] = pid

    def repair(self, column: Column) -> RepairReport:
        """Takes back what a reaped process held, and frees its column.

        Raises:
            ValueError: this is the supervisor's own column, or nobody's.
        """
        if column <= self.column:
            raise ValueError(f"column {column} belongs to no child")
        report = repair_ledger(self._table, column, self.column)
        report = replace(report, claim_freed=repair_claim(self._table, column, monotonic_ns()))
        for gauge in GAUGES:
            self._table.cells[self._cell(column, "counters") + gauge] = 0
        for field in ("pid", "slot", "role"):
            self._table.cells[self._cell(column, field)] = 0
        return report

    def heartbeat_at(self, column: Column) -> int:
        """When the process last said that its event loop turns: ns, monotonic."""
        return self._table.cells[self._cell(column, "heartbeat")]

    def ensure_row(self, pool: str, address: str, health: Health = Health.UP) -> Row:
        """The row of a backend, the same for the same pool and address as long as the table lives.

        Args:
            pool: its pool.
            address: as configured.
            health: what a row that is new begins with; of one that is known nothing changes.

        Raises:
            CapacityError: every row is taken.
        """
        name = row_name(pool, address)
        is_new = not self._rows.has(name)
        row = self._rows.ensure(name)
        if row is None:
            raise self._no_row()
        if is_new:
            words, place = self._table.words, self._table.layout.in_row
            words.store(place(Row(row), "health"), int(health))
            words.store(place(Row(row), "health_since"), monotonic_ns())
            self.start_row(Row(row))
        return Row(row)

    def release_row(self, pool: str, address: str) -> None:
        """Frees the row of a backend that is gone, for another one. Nothing is left of what it held.

        Only for a row that nobody touches any more (``core.control.departures``). Its counters end, too; in
        the columns of processes that live they stand still by then.

        Raises:
            KeyError: there is no such row.
            ValueError: something is in flight to it.
        """
        name = row_name(pool, address)
        if not self._rows.has(name):
            raise KeyError(f"{address} in pool {pool}")
        row = self.ensure_row(pool, address)
        if in_flight := self.reader.in_flight(row):
            raise ValueError(f"{in_flight} in flight to {address} in pool {pool}")
        table = self._table
        for field in ROWS.fields:
            if field.name not in {"in_flight", "identity"}:
                table.words.store(table.layout.in_row(row, field.name), 0)
        length = table.layout.backend_counters
        for number in range(table.layout.capacities.columns):
            column = Column(number)
            if table.cells[self._cell(column, "started_at")]:  # ever used
                first = self._cell(column, "backend_counters") + row * length
                table.cells[first : first + length] = memoryview(bytes(length * WORD_BYTES)).cast("Q")
        self._rows.give_back(name)

    def start_row(self, row: Row, now: int | None = None) -> None:
        """Begins the slow start of a backend: it is new, or back in the membership.

        Args:
            row: the backend's.
            now: ns, monotonic; None for the present.
        """
        started_at = monotonic_ns() if now is None else now
        self._table.words.store(self._table.layout.in_row(row, "started_at"), started_at)

    def ensure_pool(self, pool: str) -> int:
        """The index of a pool, for its ticket.

        Raises:
            CapacityError: every one is taken.
        """
        index = self._pools.ensure(pool)
        if index is None:
            raise self._no_ticket()
        return index

    def is_pool_kept(self, pool: str) -> bool:
        """Whether a worker may still pick by what this pool was, although it is gone."""
        if not self._pools.has(pool):
            return False
        word = self._table.layout.pools.at(self.ensure_pool(pool), "kept")
        return self._table.words.counts((word,))[0] > 0

    def release_pool(self, pool: str) -> None:
        """Frees the words of a pool that is gone, for another one. Nothing is left of what they held.

        Only for a pool that nobody touches any more (``core.control.departures``).

        Raises:
            KeyError: there is no such pool.
            ValueError: a worker keeps it.
        """
        if not self._pools.has(pool):
            raise KeyError(f"pool {pool}")
        if self.is_pool_kept(pool):
            raise ValueError(f"a worker keeps pool {pool}")
        index = self.ensure_pool(pool)
        for field in ("ticket", "retry_credit", "panic"):
            self._table.words.store(self._table.layout.pools.at(index, field), 0)
        self._pools.give_back(pool)

    def ensure_listener(self, listener: str) -> int:
        """The block of a listener, with its words (``shm.listeners``): the same as long as it is there.

        Raises:
            CapacityError: all are taken.
        """
        block = self._listeners.ensure(listener)
        if block is None:
            raise self._no_listener()
        return block

    def release_listener(self, listener: str) -> bool:
        """Frees the words of a listener that is gone, unless something is open there; says whether it did.

        A worker that meets one more connection for it may take a place in between, see ``shm.listeners``.
        """
        table = self._table
        block = self._listeners.find(listener)
        if block is None:
            return True

        def is_free() -> bool:
            table.words.fence()
            return not table.words.counts((table.layout.listeners.at(block, "open"),))[0]

        if not self._listeners.give_back_if(listener, is_free):
            return False
        for field in LISTENERS.fields:
            if field.name in {"refused", "told_at"}:
                first = table.layout.listeners.at(block, field.name)
                for word in range(first, first + field.words):
                    table.words.store(word, 0)
        return True

    def check_room(
        self,
        pools: Iterable[str],
        backends: Iterable[tuple[str, str]],
        listeners: Iterable[str] = (),
    ) -> None:
        """Sees whether all of these have, or can get, their places, before the first of them takes one.

        Args:
            pools: each once.
            backends: pool and address of each, once.
            listeners: each once.

        Raises:
            CapacityError: there are too few.
        """
        if not self._pools.has_room_for(pools):
            raise self._no_ticket()
        if not self._rows.has_room_for(row_name(pool, address) for pool, address in backends):
            raise self._no_row()
        if not self._listeners.has_room_for(listeners):
            raise self._no_listener()

    def set_admin(self, row: Row, admin: Admin) -> None:
        """Publishes what the operator said of a backend, if it is news."""
        self._table.change_status(self._table.layout.in_row(row, "admin"), admin)

    def set_generation(self, generation: int) -> None:
        """Puts a generation of the configuration in force: the one store that commits a reload.

        The status epoch changes then, so that a pick looks at what is published, too.
        """
        self._table.words.store(self._table.layout.in_header("generation"), generation)
        self._table.words.fetch_add(self._table.layout.in_header("status_epoch"), 1)

    def set_abandoned(self, generation: int) -> None:
        """Says that nothing is prepared any more for this generation and all before it.

        Whoever is asked to, by a message that was long on its way, looks here before he looks for rows.
        """
        self._table.words.store(self._table.layout.in_header("abandoned"), generation)

    @property
    def membership_room(self) -> int:
        """The most bytes that a membership may have."""
        return self._table.layout.capacities.membership_bytes

    def publish_membership(self, blob: bytes) -> int:
        """Makes ``blob`` the newest membership; gives its epoch.

        The status epoch changes too, so that a pick has one word to compare.

        Raises:
            CapacityError: it is too long.
        """
        epoch = self._membership.publish(blob)
        self._table.words.fetch_add(self._table.layout.in_header("status_epoch"), 1)
        return epoch

    def _cell(self, column: Column, field: str) -> int:
        return self._table.layout.in_column(column, field)

    def _no_row(self) -> CapacityError:
        limit = self._table.layout.capacities.backends
        return CapacityError(
            f"the shared table has room for {limit} backends and all are taken; "
            "raise max_backends in [runtime] and start again"
        )

    def _no_ticket(self) -> CapacityError:
        limit = self._table.layout.capacities.pools
        return CapacityError(
            f"the shared table has room for {limit} pools and all are taken; use fewer pools"
        )

    def _no_listener(self) -> CapacityError:
        limit = self._table.layout.capacities.listeners
        return CapacityError(
            f"the shared table has room for {limit} listeners and all are taken, some by listeners that were "
            "removed and still have connections; use fewer, or start again"
        )

    def _hand_out(self, column: Column, role: Role, slot: Slot | None) -> None:
        cells, now = self._table.cells, monotonic_ns()
        counters, baseline = self._cell(column, "counters"), self._cell(column, "baseline")
        for counter in WorkerCounter:
            cells[baseline + counter] = cells[counters + counter]
        cells[self._cell(column, "state")] = ProcessState.STARTING
        cells[self._cell(column, "generation")] = 0
        cells[self._cell(column, "membership")] = 0
        cells[self._cell(column, "heartbeat")] = now
        cells[self._cell(column, "started_at")] = now
        cells[self._cell(column, "slot")] = 0 if slot is None else slot + 1
        cells[self._cell(column, "role")] = role


class _Directory:
    """Blocks of a section by the hash of their name.

    Blocks are handed out lowest first, so the first one that was never used ends them. One that was given
    back is marked (1, 0), which is no identity.
    """

    __slots__ = ("_by_identity", "_free", "_section", "_table", "_used")

    def __init__(self, table: Table, section: Placed) -> None:
        self._table = table
        self._section = section
        self._by_identity: dict[Identity, int] = {}
        self._free: list[int] = []
        self._used = 0
        for block in range(section.blocks):
            identity = self._identity_at(block)
            if identity == _NEVER_USED:
                break
            self._used = block + 1
            if identity == _GIVEN_BACK:
                self._free.append(block)
            else:
                self._by_identity[identity] = block

    def has(self, name: str) -> bool:
        """Whether a name has a block."""
        return identity_of(name) in self._by_identity

    def find(self, name: str) -> int | None:
        """The block of a name; None if it has none."""
        return self._by_identity.get(identity_of(name))

    def has_room_for(self, names: Iterable[str]) -> bool:
        """Whether each of these names, no two of them the same, has a block or can get one."""
        missing = sum(not self.has(name) for name in names)
        return missing <= len(self._free) + self._section.blocks - self._used

    def ensure(self, name: str) -> int | None:
        """The block of a name; None if there is no free one."""
        identity = identity_of(name)
        block = self._by_identity.get(identity)
        if block is not None:
            return block
        if self._free:
            block = heappop(self._free)
        elif self._used < self._section.blocks:
            block, self._used = self._used, self._used + 1
        else:
            return None
        self._by_identity[identity] = block
        self._store_identity(block, identity)
        return block

    def give_back(self, name: str) -> None:
        """Makes the block of a name free."""
        block = self._by_identity.pop(identity_of(name))
        self._store_identity(block, _GIVEN_BACK)
        heappush(self._free, block)

    def give_back_if(self, name: str, is_free: Callable[[], bool]) -> bool:
        """Makes the block of a name free if that is true while it has no name; says whether it was."""
        identity = identity_of(name)
        block = self._by_identity[identity]
        self._store_identity(block, _GIVEN_BACK)
        if not is_free():
            self._store_identity(block, identity)
            return False
        del self._by_identity[identity]
        heappush(self._free, block)
        return True

    def _store_identity(self, block: int, identity: Identity) -> None:
        word = self._section.at(block, "identity")
        self._table.words.store(word, identity[0])
        self._table.words.store(word + 1, identity[1])

    def _identity_at(self, block: int) -> Identity:
        word = self._section.at(block, "identity")
        return self._table.words.load(word), self._table.words.load(word + 1)
