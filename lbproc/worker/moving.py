"""A reload as one worker sees it: what is prepared beside what is in use, and the move to it.

Owns what was prepared or lent for the next generation, until it is followed or abandoned, and everything that
a move takes along: the runtime, addresses, siblings, logs, and connections, each to its time::

    Lend ──▶ Prepare ──build, in a thread──▶ Prepared ──generation in force──▶ move ──▶ Following
                │                              │                                 │
                └──▶ Refused                   └──Abandon──▶ nothing             └─queues─▶ Relinquished

The move itself is one step between two steps of this loop. Whoever is first to meet the new generation makes
it: a request, the supervisor's word, or the pulse. So from the commit on no request begins by the old one.

Invariants:
- Until the move nothing in use has changed, and a failure to build is an answer, never an end.
- What was sent here and is not used is closed.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from lbproc.config.sealed import unseal
from lbproc.core.control.messages import (
    Abandon,
    Follow,
    Following,
    Lend,
    Prepare,
    Prepared,
    Refused,
    Relinquished,
    descriptor_count,
)
from lbproc.errors import LbprocError
from lbproc.net.channel import as_sockets, close_all
from lbproc.proxy.runtime import Runtime
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Event
from lbproc.telemetry.sink import Sink
from lbproc.types import Slot

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from lbproc.core.control.messages import SupervisorBound
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.listener import Lineage
    from lbproc.types import Seconds
    from lbproc.worker.accepting import Accepting

SWITCH_INTERVAL: Seconds = 0.0005
"""How long the thread that builds keeps the loop waiting, each time that they both want to compute."""

AT_ONCE = 100
"""Connections that move in a row; each costs 3 µs."""

IDLE_GRACE: Seconds = 1.0
"""How long a keep-alive connection without a request is kept when its listener, or this worker, is to end.

A client may have sent its next request just before it could know; within this time the request is answered.
"""

NO_ROOM = "no descriptor is left for what the new configuration needs; raise the limit on open files"


def _nothing() -> None:
    """For a worker whose connections hold nothing."""


class Succession:
    """What is there for one generation that is not in force yet.

    Attributes:
        runtime: None while it is not built.
        lent: of each slot the key and the socket of each new address.
        is_short: descriptors got lost on their way, because this process has no room for them.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.runtime: Runtime | None = None
        self.slots = 0
        self.names: dict[int, str] = {}
        self.outboxes: dict[Slot, socket.socket] = {}
        self.access_log: Sink | None = None
        self.error_log: Sink | None = None
        self.lent: list[tuple[Slot, int, socket.socket]] = []
        self.is_short = False

    def close(self) -> None:
        """Closes everything that came along."""
        for sock in [*self.outboxes.values(), *(sock for _, _, sock in self.lent)]:
            sock.close()
        for log in (self.access_log, self.error_log):
            if log is not None:
                log.close()
        self.outboxes, self.lent, self.access_log, self.error_log = {}, [], None, None


