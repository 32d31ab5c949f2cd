"""Passive checks: which outcomes count against a backend, when it is ejected, for how long, how many at once.

Theory of operation
-------------------
All workers count into the same words of the table, so five failures in a row are five wherever they were
seen. The rules decide, the shell (``proxy.ejection``) changes the words::

    in use ──``consecutive_errors`` failures in a row──▶ ejected ──its time is over──▶ in use
      ▲  any success: the count is 0 again                                                │
      └───────────────────────────────────────────────────────────────────────────────────┘

The time is ``eject_for`` times the number of ejections in a row, at most ``max_eject_for``. Ejections are in
a row while the good time between two of them is shorter than the earlier one lasted; after a good time as
long as the last ejection the number begins at 1 again. So a backend that fails again as soon as it is back is
away longer each time, and one that has a bad minute a day is away for ``eject_for``.

Instants and spans are whole nanoseconds, as in the table.

Invariants:
- An instant at which an ejection ends is even and above 0: its odd values are claims (``shm.ejections``).
- More than `OutlierRules.most_ejected` backends of a pool are never ejected at once.
- What the client did, and any answer below 500, never counts against a backend. Of what ends an attempt, that
  counts for which the exchange blames the backend (``core.http.exchange.is_backend_fault``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lbproc.config.outlier import OutlierConfig
    from lbproc.types import Seconds

_SECOND = 1_000_000_000


def is_failed_answer(status: int) -> bool:
    """Whether an answer counts against the backend that gave it whole: every 5xx does, nothing else."""
    return status >= 500


class Ejection(NamedTuple):
    """An ejection that is due.

    Attributes:
        number: how many there were in a row, with this one.
        until: when it ends, ns.
    """

    number: int
    until: int


@dataclass(frozen=True, slots=True)
class OutlierRules:
    """When a pool ejects its backends.

    Args:
        consecutive_errors: failures in a row that eject.
        eject_for: seconds of the first ejection.
        max_eject_for: the most seconds.
        max_ejected: the largest share of the members that may be ejected at once.
    """

    consecutive_errors: int = 5
    eject_for: Seconds = 30.0
    max_eject_for: Seconds = 300.0
    max_ejected: float = 0.5

    @classmethod
    def of(cls, config: OutlierConfig) -> OutlierRules:
        """The rules as the configuration writes them."""
        return cls(config.consecutive_errors, config.eject_for, config.max_eject_for, config.max_ejected)

    def is_due(self, errors: int) -> bool:
        """Whether so many failures in a row eject.

        More than needed do as well: the worker that saw the last one may have died, or too many were ejected.
        """
        return errors >= self.consecutive_errors

    def most_ejected(self, members: int) -> int:
        """How many of so many members may be ejected at once.

        The share, rounded down; yet one of two or more, as ``[outlier]`` would do nothing in a small pool.
        The only member of a pool stays, unless ``max_ejected`` is 1.
        """
        # 0.29 * 100 is 28.999999999999996: what the operator wrote means 29.
        return max(int(self.max_ejected * members + 1e-9), 1 if members > 1 else 0)

    def next_ejection(self, ejections: int, returned_at: int, now: int) -> Ejection:
        """The ejection that is due now.

        Args:
            ejections: in a row, before this one.
            returned_at: when the last of them ended, ns.
            now: ns.
        """
        number = 1 if self.is_forgiven(ejections, returned_at, now) else ejections + 1
        return Ejection(number, (now + self._length(number) + 2) & ~1)

    def is_forgiven(self, ejections: int, returned_at: int, now: int) -> bool:
        """Whether the good time since the last ejection was as long as that ejection."""
        return now - returned_at >= self._length(ejections)

    def _length(self, number: int) -> int:
        return int(min(self.eject_for * number, self.max_eject_for) * _SECOND)
