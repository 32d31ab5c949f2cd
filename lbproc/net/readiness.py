"""Who waits for which socket: one edge-triggered epoll per worker, and the tasks parked on what it reports.

Owns the readiness bits of every source, parking, coarse deadlines, and the dispatcher that turns kernel
events into woken tasks. Knows nothing of bytes: transports read and write, and tell the source when the
kernel had no more.

Theory of operation. A `Source` is one thing that can become readable or writable. Its bits are
*optimistic*: they start set, a transport clears one when the kernel says it would block, and an event sets
it again::

               recv or send would block              event of the dispatcher (or of a memory transport)
    bit set ───────────────────────────▶ bit clear ────────────────────────────────────────▶ bit set
                                             │ park: the task sleeps                            │ it wakes
                                             └──────────────────────────────────────────────────┘

A socket is registered once. The kernel then reports each *change* once, whether a task is parked or not, so
an event that comes between a read that would block and the park leaves its bit set, and the park returns at
once.

Invariants:
    - At most one task is parked on a source. A task parks on several sources at once, and is woken once:
      whoever wakes it clears all of them first.
    - A task leaves its sources however it leaves its park: woken, swept at its deadline, or cancelled.
    - A bit that is set too much costs one call that would block. A bit that is clear too much would hang a
      connection, so the bits of an unregistered source are set for good.
    - The dispatcher sets bits, calls reflexes and schedules; no task runs between `epoll_wait` and the last
      event of its batch. A reflex may close a descriptor but opens none, so no number is reused in between,
      and an event never reaches the wrong source.
    - Nobody yields while something is ready. A caller that moves bytes without ever blocking has to make a
      checkpoint after a bounded amount of work, or it starves the others of its worker.

Reflexes. To wake a task costs 2 to 3 µs of a request that costs 30 (one core, 2026). A source may carry a
reflex: a function that is called on its events in place of waking anybody. It does a bounded amount of work,
never waits, never raises, opens no descriptor, and wakes the task by itself (`nudge`) when something comes
that is the task's to deal with. What it leaves unread keeps its bit, so nothing is lost between the two.
"""

from __future__ import annotations

# ruff: noqa: SLF001  parking is one mechanism, which sources, sweeper and dispatcher share and nobody else
import math
import select
from typing import TYPE_CHECKING

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.types import Seconds

READ = 1
"""Something to read, the end of it, or an error that a read will raise. The value is EPOLLIN's."""

WRITE = 4
"""Room to write, or an error that a write will raise. The value is EPOLLOUT's."""

LOST = 8
"""The connection broke. Never cleared. The value is EPOLLERR's."""

_BOTH = READ | WRITE

# What makes a short read prove nothing. After any of these a read may return less than it could and leave a
# FIN, an error, or bytes behind an urgent mark for which no further event will come.
_WARY = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLPRI

_WATCHED = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET
_WATCHED_WITH_WRITES = _WATCHED | select.EPOLLOUT

_ROUNDS = 8
"""Batches of events that are dispatched in a row while they wake no task. A pass of trio's loop costs 10 µs
and the look for another batch 0.5; the heartbeat and other tasks wait this long at most."""


