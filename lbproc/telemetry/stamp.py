"""Wall-clock time as text, for log lines only.

Does not measure spans and never reaches the table: those use monotonic clocks. Invariant: the text is RFC
3339 in UTC with milliseconds, always 24 characters.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class UtcClock:
    """Renders the present moment. Formats the calendar part once a second, because it runs for every request.

    Args:
        read_ns: nanoseconds since 1970; tests pass their own.
    """

    __slots__ = ("_prefix", "_read_ns", "_second")

    def __init__(self, read_ns: Callable[[], int] = time.time_ns) -> None:
        self._read_ns = read_ns
        self._second = -1
        self._prefix = ""

    def stamp(self) -> str:
        """The time now, for example ``2026-07-01T12:30:00.125Z``."""
        second, nanoseconds = divmod(self._read_ns(), 1_000_000_000)
        if second != self._second:
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        return f"{self._prefix}{nanoseconds // 1_000_000:03d}Z"
