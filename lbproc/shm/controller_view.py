"""The table as the controller sees and changes it: its own heartbeat, and the health of backends.

Owns the health cells; no other process writes them. Everything else it reads (``reader``).
"""

from __future__ import annotations

from lbproc.shm.cells import ProcessState
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.membership import Membership
from lbproc.shm.reader import Reader
from lbproc.shm.table import Table
from lbproc.types import Column, Health, Liveness, Row, Seconds


class ControllerView:
    """The controller's column, made in its own process after the fork."""

    __slots__ = ("_membership", "_table", "column", "reader")

    def __init__(self, table: Table, column: Column) -> None:
        self.column = column
        self.reader = Reader(table)
        self._table = table
        self._membership = Membership(table)

    def beat(self) -> None:
        """Says that the event loop turns; called from a task of it."""
        self._table.cells[self._table.layout.in_column(self.column, "heartbeat")] = monotonic_ns()

    def set_state(self, state: ProcessState) -> None:
        """Says how far this process is."""
        self._table.cells[self._table.layout.in_column(self.column, "state")] = state

    def follow(self, generation: int) -> None:
        """Says which generation of the configuration this process follows."""
        self._table.cells[self._table.layout.in_column(self.column, "generation")] = generation

    def follow_membership(self, epoch: int) -> None:
        """Says which publication this process follows: from now on it checks no backend that is not in it."""
        self._table.cells[self._table.layout.in_column(self.column, "membership")] = epoch

    def health(self, row: Row) -> Health:
        """What the checks think of a backend."""
        return Health(self._table.words.load(self._table.layout.in_row(row, "health")))

    def liveness(self, row: Row) -> Liveness:
        """Whether the process of a backend lives."""
        return Liveness(self._table.words.load(self._table.layout.in_row(row, "liveness")))

    def health_age(self, row: Row) -> Seconds | None:
        """How long the health of a backend has been what it is; None: that was not noted."""
        since = self._table.words.load(self._table.layout.in_row(row, "health_since"))
        return (monotonic_ns() - since) / 1e9 if since else None

    def set_health(self, row: Row, health: Health) -> None:
        """Publishes what the checks think of a backend, if it is news.

        A backend that begins to take traffic begins its slow start, too. That stands there first, so that
        nobody sees it up without.
        """
        if self.health(row) is health:
            return
        words, place, now = self._table.words, self._table.layout.in_row, monotonic_ns()
        words.store(place(row, "health_since"), now)
        if health is Health.UP:
            words.store(place(row, "started_at"), now)
        self._table.change_status(place(row, "health"), health)

    def set_liveness(self, row: Row, liveness: Liveness) -> None:
        """Notes whether the process of a backend lives; no pick looks at it."""
        self._table.words.store(self._table.layout.in_row(row, "liveness"), int(liveness))

    def set_checked(self, row: Row) -> None:
        """Notes that a backend was checked now."""
        self._table.words.store(self._table.layout.in_row(row, "checked_at"), monotonic_ns())

    def abandoned(self) -> int:
        """The newest generation of which it is certain that it will not be in force, unless it is."""
        return self._table.words.load(self._table.layout.in_header("abandoned"))

    def membership_epoch(self) -> int:
        """Changes when there is a newer membership to read."""
        return self._membership.epoch()

    def read_membership(self) -> tuple[int, bytes]:
        """The newest membership with its epoch; (0, b"") while there is none."""
        return self._membership.read()
