from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lbproc.telemetry.sink import Sink
from lbproc.telemetry.writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size``: a full disk, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_reach_the_file_in_order(tmp_path: Path) -> None:
    writer = LineWriter(Sink(tmp_path / "log"))
    lines = [b"%d\n" % number for number in range(5000)]
    writer.put(lines[:10])
    writer.put(lines[10:])
    assert writer.stop(PATIENCE)
    assert (tmp_path / "log").read_bytes() == b"".join(lines)
    assert writer.finished_bytes == len(b"".join(lines))
    assert (writer.dropped_lines, writer.trouble) == (0, None)


def test_each_write_to_a_pipe_is_whole_lines_under_4096_bytes() -> None:
    class Recording(Sink):
        def write(self, octets: bytes | memoryview) -> int:
            written.append(bytes(octets))
            return super().write(octets)

    written: list[bytes] = []
    reader, end = os.pipe()
    writer = LineWriter(Recording(Path(f"/proc/self/fd/{end}")))
    writer.put([b"x" * size + b"\n" for size in (4094, 1, 4000, 90, 2000, 2093, 1)])
    assert writer.stop(PATIENCE)
    assert [len(octets) for octets in written] == [4095, 4094, 4095, 2]
    assert all(octets.endswith(b"\n") for octets in written)
    os.close(reader)
    os.close(end)


def test_a_full_pipe_is_waited_for() -> None:
    reader, end = os.pipe()
    writer = LineWriter(Sink(Path(f"/proc/self/fd/{end}")))
    os.close(end)
    lines = [b"%08d\n" % number for number in range(50_000)]
    writer.put(lines)
    assert not writer.stop(0.0)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"".join(lines)
    assert writer.stop(PATIENCE)
    assert writer.dropped_lines == 0


def test_lines_that_nobody_can_read_are_counted() -> None:
    reader, end = os.pipe()
    writer = LineWriter(Sink(Path(f"/proc/self/fd/{end}")))
    os.close(reader)
    writer.put([b"one\n", b"two\n"])
    assert writer.stop(PATIENCE)
    assert (writer.dropped_lines, writer.finished_bytes, writer.trouble) == (2, 8, "Broken pipe")
    os.close(end)


def test_a_full_device_loses_lines_and_says_why() -> None:
    writer = LineWriter(Sink(Path("/dev/full")))
    writer.put([b"one\n"])
    writer.put([b"two\n", b"three\n"])
    assert writer.stop(PATIENCE)
    assert (writer.dropped_lines, writer.trouble) == (3, "No space left on device")


def test_a_line_torn_by_a_full_disk_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with file_size_limit(10):
        writer = LineWriter(Sink(path))
        writer.put([b"first\n", b"second\n", b"third\n"])
        writer.put([b"fourth\n"])
        assert writer.stop(PATIENCE)
    assert writer.dropped_lines == 3
    assert path.read_bytes() == b"first\nseco"


def test_once_there_is_room_again_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(path)
    with file_size_limit(10):
        writer = LineWriter(sink)
        writer.put([b"first\n", b"second\n"])
        while writer.finished_bytes < 13:
            os.sched_yield()
    writer.put([b"third\n"])
    assert writer.stop(PATIENCE)
    assert path.read_bytes() == b"first\nseco\nthird\n"
    assert (writer.dropped_lines, writer.trouble) == (1, None)


def test_reopening_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(Sink(path))
    path.rename(tmp_path / "log.1")
    writer.put([b"old\n"])
    writer.reopen()
    writer.put([b"new\n"])
    assert writer.stop(PATIENCE)
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_failed_reopening_is_told_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = LineWriter(Sink(folder / "log"))
    folder.rename(tmp_path / "moved")
    writer.reopen()
    assert writer.stop(PATIENCE)
    assert (writer.failed_reopenings, writer.reopen_trouble) == (1, "No such file or directory")
    assert writer.trouble is None
