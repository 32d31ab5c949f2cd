"""Wall-clock time as text, for log lines, and to judge dates by.

Does not measure spans and never reaches the table: those use monotonic clocks. Invariant: the text is RFC
3339 in UTC with milliseconds, always 24 characters.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class UtcClock:
    """Renders the present moment.

    Formats once a millisecond, and the calendar part once a second, because it runs for every request.

    Args:
        read_ns: nanoseconds since 1970; tests pass their own.
    """

    __slots__ = ("_millisecond", "_prefix", "_read_ns", "_second", "_text")

    def __init__(self, read_ns: Callable[[], int] = time.time_ns) -> None:
        self._read_ns = read_ns
        self._millisecond = -1
        self._second = -1
        self._prefix = ""
        self._text = ""

    def seconds(self) -> float:
        """Seconds since 1970, to judge what is valid until a day of the calendar."""
        return self._read_ns() / 1e9

    def stamp(self) -> str:
        """The time now, for example ``2026-07-01T12:30:00.125Z``."""
        millisecond = self._read_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, fraction = divmod(millisecond, 1000)
            if second != self._second:
                self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
                self._second = second
            self._text = f"{self._prefix}{fraction:03d}Z"
        return self._text
