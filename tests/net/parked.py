"""Tasks that park, for tests of what wakes them."""

from __future__ import annotations

import math

import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.readiness import Deadlines, Source, Waits, park


def blocked_source() -> Source:
    """A source whose transport found that everything would block."""
    source = Source()
    source.ready = 0
    return source


class Parked:
    """A task that parks once and notes what came of it."""

    def __init__(self, waits: Waits, deadlines: Deadlines, deadline: float = math.inf) -> None:
        self.waits = waits
        self.deadlines = deadlines
        self.deadline = deadline
        self.scope = trio.CancelScope()
        self.result: bool | str = "parked"
        self.woken_at = math.nan

    async def run(self) -> None:
        with self.scope:
            self.result = await park(self.waits, self.deadlines, self.deadline)
            self.woken_at = trio.current_time()
        if self.scope.cancelled_caught:
            self.result = "cancelled"


async def park_task(
    nursery: trio.Nursery, waits: Waits, deadlines: Deadlines | None = None, deadline: float = math.inf
) -> Parked:
    parked = Parked(waits, deadlines or Deadlines(), deadline)
    nursery.start_soon(parked.run)
    await wait_all_tasks_blocked()
    return parked
