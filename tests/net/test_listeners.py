"""Opening listening sockets, and what the kernel really does with them."""

from __future__ import annotations

import errno
import select
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbproc.errors import StartError
from lbproc.net.listeners import (
    admit_new,
    listen,
    open_slotted,
    open_unix,
    probe_bind,
    refuse_new,
    steer,
)
from lbproc.net.sockaddr import bound_address
from lbproc.types import TcpAddress, UnixAddress

ANY_PORT = TcpAddress("127.0.0.1", 0)


class Group:
    """The sockets of an address, and the clients that connected to it."""

    def __init__(self, stack: ExitStack, slots: int) -> None:
        self.sockets = open_slotted(ANY_PORT, slots)
        self.address = bound_address(self.sockets[0])
        self.clients: list[socket.socket] = []
        self._stack = stack
        for sock in self.sockets:
            stack.enter_context(sock)
            listen(sock)

    def connect(self, count: int) -> None:
        """Waits for every handshake: what returns here is queued in a slot."""
        for _ in range(count):
            client = socket.create_connection((self.address.host, self.address.port), timeout=5)
            self.clients.append(self._stack.enter_context(client))

    def accept(self, slot: int) -> int:
        """Serves what is queued in a slot with one byte each."""
        count = 0
        while True:
            try:
                sock, _ = self.sockets[slot].accept()
            except BlockingIOError:
                return count
            with sock:
                sock.send(b"+")
                sock.shutdown(socket.SHUT_WR)
            count += 1

    def add(self) -> None:
        (sock,) = open_slotted(self.address, 1)
        self.sockets.append(self._stack.enter_context(sock))
        listen(sock)

    def served(self) -> int:
        """How many clients got their byte; a reset would raise."""
        return sum(client.recv(10) == b"+" for client in self.clients)


def is_refused(address: TcpAddress) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address.host, address.port)) == errno.ECONNREFUSED


# Slots


def test_port_0_is_chosen_once_for_all_slots(stack: ExitStack) -> None:
    sockets = [stack.enter_context(sock) for sock in open_slotted(ANY_PORT, 5)]
    ports = {bound_address(sock).port for sock in sockets}
    assert len(sockets) == 5
    assert len(ports) == 1
    assert ports != {0}


def test_bound_sockets_do_not_listen_yet(stack: ExitStack) -> None:
    sockets = [stack.enter_context(sock) for sock in open_slotted(ANY_PORT, 2)]
    address = bound_address(sockets[0])
    assert is_refused(address)
    for sock in sockets:
        listen(sock)
        assert not sock.getblocking()
    assert not is_refused(address)


def test_the_kernel_spreads_connections_over_all_slots(stack: ExitStack) -> None:
    group = Group(stack, 4)
    group.connect(200)
    counts = [group.accept(slot) for slot in range(4)]
    assert sum(counts) == 200
    assert min(counts) > 0


def test_a_slot_keeps_its_queue_while_nobody_serves_it(stack: ExitStack) -> None:
    group = Group(stack, 2)
    group.connect(50)
    inherited = [sock.dup() for sock in group.sockets]  # what a worker has; the worker dies:
    for sock in inherited:
        sock.close()
    assert sum(group.accept(slot) for slot in range(2)) == 50
    assert group.served() == 50


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_both_families_are_opened(stack: ExitStack, host: str, family: socket.AddressFamily) -> None:
    (sock,) = open_slotted(TcpAddress(host, 0), 1)
    stack.enter_context(sock)
    assert sock.family == family
    assert bound_address(sock).host == host


def test_an_ipv6_address_is_ipv6_only(stack: ExitStack) -> None:
    (six,) = open_slotted(TcpAddress("::", 0), 1)
    stack.enter_context(six)
    listen(six)
    port = bound_address(six).port
    assert is_refused(TcpAddress("127.0.0.1", port))
    (four,) = open_slotted(TcpAddress("0.0.0.0", port), 1)
    stack.enter_context(four)
    listen(four)
    for host, sock in (("127.0.0.1", four), ("::1", six)):
        stack.enter_context(socket.create_connection((host, port)))
        accepted, peer = sock.accept()
        stack.enter_context(accepted)
        assert peer[0] == host


def test_an_address_that_is_not_ours_is_refused_with_a_remedy() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:0: .*; no interface of this host"):
        open_slotted(TcpAddress("192.0.2.1", 0), 1)


def test_a_failure_leaves_no_socket_open(stack: ExitStack) -> None:
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(StartError, match="Address already in use; stop the program that uses it"):
        open_slotted(bound_address(taken), 3)


def test_losing_the_race_for_listen_is_a_start_error(stack: ExitStack) -> None:
    first, second = (stack.enter_context(socket.socket()) for _ in range(2))
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind(("127.0.0.1", 0))
    second.bind(first.getsockname())
    listen(first)
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:"):
        listen(second)


# Probe


def test_a_free_address_passes_the_probe(stack: ExitStack) -> None:
    (sock,) = open_slotted(ANY_PORT, 1)
    address = bound_address(sock)
    sock.close()
    probe_bind(address, attempts=1)
    probe_bind(ANY_PORT, attempts=1)
    stack.enter_context(open_slotted(address, 1)[0])


def test_the_probe_finds_a_program_that_shares_its_port(stack: ExitStack) -> None:
    group = Group(stack, 2)
    for sock in open_slotted(group.address, 1):  # without a probe a second program joins silently
        sock.close()
    with pytest.raises(StartError, match="Address already in use; stop the program"):
        probe_bind(group.address, attempts=2, pause=0.001)


