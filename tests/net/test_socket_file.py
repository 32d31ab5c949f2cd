"""The file of a Unix socket is removed by whom it belongs to, and by nobody else."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.net import socket_file as sut
from lbproc.net.control_socket import ControlListener
from lbproc.net.socket_file import SocketFile, locked_directory


def test_another_file_of_the_same_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.touch()
    file = SocketFile.of(path)
    assert file.is_there()
    path.rename(tmp_path / "kept")
    assert not file.is_there()
    path.touch()
    file.remove()
    assert path.exists()


def test_one_that_is_gone_is_no_trouble_even_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "web.sock"
    path.touch()
    file = SocketFile.of(path)
    file.remove()
    path.parent.rmdir()
    file.remove()
    assert not file.is_there()


def test_the_lock_keeps_others_out_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    order: list[str] = []

    def second() -> None:
        with locked_directory(path):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked_directory(path):
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_holds_on_to_the_lock_does_not_hold_up_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sut, "_LOCK_PAUSE", 0.0)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    ControlListener(tmp_path / "control.sock").close()
    os.close(directory)


def test_of_many_that_start_at_one_time_over_a_stale_file_one_listens(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for _ in range(30):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        barrier = threading.Barrier(4)
        listeners: list[ControlListener] = []

        def start(barrier: threading.Barrier = barrier, found: list[ControlListener] = listeners) -> None:
            barrier.wait()
            try:
                found.append(ControlListener(path))
            except StartError:
                return

        threads = [threading.Thread(target=start) for _ in range(4)]
        with ExitStack() as joined:
            for thread in threads:
                thread.start()
                joined.callback(thread.join)
        (listener,) = listeners
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        listener.close()
