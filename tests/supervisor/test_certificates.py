"""Files of certificates are looked at, and dates; each change and each expiry is told once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbproc.config.certified import DAY, today
from lbproc.config.load import check_config
from lbproc.config.model import Config
from lbproc.config.pem_file import stamp_of
from lbproc.supervisor.certificates import AGAIN_AFTER, LOOK_EVERY, CertificateCare, watched_files
from lbproc.telemetry.log import ErrorLog, open_error_log
from tests.certificates import Authority

ROOT = Authority()


def configured(base: Path, *, watch: bool = True) -> Config:
    (base / "l.toml").write_text(
        '[listeners.web]\nbind = "127.0.0.1:0"\npool = "p"\n[pools.p]\nbackends = ["127.0.0.1:1"]\n'
        '[listeners.web.tls]\ncertificates = [{ cert = "a.pem", key = "a.key", client_ca = "ca.pem" }]\n'
        f"watch = {str(watch).lower()}\n"
    )
    return check_config(base / "l.toml", {}).config


@pytest.fixture
def base(tmp_path: Path) -> Path:
    ROOT.write(tmp_path)
    ROOT.issue("a.com").write(tmp_path, "a")
    return tmp_path


class LoggedLines:
    """A log, and what was written to it."""

    def __init__(self, path: Path) -> None:
        self.log = open_error_log(path, "info", "supervisor")
        self._path = path

    def of(self, event: str) -> list[str]:
        """The fields of every line of an event."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [line.split(" ", 4)[4] for line in lines if line.split(" ")[3] == event]


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[LoggedLines]:
    lines = LoggedLines(tmp_path / "error.log")
    yield lines
    lines.log.close()


class Looking:
    """A care whose time is turned by hand."""

    def __init__(self, base: Path, log: ErrorLog, date: Callable[[], float] = today) -> None:
        self.config = configured(base)
        self.care = CertificateCare(log, stamp_of, date)
        self.now = 0.0

    def look(self, *, can_renew: bool = True) -> bool:
        self.now += LOOK_EVERY
        return self.care.tick(self.config, self.now, can_renew=can_renew)


def test_watched_files_are_those_of_certificates_keys_and_authorities(base: Path) -> None:
    names = {Path(path).name for path in watched_files(configured(base))}
    assert names == {"a.pem", "a.key", "ca.pem"}
    assert watched_files(configured(base, watch=False)) == {}


def test_files_that_changed_are_read_once_they_no_longer_change(base: Path, logged: LoggedLines) -> None:
    looking = Looking(base, logged.log)
    assert [looking.look() for _ in range(3)] == [False] * 3
    (base / "a.pem").write_bytes(ROOT.issue("a.com").chain)
    assert not looking.look()
    (base / "a.key").write_bytes(b"half")
    assert [looking.look() for _ in range(4)] == [
        False,
        True,
        False,
        False,
    ]  # what was tried is not tried again
    assert logged.of("certificates_changed") == [f'files="{base}/a.key, {base}/a.pem"']
    (base / "a.key").unlink()
    assert [looking.look() for _ in range(3)] == [False, True, False]
    ROOT.issue("a.com").write(base, "a")
    looking.config = configured(base)  # as the reload would
    assert [looking.look() for _ in range(3)] == [False] * 3


def test_what_was_refused_is_tried_again_after_a_while(base: Path, logged: LoggedLines) -> None:
    looking = Looking(base, logged.log)
    ROOT.issue("a.com").write(base, "a")
    assert [looking.look() for _ in range(3)] == [False, True, False]
    looks = int(AGAIN_AFTER / LOOK_EVERY) * 2
    assert not any(looking.look() for _ in range(looks)), "what changed nothing"
    looking.care.refused()
    assert [looking.look() for _ in range(looks)].count(True) == 1
    looking.care.refused()
    looking.config = configured(base)  # as a reload would that somebody else asked for
    assert not any(looking.look() for _ in range(looks))


def test_a_link_that_is_switched_is_a_change(base: Path, logged: LoggedLines) -> None:
    for version in ("1", "2"):
        (base / version).mkdir()
        ROOT.issue("a.com").write(base / version, "a")
    (base / "live").symlink_to("1")
    for name in ("a.pem", "a.key"):
        (base / name).unlink()
        (base / name).symlink_to(f"live/{name}")
    looking = Looking(base, logged.log)
    assert [looking.look() for _ in range(2)] == [False] * 2
    (base / "next").symlink_to("2")
    (base / "next").replace(base / "live")
    assert [looking.look() for _ in range(3)] == [False, True, False]


def test_no_file_is_looked_at_while_a_reload_is_under_way_or_too_soon(
    base: Path, logged: LoggedLines
) -> None:
    looking = Looking(base, logged.log)
    looking.look()
    (base / "a.pem").touch()
    assert [looking.look(can_renew=False) for _ in range(3)] == [False] * 3
    assert not looking.look()
    assert not looking.care.tick(looking.config, looking.now, can_renew=True)
    assert looking.look()


def test_an_expiry_is_told_once_a_day_and_louder_when_it_has_come(base: Path, logged: LoggedLines) -> None:
    date = [today()]
    looking = Looking(base, logged.log, lambda: date[0])

    def days(number: float) -> None:
        date[0] += number * DAY
        looking.now += 60
        looking.look()

    days(75)
    assert logged.of("certificate_expires") == []
    days(1.5)
    for _ in range(5):
        days(0.1)
    (line,) = logged.of("certificate_expires")
    assert line.startswith("key=listeners.web.tls.certificates[0] names=a.com not_after=")
    assert line.endswith(" days=13")
    days(0.6)
    assert [line.rpartition("=")[2] for line in logged.of("certificate_expires")] == ["13", "12"]
    days(14)
    days(1.1)
    assert len(logged.of("certificate_expires")) == 2
    assert len(logged.of("certificate_expired")) == 2
