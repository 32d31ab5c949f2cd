"""The pid file: whole, ours, and nobody else's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.supervisor.pid_file import PidFile


def test_it_is_written_whole_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.pid"
    file = PidFile(path, 4242)
    assert not path.exists()
    file.write()
    assert path.read_text() == "4242\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["lbproc.pid"]
    file.remove()
    file.remove()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("content", ["", "99999999\n", f"{os.getpid()}\n", " 12 \n"])
def test_what_a_predecessor_left_is_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "lbproc.pid"
    path.write_text(content)
    PidFile(path, 4242).write()
    assert path.read_text() == "4242\n"


@pytest.mark.parametrize("content", ["root:x:0:0\n", "12 monkeys", "1" * 100])
def test_another_kind_of_file_is_not_touched(content: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text(content)
    with pytest.raises(StartError, match="holds no process id"):
        PidFile(path, 4242)
    assert path.read_text() == content


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("12\n")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StartError, match="pid_file"):
        PidFile(tmp_path / "link", 4242)


def test_a_pipe_does_not_hold_up_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    PidFile(tmp_path / "pipe", 4242)  # reads as empty; it is replaced by the file


def test_a_directory_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="there is no directory"):
        PidFile(tmp_path / "none" / "lbproc.pid", 4242)
    with pytest.raises(StartError, match="pid_file"):
        PidFile(tmp_path, 4242)


def test_the_file_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.pid"
    first, second = PidFile(path, 1), PidFile(path, 2)
    first.write()
    second.write()
    first.remove()
    assert path.read_text() == "2\n"


def test_a_draft_of_a_namesake_who_died_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lbproc.pid.4242").write_text("")
    file = PidFile(tmp_path / "lbproc.pid", 4242)
    file.write()
    assert [path.name for path in tmp_path.iterdir()] == ["lbproc.pid"]


def test_a_file_that_cannot_be_put_in_place_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.pid"
    file = PidFile(path, 4242)
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        file.write()
    assert [path.name for path in tmp_path.iterdir()] == ["lbproc.pid"]
