"""The accept loop: everything that is queued, nothing twice, and no connection forgotten after a shortage."""

from __future__ import annotations

import errno
import itertools
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.accept import Acceptor, reset
from lbproc.net.listeners import listen, open_slotted, open_unix, refuse_new
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.transport import SocketPeer
from lbproc.types import TcpAddress, UnixAddress


class Desk:
    """A listening socket with an acceptor, and what it accepted."""

    def __init__(
        self, stack: ExitStack, sock: socket.socket, dispatcher: Dispatcher, deadlines: Deadlines
    ) -> None:
        self.sock = stack.enter_context(sock)
        self.accepted: list[SocketPeer] = []
        self.exhausted: list[int | None] = []
        self.has_ended = trio.Event()
        self._stack = stack
        self.acceptor = Acceptor(
            sock,
            dispatcher,
            deadlines,
            self._on_accept,
            on_exhausted=self._on_exhausted,
            rest=0.01,
            quiet=0.03,
        )

    def _on_accept(self, sock: socket.socket, peer: SocketPeer) -> None:
        self._stack.enter_context(sock)
        self.accepted.append(peer)

    def _on_exhausted(self, error: OSError) -> None:
        self.exhausted.append(error.errno)

    async def run(self) -> None:
        await self.acceptor.run()
        self.has_ended.set()

    def connect(self, count: int = 1) -> list[SocketPeer]:
        """Clients whose handshake is complete, by the names that accept will give them."""
        names: list[SocketPeer] = []
        for _ in range(count):
            client = self._stack.enter_context(socket.socket(self.sock.family))
            client.connect(self.sock.getsockname())
            names.append(client.getsockname())
        return names

    async def until_accepted(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.accepted) < count:
                await trio.lowlevel.checkpoint()
        assert len(self.accepted) == count


class FaultyListener(socket.socket):
    """Fails its first accepts as the kernel can, which cannot be had from loopback at will."""

    faults: list[int]

    def accept(self) -> tuple[socket.socket, SocketPeer]:
        if self.faults:
            raise OSError(self.faults.pop(0), "as told")
        return super().accept()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def brisk(nursery: trio.Nursery) -> Deadlines:
    deadlines = Deadlines(resolution=0.01)
    nursery.start_soon(deadlines.run)
    return deadlines


@pytest.fixture
async def desk(stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines) -> Desk:
    (sock,) = open_slotted(TcpAddress("127.0.0.1", 0), 1)
    listen(sock)
    return Desk(stack, sock, dispatcher, brisk)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_is_queued_and_what_comes_later_is_accepted(desk: Desk, nursery: trio.Nursery) -> None:
    names = desk.connect(3)
    nursery.start_soon(desk.run)
    await desk.until_accepted(3)
    await wait_all_tasks_blocked()
    names += desk.connect(2)
    await desk.until_accepted(5)
    assert desk.accepted == names


async def test_a_flood_is_accepted_whole_and_in_batches(desk: Desk, nursery: trio.Nursery) -> None:
    desk.connect(300)
    nursery.start_soon(desk.run)
    seen = [0]
    while seen[-1] < 300:
        await trio.lowlevel.checkpoint()
        seen.append(len(desk.accepted))
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * 64


async def test_after_a_shortage_of_descriptors_the_queue_is_served_without_a_new_edge(
    desk: Desk, nursery: trio.Nursery
) -> None:
    desk.connect(3)
    with no_more_descriptors():
        nursery.start_soon(desk.run)
        while len(desk.exhausted) < 2:
            await trio.lowlevel.checkpoint()
        assert desk.accepted == []
    await desk.until_accepted(3)
    assert set(desk.exhausted) == {errno.EMFILE}


