"""Sockets for datagrams through start, reload and stop: one for each slot, nobody else's, never shut."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.supervisor.binding import BusyError
from lbproc.supervisor.sockets import ListeningSockets
from lbproc.types import Slot, TcpAddress
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = "127.0.0.1:0"


def config(**listeners: tuple[str, str]) -> Config:
    """Listeners by name: their protocol, and where they are bound."""
    return Config.model_validate(
        {
            "listeners": {
                name: {"bind": bind, "protocol": protocol, "pool": "web"}
                for name, (protocol, bind) in listeners.items()
            },
            "pools": {"web": {"backends": ["127.0.0.1:1"]}},
        }
    )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def serving(stack: ExitStack, slots: int, **listeners: tuple[str, str]) -> ListeningSockets:
    sockets = stack.enter_context(closing(ListeningSockets(config(**listeners), slots)))
    sockets.listen()
    return sockets


def address(sockets: ListeningSockets, place: int = 0) -> TcpAddress:
    found = sockets.bound[place].address
    assert isinstance(found, TcpAddress)
    return found


def spread(sockets: ListeningSockets, flows: int = 60) -> list[int]:
    """How many of so many flows come to each slot."""
    to = address(sockets)
    with ExitStack() as clients:
        for _ in range(flows):
            client = clients.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.sendto(b"?", (to.host, to.port))
    return [received(sock) for sock in sockets.bound[0].sockets]


def received(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.recv(10)
        except BlockingIOError:
            return count
        count += 1


def test_each_slot_has_a_socket_and_tcp_another_one_at_the_same_port(stack: ExitStack) -> None:
    sockets = serving(stack, 3, dns=("udp", ANY))
    counts = spread(sockets)
    assert sum(counts) == 60
    assert min(counts) > 0
    there = f"127.0.0.1:{free_port()}"
    both = serving(stack, 2, tcp=("tcp", there), dns=("udp", there))
    kinds = [item.socket.type for item in both.of_slot(Slot(1))]
    assert kinds == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
    assert [item.shared for item in both.of_slot(Slot(1))] == [False, False]


def test_nobody_else_is_joined(stack: ExitStack) -> None:
    taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taken.bind(("127.0.0.1", 0))
    there = f"127.0.0.1:{taken.getsockname()[1]}"
    waits: list[float] = []
    with pytest.raises(StartError, match=f"cannot listen on udp {there}"):
        ListeningSockets(config(dns=("udp", there)), 2, waits.append)
    assert waits
    sockets = serving(stack, 2, dns=("udp", ANY))
    with pytest.raises(BusyError):
        sockets.prepare(config(dns=("udp", ANY), new=("udp", there)), 2)
    assert received(sockets.bound[0].sockets[0]) == 0


@pytest.mark.parametrize("slots", [1, 2])
def test_more_slots_get_flows_when_they_are_in_force_and_not_before(stack: ExitStack, slots: int) -> None:
    sockets = serving(stack, slots, dns=("udp", ANY))
    sockets.prepare(config(dns=("udp", ANY)), 4)
    grown = sockets._next.grown[sockets.bound[0].key] if sockets._next else []
    assert sum(spread(sockets)) == 60
    assert [received(sock) for sock in grown] == [0] * (4 - slots)
    sockets.undo()
    assert sum(spread(sockets)) == 60
    sockets.prepare(config(dns=("udp", ANY)), 4)
    sockets.listen_next()
    sockets.commit()
    counts = spread(sockets)
    assert len(counts) == 4
    assert min(counts) > 0


def test_fewer_slots_leave_the_others_in_peace(stack: ExitStack) -> None:
    sockets = serving(stack, 4, dns=("udp", ANY))
    sockets.prepare(config(dns=("udp", ANY)), 2)
    sockets.commit()
    sockets.retire_from(Slot(2))
    assert spread(sockets)[2:] == [0, 0]
    sockets.close_slots_from(Slot(2))
    counts = spread(sockets)
    assert len(counts) == 2
    assert sum(counts) == 60


def test_what_stops_or_goes_still_receives_until_it_is_closed(stack: ExitStack) -> None:
    sockets = serving(stack, 1, dns=("udp", ANY))
    sockets.refuse()
    assert spread(sockets, 3) == [3]
    sockets.prepare(config(other=("udp", ANY)), 1)
    gone = sockets.bound[0]
    sockets.listen_next()
    assert sockets.commit()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        assert isinstance(gone.address, TcpAddress)
        client.sendto(b"?", (gone.address.host, gone.address.port))
    assert received(gone.sockets[0]) == 1
    sockets.close_removed()
    assert not gone.sockets


def test_an_address_that_overlaps_one_that_goes_is_bound_beside_it(stack: ExitStack) -> None:
    sockets = serving(stack, 2, dns=("udp", ANY))
    wide = f"0.0.0.0:{address(sockets).port}"
    sockets.prepare(config(dns=("udp", wide)), 2)
    sockets.listen_next()
    assert sockets.commit()
    sockets.close_removed()
    assert str(address(sockets)) == wide
