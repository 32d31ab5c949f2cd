"""Datagrams over loopback: whose, where to, whole, and answered from the address that was asked."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lbproc.errors import StartError
from lbproc.net.sockaddr import bound_address
from lbproc.net.udp import DatagramPort, open_upstream
from lbproc.net.udp_listeners import open_first, open_slotted, steer
from lbproc.types import TcpAddress, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::1", "::1"), ("::", "::1")]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def listening(stack: ExitStack, host: str, slots: int = 1) -> list[socket.socket]:
    sockets = open_first(TcpAddress(host, 0), slots)
    for sock in sockets:
        stack.enter_context(sock)
    return sockets


def asking(stack: ExitStack, host: str, port: int) -> socket.socket:
    """A client that hears nobody else than who it asks."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    stack.enter_context(sock)
    sock.settimeout(5)
    sock.connect((host, port))
    return sock


# Clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "asked"), HOSTS)
def test_answers_leave_from_the_address_that_was_asked(stack: ExitStack, bound: str, asked: str) -> None:
    port = DatagramPort(listening(stack, bound)[0])
    client = asking(stack, asked, port.address.port)
    client.send(b"question")
    octets, peer, local = port.receive()
    assert octets is not None
    assert bytes(octets) == b"question"
    assert tuple(peer[:2]) == client.getsockname()[:2]
    assert port.local_address(local) == TcpAddress(asked, port.address.port)
    assert port.answer(memoryview(b"answer"), peer, local)
    assert client.recv(100) == b"answer"


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 65507])
def test_datagrams_of_every_size_come_whole(stack: ExitStack, size: int) -> None:
    port = DatagramPort(listening(stack, "127.0.0.1")[0])
    client = asking(stack, "127.0.0.1", port.address.port)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.send(bytes(size))
    octets, _, _ = port.receive()
    assert octets is not None
    assert len(octets) == size


def test_where_nothing_is_the_kernel_says_so(stack: ExitStack) -> None:
    with pytest.raises(BlockingIOError):
        DatagramPort(listening(stack, "0.0.0.0")[0]).receive()


def test_what_cannot_be_answered_is_lost_and_nothing_else(stack: ExitStack) -> None:
    port = DatagramPort(listening(stack, "127.0.0.1")[0])
    assert not port.answer(memoryview(bytes(65536)), ("127.0.0.1", 9), b"")
    assert not port.answer(memoryview(b""), ("127.0.0.1", 0), b"")


# Backends ---------------------------------------------------------------------------------------------------


def test_a_backend_that_is_not_there_says_so_at_the_next_call(stack: ExitStack) -> None:
    gone = bound_address(listening(stack, "127.0.0.1")[0])
    stack.close()
    with open_upstream(gone) as sock:
        sock.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def test_where_no_way_leads_there_is_no_socket() -> None:
    with pytest.raises(OSError, match=r"(?i)unreachable|permission|invalid"):
        open_upstream(TcpAddress("255.255.255.255", 9))
    with pytest.raises(AssertionError):
        open_upstream(UnixAddress("/x"))


# Slots ------------------------------------------------------------------------------------------------------


def spread(stack: ExitStack, sockets: list[socket.socket], asked: str, clients: int = 200) -> Counter[int]:
    """How many flows each slot gets; every flow must stay on one."""
    with ExitStack() as asking_now:
        port = bound_address(sockets[0]).port
        flows = [asking(asking_now, asked, port) for _ in range(clients)]
        owners: dict[int, set[int]] = {}
        for _ in range(2):
            for number, client in enumerate(flows):
                client.send(str(number).encode())
            for slot, sock in enumerate(sockets):
                while True:
                    try:
                        owners.setdefault(int(sock.recv(100)), set()).add(slot)
                    except BlockingIOError:
                        break
    assert len(owners) == clients
    assert all(len(slots) == 1 for slots in owners.values())
    return Counter(next(iter(slots)) for slots in owners.values())


@pytest.mark.parametrize(("bound", "asked"), HOSTS)
def test_a_flow_stays_on_one_slot_whatever_the_number_of_slots(
    stack: ExitStack, bound: str, asked: str
) -> None:
    sockets = listening(stack, bound, 3)
    address = bound_address(sockets[0])
    assert set(spread(stack, sockets, asked)) == {0, 1, 2}
    steer(sockets[0], 3)
    grown = [*sockets, *(stack.enter_context(one) for one in open_slotted(address, 2, joins=True))]
    assert set(spread(stack, grown, asked)) == {0, 1, 2}  # steered to those that were there
    steer(sockets[0], 5)
    counts = spread(stack, grown, asked)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert min(counts.values()) > 200 / 5 / 3
    steer(sockets[0], 2)
    assert set(spread(stack, grown, asked)) == {0, 1}
    while len(grown) > 2:
        grown.pop().close()
    assert set(spread(stack, grown, asked)) == {0, 1}


def test_no_other_program_is_joined_and_none_can_join(stack: ExitStack) -> None:
    address = bound_address(listening(stack, "127.0.0.1")[0])
    waits: list[float] = []
    with pytest.raises(
        StartError, match=rf"cannot listen on udp {address}: Address already in use; stop the"
    ):
        open_first(address, 2, attempts=3, sleep=waits.append)
    assert waits == [0.1, 0.1]
    with pytest.raises(StartError):
        open_first(TcpAddress("0.0.0.0", address.port), 1, attempts=1)


def test_a_predecessor_that_leaves_is_waited_for(stack: ExitStack) -> None:
    (before,) = listening(stack, "127.0.0.1")
    address = bound_address(before)
    sockets = open_first(address, 2, sleep=lambda _: before.close())
    for sock in sockets:
        sock.close()
    assert len(sockets) == 2


def test_an_address_of_nobody_is_refused_at_once() -> None:
    with pytest.raises(StartError, match="no interface of this host has that address") as refused:
        open_first(TcpAddress("192.0.2.1", 9), 1)
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.EADDRNOTAVAIL


NO_PORT = """
import fcntl, socket, struct
from pathlib import Path
from lbproc.net.udp import NO_ROOM, open_upstream
from lbproc.types import TcpAddress
with socket.socket() as any_socket:  # SIOCSIFFLAGS: IFF_UP
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
sockets = []
try:
    while len(sockets) < 10:
        sockets.append(open_upstream(TcpAddress("127.0.0.1", 53)))
except OSError as error:
    print(len(sockets), error.errno in NO_ROOM, error.strerror)
"""


def test_a_host_without_a_free_port_is_no_fault_of_a_backend() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    command = [*alone, sys.executable, "-c", NO_PORT]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if "unshare" in said.stderr or "PermissionError" in said.stderr or "Read-only" in said.stderr:
        pytest.skip(f"namespaces are not allowed here: {said.stderr}")
    assert said.stdout == "2 True no port is free (net.ipv4.ip_local_port_range)\n", said.stderr
