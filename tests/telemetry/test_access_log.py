from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.sink import Sink

PATIENCE = 10.0


def test_recorded_lines_are_written_by_flush(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    assert log.enabled
    log.record(b"one\n")
    log.record(b"two\n")
    assert log.flush() == 0
    log.record(b"three\n")
    assert log.close(PATIENCE) == 0
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert log.trouble is None


def test_off_takes_lines_and_keeps_none() -> None:
    log = AccessLog("off")
    assert not log.enabled
    log.record(b"one\n")
    assert log.flush() == 0
    log.reopen()
    assert log.trouble is None
    assert log.close() == 0


def test_a_reader_that_never_reads_blocks_neither_flush_nor_close() -> None:
    reader, end = os.pipe()
    log = AccessLog(Path(f"/proc/self/fd/{end}"), capacity_bytes=200_000)
    os.close(end)
    lost = 0
    for number in range(20_000):
        log.record(b"%099d\n" % number)
        if number % 1000 == 0:
            lost += log.flush()
    lost += log.close(0.0)
    assert lost > 10_000
    with os.fdopen(reader, "rb") as pipe:  # the writer goes on once somebody reads
        lines = pipe.read().splitlines()
    assert len(lines) + lost == 20_000
    assert lines == sorted(lines)


def test_a_batch_larger_than_the_room_keeps_its_beginning(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log", capacity_bytes=10)
    for line in (b"1234\n", b"5678\n", b"90\n"):
        log.record(line)
    assert log.close(PATIENCE) == 1
    assert (tmp_path / "log").read_bytes() == b"1234\n5678\n"


def test_a_line_larger_than_the_room_is_lost(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log", capacity_bytes=10)
    log.record(b"x" * 11)
    assert log.close(PATIENCE) == 1


def test_lines_the_disk_refuses_are_reported_once() -> None:
    log = AccessLog(Path("/dev/full"))
    log.record(b"one\n")
    assert log.close(PATIENCE) == 1
    assert log.flush() == 0
    assert log.trouble == "No space left on device"


def test_reopening_after_rotation_splits_the_log_at_that_point(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    log.record(b"old\n")
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    log.record(b"new\n")
    assert log.close(PATIENCE) == 0
    assert (tmp_path / "access.log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_path_that_cannot_be_opened_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be opened"):
        AccessLog(tmp_path)


def test_what_was_opened_before_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(Sink(path))
    log.record(b"one\n")
    assert log.close(PATIENCE) == 0
    assert path.read_bytes() == b"one\n"


def test_a_failed_reopening_is_told_once_and_lines_go_to_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = AccessLog(folder / "log")
    assert log.reopen_trouble() is None
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.record(b"one\n")
    assert log.close(PATIENCE) == 0
    assert log.reopen_trouble() == "No such file or directory"
    assert log.reopen_trouble() is None
    assert (tmp_path / "moved" / "log").read_bytes() == b"one\n"


def test_a_log_that_is_off_has_no_trouble() -> None:
    assert AccessLog("off").reopen_trouble() is None


def test_a_log_that_ended_writes_what_is_left_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    log.record(b"one\n")
    log.end()
    assert log.close(PATIENCE) == 0
    assert log.is_over
    assert path.read_bytes() == b"one\n"
    off = AccessLog("off")
    off.end()
    assert off.is_over
