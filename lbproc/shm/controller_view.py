"""The table as the controller sees and changes it: its own heartbeat, and the health of backends.

Owns the health cells; no other process writes them. Everything else it reads (``reader``).
"""

from __future__ import annotations

from lbproc.shm.cells import ProcessState
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.membership import Membership
from lbproc.shm.reader import Reader
from lbproc.shm.table import Table
from lbproc.types import Column, Health, Row


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

    def set_health(self, row: Row, health: Health) -> None:
        """Publishes what the checks think of a backend, if it is news."""
        self._table.change_status(self._table.layout.in_row(row, "health"), health)

    def membership_epoch(self) -> int:
        """Changes when there is a newer membership to read."""
        return self._membership.epoch()

    def read_membership(self) -> tuple[int, bytes]:
        """The newest membership with its epoch; (0, b"") while there is none."""
        return self._membership.read()