@pytest.mark.parametrize("fault", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_other_shortages_are_rested_on_too(
    stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines, nursery: trio.Nursery, fault: int
) -> None:
    desk = faulty_desk(stack, dispatcher, brisk, [fault, fault])
    desk.connect(1)
    nursery.start_soon(desk.run)
    await desk.until_accepted(1)
    assert desk.exhausted == [fault, fault]


async def test_a_shortage_that_nobody_wants_to_hear_of_is_rested_on(
    stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines, nursery: trio.Nursery
) -> None:
    sock = faulty_listener(stack, [errno.EMFILE])
    accepted: list[SocketPeer] = []

    def on_accept(sock: socket.socket, peer: SocketPeer) -> None:
        sock.close()
        accepted.append(peer)

    acceptor = Acceptor(sock, dispatcher, brisk, on_accept, rest=0.001)
    nursery.start_soon(acceptor.run)
    client = stack.enter_context(socket.socket())
    client.connect(sock.getsockname())
    with trio.fail_after(5):
        while not accepted:
            await trio.lowlevel.checkpoint()


def faulty_listener(stack: ExitStack, faults: list[int]) -> FaultyListener:
    sock = stack.enter_context(FaultyListener())
    sock.faults = faults
    sock.bind(("127.0.0.1", 0))
    listen(sock)
    return sock


def faulty_desk(stack: ExitStack, dispatcher: Dispatcher, deadlines: Deadlines, faults: list[int]) -> Desk:
    return Desk(stack, faulty_listener(stack, faults), dispatcher, deadlines)


async def test_errors_of_a_single_connection_are_passed_over(
    stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines, nursery: trio.Nursery
) -> None:
    desk = faulty_desk(stack, dispatcher, brisk, [errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH])
    names = desk.connect(2)
    nursery.start_soon(desk.run)
    await desk.until_accepted(2)
    assert desk.accepted == names
    assert desk.exhausted == []


async def test_an_error_that_cannot_be_ends_the_loop(
    stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines
) -> None:
    desk = faulty_desk(stack, dispatcher, brisk, [errno.EINVAL])
    with pytest.raises(OSError, match="as told"):
        await desk.run()
    desk.acceptor.stop()
    await desk.run()  # it left the dispatcher, and can be run again


async def test_stop_serves_the_queue_and_ends_when_it_is_quiet(desk: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(desk.run)
    await wait_all_tasks_blocked()
    desk.connect(5)
    refuse_new(desk.sock)
    desk.acceptor.stop()
    with trio.fail_after(5):
        await desk.has_ended.wait()
    assert len(desk.accepted) == 5


async def test_connections_while_stopping_prolong_it(desk: Desk, nursery: trio.Nursery) -> None:
    nursery.start_soon(desk.run)
    await wait_all_tasks_blocked()
    desk.acceptor.stop()
    for count in range(1, 11):
        desk.connect(1)
        await desk.until_accepted(count)
        assert not desk.has_ended.is_set()
    last = trio.current_time()
    with trio.fail_after(5):
        await desk.has_ended.wait()
    assert trio.current_time() - last >= 0.03


async def test_stop_before_run_serves_the_queue(desk: Desk) -> None:
    desk.connect(2)
    desk.acceptor.stop()
    await desk.run()
    assert len(desk.accepted) == 2


async def test_cancelling_leaves_the_queue_to_others(
    desk: Desk, stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as inner:
        inner.start_soon(desk.run)
        desk.connect(1)
        await desk.until_accepted(1)
        inner.cancel_scope.cancel()
    desk.connect(2)
    await wait_all_tasks_blocked()
    assert len(desk.accepted) == 1
    sibling = Desk(stack, desk.sock, dispatcher, brisk)
    nursery.start_soon(sibling.run)
    await sibling.until_accepted(2)


async def test_workers_that_share_a_socket_accept_each_connection_once(
    stack: ExitStack, dispatcher: Dispatcher, brisk: Deadlines, nursery: trio.Nursery, tmp_path: Path
) -> None:
    sock = stack.enter_context(open_unix(UnixAddress(str(tmp_path / "web.sock")))[0])
    listen(sock)
    other_dispatcher = Dispatcher()
    stack.callback(other_dispatcher.close)
    nursery.start_soon(other_dispatcher.run)
    one = Desk(stack, sock, dispatcher, brisk)
    two = Desk(stack, sock.dup(), other_dispatcher, brisk)
    nursery.start_soon(one.run)
    nursery.start_soon(two.run)
    await wait_all_tasks_blocked()
    for _ in range(20):
        one.connect(5)
        await trio.lowlevel.checkpoint()
    with trio.fail_after(5):
        while len(one.accepted) + len(two.accepted) < 100:
            await trio.lowlevel.checkpoint()
    assert len(one.accepted) + len(two.accepted) == 100


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_what_is_not_wanted_is_reset(family: socket.AddressFamily) -> None:
    if family == socket.AF_INET:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            server, _ = listening.accept()
    else:
        client, server = socket.socketpair()
    with client:
        client.sendall(b"unread")
        reset(server)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    reset(server)
