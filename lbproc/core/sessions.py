"""When sessions of datagrams end: nobody says goodbye, so it follows from who was silent for how long.

Owns the rule for each stage of a socket's life, and the order in which sessions are looked at. A session is
looked at when it may have ended, not for every datagram: so a datagram costs nothing here.

Invariant: what may have ended at some instant is looked at no later than then, as long as the spans of a
stage do not change under way; after that `Expiry.reset` puts all of them in again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from itertools import count
from typing import Final, Generic, TypeVar

from lbproc.types import Seconds

QUIET: Final[Seconds] = 1.0
"""A session that is to end is over when so long nothing moved: a question that was asked has its answer."""

REMOVED_WITHIN: Final[Seconds] = 4.0
"""Sessions of an address that was taken away end within so long: others may be about to use it."""

_Session = TypeVar("_Session")


class Stage(Enum):
    """What becomes of the socket that sessions began at."""

    SERVING = auto()
    RETIRED = auto()
    """New datagrams go to other slots."""
    LEFT = auto()
    """Another worker receives there."""
    REMOVED = auto()
    """There is no such address any more."""
    STOPPING = auto()
    """lbproc leaves."""

    @property
    def takes_new(self) -> bool:
        """Whether sessions may begin."""
        return self in {Stage.SERVING, Stage.RETIRED}


def ends_at(stage: Stage, idle: Seconds, heard_at: float, moved_at: float, since: float) -> float:
    """The instant at which a session is over if nothing moves until then.

    Args:
        stage: of its socket.
        idle: how long both may be silent.
        heard_at: when the client's last datagram came.
        moved_at: when the last datagram came, whoever's.
        since: when the stage began.
    """
    match stage:
        case Stage.SERVING:
            return moved_at + idle
        case Stage.RETIRED | Stage.LEFT:  # what the client says comes to another worker; answers come here
            return heard_at + idle
        case Stage.REMOVED:
            return min(max(moved_at, since) + QUIET, since + REMOVED_WITHIN)
        case _:
            return max(moved_at, since) + QUIET


class Expiry(Generic[_Session]):
    """Sessions in the order in which they may end."""

    __slots__ = ("_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Session]] = []
        self._number = count()

    @property
    def next_at(self) -> float:
        """When the first is to be looked at; infinite: there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def add(self, session: _Session, at: float) -> None:
        """Has a session looked at then. It may stand here several times."""
        heapq.heappush(self._heap, (at, next(self._number), session))

    def due(self, now: float) -> Iterator[_Session]:
        """Takes out those whose time has come; whoever goes on is to be added again, for later."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            yield heapq.heappop(heap)[2]

    def reset(self, sessions: Iterable[_Session], at: Callable[[_Session], float]) -> None:
        """Forgets everything, and has these looked at when ``at`` says."""
        self._heap = [(at(session), next(self._number), session) for session in sessions]
        heapq.heapify(self._heap)
