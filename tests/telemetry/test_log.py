from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.telemetry.events import Event, Level
from lbproc.telemetry.log import MOST_A_SECOND, ErrorLog, open_error_log
from lbproc.telemetry.sink import Sink
from lbproc.telemetry.stamp import UtcClock

NOON = 1_782_907_200 * 1_000_000_000


class Now:
    def __init__(self) -> None:
        self.ns = NOON

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "error.log"


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def log(path: Path, now: Now) -> Iterator[ErrorLog]:
    log = ErrorLog(Sink(path), Level.INFO, "supervisor", UtcClock(now))
    yield log
    log.close()


def test_a_line_has_time_level_process_event_and_fields(log: ErrorLog, path: Path) -> None:
    log.write(Event.WORKER_EXITED, slot=1, pid=42, status="signal 9", restart_in=0.5, again=True, no=False)
    assert path.read_text() == (
        "2026-07-01T12:00:00.000Z error supervisor worker_exited "
        'slot=1 pid=42 status="signal 9" restart_in=0.500 again=true no=false\n'
    )


def test_a_field_without_a_value_is_left_out(log: ErrorLog, path: Path) -> None:
    log.write(Event.STOPPED, status=None)
    assert path.read_text().endswith(" stopped\n")


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("plain/value:1", "plain/value:1"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('"', r'"\""'),
        ("line\nbreak\x1b", r'"line\nbreak\u001b"'),
        ("é", r'"\u00e9"'),
    ],
)
def test_values_stay_on_one_line_and_apart(log: ErrorLog, path: Path, value: str, rendered: str) -> None:
    log.write(Event.START_FAILED, reason=value)
    assert path.read_text().endswith(f"start_failed reason={rendered}\n")
    assert path.read_text().count("\n") == 1


def test_events_below_the_level_are_not_written(log: ErrorLog, path: Path) -> None:
    log.write(Event.REQUEST_REJECTED, status=400)
    assert path.read_text() == ""


def test_the_level_and_the_destination_come_from_their_names(path: Path) -> None:
    log = open_error_log(path, "debug", "worker-1")
    log.write(Event.REQUEST_REJECTED, status=400)
    log.close()
    assert path.read_text().endswith(" debug worker-1 request_rejected status=400\n")


def test_a_path_that_cannot_be_opened_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be opened"):
        open_error_log(tmp_path, "info", "supervisor")


def test_a_child_writes_to_the_same_place_under_its_own_name(log: ErrorLog, path: Path) -> None:
    child = log.renamed("worker-0")
    child.write(Event.WORKER_READY, slot=0)
    log.write(Event.READY)
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["worker-0", "supervisor"]


def test_a_flood_of_one_event_is_bounded_and_its_size_told(log: ErrorLog, path: Path, now: Now) -> None:
    for _ in range(MOST_A_SECOND + 7):
        log.write(Event.BACKEND_UNREACHABLE, pool="web")
    log.write(Event.READY)
    assert len(path.read_text().splitlines()) == MOST_A_SECOND + 1
    now.ns += 3_000_000_000
    log.write(Event.READY)
    now.ns += 3_000_000_000
    log.write(Event.BACKEND_UNREACHABLE, pool="web")
    log.write(Event.BACKEND_UNREACHABLE, pool="web")
    assert path.read_text().splitlines()[-2].endswith("pool=web suppressed=7")
    assert path.read_text().splitlines()[-1].endswith("pool=web")


def test_a_crash_carries_the_end_of_its_traceback(log: ErrorLog, path: Path) -> None:
    log.write_crash(Event.CONNECTION_CRASHED, ValueError("x" * 10_000 + "the end"), listener="web")
    line = path.read_text()
    assert " connection_crashed listener=web traceback=" in line
    assert line.endswith('the end\\n"\n')
    assert len(line) < 4096


def test_a_line_that_is_too_long_is_cut(log: ErrorLog, path: Path) -> None:
    log.write(Event.START_FAILED, reason="\n" * 10_000)
    assert len(path.read_bytes()) == 4095
    assert path.read_bytes().endswith(b"\n")


def test_a_stuck_reader_never_blocks() -> None:
    reader, end = os.pipe()
    log = ErrorLog(Sink(Path(f"/proc/self/fd/{end}")), Level.INFO, "supervisor", UtcClock())
    events = [event for event in Event if event.level >= Level.INFO]
    while not log.dropped_lines:
        for event in events:
            log.write(event, reason="x" * 4000)
            log = log if log.dropped_lines else log.renamed("supervisor")
    os.close(reader)
    os.close(end)
    log.close()


def test_reopening_follows_the_path(log: ErrorLog, path: Path) -> None:
    log.write(Event.STOPPING)
    path.rename(path.with_suffix(".1"))
    assert log.reopen()
    log.write(Event.STOPPED)
    assert path.read_text().endswith("stopped\n")
    assert path.read_text().count("\n") == 1


def test_a_failed_reopening_is_told_in_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = open_error_log(folder / "log", "info", "supervisor")
    folder.rename(tmp_path / "moved")
    assert not log.reopen()
    told = f'supervisor log_reopen_failed path={folder / "log"} reason="No such file or directory"\n'
    assert (tmp_path / "moved" / "log").read_text().endswith(told)
    log.close()


def test_it_goes_on_elsewhere_at_another_level(tmp_path: Path) -> None:
    log = open_error_log(tmp_path / "old.log", "info", "worker-0")
    log.change("error", Sink(tmp_path / "new.log"))
    log.write(Event.STOPPED, status=0)
    log.change("info", None)
    log.write(Event.STOPPED, status=1)
    log.close()
    assert (tmp_path / "old.log").read_text() == ""
    assert "status=1" in (tmp_path / "new.log").read_text()
    assert "status=0" not in (tmp_path / "new.log").read_text()
