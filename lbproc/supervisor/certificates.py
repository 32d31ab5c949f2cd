"""Looks after the certificates in force: whether their files have changed, and whether they expire.

Owns both looks and what was said of them already. Reads no file, only which file is there; whoever loads
configurations reads them, in a process of its own. A look costs a few calls of the system for each watched
file, and nothing while none is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from lbproc.config.certified import DAY, SOON, certified, date, listed_names
from lbproc.config.place import Stamp
from lbproc.config.wording import dotted
from lbproc.telemetry.events import Event
from lbproc.types import Seconds

if TYPE_CHECKING:
    from lbproc.config.model import Config
    from lbproc.config.pem import KeyFile, PemFile
    from lbproc.telemetry.log import ErrorLog

LOOK_EVERY: Final[Seconds] = 2.0

AGAIN_AFTER: Final[Seconds] = 60.0
"""From reading files that have changed to reading the same ones once more, if they were refused."""

_DATES_EVERY: Final[Seconds] = 60.0
_SHOWN: Final = 10

Look = Callable[[str], Stamp | None]
"""Which file a path leads to now; None if none can be looked at."""


class CertificateCare:
    """All looks of one run of the supervisor.

    Args:
        log: where it is said.
        look: at one file.
        today: the date, as seconds since 1970.
    """

    __slots__ = ("_config", "_dates_at", "_files", "_files_at", "_log", "_look", "_said", "_today")

    def __init__(self, log: ErrorLog, look: Look, today: Callable[[], Seconds]) -> None:
        self._log = log
        self._look = look
        self._today = today
        self._config: Config | None = None
        self._files = _Files()
        self._files_at: Seconds = 0.0
        self._dates_at: Seconds = 0.0
        self._said: dict[str, Seconds] = {}  # when an expiry was told of last, by fingerprint

    def tick(self, config: Config, now: Seconds, *, can_renew: bool) -> bool:
        """Looks where a look is due; returns whether the files are to be read again.

        Args:
            config: in force.
            now: monotonic time.
            can_renew: whether a reload would begin; otherwise no file is looked at.
        """
        if now >= self._dates_at or config is not self._config:
            self._dates_at, self._config = now + _DATES_EVERY, config
            self._tell_of_dates(config)
        if now < self._files_at or not can_renew:
            return False
        self._files_at = now + LOOK_EVERY
        in_force = watched_files(config)
        changed = self._files.take({path: self._look(path) for path in in_force}, in_force, now)
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            self._log.write(Event.CERTIFICATES_CHANGED, files=", ".join(changed[:_SHOWN]) + more)
        return bool(changed)

    def refused(self) -> None:
        """Files that were to be read again did not come in force."""
        self._files.refused()

    def _tell_of_dates(self, config: Config) -> None:
        """Tells of what expires soon, of each certificate once a day."""
        today = self._today()
        said, self._said = self._said, {}
        for one in certified(config):
            facts = one.cert.facts
            if facts.not_after - today > SOON:
                continue
            last = said.get(facts.fingerprint)
            if facts.fingerprint in self._said:
                continue  # it stands at several places
            if last is not None and today - last < DAY:
                self._said[facts.fingerprint] = last
                continue
            self._said[facts.fingerprint] = today
            about = {
                "key": dotted(one.path),
                "names": listed_names(one.names),
                "not_after": date(facts.not_after),
            }
            if facts.not_after < today:
                self._log.write(Event.CERTIFICATE_EXPIRED, **about)
            else:
                self._log.write(Event.CERTIFICATE_EXPIRES, **about, days=one.days_left(today))


class _Files:
    """Whether files that have changed are to be read: as soon as they no longer change.

    What was refused then is tried again now and then. It need not be the files that were at fault: a worker
    may have died while it prepared.
    """

    __slots__ = ("_is_refused", "_last", "_tried", "_tried_at")

    def __init__(self) -> None:
        self._last: dict[str, Stamp | None] | None = None
        self._tried: dict[str, Stamp | None] | None = None
        self._tried_at: Seconds = 0.0
        self._is_refused = False

    def refused(self) -> None:
        """What was taken last did not come in force."""
        self._is_refused = True

    def take(self, seen: dict[str, Stamp | None], in_force: Mapping[str, Stamp], now: Seconds) -> list[str]:
        """The files that are to be read again, if any are.

        Args:
            seen: which files are there now.
            in_force: which files were read.
            now: monotonic time.
        """
        changed = sorted(path for path, stamp in seen.items() if stamp != in_force[path])
        is_settled, self._last = seen == self._last, seen
        is_due = seen != self._tried or (self._is_refused and now >= self._tried_at + AGAIN_AFTER)
        if not changed or not is_settled or not is_due:
            return []
        self._tried, self._tried_at, self._is_refused = seen, now, False
        return changed


def watched_files(config: Config) -> dict[str, Stamp]:
    """The files that are watched, and which ones they were when they were read."""
    files: list[PemFile | KeyFile | None] = []
    for listener in config.listeners.values():
        tls = listener.tls
        if tls is not None and tls.watch:
            files.append(tls.client_ca)
            for one in tls.certificates:
                files += [one.cert, one.key, one.client_ca]
    return {file.path: file.stamp for file in files if file is not None}
