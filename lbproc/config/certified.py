"""The certificates of a configuration: where each stands, for whom it is, and until when.

Owns the walk over them, and the words for it that status, metrics, log and messages share.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lbproc.config.wording import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.config.model import Config
    from lbproc.config.pem import CertificateFile, KeyFile
    from lbproc.config.wording import KeyPath
    from lbproc.types import Seconds

DAY: Final[Seconds] = 86_400.0

SOON: Final[Seconds] = 14 * DAY
"""Certificates that are renewed by themselves are renewed earlier than this, most of them at 30 days."""


@dataclass(frozen=True, slots=True)
class Certified:
    """One certificate with its key.

    Args:
        path: of the table of both.
        cert: what is shown to peers.
        key: that goes with it.
        names: the hosts that it is chosen for, or else what it is for.
    """

    path: KeyPath
    cert: CertificateFile
    key: KeyFile
    names: tuple[str, ...]

    @property
    def listener(self) -> str:
        """The listener that shows it to clients; empty: it is shown to backends."""
        return str(self.path[1]) if self.path[0] == "listeners" else ""

    @property
    def pool(self) -> str:
        """The pool to whose backends it is shown; empty: it is shown to clients."""
        return str(self.path[1]) if self.path[0] == "pools" else ""

    def days_left(self, now: Seconds) -> int:
        """Whole days until it expires, rounded down: negative as soon as it has."""
        return int((self.cert.facts.not_after - now) // DAY)


def certified(config: Config) -> Iterator[Certified]:
    """Every certificate, those of listeners first."""
    for name, listener in config.listeners.items():
        for place, pair in enumerate(listener.tls.certificates if listener.tls else ()):
            path: KeyPath = ("listeners", name, "tls", "certificates", place)
            yield Certified(path, pair.cert, pair.key, pair.names or _meant(pair.cert))
    for name, pool in config.pools.items():
        if pool.tls is not None and (shown := pool.tls.certificate) is not None:
            path = ("pools", name, "tls", "certificate")
            yield Certified(path, shown.cert, shown.key, shown.cert.facts.names or _meant(shown.cert))


def _meant(file: CertificateFile) -> tuple[str, ...]:
    return file.facts.addresses or (file.facts.subject,)


def listed_names(names: tuple[str, ...], most: int = 3) -> str:
    """The first few names in one line; those that could do harm on a terminal in quotes."""
    words = [
        name if name.isascii() and name.isprintable() and " " not in name else quote(name) for name in names
    ]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def date(seconds: Seconds) -> str:
    """A date as it stands in messages: 2027-01-31. Beyond the calendar is its last day."""
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError):
        return "9999-12-31"


def today() -> Seconds:
    """The date and time of this machine as seconds since 1970: certificates are valid between two of them."""
    return datetime.now(UTC).timestamp()