def test_the_probe_finds_a_program_on_the_wildcard_address(stack: ExitStack) -> None:
    (wildcard,) = open_slotted(TcpAddress("0.0.0.0", 0), 1)
    stack.enter_context(wildcard)
    listen(wildcard)
    with pytest.raises(StartError):
        probe_bind(TcpAddress("127.0.0.1", bound_address(wildcard).port), attempts=1)


def test_the_probe_waits_for_a_predecessor_to_leave(stack: ExitStack) -> None:
    group = Group(stack, 1)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            group.sockets[0].close()

    probe_bind(group.address, sleep=sleep)
    assert pauses == [0.1] * 3


def test_the_probe_gives_up_after_five_seconds(stack: ExitStack) -> None:
    group = Group(stack, 1)
    pauses: list[float] = []
    with pytest.raises(StartError):
        probe_bind(group.address, sleep=pauses.append)
    assert sum(pauses) == pytest.approx(5.0)


def test_the_probe_does_not_wait_for_what_waiting_cannot_mend() -> None:
    pauses: list[float] = []
    with pytest.raises(StartError, match="no interface"):
        probe_bind(TcpAddress("192.0.2.1", 8080), sleep=pauses.append)
    assert pauses == []


def test_connections_in_time_wait_do_not_disturb_the_probe(stack: ExitStack) -> None:
    group = Group(stack, 1)
    group.connect(1)
    group.accept(0)  # closes first: its side stays in TIME_WAIT
    assert group.clients[0].recv(10) == b"+"
    group.clients[0].close()
    group.sockets[0].close()
    probe_bind(group.address, attempts=1)


# Steering


def test_steering_sends_new_connections_to_the_first_slots_only(stack: ExitStack) -> None:
    group = Group(stack, 4)
    steer(group.sockets[3], 2)
    group.connect(100)
    counts = [group.accept(slot) for slot in range(4)]
    assert counts[2:] == [0, 0]
    assert min(counts[:2]) > 20


def test_shrinking_loses_no_connection(stack: ExitStack) -> None:
    group = Group(stack, 4)
    group.connect(100)  # queued in all four
    steer(group.sockets[0], 2)
    group.connect(100)
    retired = 0
    for slot in (3, 2):
        retired += group.accept(slot)
        group.sockets[slot].close()
        group.connect(50)
    assert retired > 0
    assert retired + group.accept(0) + group.accept(1) == 300
    assert group.served() == 300


def test_without_steering_a_close_resets_what_is_queued(stack: ExitStack) -> None:
    group = Group(stack, 2)
    group.connect(100)
    assert group.accept(1) > 0
    group.connect(100)  # came after "nothing queued", and before the close
    group.sockets[1].close()
    group.accept(0)
    with pytest.raises(ConnectionResetError):
        group.served()


def test_growing_again_spreads_over_all(stack: ExitStack) -> None:
    group = Group(stack, 3)
    steer(group.sockets[0], 1)
    group.sockets.pop().close()
    group.sockets.pop().close()
    group.add()
    group.add()
    group.connect(20)
    assert [group.accept(slot) for slot in range(3)] == [20, 0, 0]
    steer(group.sockets[0], 3)
    group.connect(200)
    assert min(group.accept(slot) for slot in range(3)) > 0


# Refusing


def test_refusing_serves_the_queue_and_lets_nobody_new_in(stack: ExitStack) -> None:
    group = Group(stack, 2)
    group.connect(20)
    for sock in group.sockets:
        refuse_new(sock)
    with pytest.raises(TimeoutError):
        socket.create_connection((group.address.host, group.address.port), timeout=0.05)
    assert sum(group.accept(slot) for slot in range(2)) == 20
    assert group.served() == 20


def test_a_connection_accepted_after_refusing_carries_bytes_both_ways(stack: ExitStack) -> None:
    group = Group(stack, 1)
    group.connect(1)
    refuse_new(group.sockets[0])
    accepted, _ = group.sockets[0].accept()
    stack.enter_context(accepted)
    accepted.setblocking(True)
    group.clients[0].sendall(b"request")
    assert accepted.recv(100) == b"request"
    accepted.sendall(b"response")
    assert group.clients[0].recv(100) == b"response"
    group.clients[0].close()
    assert accepted.recv(100) == b""


def test_what_is_refused_before_it_listens_is_admitted_later(stack: ExitStack) -> None:
    (sock,) = open_slotted(ANY_PORT, 1)
    stack.enter_context(sock)
    refuse_new(sock)
    listen(sock)
    with pytest.raises(TimeoutError):
        socket.create_connection(sock.getsockname(), timeout=0.1)
    admit_new(sock)
    admit_new(sock)
    with socket.create_connection(sock.getsockname(), timeout=0.5) as client:
        served, _ = sock.accept()
        with served:
            served.send(b"+")
        assert client.recv(10) == b"+"


@pytest.mark.slow
def test_a_refused_client_reaches_whoever_listens_next(stack: ExitStack) -> None:
    group = Group(stack, 1)
    refuse_new(group.sockets[0])
    client = stack.enter_context(socket.socket())
    client.setblocking(False)
    client.connect_ex((group.address.host, group.address.port))
    group.sockets.pop().close()
    group.add()
    assert select.select([], [client], [], 5)[1]  # its SYN is sent again after a second
    assert group.accept(0) == 1


def test_refusing_on_a_unix_socket_keeps_what_is_queued(stack: ExitStack, tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "web.sock"))
    sock = stack.enter_context(open_unix(address)[0])
    listen(sock)
    queued, late = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
    queued.connect(address.path)
    refuse_new(sock)
    with pytest.raises(ConnectionRefusedError):
        late.connect(address.path)
    accepted, _ = sock.accept()
    accepted.close()
