"""What all connections of a worker share: its part of the table, its sweeper, its logs, its way to connect.

Made once per worker process, after fork, and handed down; there is no global state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import trio

from lbproc.core.memo import Memo
from lbproc.net.readiness import Deadlines
from lbproc.net.transport import Transport
from lbproc.proxy.answer import Answer
from lbproc.proxy.known import KNOWN_HEAD_SIZE, KNOWN_HEADS
from lbproc.shm.views import WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Address

Connector = Callable[[Address, float], Awaitable[Transport]]
"""Opens a transport to an address before a deadline (trio's clock), or raises ``ConnectFailed``."""


@dataclass(slots=True)
class WorkerContext:
    """The surroundings of a worker's connections."""

    view: WorkerView
    deadlines: Deadlines
    connect: Connector
    access_log: AccessLog
    log: ErrorLog
    wall_clock: UtcClock
    """For the access log alone."""
    random: Random
    """Made after fork: siblings with one seed would pick in step."""
    now: Callable[[], float] = trio.current_time
    """The loop's clock."""
    answers: Memo[Answer] = field(default_factory=lambda: Memo(KNOWN_HEADS, KNOWN_HEAD_SIZE))
    """The heads that backends answer with, seen before."""
    draining: bool = False
    """This worker is to finish: every response announces the end of its connection."""
    leaving: bool = False
    """The grace of connections without a request is over."""
