from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.telemetry.sink import FileOwner, Sink

PROGRAM = """
import fcntl, os, sys
from lbproc.telemetry.sink import FileOwner, Sink
sink = Sink("stdout")
assert sink.write(b"hello\\n") == 6
sink.wait_writable()
try:
    while sys.argv[1:] == ["fill"]:
        sink.write(b"x" * 4000)
except BlockingIOError:
    sys.stderr.write("would block ")
sink.reopen()
sink.close()
sink.close()
shared = fcntl.fcntl(1, fcntl.F_GETFL) & os.O_NONBLOCK
sys.stderr.write(f"{sink.is_regular} {bool(shared)}")
"""


def somebody() -> FileOwner:
    """Whom this process may give a file to: another account when it is root, else its own."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return FileOwner(account.pw_name, account.pw_uid, account.pw_gid)


def run_with_stdout(stdout: int, *args: str, program: str = PROGRAM) -> str:
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=True, text=True).stderr


def test_a_file_is_created_for_owner_and_group_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        sink = Sink(path)
        assert sink.is_regular
        assert sink.write(b"line\n") == 5
        sink.close()
    assert path.read_bytes() == b"line\nline\n"
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StartError, match=r"the log .*/missing/log cannot be opened: No such file or directory"
    ):
        Sink(tmp_path / "missing" / "log")


def test_a_fifo_without_a_reader_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StartError, match="cannot be opened"):
        Sink(tmp_path / "fifo")


def test_reopening_follows_the_path(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(path)
    sink.write(b"old\n")
    path.rename(tmp_path / "log.1")
    sink.reopen()
    sink.write(b"new\n")
    sink.close()
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_failed_reopening_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = Sink(folder / "log")
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.write(b"kept\n")
    sink.close()
    assert (tmp_path / "moved" / "log").read_bytes() == b"kept\n"


def test_a_pipe_on_stdout_is_not_made_non_blocking_for_others() -> None:
    reader, writer = os.pipe()
    assert run_with_stdout(writer, "fill") == "would block False False"
    assert os.read(reader, 6) == b"hello\n"
    os.close(reader)
    os.close(writer)


def test_a_socket_on_stdout_is_not_made_non_blocking_for_others() -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        assert run_with_stdout(writer.fileno(), "fill") == "would block False False"
        assert reader.recv(6) == b"hello\n"


def test_a_file_on_stdout_keeps_its_position(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as out:
        out.write(b"before ")
        out.flush()
        assert run_with_stdout(out.fileno()) == "True False"
    assert path.read_bytes() == b"before hello\n"


def test_a_stream_that_cannot_be_opened_again_is_asked_before_each_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path, flags)

    monkeypatch.setattr("lbproc.telemetry.sink._STANDARD", {"stdout": writer})
    monkeypatch.setattr("lbproc.telemetry.sink.os.open", refuse)
    sink = Sink("stdout")
    with pytest.raises(BlockingIOError):
        while True:
            sink.write(b"x" * 4000)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.write(b"x")
    sink.close()
    os.close(writer)


def test_a_closed_stdout_is_a_clear_error() -> None:
    program = "import os\nos.close(1)\nfrom lbproc.telemetry.sink import Sink\ntry:\n Sink('stdout')\n"
    program += "except Exception as error:\n import sys\n sys.stderr.write(str(error))"
    with Path(os.devnull).open("wb") as null:
        assert run_with_stdout(null.fileno(), program=program) == (
            "the log stdout cannot be opened: Bad file descriptor"
        )


def test_a_new_file_is_given_to_its_owner_also_after_reopening(tmp_path: Path) -> None:
    path, owner = tmp_path / "log", somebody()
    sink = Sink(path, owner)
    first = path.stat()
    path.rename(tmp_path / "log.1")
    sink.reopen()
    sink.write(b"new\n")
    sink.close()
    for status in (first, path.stat()):
        assert (status.st_uid, status.st_gid) == (owner.uid, owner.gid)
        assert stat.S_IMODE(status.st_mode) & ~0o640 == 0
    assert path.read_bytes() == b"new\n"


def test_a_file_that_was_there_keeps_its_owner_and_content(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    before = path.stat()
    sink = Sink(path, somebody())
    sink.write(b"new\n")
    sink.close()
    assert path.read_bytes() == b"old\nnew\n"
    assert (path.stat().st_uid, path.stat().st_mode) == (before.st_uid, before.st_mode)


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_is_not_followed_for_another_account(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "log").symlink_to(tmp_path / target)
    owner = somebody()
    with pytest.raises(StartError, match=f"symbolic link.* for {owner.name}; name the file itself"):
        Sink(tmp_path / "log", owner)
    assert not (tmp_path / "missing").exists()


def test_a_file_that_cannot_be_given_away_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("lbproc.telemetry.sink.os.fchown", refuse)
    with pytest.raises(StartError, match=f"Operation not permitted; let {somebody().name} write to it"):
        Sink(tmp_path / "log", somebody())


def test_a_missing_right_names_the_account_and_the_remedy(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    remedy = "write to it and search its directory"
    owned = Sink(tmp_path / "log", FileOwner("web", os.getuid(), os.getgid()))
    plain = Sink(tmp_path / "log")
    assert owned.explain(error) == f"Permission denied; let web {remedy}"
    assert plain.explain(error) == f"Permission denied; let user id {os.geteuid()} {remedy}"
    owned.close()
    plain.close()


def test_a_descriptor_that_another_process_opened_is_written_closed_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    other = Sink(path)
    sink = Sink(path, descriptor=os.dup(other.fileno()))
    other.close()
    assert sink.is_regular
    sink.write(b"one\n")
    path.rename(tmp_path / "old.log")
    sink.reopen()
    sink.write(b"two\n")
    sink.close()
    assert (tmp_path / "old.log").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_a_pipe_of_another_process_that_may_block_is_asked_first() -> None:
    read_end, write_end = os.pipe()
    sink = Sink("stdout", descriptor=write_end)
    with pytest.raises(BlockingIOError):
        while True:
            sink.write(b"x" * 4000)
    assert os.get_blocking(write_end)
    os.close(read_end)
    sink.close()


def test_a_socket_of_another_process_never_blocks_either() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        sink = Sink("stdout", descriptor=theirs.detach())
        assert sink.fileno() >= 0
        sink.write(b"line\n")
        assert ours.recv(10) == b"line\n"
        sink.close()
