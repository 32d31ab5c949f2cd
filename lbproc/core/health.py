"""When a backend is probed next, and what follows from the result of a probe.

Owns rise and fall, the three speeds and the jitter of active checks. Does not probe, does not know why a
probe failed, writes nothing: time and randomness are arguments.

Theory of operation. There is one `Check` for each (backend, question); "does it take traffic" and "does its
process live" are two questions. Results that agree with what is thought of the backend change nothing; those
that contradict it are counted, and enough of them in a row turn it::

                    one pass                 ``fall`` failures in a row
      UNDECIDED ───────────────▶ PASSING ◀────────────────────────────▶ FAILING
          │                                   ``rise`` passes in a row      ▲
          └──────────────────── ``fall`` failures ──────────────────────────┘

Who is in doubt (undecided, or contradicted) is probed at ``doubt_interval``, who is FAILING at
``down_interval``, everybody else at ``interval``.

Invariants:
- Spans count from the beginning of a probe to the beginning of the next, which never begins before the last
  one ended. Jitter only shortens them, by up to a tenth.
- So, while ``timeout`` and ``doubt_interval`` are at most ``interval``, a backend that dies at any instant is
  FAILING at the latest ``fall * (interval + timeout)`` later: the first probe after the death begins within
  one interval of the one that passed, each further one at most an interval after it, and the last takes at
  most ``timeout``.
- One result in between that agrees with what is thought sets the count to 0: a backend that flaps faster
  than it is probed keeps the state that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from lbproc.types import Seconds

JITTER = 0.1
"""The largest part of a span that jitter takes off."""

SOON: Seconds = 1.0
"""First probes of those that get no traffic before they have passed are spread over this span at most."""

SOON_EACH: Seconds = 0.01
"""And over so much for each of them when they are few, so that a small pool need not wait."""


class Subject(Enum):
    """What a check asks about: whether the backend takes traffic, or whether its process lives."""

    READINESS = "readiness"
    LIVENESS = "liveness"


class Standing(Enum):
    """What the probes so far say."""

    UNDECIDED = "undecided"
    PASSING = "passing"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often is probed, and how many results turn a standing.

    Attributes:
        interval: from probe to probe; ``timeout`` and ``doubt_interval`` are not longer.
        timeout: the longest that one probe takes.
        doubt_interval: while there is doubt.
        down_interval: while failing.
        rise: passes in a row that end FAILING.
        fall: failures in a row that end PASSING.
    """

    interval: Seconds
    timeout: Seconds
    doubt_interval: Seconds
    down_interval: Seconds
    rise: int
    fall: int

    @property
    def notice(self) -> Seconds:
        """The longest time from the death of a backend to FAILING."""
        return self.fall * (self.interval + self.timeout)


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """What the probes of one check came to since the controller began.

    Attributes:
        name: of the backend.
        seconds: that they took.
        reason: why the last one that failed did; empty: none did.
    """

    pool: str
    name: str
    subject: Subject
    passed: int
    failed: int
    seconds: Seconds
    reason: str


class Check:
    """What is thought of one backend in one respect, and when it is probed next.

    Args:
        cadence: how often.
        standing: what is known of it already.
        first_at: when the first probe is due.

    Attributes:
        due_at: the instant at which the next probe begins.
        contrary: results in a row that contradict the standing.
    """

    __slots__ = ("_began_at", "cadence", "contrary", "due_at", "standing")

    def __init__(self, cadence: Cadence, standing: Standing, first_at: float) -> None:
        self.cadence = cadence
        self.standing = standing
        self.contrary = 0
        self.due_at = first_at
        self._began_at = first_at

    @property
    def in_doubt(self) -> bool:
        """Whether the next result may matter more than others."""
        return self.standing is Standing.UNDECIDED or self.contrary > 0

    def begin(self, now: float) -> None:
        """A probe begins; it may be later than it was due."""
        self._began_at = now

    def conclude(self, passed: bool | None, now: float, draw: float) -> bool:
        """A probe ended.

        Args:
            passed: its result; None if it says nothing about the backend, because it could not be made.
            now: when it ended.
            draw: chance, from 0 to 1, for the jitter.

        Returns:
            Whether the standing changed.
        """
        before = self.standing
        if passed is not None:
            self._count(passed)
        self.due_at = max(now, self._began_at + self._span() * (1 - JITTER * draw))
        return self.standing is not before

    def adopt(self, cadence: Cadence, now: float) -> None:
        """Goes on with another cadence; what is thought and counted stays. No probe is later than it said."""
        self.cadence = cadence
        self.due_at = min(self.due_at, now + self._span())

    def _count(self, passed: bool) -> None:
        match self.standing:
            case Standing.UNDECIDED if passed:
                self._turn(Standing.PASSING)
            case Standing.PASSING | Standing.UNDECIDED:
                self.contrary = 0 if passed else self.contrary + 1
                if self.contrary >= self.cadence.fall:
                    self._turn(Standing.FAILING)
            case _:  # FAILING
                self.contrary = self.contrary + 1 if passed else 0
                if self.contrary >= self.cadence.rise:
                    self._turn(Standing.PASSING)

    def _turn(self, standing: Standing) -> None:
        self.standing = standing
        self.contrary = 0

    def _span(self) -> Seconds:
        if self.in_doubt:
            return self.cadence.doubt_interval
        return self.cadence.down_interval if self.standing is Standing.FAILING else self.cadence.interval


def first_delays(asked: Sequence[tuple[Standing, Seconds]], draw: Callable[[], float]) -> list[Seconds]:
    """How long the first probes of new checks wait, so that many of them are no burst.

    Those that are undecided get no traffic before they pass: they share a short span. All others are spread
    over their interval. In each of the two groups, everybody has a part of the span to himself and a random
    place in it.

    Args:
        asked: the standing of each new check, and its interval.
        draw: gives chance, from 0 to 1.
    """
    delays = [0.0] * len(asked)
    for is_urgent in (True, False):
        group = [
            place
            for place, (standing, _) in enumerate(asked)
            if (standing is Standing.UNDECIDED) is is_urgent
        ]
        most = min(SOON, SOON_EACH * len(group)) if is_urgent else float("inf")
        for turn, place in enumerate(group):
            delays[place] = min(asked[place][1], most) * (turn + draw()) / len(group)
    return delays
