"""Idle connections to one backend, kept by one worker for reuse.

Owns the order and the limits. Reuse is last in, first out, so that the connections that are not needed grow
old together and go. The worker owns the clock and calls `expire`; nothing here waits.

Invariant: connections stand in the order in which they became idle, oldest left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lbproc.net.readiness import READ

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.types import Seconds


class IdleConnections:
    """The idle connections of a backend.

    Args:
        max_idle: How many are kept. 0 keeps none.
        max_age: How long an idle connection is kept. Shorter than what backends usually allow, since a
            request on a connection that the backend closes at that very moment is lost.
        max_lifetime: How long after it was opened a connection is still kept. Busy connections come to an
            end by it, so that traffic follows what changed on the way to the backend: other replicas behind
            the address, another route, a restarted middlebox.
    """

    __slots__ = ("_idle", "_max_age", "_max_idle", "_max_lifetime")

    def __init__(self, max_idle: int, max_age: Seconds, max_lifetime: Seconds) -> None:
        self._max_idle = max_idle
        self._max_age = max_age
        self._max_lifetime = max_lifetime
        self._idle: deque[tuple[Transport, float]] = deque()

    def checkout(self) -> Transport | None:
        """The connection that became idle last and still is quiet; the caller owns it now.

        Those that the backend closed, broke, or sent unasked bytes on are closed on the way.
        """
        while self._idle:
            transport, _ = self._idle.pop()
            if transport.is_quiet():
                return transport
            transport.close()
        return None

    def checkin(self, transport: Transport, now: float) -> Transport | None:
        """Keeps a connection that is ready for another request.

        Args:
            transport: Nothing is outstanding on it.
            now: An instant of trio's clock, no earlier than the last one.

        Returns:
            A connection that the caller closes: this one when it is too old, or the one that has been idle
            longest when there is no room; or None.
        """
        if now - transport.opened_at > self._max_lifetime:
            return transport
        self._idle.append((transport, now))
        if len(self._idle) > self._max_idle:
            return self._idle.popleft()[0]
        return None

    def expire(self, now: float) -> list[Transport]:
        """Gives up connections that are too old, or on which the backend was heard of.

        The caller closes them.
        """
        oldest = now - self._max_age
        leaving = [t for t, since in self._idle if since <= oldest or _has_news(t)]
        if leaving:
            gone = set(leaving)
            self._idle = deque(entry for entry in self._idle if entry[0] not in gone)
        return leaving

    def close_all(self) -> None:
        """Closes all of them."""
        while self._idle:
            self._idle.pop()[0].close()

    def __len__(self) -> int:
        return len(self._idle)


def _has_news(transport: Transport) -> bool:
    """Whether something came on an idle connection.

    READ alone may be left from before, so it is looked at.
    """
    return bool(transport.source.ready & READ) and not transport.is_quiet()
