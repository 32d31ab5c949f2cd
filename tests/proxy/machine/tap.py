"""The proxy's ends of its connections, on which all that the proxy does is written down in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from lbproc.net.memory import MemoryTransport
from lbproc.net.readiness import READ, WRITE, Source
from tests.proxy.machine.account import require

Journal = list[Callable[[], None]]
"""What views have not yet been told. They are told between two steps, because the proxy acts within the
sends of its peers, which know only afterwards how much they have sent."""

MOST_IN_VAIN = 1_000
"""Reads and writes in one step by which nothing moves; more of them is a proxy that turns in circles."""


class View(Protocol):
    """Judges what the proxy does on one connection."""

    def receive(self, count: int) -> None:
        """The proxy has read so many bytes more."""

    def feed(self, sent: bytes) -> None:
        """The proxy has sent these bytes."""

    def end(self, how: str) -> None:
        """The proxy has ended the connection, or its sending side: ``fin`` or ``reset``."""


class EdgeSource(Source):
    """Hears of room to write only after there was none, as a socket does; what is no news wakes nobody."""

    __slots__ = ()

    def notify(self, bits: int) -> bool:
        return False if bits == WRITE and self.ready & WRITE else super().notify(bits)


class Tap(MemoryTransport):
    """The proxy's end of a connection.

    Args:
        peer_ip: of the far end.
        capacity: bytes on their way to the far end.
        fragment: the most bytes that one read gets.
        view: is told what happens.
        journal: by way of which it is told.

    Attributes:
        in_vain: reads and writes by which nothing has moved since something has; each step begins with 0.
    """

    __slots__ = ("_end", "_fragment", "_journal", "in_vain", "view")

    def __init__(self, peer_ip: str, capacity: int, fragment: int, view: View, journal: Journal) -> None:
        super().__init__(peer_ip, 4000, capacity)
        self.source = EdgeSource()
        self.until_readable = ((self.source, READ),)
        self.until_writable = ((self.source, WRITE),)
        self.in_vain = 0
        self.view = view
        self._fragment = fragment
        self._journal = journal
        self._end = ""

    def recv(self, max_bytes: int) -> bytes | None:
        received = super().recv(min(max_bytes, self._fragment))
        self._count(received)
        if received:
            self._journal.append(partial(self.view.receive, len(received)))
        return received

    def send(self, data: bytes | memoryview) -> int:
        require(len(data), "a send of nothing")
        sent = super().send(data)
        self._count(sent)
        if sent:
            self._journal.append(partial(self.view.feed, bytes(data[:sent])))
        return sent

    def shutdown_write(self) -> None:
        self._ends("fin")
        super().shutdown_write()

    def close(self) -> None:
        if not self.is_closed:
            self._ends("reset" if self._inbox else "fin")
        super().close()

    def abort(self) -> None:
        if not self.is_closed:
            self._ends("reset")
        super().abort()

    def _ends(self, how: str) -> None:
        if self._end not in {how, "reset"}:
            self._end = how
            self._journal.append(partial(self.view.end, how))

    def _count(self, moved: bytes | int | None) -> None:
        self.in_vain = 0 if moved else self.in_vain + 1
        require(self.in_vain < MOST_IN_VAIN, "the proxy turns in circles")


def joined(tap: Tap, capacity: int) -> MemoryTransport:
    """The far end of a tapped connection, from which so many bytes may be on their way."""
    end = MemoryTransport("192.0.2.200", 80, capacity)
    tap._peer, end._peer = end, tap
    return end
