"""What all connections of a worker share: its part of the table, its sweeper, its logs, its way to connect.

Made once per worker process, after fork, and handed down; there is no global state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import trio

from lbproc.core.memo import Memo
from lbproc.net.readiness import Deadlines
from lbproc.net.tls.upstream import ClientContexts
from lbproc.net.transport import Transport
from lbproc.proxy.answer import Answer
from lbproc.proxy.known import KNOWN_HEAD_SIZE, KNOWN_HEADS
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.views import WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Address

if TYPE_CHECKING:
    from ssl import SSLContext

    from lbproc.net.tls.sites import Enroll
    from lbproc.proxy.runtime import Runtime

Connector = Callable[[Address, float], Awaitable[Transport]]
"""Opens a transport to an address before a deadline (trio's clock), or raises ``ConnectFailed``."""


def _stay() -> None:
    """For a worker whose configuration never changes."""


def _leave_alone(_context: SSLContext, _domain: str) -> None:
    """For a worker that shares no session tickets with others."""


@dataclass(slots=True)
class WorkerContext:
    """The surroundings of a worker's connections."""

    view: WorkerView
    deadlines: Deadlines
    connect: Connector
    access_log: AccessLog
    log: ErrorLog
    wall_clock: UtcClock
    """For the access log, and the dates of certificates."""
    random: Random
    """Made after fork: siblings with one seed would pick in step."""
    now: Callable[[], float] = trio.current_time
    """The loop's clock."""
    stamp: Callable[[], int] = monotonic_ns
    """The table's clock."""
    answers: Memo[Answer] = field(default_factory=lambda: Memo(KNOWN_HEADS, KNOWN_HEAD_SIZE))
    """The heads that backends answer with, seen before."""
    move: Callable[[], None] = _stay
    """Moves this worker to the generation in force, as far as that can be done now."""
    enroll_tickets: Enroll = _leave_alone
    """Gives contexts of TLS the keys of session tickets that all workers share."""
    client_contexts: ClientContexts = field(default_factory=ClientContexts)
    """Contexts of TLS towards backends."""
    runtime: Runtime = field(init=False)
    """In use."""
    generation: Callable[[], int] = field(init=False)
    """The generation in force."""
    _draining: bool = field(init=False, default=False)
    _leaving: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.generation = self.view.generation

    def follow_membership(self) -> None:
        """Lets the runtime in use take over published membership."""
        self.runtime.follow_membership()

    @property
    def draining(self) -> bool:
        """This worker is to finish: every response announces the end of its connection."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        for listener in self.runtime.listeners.values():
            listener.lineage.draining = draining

    @property
    def leaving(self) -> bool:
        """The grace of connections without a request is over."""
        return self._leaving

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._leaving = leaving
        for listener in self.runtime.listeners.values():
            listener.lineage.leaving = leaving
