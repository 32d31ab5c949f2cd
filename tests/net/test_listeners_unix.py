"""Listening on Unix sockets: whose file it is, and who may connect."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.net.listeners import (
    listen,
    listen_unix,
    open_unix,
)
from lbproc.types import UnixAddress


def test_the_file_of_a_program_that_is_gone_is_replaced(stack: ExitStack, tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "web.sock"))
    open_unix(address)[0].close()
    assert Path(address.path).is_socket()
    sock = stack.enter_context(open_unix(address)[0])
    listen(sock)
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(address.path)
    assert not sock.getblocking()


@pytest.mark.parametrize("is_full", [False, True])
def test_a_live_socket_is_refused_and_left_alone(stack: ExitStack, tmp_path: Path, is_full: bool) -> None:
    address = UnixAddress(str(tmp_path / "web.sock"))
    alive = stack.enter_context(open_unix(address)[0])
    listen(alive, 0)
    if is_full:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(address.path)
    with pytest.raises(StartError, match="another program listens there"):
        open_unix(address)
    assert Path(address.path).is_socket()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    path.write_text("precious")
    with pytest.raises(StartError, match="exists and is not a socket"):
        open_unix(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_a_missing_directory_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file or directory; make the directory first"):
        open_unix(UnixAddress(str(tmp_path / "nowhere" / "web.sock")))


def test_a_path_through_a_file_cannot_be_bound(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="Not a directory"):
        open_unix(UnixAddress(str(tmp_path / "file" / "web.sock")))


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_permissions_hold_from_the_moment_the_file_exists(
    stack: ExitStack, tmp_path: Path, mode: int
) -> None:
    address = UnixAddress(str(tmp_path / "web.sock"))
    before = os.umask(0o077)
    try:
        stack.enter_context(open_unix(address, mode=mode)[0])
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(address.path).stat().st_mode) == mode


def test_removing_refuses_new_ones_and_keeps_the_queue(stack: ExitStack, tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "web.sock"))
    sock, file = open_unix(address)
    stack.enter_context(sock)
    listen_unix(sock, file)
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(address.path)
    file.remove()
    file.remove()
    late = stack.enter_context(socket.socket(socket.AF_UNIX))
    assert late.connect_ex(address.path) == errno.ENOENT
    accepted, _ = sock.accept()
    stack.enter_context(accepted)
