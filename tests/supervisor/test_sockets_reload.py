"""The listening sockets through a reload: what stays, what comes, what goes, and what is undone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.supervisor.activation import PassedSocket, PassedSockets
from lbproc.supervisor.binding import BusyError
from lbproc.supervisor.sockets import ListeningSockets
from lbproc.types import Slot, TcpAddress

ANY = "127.0.0.1:0"


def config(**listeners: list[str]) -> Config:
    return Config.model_validate(
        {
            "listeners": {name: {"bind": bind, "pool": "web"} for name, bind in listeners.items()},
            "pools": {"web": {"backends": ["127.0.0.1:1"]}},
        }
    )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serving(stack: ExitStack, slots: int, **listeners: list[str]) -> ListeningSockets:
    sockets = stack.enter_context(closing(ListeningSockets(config(**listeners), slots)))
    sockets.listen()
    return sockets


def port(sockets: ListeningSockets, place: int = 0) -> int:
    address = sockets.bound[place].address
    assert isinstance(address, TcpAddress)
    return address.port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=0.2)


def accepted(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def spread(sockets: ListeningSockets, connections: int = 40) -> list[int]:
    """How many of so many connections each slot gets."""
    for _ in range(connections):
        connect(port(sockets)).close()
    return [accepted(sock) for sock in sockets.bound[0].sockets]


def test_what_stays_has_the_same_sockets_and_key_wherever_it_moves(stack: ExitStack, tmp_path: Path) -> None:
    unix = f"unix:{tmp_path}/a.sock"
    with closing(ListeningSockets(config(a=[ANY]), 1)) as probe:
        fixed = f"127.0.0.1:{port(probe)}"
    sockets = serving(stack, 2, a=[fixed, ANY, unix])
    before = {bound.key: list(bound.sockets) for bound in sockets.bound}
    sockets.prepare(config(b=[unix, fixed], a=[ANY]), 2)
    assert sockets.lent(Slot(0)) == ()
    assert sorted(sockets.next_names()) == [(1, "b"), (2, "a"), (3, "b")]
    sockets.listen_next()
    assert not sockets.commit()
    assert {bound.key: bound.sockets for bound in sockets.bound} == before
    assert [listener.listener_name for listener in sockets.of_slot(Slot(1))] == ["b", "b", "a"]


def test_what_is_new_listens_only_when_told_and_is_lent_by_slot(stack: ExitStack) -> None:
    sockets = serving(stack, 2, a=[ANY])
    sockets.prepare(config(a=[ANY], b=[ANY]), 2)
    (lent,) = sockets.lent(Slot(1))
    assert (lent.key, lent.listener_name, lent.shared) == (2, "b", False)
    assert isinstance(lent.address, TcpAddress)
    with pytest.raises(ConnectionRefusedError):
        connect(lent.address.port)
    sockets.listen_next()
    connect(lent.address.port).close()
    assert len(sockets.bound) == 1
    assert not sockets.commit()
    assert [bound.listener_name for bound in sockets.bound] == ["a", "b"]
    assert sockets.newest_of_slot(Slot(1)) == (lent,)
    assert lent in sockets.own_of_slot(Slot(1))


@pytest.mark.parametrize("is_listening", [True, False])
def test_what_is_undone_leaves_nothing(stack: ExitStack, tmp_path: Path, is_listening: bool) -> None:
    sockets = serving(stack, 1, a=[ANY])
    sockets.prepare(config(a=[ANY], b=[ANY, f"unix:{tmp_path}/b.sock"]), 3)
    (lent, unix) = sockets.lent(Slot(0))
    assert unix.shared
    if is_listening:
        sockets.listen_next()
    sockets.undo()
    sockets.undo()
    assert lent.socket.fileno() == -1
    assert not (tmp_path / "b.sock").exists()
    assert [len(bound.sockets) for bound in sockets.bound] == [1]
    assert not sockets.commit(), "there is nothing to commit"
    assert sum(spread(sockets)) == 40


def test_a_bind_that_fails_leaves_nothing(stack: ExitStack) -> None:
    sockets = serving(stack, 1, a=[ANY])
    with pytest.raises(StartError, match="no-such"):
        sockets.prepare(config(a=[ANY], b=[ANY, "unix:/no-such/b.sock"]), 2)
    assert sockets.next_names() == ()
    assert sockets.lent(Slot(0)) == ()
    sockets.listen_next()
    assert sum(spread(sockets)) == 40


def test_an_address_in_use_is_told_at_once_and_may_be_free_soon(stack: ExitStack, tmp_path: Path) -> None:
    sockets = serving(stack, 1, a=[ANY])
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(tmp_path / "b.sock"))
    unix.listen()
    for busy in (f"127.0.0.1:{tcp.getsockname()[1]}", f"unix:{tmp_path}/b.sock"):
        with pytest.raises(BusyError, match=f"cannot listen on {busy}"):
            sockets.prepare(config(a=[ANY], b=[busy]), 1)


def test_who_takes_the_address_before_we_listen_there_is_a_refusal(stack: ExitStack) -> None:
    sockets = serving(stack, 1, a=[ANY])
    sockets.prepare(config(a=[ANY], b=[ANY]), 1)
    (lent,) = sockets.lent(Slot(0))
    thief = stack.enter_context(socket.socket())
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    thief.bind(lent.socket.getsockname())
    thief.listen()
    with pytest.raises(StartError, match="in use"):
        sockets.listen_next()
    sockets.undo()


def test_when_one_cannot_listen_nobody_has_come_to_the_others(stack: ExitStack) -> None:
    sockets = serving(stack, 2, a=[ANY])
    sockets.prepare(config(a=[ANY], b=[ANY, ANY]), 4)
    first, second = sockets.lent(Slot(0))
    second.socket.connect(("127.0.0.1", port(sockets)))  # a socket that cannot listen any more
    with pytest.raises(StartError, match="cannot listen on"):
        sockets.listen_next()
    assert isinstance(first.address, TcpAddress)
    with pytest.raises(TimeoutError):
        connect(first.address.port)
    shares = spread(sockets)
    assert sum(shares) == 41, "none went to the new slots, which listen already"
    sockets.undo()
    with pytest.raises(ConnectionRefusedError):
        connect(first.address.port)
    assert sum(spread(sockets)) == 40
    sockets.prepare(config(a=[ANY]), 4)
    sockets.listen_next()
    sockets.commit()
    assert all(spread(sockets, 80))


def test_a_unix_socket_that_lost_its_name_is_found_before_any_listens(
    stack: ExitStack, tmp_path: Path
) -> None:
    sockets = serving(stack, 1, a=[ANY])
    sockets.prepare(config(a=[ANY], b=[ANY, *(f"unix:{tmp_path}/{name}" for name in "xy")]), 1)
    (tmp_path / "y").unlink()
    with pytest.raises(StartError, match="another program began to use the path"):
        sockets.listen_next()
    for listener in sockets.lent(Slot(0)):
        client = stack.enter_context(socket.socket(listener.socket.family))
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            client.connect(listener.socket.getsockname())
    sockets.undo()


def test_what_goes_takes_nothing_new_and_keeps_what_is_queued(stack: ExitStack, tmp_path: Path) -> None:
    sockets = serving(stack, 2, a=[ANY], b=[ANY, f"unix:{tmp_path}/b.sock"])
    _, tcp, unix = sockets.bound
    assert isinstance(tcp.address, TcpAddress)
    waiting = connect(tcp.address.port)
    sockets.prepare(config(a=[ANY]), 2)
    sockets.listen_next()
    assert sockets.commit()
    assert not (tmp_path / "b.sock").exists()
    with pytest.raises(TimeoutError):
        connect(tcp.address.port)
    adopted = [listener.key for listener in sockets.own_of_slot(Slot(0))]
    assert adopted == [1, 2], "also for a sibling, whose worker died before it had accepted it"
    assert sum(accepted(sock) for sock in tcp.sockets) == 1
    assert [listener.key for listener in sockets.of_slot(Slot(0))] == [1], "not for whoever is born now"
    sockets.close_removed()
    sockets.close_removed()
    assert tcp.sockets == unix.sockets == []
    with pytest.raises(ConnectionRefusedError):
        connect(tcp.address.port)
    waiting.close()


def test_more_slots_get_a_share_and_fewer_none(stack: ExitStack) -> None:
    sockets = serving(stack, 2, a=[ANY])
    for slots in (4, 3):
        sockets.prepare(config(a=[ANY]), slots)
        sockets.listen_next()
        sockets.commit()
        if slots == 3:
            sockets.retire_from(Slot(3))
            shares = spread(sockets)
            assert shares[3] == 0
            sockets.close_slots_from(Slot(3))
            sockets.close_slots_from(Slot(3))
        shares = spread(sockets, 80)
        assert len(shares) == slots
        assert all(shares)


def test_slots_that_come_again_get_a_share_again(stack: ExitStack) -> None:
    sockets = serving(stack, 3, a=[ANY])
    sockets.retire_from(Slot(1))
    assert spread(sockets) == [40, 0, 0]
    sockets.close_slots_from(Slot(2))
    sockets.close_slots_from(Slot(1))
    sockets.prepare(config(a=[ANY]), 2)
    sockets.listen_next()
    sockets.commit()
    shares = spread(sockets)
    assert len(shares) == 2
    assert all(shares)


def test_a_wider_address_may_take_the_place_of_a_narrow_one(stack: ExitStack) -> None:
    with closing(ListeningSockets(config(a=[ANY]), 1)) as probe:
        number = port(probe)
    sockets = serving(stack, 1, a=[f"127.0.0.1:{number}"])
    sockets.prepare(config(a=[f"0.0.0.0:{number}"]), 1)
    sockets.listen_next()
    assert sockets.commit()
    sockets.close_removed()
    assert spread(sockets) == [40]


def test_a_socket_from_outside_is_used_and_left_as_it_is(stack: ExitStack) -> None:
    outside = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = TcpAddress(*outside.getsockname())
    passed = PassedSockets([PassedSocket("web.socket", address, outside)])
    sockets = stack.enter_context(closing(ListeningSockets(config(a=[ANY]), 2, passed=passed)))
    sockets.listen()
    sockets.prepare(config(a=[ANY], b=[str(address)]), 2)
    (lent,) = sockets.lent(Slot(1))
    assert lent.shared
    sockets.listen_next()
    sockets.commit()
    sockets.prepare(config(a=[ANY]), 2)
    assert sockets.commit()
    sockets.close_removed()
    connect(address.port).close()


def test_a_child_that_is_forked_meanwhile_keeps_its_own_alone(stack: ExitStack, tmp_path: Path) -> None:
    sockets = serving(stack, 2, a=[ANY], b=[ANY])
    sockets.prepare(config(a=[ANY]), 2)
    sockets.commit()
    sockets.prepare(config(a=[ANY], c=[ANY, f"unix:{tmp_path}/c.sock"]), 3)
    everything: list[Any] = [listener.socket for slot in (0, 1) for listener in sockets.lent(Slot(slot))]
    everything += [sock for bound in sockets.bound for sock in bound.sockets]
    everything += [listener.socket for listener in sockets.own_of_slot(Slot(0))]
    (own,) = sockets.of_slot(Slot(1))
    sockets.close_in_child(Slot(1))
    assert {sock for sock in everything if sock.fileno() >= 0} == {own.socket}
    assert (tmp_path / "c.sock").exists()