class Moving:
    """Prepares and makes the moves of one worker.

    Args:
        context: what its connections share.
        accepting: takes its connections.
        connections: that it holds.
        tell: says something to the supervisor.
        on_moved: called when the new runtime is in use. It must not wait.
    """

    def __init__(
        self,
        context: WorkerContext,
        accepting: Accepting,
        connections: set[Client],
        tell: Callable[[SupervisorBound], Awaitable[None]],
        on_moved: Callable[[], None] = _nothing,
    ) -> None:
        self._context = context
        self._accepting = accepting
        self._connections = connections
        self._tell = tell
        self._on_moved = on_moved
        self._next: Succession | None = None
        self._left_behind: set[Client] = set()
        """Those that were busy with a request when the others moved."""
        self._ended_logs: list[AccessLog] = []

    def begin(self, services: trio.Nursery, serving: trio.Nursery) -> None:
        """Takes note of where its tasks run: what tells and tidies, and what serves connections."""
        self._services = services
        self._serving = serving

    # What the supervisor says -------------------------------------------------------------------------------

    def hear(self, message: Lend | Prepare | Follow | Abandon, descriptors: tuple[int, ...]) -> None:
        """Does what the supervisor says."""
        match message:
            case Lend():
                self._lend(message, descriptors)
            case Prepare():
                succession = self._of(message.generation)
                self._services.start_soon(self._prepare, succession, message, descriptors)
            case Follow():
                self.move()
            case Abandon():
                self._abandon(message.generation)

    def _lend(self, message: Lend, descriptors: tuple[int, ...]) -> None:
        succession = self._of(message.generation)
        if len(descriptors) < descriptor_count(message):
            succession.is_short = True
            return
        slot = Slot(message.slot)
        for (key, _, _), sock in zip(message.listeners, as_sockets(descriptors), strict=True):
            succession.lent.append((slot, key, sock))

    def _abandon(self, generation: int) -> None:
        if self._next is not None and self._next.generation == generation:
            self._next.close()
            self._next = None

    def _of(self, generation: int) -> Succession:
        if self._next is None or self._next.generation != generation:
            if self._next is not None:
                self._next.close()
            self._next = Succession(generation)
        return self._next

    async def _prepare(self, succession: Succession, message: Prepare, descriptors: tuple[int, ...]) -> None:
        try:
            _require_all(succession, message, descriptors)
            self._equip(succession, message, descriptors, await self._build(message.generation, descriptors))
        except Exception as error:
            succession.close()
            if self._next is succession:
                self._next = None
            if not isinstance(error, LbprocError):
                self._context.view.count(WorkerCounter.DEFECTS)
                self._context.log.write_crash(Event.RELOAD_CRASHED, error, generation=message.generation)
            reason = str(error) if isinstance(error, LbprocError) else f"{type(error).__name__}: {error}"
            await self._tell(Refused(message.generation, reason))
            return
        if self._next is not succession:  # abandoned meanwhile
            succession.close()
            return
        await self._tell(Prepared(message.generation))

    async def _build(self, generation: int, descriptors: tuple[int, ...]) -> Runtime:
        context = self._context

        def build() -> Runtime:
            with _polite():
                return Runtime(unseal(descriptors[0]), context, generation)

        try:
            return await trio.to_thread.run_sync(build)
        except Exception:
            close_all(descriptors[1:])
            raise
        finally:
            os.close(descriptors[0])

    def _equip(
        self, succession: Succession, message: Prepare, descriptors: tuple[int, ...], runtime: Runtime
    ) -> None:
        fresh = [Slot(slot) for slot in message.outboxes]
        ends, logs = descriptors[1 : 1 + len(fresh)], list(descriptors[1 + len(fresh) :])
        succession.slots = message.slots
        succession.names = dict(message.names)
        succession.outboxes = dict(zip(fresh, as_sockets(ends), strict=True))
        config = runtime.config.log
        if message.access_log:
            assert config.access != "off"
            succession.access_log = Sink(config.access, descriptor=logs.pop(0))
        if message.error_log:
            succession.error_log = Sink(config.error, descriptor=logs.pop(0))
        succession.runtime = runtime

    # The move -----------------------------------------------------------------------------------------------

    def move(self) -> None:
        """Moves to the generation in force, if that is prepared and its membership published.

        Does not wait and raises nothing; it may be called from a reflex.
        """
        succession, context = self._next, self._context
        if (
            succession is None
            or succession.runtime is None
            or succession.generation != context.view.generation()
        ):
            return
        before = context.runtime
        try:
            if not succession.runtime.succeed(before):
                return
        except Exception as error:  # the supervisor replaces who does not follow
            context.view.count(WorkerCounter.DEFECTS)
            context.log.write_crash(Event.RELOAD_CRASHED, error, generation=succession.generation)
            self._abandon(succession.generation)
            return
        self._next = None
        gone = self._accepting.move(succession.names, succession.slots, succession.outboxes)
        self._begin_lent(succession)
        self._change_logs(succession)
        self._on_moved()
        context.view.follow(succession.generation)
        removed = [
            listener.lineage for listener in before.listeners.values() if listener.lineage.current is None
        ]
        self._services.start_soon(self._say, succession.generation, gone)
        self._services.start_soon(self._bring_along)
        if removed:
            self._services.start_soon(self._see_off, removed)

    def _begin_lent(self, succession: Succession) -> None:
        by_slot: dict[Slot, list[tuple[int, socket.socket]]] = {}
        for slot, key, sock in succession.lent:
            by_slot.setdefault(slot, []).append((key, sock))
        for slot, sockets in by_slot.items():
            if self._accepting.serves(slot):
                self._accepting.begin(self._serving, slot, sockets, None)
            else:  # drained, or given back to its own worker meanwhile
                for _, sock in sockets:
                    sock.close()

    def _change_logs(self, succession: Succession) -> None:
        context = self._context
        config = context.runtime.config.log
        context.log.change(config.level, succession.error_log)
        if succession.access_log is not None or (config.access == "off") is context.access_log.enabled:
            self._ended_logs.append(context.access_log)
            context.access_log.end()
            context.access_log = AccessLog(succession.access_log or "off")

    async def _say(self, generation: int, gone: list[trio.Event]) -> None:
        await self._tell(Following(generation))
        for queue in gone:
            await queue.wait()
        await self._tell(Relinquished(generation))

    # What comes along later ---------------------------------------------------------------------------------

    async def _bring_along(self) -> None:
        """Lets all connections without a request follow; those that have one follow with the next."""
        for number, connection in enumerate(tuple(self._connections)):
            if not connection.follow():
                self._left_behind.add(connection)
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()

    async def _see_off(self, removed: list[Lineage[Any]]) -> None:
        """Ends connections of removed listeners that have no request."""
        await trio.sleep(IDLE_GRACE)
        for lineage in removed:
            lineage.leaving = True
        for connection in tuple(self._connections):
            if connection.lineage.leaving:
                connection.nudge_idle()

    def look(self) -> None:
        """Does what is due; once a second."""
        self.move()
        if self._left_behind:
            self._left_behind &= self._connections
            self._left_behind = {one for one in self._left_behind if not one.follow()}
        self._accepting.forget_retired()

    def count_lost_lines(self) -> int:
        """How many lines of access logs that have ended were lost since the last call."""
        if not self._ended_logs:
            return 0
        lost = sum(log.flush() for log in self._ended_logs)
        self._ended_logs = [log for log in self._ended_logs if not log.is_over]
        return lost

    def close(self) -> int:
        """Closes what was prepared, and sees logs that have ended to their end; this worker leaves.

        Returns:
            How many of their lines were lost.
        """
        if self._next is not None:
            self._abandon(self._next.generation)
        return sum(log.close() for log in self._ended_logs)


def _require_all(succession: Succession, message: Prepare, descriptors: tuple[int, ...]) -> None:
    if succession.is_short or len(descriptors) < descriptor_count(message):
        raise LbprocError(NO_ROOM)


@contextmanager
def _polite() -> Iterator[None]:
    """Lets other threads of this process compute more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
