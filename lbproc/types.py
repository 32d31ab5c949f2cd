"""Values that every layer speaks of: addresses, places in the table, the three states of a backend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import NamedTuple, NewType

Seconds = float
"""A span of time. Instants in a process come from trio's clock, stamps in the table from ``shm.clock``."""

Slot = NewType("Slot", int)
"""A worker's place among the listening sockets. Outlives the worker in it."""

Column = NewType("Column", int)
"""A process's part of the table. Returned to the free list after repair."""

Row = NewType("Row", int)
"""A backend's part of the table, found by (pool, address)."""


class SlotLoad(NamedTuple):
    """How many client connections a slot has: open in its worker, and given to it but not yet taken."""

    slot: Slot
    open: int
    waiting: int


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port. ``host`` is an IP literal or a name; ``port`` is 0 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        """``host:port``, with brackets around an IPv6 literal."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix stream socket."""

    path: str

    def __str__(self) -> str:
        """``unix:PATH``."""
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Reads ``host:port``, ``[v6]:port`` or ``unix:PATH``.

    Raises:
        ValueError: with a phrase that says what would be right.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path or len(path.encode()) > 107:
            raise ValueError("a Unix socket needs a path of 1 to 107 bytes, for example unix:/run/app.sock")
        return UnixAddress(path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError("an address is host:port with a port of 0 to 65535, [v6]:port, or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError(f"[{host}] is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, for example [2001:db8::1]:8080")
    elif not host or not all(c.isascii() and (c.isalnum() or c in "-._") for c in host) or len(host) > 253:
        raise ValueError("the host is an IP address or a name of letters, digits, dots and hyphens")
    return TcpAddress(host, int(port))


class Health(IntEnum):
    """What active checks think of a backend. A pool without checks has all its backends UP."""

    UP = 0
    DOWN = 1
    CHECKING = 2
    STARTING = 3


class Liveness(IntEnum):
    """Whether a backend's process lives, as far as checks asked. It decides nothing; people want to know."""

    UNKNOWN = 0
    ALIVE = 1
    DEAD = 2


class Admin(IntEnum):
    """What the operator said of a backend. DRAIN takes no new sessions, MAINTENANCE nothing at all."""

    READY = 0
    DRAIN = 1
    MAINTENANCE = 2
