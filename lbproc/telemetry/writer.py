"""The thread that writes log lines, so that nothing else ever waits for a disk or for the reader of a pipe.

Owns one sink, its thread and what the thread counts. Does not bound what is waiting: whoever puts lines does,
with ``finished_bytes``. Invariants: every attribute below is written by the thread only and read by its
owner; lines are whole, in order, and a line that could not be written completely is ended before the next one
starts.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Literal

from lbproc.telemetry.sink import PIPE_LIMIT, Sink, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lbproc.types import Seconds


class LineWriter:
    """A daemon thread in front of a sink. Takes responsibility for closing the sink.

    Construct it after the fork: threads do not survive one.
    """

    __slots__ = (
        "_queue",
        "_sink",
        "_thread",
        "_torn",
        "dropped_lines",
        "failed_reopenings",
        "finished_bytes",
        "reopen_trouble",
        "trouble",
    )

    def __init__(self, sink: Sink) -> None:
        self.finished_bytes = 0
        """Bytes of all lines that were dealt with: written, or lost."""
        self.dropped_lines = 0
        """Lines that were lost because writing failed."""
        self.trouble: str | None = None
        """Why the last write failed; ``None`` when it did not."""
        self.failed_reopenings = 0
        """How often the path could not be opened again; the old file stays in use then."""
        self.reopen_trouble: str | None = None
        """Why the last of them failed."""
        self._sink = sink
        self._torn = False
        self._queue: queue.SimpleQueue[Sequence[bytes] | Literal["reopen", "stop"]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> None:
        """Queues lines, each with its newline. Never blocks."""
        self._queue.put(lines)

    def reopen(self) -> None:
        """Opens the sink's path again once all lines put so far are written."""
        self._queue.put("reopen")

    def stop(self, patience: Seconds) -> bool:
        """Writes what is queued for at most ``patience`` seconds of real time, then lets go of the thread.

        Returns:
            Whether everything was dealt with. If not, the thread hangs in a write and ends with the process.
        """
        self.end()
        self._thread.join(patience)
        return self.is_over

    def end(self) -> None:
        """Writes what is queued, and then closes the sink, without making anybody wait."""
        self._queue.put("stop")

    @property
    def is_over(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) != "stop":
            if isinstance(item, str):
                self._reopen()
                continue
            for lines in (item,) if self._sink.is_regular else _pipefuls(item):
                self._write_group(lines)
        self._sink.close()

    def _reopen(self) -> None:
        try:
            self._sink.reopen()
            self._torn = False
        except OSError as error:  # the old file stays in use, so nothing is lost
            self.reopen_trouble = self._sink.explain(error)
            self.failed_reopenings += 1

    def _write_group(self, lines: Sequence[bytes]) -> None:
        """Writes lines with one write where the system lets us; counts those that did not get out whole."""
        octets = b"".join(lines)
        rest = memoryview(b"\n" + octets if self._torn else octets)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
            self.trouble = None
            self._torn = False
        except OSError as error:
            self.trouble = reason(error)
            self.dropped_lines += octets.count(b"\n", max(len(octets) - len(rest), 0))
            if len(rest) < len(octets):
                self._torn = octets[len(octets) - len(rest) - 1] != ord("\n")
        self.finished_bytes += len(octets)

    def _write_some(self, octets: memoryview) -> int:
        while True:
            try:
                return self._sink.write(octets)
            except BlockingIOError:
                self._sink.wait_writable()


def _pipefuls(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Groups whole lines so that each group fits into one atomic write to a pipe."""
    start = size = 0
    for index, line in enumerate(lines):
        if size + len(line) > PIPE_LIMIT and index > start:
            yield lines[start:index]
            start, size = index, 0
        size += len(line)
    yield lines[start:]
