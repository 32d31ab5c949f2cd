"""Places in the table that nobody has any more, and when another one may have them.

Pure bookkeeping, for rows of backends and for words of pools; the supervisor says what it publishes and asks
what is free.

When a place is free
--------------------
Nobody may touch it any more in the name of the backend, or pool, that is gone. Of every process that knows
backends these things must be true, in this order:

1. *It follows a publication without it.* It says so itself, in its column, after it has taken that
   publication over. A pick reads the epoch, chooses and takes the place without letting go of its event loop,
   so none is under way at that moment; whatever it picks, ejects or checks later, it does by members that are
   there. A worker that does nothing looks at the epoch now and then, too.
2. *Then, it is not held.* Who took a place on a backend before is counted until it gives the place back. And
   a worker in which something of a pool that a reload removed still runs may pick by what that pool was; it
   keeps the pool before it says what it follows, and with the pool the rows of all its backends.

The other order proves nothing: a worker that was stopped between choosing and taking has no place yet, and
takes it when it goes on. For the same reason a time that has passed proves nothing.

A process that has said nothing yet is waited for, because it may just be reading an older publication. A
process that is dead and repaired holds nothing and follows nothing; it does not count. A process of an
older generation does not follow the blob of a newer one, and so does not say that it does: while a reload is
under way the rows of its backends stay.

What a reload prepares is *wanted*, and is not given away while it is prepared, be it gone or not: it has its
place in what is prepared, and the controller may check it before its configuration is in force. The
controller says that it follows a publication only when it checks nothing of that kind; so what was wanted and
came to nothing counts as gone with the publication that ended the preparation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Generic, TypeVar

_K = TypeVar("_K")
_P = TypeVar("_P", bound=int)

Key = tuple[str, str]
"""Pool and address of a backend."""


class Departures(Generic[_K, _P]):
    """What is published, and what was: names with their places."""

    __slots__ = ("_gone", "_published")

    def __init__(self) -> None:
        self._published: dict[_K, _P] = {}
        self._gone: dict[_K, tuple[_P, int]] = {}

    def published(self, places: Mapping[_K, _P], epoch: int) -> None:
        """Takes note of a publication.

        Args:
            places: of all that is in it. What had gone and is back keeps its place.
            epoch: of the publication.
        """
        for key, place in self._published.items():
            if key not in places:
                self._gone[key] = (place, epoch)
        self._published = dict(places)
        for key in places:
            self._gone.pop(key, None)

    def are_published(self, keys: Iterable[_K]) -> bool:
        """Whether all of these are published now."""
        return all(key in self._published for key in keys)

    def discarded(self, places: Mapping[_K, _P], epoch: int) -> None:
        """Takes note of what has its place and is not going to be published.

        Args:
            places: of all that was wanted.
            epoch: of the publication that ended their trial; 0 if nobody was told of them.
        """
        for key, place in places.items():
            if key not in self._published:
                self._gone.setdefault(key, (place, epoch))
        self.tried(places, epoch)

    def tried(self, keys: Iterable[_K], epoch: int) -> None:
        """Takes note that those of these that are gone were tried out until this publication."""
        for key in keys:
            if key in self._gone:
                place, before = self._gone[key]
                self._gone[key] = (place, max(before, epoch))

    def has_gone(self) -> bool:
        """Whether any place waits to be free."""
        return bool(self._gone)

    def is_gone(self, key: _K) -> bool:
        """Whether it is gone, and its place waits to be free."""
        return key in self._gone

    def free(
        self,
        followed: Iterable[int],
        is_held: Callable[[_K, _P], bool],
        wanted: Collection[_K] = (),
    ) -> list[_K]:
        """What has a place that is free now; it is forgotten here, so give the place back.

        Args:
            followed: the epoch that each process which knows backends says it follows; 0: none yet. Read
                before the call.
            is_held: whether somebody holds a place; called for those that all have left behind.
            wanted: what keeps its place all the same.
        """
        lowest = min(followed, default=None)
        free = [
            key
            for key, (place, epoch) in self._gone.items()
            if (lowest is None or lowest >= epoch) and key not in wanted and not is_held(key, place)
        ]
        for key in free:
            del self._gone[key]
        return free
