"""The listening sockets: one for each slot, or one for all, and nothing left behind."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.supervisor import binding as sut
from lbproc.supervisor.binding import open_admin_socket
from lbproc.supervisor.signals import StoppedEarlyError
from lbproc.supervisor.sockets import ListeningSockets
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
    admin = open_admin_socket(UnixAddress(str(path)) if is_unix else TcpAddress("127.0.0.1", 0))
    name = admin.socket.getsockname()
    connect(UnixAddress(name) if is_unix else TcpAddress(*name)).close()
    admin.close()
    admin.close()
    assert not path.exists()


def test_of_two_that_have_bound_one_address_only_one_listens() -> None:
    with (
        closing(ListeningSockets(make_config("127.0.0.1:0"), 2)) as first,
        # Both have SO_REUSEADDR and neither listens, so the probe without SO_REUSEPORT finds nobody.
        closing(ListeningSockets(make_config(str(first.bound[0].address)), 2)) as second,
    ):
        first.listen()
        with pytest.raises(StartError, match="in use"):
            second.listen()


def test_of_two_that_listen_at_the_same_moment_only_one_does() -> None:
    for _ in range(30):
        with (
            closing(ListeningSockets(make_config("127.0.0.1:0"), 4)) as first,
            closing(ListeningSockets(make_config(str(first.bound[0].address)), 4)) as second,
        ):
            barrier = threading.Barrier(2)
            refused: list[StartError] = []

            def start(
                sockets: ListeningSockets, at: threading.Barrier = barrier, errors: list[StartError] = refused
            ) -> None:
                at.wait()
                try:
                    sockets.listen()
                except StartError as error:
                    errors.append(error)

            threads = [threading.Thread(target=start, args=(sockets,)) for sockets in (first, second)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(refused) == 1


def test_who_holds_on_to_the_lock_does_not_hold_up_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sut, "_LOCK_PAUSE", 0.0)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock,
        closing(ListeningSockets(make_config("127.0.0.1:0"), 1)) as sockets,
    ):
        lock.bind("\0lbproc/listen")
        sockets.listen()
        connect(sockets.bound[0].address).close()


def test_addresses_of_one_program_may_overlap() -> None:
    with closing(ListeningSockets(make_config("127.0.0.1:0"), 1)) as alone:
        address = alone.bound[0].address
    assert isinstance(address, TcpAddress)
    with closing(ListeningSockets(make_config(str(address), f"0.0.0.0:{address.port}"), 2)) as both:
        both.listen()
        connect(address).close()


def test_of_two_that_have_bound_one_path_only_one_listens(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/web.sock"
    with closing(ListeningSockets(make_config(path), 2)) as first:
        with closing(ListeningSockets(make_config(path), 2)) as second:
            with pytest.raises(StartError, match="another program began to use the path"):
                first.listen()
            second.listen()
            first.close()
            connect(second.bound[0].address).close()
        assert not (tmp_path / "web.sock").exists()


@pytest.mark.parametrize("way", ["refuse", "close"])
def test_a_file_that_cannot_be_removed_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError

    sockets = ListeningSockets(make_config(f"unix:{tmp_path}/web.sock", "127.0.0.1:0"), 1)
    sockets.listen()
    _, tcp = sockets.bound
    (listening,) = tcp.sockets
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        getattr(sockets, way)()
    if way == "close":
        assert listening.fileno() == -1
    else:
        with pytest.raises(TimeoutError):
            connect(tcp.address)
    sockets.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_stop_ends_the_wait_for_a_predecessor_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    def stop(_: float) -> None:
        raise StoppedEarlyError

    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "busy.sock"))
        unix.listen()
        busy = f"unix:{tmp_path}/busy.sock" if kind == "unix" else f"127.0.0.1:{tcp.getsockname()[1]}"
        with pytest.raises(StoppedEarlyError):
            ListeningSockets(make_config(f"unix:{tmp_path}/web.sock", busy), 1, stop)
    assert not (tmp_path / "web.sock").exists()
