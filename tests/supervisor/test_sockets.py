"""The listening sockets: one for each slot, or one for all, and nothing left behind."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.supervisor.sockets import ListeningSockets, close_admin_socket, open_admin_socket
from lbproc.types import Slot, TcpAddress, UnixAddress


def make_config(*bind: str) -> Config:
    return Config.model_validate(
        {
            "listeners": {"web": {"bind": list(bind), "pool": "web"}},
            "pools": {"web": {"backends": ["127.0.0.1:1"]}},
        }
    )


def connect(address: object) -> socket.socket:
    if isinstance(address, UnixAddress):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0.3)
        try:
            client.connect(address.path)
        except OSError:
            client.close()
            raise
        return client
    assert isinstance(address, TcpAddress)
    return socket.create_connection((address.host, address.port), timeout=0.3)


def test_tcp_is_slotted_and_unix_is_shared(tmp_path: Path) -> None:
    sockets = ListeningSockets(make_config("127.0.0.1:0", f"unix:{tmp_path}/web.sock"), 3)
    tcp, unix = sockets.bound
    assert (len(tcp.sockets), tcp.is_shared) == (3, False)
    assert (len(unix.sockets), unix.is_shared) == (1, True)
    assert isinstance(tcp.address, TcpAddress)
    assert tcp.address.port != 0
    assert {sock.getsockname()[1] for sock in tcp.sockets} == {tcp.address.port}
    own, shared = sockets.of_slot(Slot(2))
    assert own.socket is tcp.sockets[2]
    assert shared.socket is unix.sockets[0]
    assert (own.shared, shared.shared) == (False, True)
    assert (own.listener_name, own.address) == ("web", tcp.address)
    assert [listener.socket for listener in sockets.own_of_slot(Slot(1))] == [tcp.sockets[1]]
    sockets.close()


def test_nobody_connects_before_listen_and_nobody_new_after_refuse(tmp_path: Path) -> None:
    sockets = ListeningSockets(make_config("127.0.0.1:0", f"unix:{tmp_path}/web.sock"), 2)
    tcp, unix = (bound.address for bound in sockets.bound)
    with pytest.raises(ConnectionRefusedError):
        connect(tcp)
    sockets.listen()
    queued = [connect(tcp), connect(unix)]
    sockets.refuse()
    with pytest.raises(TimeoutError):
        connect(tcp)
    with pytest.raises(FileNotFoundError):
        connect(unix)
    accepted = 0
    for bound in sockets.bound:
        for sock in bound.sockets:
            try:
                sock.accept()[0].close()
                accepted += 1
            except BlockingIOError:
                continue
    assert accepted == len(queued)
    for client in queued:
        client.close()
    successor = tmp_path / "web.sock"
    successor.touch()
    sockets.close()
    assert successor.exists(), "the file was ours no more"


def test_a_failed_bind_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    (tmp_path / "other").touch()
    with pytest.raises(StartError):
        ListeningSockets(make_config(f"unix:{path}", f"unix:{tmp_path}/other"), 2)
    assert not path.exists()


def test_a_predecessor_that_is_about_to_leave_gets_some_time(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    predecessor = socket.socket(socket.AF_UNIX)
    predecessor.bind(str(path))
    predecessor.listen()

    def leave() -> None:
        predecessor.accept()[0].close()
        predecessor.close()

    thread = threading.Thread(target=leave)
    thread.start()
    sockets = ListeningSockets(make_config(f"unix:{path}"), 1)
    thread.join()
    sockets.listen()
    connect(UnixAddress(str(path))).close()
    sockets.close()


def test_close_removes_the_files_and_may_come_twice(tmp_path: Path) -> None:
    sockets = ListeningSockets(make_config(f"unix:{tmp_path}/web.sock"), 2)
    sockets.close()
    sockets.close()
    assert not (tmp_path / "web.sock").exists()


@pytest.mark.parametrize(("slot", "kept"), [(Slot(1), 2), (None, 0)])
def test_a_child_keeps_its_own(tmp_path: Path, slot: Slot | None, kept: int) -> None:
    sockets = ListeningSockets(make_config("127.0.0.1:0", f"unix:{tmp_path}/web.sock"), 3)
    everything = [sock for bound in sockets.bound for sock in bound.sockets]
    sockets.close_in_child(slot)
    still_open = [sock for sock in everything if sock.fileno() >= 0]
    assert len(still_open) == kept
    assert (tmp_path / "web.sock").exists()
    if slot is not None:
        assert still_open == [listener.socket for listener in sockets.of_slot(slot)]
    sockets.close()


@pytest.mark.parametrize("is_unix", [True, False])
def test_the_admin_socket_listens_and_leaves_nothing(tmp_path: Path, is_unix: bool) -> None:
    path = tmp_path / "admin.sock"
    sock = open_admin_socket(UnixAddress(str(path)) if is_unix else TcpAddress("127.0.0.1", 0))
    name = sock.getsockname()
    connect(UnixAddress(name) if is_unix else TcpAddress(*name)).close()
    close_admin_socket(sock)
    assert not path.exists()
