"""What the service manager is told: that lbproc is ready, reloads, stops, and that its loop turns.

Owns the protocol of sd_notify(3): datagrams of ``KEY=VALUE`` lines to the socket that ``NOTIFY_SOCKET``
names. It is written here and not taken from a library because it is a page.

Invariants: nobody but the supervisor says anything; the variables are out of the environment before the first
fork; a service manager that is gone, deaf or slow costs nothing but what it would have heard.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import MutableMapping
from typing import Final, Self

from lbproc.shm.clock import monotonic_ns
from lbproc.types import Seconds

WATCHDOG_SHARE: Final = 3
"""The service manager hears from us three times as often as it asks to: two may be late."""

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

_LONGEST_STATUS: Final = 500


class Notifier:
    """Speaks to the service manager, or to nobody.

    Args:
        address: of its socket; empty: there is none.
        watchdog: after how long without a word it takes this process for stuck; infinite: never.
    """

    __slots__ = ("_address", "_interval", "next_beat_at")

    def __init__(self, address: str = "", watchdog: Seconds = math.inf) -> None:
        # An abstract name is written with an @ where the kernel has a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval = watchdog / WATCHDOG_SHARE
        self.next_beat_at: Seconds = math.inf if math.isinf(watchdog) else -math.inf
        """When `beat` has something to say; monotonic."""

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str], pid: int) -> Self:
        """The one that the environment names, which is then not in the environment any more.

        Args:
            environ: of this process; children are not to find themselves addressed.
            pid: this process. A watchdog for another one is none of ours.
        """
        address, timeout, addressee = (environ.pop(name, "") for name in VARIABLES)
        if not address.startswith(("/", "@")):
            return cls()
        is_meant = addressee in {"", str(pid)}
        microseconds = int(timeout) if timeout.isascii() and timeout.isdigit() else 0
        return cls(address, microseconds / 1e6 if is_meant and microseconds else math.inf)

    def ready(self, status: str = "") -> None:
        """The start or the reload is done."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it, whatever came of it."""
        # The manager compares the time with that of its own signal: a READY of before says nothing.
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self, within: Seconds) -> None:
        """The end begins.

        Args:
            within: how long it may take; the manager then waits that long, whatever it is configured to.
        """
        extension = [f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}"] if within < math.inf else []
        self._send("STOPPING=1", *extension)

    def status(self, text: str) -> None:
        """What `systemctl status` shows, one line."""
        self._send(*_status(text))

    def beat(self, now: Seconds) -> None:
        """Says that the loop turns, when it is time to. Call it from the loop and from nowhere else."""
        if now >= self.next_beat_at:
            self.next_beat_at = now + self._interval
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        # No socket is kept: what is said is seldom, and the manager may have been replaced meanwhile. Nothing
        # waits: a full queue loses the word, not the traffic.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> list[str]:
    """The line of a status; none for an empty one."""
    line = " ".join(text.split())[:_LONGEST_STATUS]
    return [f"STATUS={line}"] if line else []
