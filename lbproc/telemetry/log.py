"""The error log: one line per event, from every process.

Owns the form of a line and the bound on repeated ones. The events themselves stand in ``events``. Invariants:
a line is whole or absent, at most 4095 bytes, and writing it never blocks; no thread, because the supervisor
forks.
"""

from __future__ import annotations

import re
import traceback
from json.encoder import encode_basestring_ascii as _quote
from typing import TYPE_CHECKING, Literal

from lbproc.telemetry.events import Event, Level
from lbproc.telemetry.sink import PIPE_LIMIT, FileOwner, Sink
from lbproc.telemetry.stamp import UtcClock

if TYPE_CHECKING:
    from pathlib import Path

MOST_A_SECOND = 20
"""How often one event is written in a second: a flood of bad clients or backends must not fill a disk."""

_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, equals sign and backslash


def open_error_log(
    destination: Literal["stderr"] | Path, level: str, process: str, owner: FileOwner | None = None
) -> ErrorLog:
    """The log that ``[log] error`` and ``[log] level`` ask for; a new file is made for its owner.

    Raises:
        StartError: the file cannot be opened.
    """
    return ErrorLog(Sink(destination, owner), Level[level.upper()], process)


class ErrorLog:
    """Writes events at or above a level.

    Args:
        sink: where to; shared with the logs made by ``renamed``.
        level: the least level that is written.
        process: who speaks: ``supervisor``, ``worker-N`` or ``controller``.
        clock: the wall clock; tests pass their own.
    """

    __slots__ = ("_clock", "_left_out", "_second", "_sink", "_written", "dropped_lines", "level", "process")

    def __init__(self, sink: Sink, level: Level, process: str, clock: UtcClock | None = None) -> None:
        self.level = level
        self.process = process
        self.dropped_lines = 0
        """Lines that could not be written at once."""
        self._clock = clock or UtcClock()
        self._sink = sink
        self._second = ""
        self._written: dict[Event, int] = {}
        self._left_out: dict[Event, int] = {}

    def renamed(self, process: str) -> ErrorLog:
        """This log for a child after the fork: the same descriptor, another name, counts of its own."""
        return ErrorLog(self._sink, self.level, process, self._clock)

    def write(self, event: Event, **fields: object) -> None:
        """Writes one event. Values are rendered with ``str``; ``None`` leaves a field out. Never blocks."""
        if event.level < self.level:
            return
        stamp = self._clock.stamp()
        if not self._may_write(event, stamp[:19]):
            return
        parts = [stamp, event.level.name.lower(), self.process, event.text]
        parts += [f"{name}={_render(value)}" for name, value in fields.items() if value is not None]
        if left_out := self._left_out.pop(event, 0):
            parts.append(f"suppressed={left_out}")
        self._put(" ".join(parts))

    def write_crash(self, event: Event, error: BaseException, **fields: object) -> None:
        """Writes an event with the traceback of ``error`` as its last field."""
        # The end of a traceback says most, so that is what stays of a long one.
        text = "".join(traceback.format_exception(error))
        self.write(event, **fields, traceback=text[-3000:])

    def _may_write(self, event: Event, second: str) -> bool:
        if second != self._second:
            self._second = second
            self._written.clear()
        written = self._written[event] = self._written.get(event, 0) + 1
        if written <= MOST_A_SECOND:
            return True
        self._left_out[event] = self._left_out.get(event, 0) + 1
        return False

    def _put(self, line: str) -> None:
        octets = line.encode("ascii", "backslashreplace")[: PIPE_LIMIT - 1] + b"\n"
        try:
            self._sink.write(octets)
        except OSError:  # there is nowhere left to say so
            self.dropped_lines += 1

    def reopen(self) -> bool:
        """Opens the file again after it was renamed. False when that failed, which is written."""
        return self.reopen_sink(self._sink)

    def reopen_sink(self, sink: Sink) -> bool:
        """Opens another log's file again. False when that failed, which is written here."""
        try:
            sink.reopen()
        except OSError as error:
            self.write(Event.LOG_REOPEN_FAILED, path=sink.path, reason=sink.explain(error))
            return False
        return True

    def change(self, level: str, sink: Sink | None) -> None:
        """Goes on at another level, and to another destination if one is given; the old one is closed."""
        self.level = Level[level.upper()]
        if sink is not None:
            old, self._sink = self._sink, sink
            old.close()

    def close(self) -> None:
        """Closes the destination."""
        self._sink.close()


def _render(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.3f}"
        case _:
            text = str(value)
            return text if _BARE.fullmatch(text) else _quote(text)