class Source:
    """One thing that becomes readable and writable, and the task that waits for it, if one does.

    Attributes:
        ready: READ and WRITE bits; set may be wrong, clear is right. Transports clear them.
        wary: A FIN, an error or urgent data was reported: read until the kernel says it would block.
        reflex: Called on events in place of waking the task; returns whether it woke a task after all.
        deadline: Until when the parked task waits. A reflex may move it.
    """

    __slots__ = ("_interest", "_task", "_waits", "deadline", "ready", "reflex", "wary")

    def __init__(self) -> None:
        self.ready = _BOTH
        self.wary = False
        self.reflex: Callable[[], bool] | None = None
        self._task: trio.lowlevel.Task | None = None
        self._interest = 0
        self._waits: Waits = ()
        self.deadline = math.inf

    @property
    def is_parked(self) -> bool:
        """Whether a task is parked here."""
        return self._task is not None

    def notify(self, bits: int) -> bool:
        """Sets readiness bits and calls the reflex, or wakes the parked task if it waits for one of them.

        Returns whether a task was woken.
        """
        self.ready |= bits
        if self.reflex is not None:
            return self.reflex()
        task = self._task
        if task is None or not self._interest & bits:
            return False
        self._leave()
        trio.lowlevel.reschedule(task)
        return True

    def nudge(self) -> None:
        """Wakes the parked task although nothing is ready, so that it looks at the world again.

        A nudge is not remembered: change the world first, and a task that is about to park sees it before
        it does.
        """
        task = self._task
        if task is not None:
            self._leave()
            trio.lowlevel.reschedule(task)

    def _leave(self) -> None:
        """Unparks the task from all the sources it waits for.

        Lets go of the waits, which name this source: connections that end leave no cycle of references,
        and so nothing to the garbage collector.
        """
        for source, _ in self._waits:
            source._task = None
            source._waits = ()

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Called by trio when the parked task is cancelled."""
        self._leave()
        return trio.lowlevel.Abort.SUCCEEDED

    def _expire(self, now: float) -> bool:
        """Wakes the parked task if its deadline has come.

        Returns whether the sweeper can forget this source.
        """
        task = self._task
        if task is None:
            return True
        if self.deadline > now:
            return self.deadline == math.inf
        self._leave()
        trio.lowlevel.reschedule(task, outcome.Value(False))
        return True


Waits = tuple[tuple[Source, int], ...]
"""What a task parks on: sources, each with the bits it waits for. A source may stand there twice."""


class Deadlines:
    """Coarse deadlines of parked tasks: one sweep over them instead of a cancel scope for each.

    A source whose task was woken stays in the set until the next sweep finds it unparked, so that the
    ordinary park, which ends long before its deadline, pays for one addition to a set and no removal.

    Args:
        resolution: Seconds between two sweeps; a deadline is met up to this much late, never early.
    """

    __slots__ = ("_resolution", "_watched")

    def __init__(self, resolution: Seconds = 0.25) -> None:
        self._resolution = resolution
        self._watched: set[Source] = set()

    async def run(self) -> None:
        """Sweeps until cancelled. One task of the worker does this."""
        while True:
            await trio.sleep(self._resolution)
            self.sweep(trio.current_time())

    def sweep(self, now: float) -> None:
        """Wakes the tasks whose deadline is not after ``now``."""
        self._watched.difference_update([source for source in self._watched if source._expire(now)])

    @property
    def watched(self) -> int:
        """How many sources the sweeper knows: those parked with a deadline, and some that were lately."""
        return len(self._watched)


async def park(waits: Waits, deadlines: Deadlines, deadline: float) -> bool:
    """Waits until a source is ready for what is waited for, or is nudged, or the deadline has passed.

    Returns at once, without a checkpoint, when something is ready. Cancellation leaves every source
    unparked and its bits as they are. An unregistered source counts as ready, so closing a transport wakes
    whoever is parked on it.

    Args:
        waits: At least one source with the bits waited for. Keep the tuple and pass it again.
        deadlines: The worker's sweeper.
        deadline: An instant of trio's clock, or ``math.inf``.

    Returns:
        True when something is or may be ready, or on a nudge; False when the deadline passed.

    Raises:
        trio.BusyResourceError: Another task is parked on one of the sources.
    """
    for source, bits in waits:
        if source.ready & bits:
            return True
        if source._task is not None:
            raise trio.BusyResourceError("another task is parked on this source")
    task = trio.lowlevel.current_task()
    for source, bits in waits:
        source._interest = bits if source._task is None else source._interest | bits
        source._task = task
        source._waits = waits
        source.deadline = deadline
    first = waits[0][0]
    if deadline != math.inf:
        deadlines._watched.add(first)
    return await trio.lowlevel.wait_task_rescheduled(first._abort) is not False


class Dispatcher:
    """The worker's epoll instance, and the task that hands its events to the sources.

    Make it after fork: an inherited epoll instance is the parent's.
    """

    __slots__ = ("_epoll", "_sources")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}

    def register(self, fd: int, source: Source, *, writes: bool = False) -> None:
        """Begins to report a descriptor's events to the source. Its present readiness is reported too.

        Args:
            fd: A non-blocking descriptor. Unregister it before it is closed.
            source: Hears of it, until the descriptor is unregistered.
            writes: Whether to report room to write from the beginning. Without it `watch_writes` does so
                later, which spares the event that every new socket, writable as it is, would cause.
        """
        if fd in self._sources:
            raise ValueError(f"descriptor {fd} was closed without being unregistered")
        self._epoll.register(fd, _WATCHED_WITH_WRITES if writes else _WATCHED)
        self._sources[fd] = source

    def watch_writes(self, fd: int) -> None:
        """Reports room to write as well.

        If there is room already, that is reported: no edge is lost in between.
        """
        self._epoll.modify(fd, _WATCHED_WITH_WRITES)

    def unregister(self, fd: int) -> None:
        """Ends the reports, and wakes whoever is parked on the source with all bits set, to stay so.

        Its reflex ends with them.

        Has to come before the close, and before a socket that was handed to a sibling is closed here: epoll
        watches the open file description, which lives on there, and would go on reporting it under a number
        that is reused.
        """
        source = self._sources.pop(fd)
        self._epoll.unregister(fd)
        source.wary = True
        source.reflex = None
        source.notify(_BOTH)

    async def run(self) -> None:
        """Dispatches until cancelled. One task of the worker does this."""
        wait_readable, poll, fd = trio.lowlevel.wait_readable, self._epoll.poll, self._epoll.fileno()
        while True:
            await wait_readable(fd)
            for _ in range(_ROUNDS):
                batch = poll(0)
                if not batch or self._dispatch(batch):
                    break

    def _dispatch(self, batch: list[tuple[int, int]]) -> bool:
        """Hands events to their sources. Returns whether a task was woken."""
        find = self._sources.get
        woke = False
        for fd, events in batch:
            source = find(fd)
            if source is None:
                continue  # a reflex closed it a moment ago
            if events & _WARY:
                source.wary = True
                woke |= source.notify(_BOTH | events & LOST)
            else:
                woke |= source.notify(events & _BOTH)
        return woke

    def close(self) -> None:
        """Closes the epoll instance. Whoever is still parked is woken."""
        self._epoll.close()
        while self._sources:
            _, source = self._sources.popitem()
            source.wary = True
            source.reflex = None
            source.notify(_BOTH)
