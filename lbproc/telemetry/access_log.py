"""The access log of one worker: takes finished lines and never makes the event loop wait.

Owns the bound on what may wait for the writer, and the count of what did not fit. Does not own the text of a
line (``entry``), the thread (``writer``) or how a destination is written to (``sink``).

Theory of operation::

    event loop: record(line) ──► batch (a list)
                flush(), about ten times a second ──► queue, bounded in bytes ──► writer thread ──► sink

The event loop only appends to lists, so a full disk or a pipe that nobody reads costs it nothing: what does
not fit is dropped and counted. The thread is a daemon and ``close`` waits for it only as long as it is told
to, so a stuck reader cannot keep a worker from leaving either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lbproc.telemetry.sink import Sink
from lbproc.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from pathlib import Path

    from lbproc.types import Seconds


class AccessLog:
    """Takes lines of one event loop. Construct it after the fork: it starts a thread.

    Args:
        destination: ``"stdout"``, ``"off"``, the path of a file, or what was opened before the fork.
        capacity_bytes: how much may wait for the writer; at 400 bytes a line the default holds 40 000
        requests.

    Raises:
        StartError: the file cannot be opened.
    """

    __slots__ = (
        "_batch",
        "_capacity_bytes",
        "_dropped_lines",
        "_queued_bytes",
        "_reported_lines",
        "_reported_reopenings",
        "_writer",
        "enabled",
        "record",
    )

    def __init__(
        self, destination: Literal["stdout", "off"] | Path | Sink, *, capacity_bytes: int = 16 * 1024 * 1024
    ) -> None:
        self._batch: list[bytes] = []
        self.record = self._batch.append
        """Takes one line with its newline. A bound ``list.append``, because this runs for every request."""
        self._capacity_bytes = capacity_bytes
        self._queued_bytes = 0
        self._dropped_lines = 0
        self._reported_lines = 0
        self._reported_reopenings = 0
        if destination == "off":
            self._writer = None
        else:
            sink = destination if isinstance(destination, Sink) else Sink(destination)
            self._writer = LineWriter(sink)
        self.enabled = self._writer is not None
        """False when the log is off: nobody needs to render a line."""

    @property
    def trouble(self) -> str | None:
        """Why the last write failed; ``None`` when it did not."""
        return None if self._writer is None else self._writer.trouble

    def flush(self) -> int:
        """Hands what was recorded to the writer. Never blocks.

        Returns:
            How many lines were lost since the last call, for the counter in the table.
        """
        self._hand_over()
        lost = self._dropped_lines + (0 if self._writer is None else self._writer.dropped_lines)
        new, self._reported_lines = lost - self._reported_lines, lost
        return new

    def reopen(self) -> None:
        """Opens the file again, after all that was recorded so far is in the old one; for log rotation."""
        self._hand_over()
        if self._writer is not None:
            self._writer.reopen()

    def reopen_trouble(self) -> str | None:
        """Why a reopening failed since the last call; ``None`` when none did. The old file stays in use."""
        if self._writer is None or self._writer.failed_reopenings == self._reported_reopenings:
            return None
        self._reported_reopenings = self._writer.failed_reopenings
        return self._writer.reopen_trouble

    def close(self, patience: Seconds = 1.0) -> int:
        """Writes what is left, for at most ``patience`` seconds of real time. Ends the log.

        Returns:
            How many lines were lost since the last ``flush``, not counting those a stuck reader still holds
            up.
        """
        self._hand_over()
        if self._writer is not None:
            self._writer.stop(patience)
        return self.flush()

    def end(self) -> None:
        """Ends the log without waiting: another one has its place, and the thread writes what is left."""
        self._hand_over()
        if self._writer is not None:
            self._writer.end()

    @property
    def is_over(self) -> bool:
        """Whether all is written after `end`."""
        return self._writer is None or self._writer.is_over

    def _hand_over(self) -> None:
        if not self._batch:
            return
        lines = self._batch.copy()
        self._batch.clear()
        if self._writer is None:
            return
        size = sum(map(len, lines))
        room = self._capacity_bytes - (self._queued_bytes - self._writer.finished_bytes)
        while size > room and lines:
            size -= len(lines.pop())
            self._dropped_lines += 1
        self._queued_bytes += size
        if lines:
            self._writer.put(lines)
