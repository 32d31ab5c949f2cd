"""Rows of the table that no backend has any more, and when another one may have them.

Pure bookkeeping; the supervisor says what it publishes and asks what is free.

When a row is free
------------------
Nobody may touch it any more in the name of the backend that is gone. Of every process that knows backends
two things must be true, in this order:

1. *It follows a publication without the row.* It says so itself, in its column, after it has taken that
   publication over. A pick reads the epoch, chooses and takes the place without letting go of its event loop,
   so none is under way at that moment; whatever it picks, ejects or checks later, it does by members that are
   there. A worker that does nothing looks at the epoch now and then, too.
2. *Then, nothing is in flight to the row.* Who took a place before is counted until it gives the place back.

The other order proves nothing: a worker that was stopped between choosing and taking has no place yet, and
takes it when it goes on. For the same reason a time that has passed proves nothing.

A process that has said nothing yet is waited for, because it may just be reading an older publication. A
process that is dead and repaired holds nothing and follows nothing; it does not count. A process of an
older generation does not follow the blob of a newer one, and so does not say that it does: while a reload is
under way the rows of its backends stay.

What was prepared for a reload and never published has been seen by the controller alone, which checks
backends before their configuration is in force. It ends that when something is published, so that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lbproc.types import Row

Key = tuple[str, str]
"""Pool and address of a backend."""


class Departures:
    """The backends that are published, and those that were."""

    __slots__ = ("_gone", "_published")

    def __init__(self) -> None:
        self._published: dict[Key, Row] = {}
        self._gone: dict[Key, tuple[Row, int]] = {}

    def published(self, rows: Mapping[Key, Row], epoch: int) -> None:
        """Takes note of a publication.

        Args:
            rows: of all backends in it. One that had gone and is back keeps its row.
            epoch: of the publication.
        """
        for key, row in self._published.items():
            if key not in rows:
                self._gone[key] = (row, epoch)
        self._published = dict(rows)
        for key in rows:
            self._gone.pop(key, None)

    def are_new(self, rows: Mapping[Key, Row]) -> bool:
        """Whether any of these was never published, or not since its row was given back."""
        return any(key not in self._published and key not in self._gone for key in rows)

    def discarded(self, rows: Mapping[Key, Row], epoch: int) -> None:
        """Takes note of backends that were prepared and are not going to be published.

        Args:
            rows: of all backends that were prepared.
            epoch: of the publication that ended their trial; 0 if there was none.
        """
        for key, row in rows.items():
            if key not in self._published and key not in self._gone:
                self._gone[key] = (row, epoch)

    def has_gone(self) -> bool:
        """Whether any row waits to be free."""
        return bool(self._gone)

    def is_gone(self, key: Key) -> bool:
        """Whether a backend is gone, and its row waits to be free."""
        return key in self._gone

    def free(self, followed: Iterable[int], in_flight: Callable[[Row], int]) -> list[tuple[Key, Row]]:
        """The rows that are free now; they are forgotten here, so give them back.

        Args:
            followed: the epoch that each process which knows backends says it follows; 0: none yet. Read
                before the call.
            in_flight: the total of a row; called for those that all have left behind.
        """
        lowest = min(followed, default=None)
        free = [
            (key, row)
            for key, (row, epoch) in self._gone.items()
            if (lowest is None or lowest >= epoch) and not in_flight(row)
        ]
        for key, _ in free:
            del self._gone[key]
        return free
