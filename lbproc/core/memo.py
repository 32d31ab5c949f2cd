"""A bounded memory of answers that were worked out before, which nobody can fill by never repeating himself.

Owns the bound and the admission. Does not work anything out. Invariants: the memo never holds more than
``max_entries``; a key is admitted at its second sighting only.

Theory of operation. The first sighting of a key leaves nothing but its hash in a table of fixed size, in
which it displaces another. So keys that come once pass through that table and leave the memo as it was,
however many they are. Hashes of bytes are keyed by a random secret of the process (SipHash, PEP 456), so
nobody can choose keys that displace one another. Two keys of one hash would be admitted a sighting early and
told apart as ever: what is known is found by the key itself. When the memo is full it is emptied at once:
what is in use comes back with its next two sightings, and neither a hit nor an admission ever has to look for
a victim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")


class Memo(Generic[Answer]):
    """Answers by the bytes they were worked out from.

    Args:
        max_entries: how many are kept at most.
        max_key_bytes: longer keys are not kept.

    Attributes:
        get: the answer to a key, or None. A bound ``dict.get``, because this runs for every request.
    """

    __slots__ = ("_known", "_max_entries", "_max_key_bytes", "_seen", "get")

    def __init__(self, max_entries: int, max_key_bytes: int) -> None:
        self._known: dict[bytes, Answer] = {}
        self.get: Callable[[bytes], Answer | None] = self._known.get
        self._max_entries = max_entries
        self._max_key_bytes = max_key_bytes
        self._seen: list[int | None] = [None] * (4 * max_entries)

    def __len__(self) -> int:
        return len(self._known)

    def offer(self, key: bytes, answer: Answer) -> None:
        """Keeps an answer if its key was seen before and is short enough."""
        if len(key) > self._max_key_bytes:
            return
        digest = hash(key)
        place = digest % len(self._seen)
        if self._seen[place] != digest:
            self._seen[place] = digest
            return
        if len(self._known) >= self._max_entries:
            self._known.clear()
        self._known[key] = answer

    def close(self) -> None:
        """Forgets everything, and keeps nothing any more."""
        self._known.clear()
        self._seen.clear()
        self._max_key_bytes = -1
