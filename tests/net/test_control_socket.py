"""Where the control socket is, that it is private, and that only a dead one is replaced."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.net.control_socket import ControlListener, default_control_socket


def test_roots_socket_is_under_run() -> None:
    found = default_control_socket({"XDG_RUNTIME_DIR": "/run/user/0"}, user=0)
    assert found == Path("/run/lbproc/control.sock")


def test_a_users_socket_is_in_the_runtime_directory() -> None:
    found = default_control_socket({"XDG_RUNTIME_DIR": "/run/user/7"}, user=7)
    assert found == Path("/run/user/7/lbproc/control.sock")


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}])
def test_else_it_is_in_a_directory_of_the_users_own(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = default_control_socket(environ, user=7)
    assert found == tmp_path / "lbproc-7" / "control.sock"


def test_this_process_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    expected = Path("/run/lbproc") if os.geteuid() == 0 else tmp_path / "lbproc"
    assert default_control_socket() == expected / "control.sock"


def test_a_private_directory_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    user = os.geteuid() or 4242
    directory = tmp_path / f"lbproc-{user}"
    directory.mkdir(mode=0o700)
    os.chown(directory, user, -1)
    assert default_control_socket({}, user=user).parent == directory


@pytest.mark.parametrize("trap", ["open", "foreign", "link", "file"])
def test_a_directory_that_is_not_the_users_alone_is_refused(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    user = os.geteuid() or 4242
    directory = tmp_path / f"lbproc-{user + 1 if trap == 'foreign' else user}"
    if trap == "link":
        directory.symlink_to(tmp_path)
    elif trap == "file":
        directory.touch()
    else:
        directory.mkdir()
        directory.chmod(0o755 if trap == "open" else 0o700)
        os.chown(directory, user, -1)
    with pytest.raises(StartError, match="only this user"):
        default_control_socket({}, user=user + 1 if trap == "foreign" else user)


def test_the_socket_is_private_listens_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own" / "control.sock"
    umask = os.umask(0)
    listener = ControlListener(path)
    assert os.umask(umask) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not listener.socket.getblocking()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    listener.close()
    assert not path.exists()


def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = ControlListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_live_socket_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ControlListener(path)
    with pytest.raises(StartError, match="already running"):
        ControlListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    first.close()


def test_a_live_socket_with_a_full_queue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stuck, socket.socket(socket.AF_UNIX) as client:
        stuck.bind(str(path))
        stuck.listen(0)
        client.connect(str(path))
        with pytest.raises(StartError, match="already running"):
            ControlListener(path)


def test_another_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(StartError, match="is not a socket"):
        ControlListener(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "message"),
    [("a/b/c.sock", "No such file"), ("x" * 108, "107 bytes"), ("file/c.sock", "Not a|File exists")],
)
def test_a_path_that_cannot_be_used_is_refused_with_the_key_to_change(
    path: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=message) as refused:
        ControlListener(tmp_path / path)
    assert "[runtime] control_socket" in str(refused.value)


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ControlListener(path)
    path.unlink()
    second = ControlListener(path)
    first.close()
    assert path.exists()
    second.close()
