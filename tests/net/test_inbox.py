"""Connections that change hands over real inboxes: all arrive once, none is lost, no descriptor stays."""

from __future__ import annotations

import array
import itertools
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.core.control.handover import encode_hand_over
from lbproc.net.inbox import Inbox, hand_over, open_inbox
from lbproc.net.listeners import refuse_new
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.transport import SocketPeer, SocketTransport
from tests.descriptors import open_descriptors, opened_since

PEER = ("192.0.2.7", 40000)


class Receiver:
    """An inbox that is being read, and what came out of it."""

    def __init__(self, stack: ExitStack, dispatcher: Dispatcher, deadlines: Deadlines) -> None:
        self.inbox, self.outbox = (stack.enter_context(end) for end in open_inbox())
        self.taken: list[tuple[int, socket.socket, SocketPeer]] = []
        self.empty = 0
        self.exhausted: list[OSError] = []
        self.nonsense: list[str] = []
        self.has_ended = trio.Event()
        self._stack = stack
        self.reader = self.make_reader(self.inbox, dispatcher, deadlines)

    def make_reader(self, sock: socket.socket, dispatcher: Dispatcher, deadlines: Deadlines) -> Inbox:
        return Inbox(
            sock,
            dispatcher,
            deadlines,
            self._on_take,
            on_empty=self._on_empty,
            on_exhausted=self.exhausted.append,
            on_nonsense=lambda error: self.nonsense.append(str(error)),
            rest=0.01,
        )

    def _on_take(self, key: int, sock: socket.socket, peer: SocketPeer) -> None:
        self._stack.enter_context(sock)
        self.taken.append((key, sock, peer))

    def _on_empty(self) -> None:
        self.empty += 1

    async def run(self) -> None:
        await self.reader.run()
        self.has_ended.set()

    def give(self, count: int = 1) -> list[socket.socket]:
        """Hands over the accepted ends of so many connections; returns the clients."""
        clients = []
        for _ in range(count):
            client, accepted = socket.socketpair()
            clients.append(self._stack.enter_context(client))
            assert hand_over(self.outbox, 7, accepted, PEER)
            assert accepted.fileno() < 0
        return clients

    async def until_taken(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.taken) < count:
                await trio.lowlevel.checkpoint()
        assert len(self.taken) == count


@pytest.fixture
def receiver(stack: ExitStack, dispatcher: Dispatcher, deadlines: Deadlines) -> Receiver:
    return Receiver(stack, dispatcher, deadlines)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_waits_and_what_comes_later_is_taken_in_order(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    clients = receiver.give(3)
    nursery.start_soon(receiver.run)
    await receiver.until_taken(3)
    await wait_all_tasks_blocked()
    assert receiver.empty == 1
    clients += receiver.give(2)
    await receiver.until_taken(5)
    for number, (client, (key, sock, peer)) in enumerate(zip(clients, receiver.taken, strict=True)):
        assert (key, peer) == (7, PEER)
        client.send(b"%d" % number)
        assert sock.recv(10) == b"%d" % number


async def test_what_was_handed_over_unread_is_read_by_the_receiver(
    receiver: Receiver,
    nursery: trio.Nursery,
    dispatcher: Dispatcher,
    tcp_sockets: tuple[socket.socket, socket.socket],
) -> None:
    client, accepted = tcp_sockets
    client.send(b"GET / HTTP/1.1\r\n")
    client.shutdown(socket.SHUT_WR)
    assert hand_over(receiver.outbox, 7, accepted, client.getsockname())
    nursery.start_soon(receiver.run)
    await receiver.until_taken(1)
    transport = SocketTransport(receiver.taken[0][1], dispatcher, receiver.taken[0][2])
    assert transport.recv(100) == b"GET / HTTP/1.1\r\n"
    transport.close()
    client.setblocking(True)
    assert client.recv(1) == b"", "nobody else has it open"


async def test_a_flood_leaves_turns_to_others(receiver: Receiver, nursery: trio.Nursery) -> None:
    receiver.give(100)
    nursery.start_soon(receiver.run)
    seen = [0]
    while seen[-1] < 100:
        await trio.lowlevel.checkpoint()
        seen.append(len(receiver.taken))
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * 16


async def test_a_full_inbox_takes_no_more_and_the_giver_keeps_the_connection(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    client, accepted = socket.socketpair()
    with client, accepted:
        given = 0
        while True:
            with accepted.dup() as copy:
                if not hand_over(receiver.outbox, 7, copy, PEER):
                    break
            given += 1
        assert given > 64
        assert accepted.send(b"kept") == 4
        nursery.start_soon(receiver.run)
        await receiver.until_taken(given)
        assert hand_over(receiver.outbox, 7, accepted.dup(), PEER)


async def test_a_peer_too_long_to_send_is_no_reason_to_lose_the_connection(receiver: Receiver) -> None:
    client, accepted = socket.socketpair()
    with client, accepted:
        assert not hand_over(receiver.outbox, 7, accepted, "p" * 2000)
        assert accepted.send(b"kept") == 4


async def test_after_the_end_was_announced_nothing_is_sent_and_all_that_was_is_taken(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    receiver.give(40)
    refuse_new(receiver.inbox)
    client, accepted = socket.socketpair()
    with client, accepted:
        assert not hand_over(receiver.outbox, 7, accepted, PEER)
    nursery.start_soon(receiver.run)
    with trio.fail_after(5):
        await receiver.has_ended.wait()
    assert len(receiver.taken) == 40


@pytest.mark.parametrize("is_running", [True, False])
async def test_stop_takes_what_was_sent_and_ends(
    receiver: Receiver, nursery: trio.Nursery, is_running: bool
) -> None:
    if is_running:
        nursery.start_soon(receiver.run)
        await wait_all_tasks_blocked()
    receiver.give(3)
    receiver.reader.stop()
    receiver.reader.stop()
    if not is_running:
        nursery.start_soon(receiver.run)
    with trio.fail_after(5):
        await receiver.has_ended.wait()
    assert len(receiver.taken) == 3


async def test_the_end_comes_when_nobody_is_left_who_could_send(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    nursery.start_soon(receiver.run)
    receiver.give(2)
    receiver.outbox.close()
    with trio.fail_after(5):
        await receiver.has_ended.wait()
    assert len(receiver.taken) == 2
    receiver.reader.stop()


async def test_two_readers_of_one_inbox_take_each_connection_once(
    receiver: Receiver, stack: ExitStack, dispatcher: Dispatcher, deadlines: Deadlines, nursery: trio.Nursery
) -> None:
    nursery.start_soon(receiver.run)
    adopter = receiver.make_reader(stack.enter_context(receiver.inbox.dup()), dispatcher, deadlines)
    nursery.start_soon(adopter.run)
    for _ in range(20):
        receiver.give(5)
        await trio.lowlevel.checkpoint()
    await receiver.until_taken(100)
    await wait_all_tasks_blocked()
    assert len(receiver.taken) == 100


async def test_what_a_cancelled_reader_leaves_the_next_one_takes(
    receiver: Receiver, dispatcher: Dispatcher, deadlines: Deadlines, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as inner:
        inner.start_soon(receiver.run)
        receiver.give(1)
        await receiver.until_taken(1)
        inner.cancel_scope.cancel()
    receiver.give(2)
    await wait_all_tasks_blocked()
    assert len(receiver.taken) == 1
    nursery.start_soon(receiver.make_reader(receiver.inbox, dispatcher, deadlines).run)
    await receiver.until_taken(3)


async def test_a_look_at_an_empty_inbox_finds_it_empty(receiver: Receiver, nursery: trio.Nursery) -> None:
    receiver.reader.look()
    nursery.start_soon(receiver.run)
    await wait_all_tasks_blocked()
    before = receiver.empty
    receiver.reader.look()
    await wait_all_tasks_blocked()
    assert receiver.empty == before + 1


async def test_without_a_free_descriptor_connections_stay_in_the_inbox(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    clients = receiver.give(3)
    with no_more_descriptors():
        nursery.start_soon(receiver.run)
        while len(receiver.exhausted) < 2:
            await trio.lowlevel.checkpoint()
        assert receiver.taken == []
    await receiver.until_taken(3)
    for client, (_, sock, _) in zip(clients, receiver.taken, strict=True):
        sock.send(b"alive")
        assert client.recv(10) == b"alive"


class Greedy(socket.socket):
    """Reads when another thread has taken the descriptor that was free a moment ago."""

    def recvmsg(self, *arguments: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        with no_more_descriptors():
            return super().recvmsg(*arguments)


async def test_a_connection_that_the_kernel_could_not_install_is_reported(
    receiver: Receiver, dispatcher: Dispatcher, deadlines: Deadlines, nursery: trio.Nursery, stack: ExitStack
) -> None:
    (client,) = receiver.give()
    greedy = stack.enter_context(Greedy(fileno=os.dup(receiver.inbox.fileno())))
    nursery.start_soon(receiver.make_reader(greedy, dispatcher, deadlines).run)
    await wait_all_tasks_blocked()
    assert [error.strerror for error in receiver.exhausted] == [
        "Too many open files; a connection from a sibling was lost"
    ]
    assert client.recv(1) == b"", "it is closed, not forgotten"


class Broken(socket.socket):
    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        raise ConnectionResetError(104, "as told")


async def test_an_error_that_cannot_be_ends_the_loop(
    receiver: Receiver, dispatcher: Dispatcher, deadlines: Deadlines, stack: ExitStack
) -> None:
    broken = stack.enter_context(Broken(fileno=os.dup(receiver.inbox.fileno())))
    with pytest.raises(ConnectionResetError, match="as told"):
        await receiver.make_reader(broken, dispatcher, deadlines).run()


def send(outbox: socket.socket, octets: bytes, descriptors: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    outbox.sendmsg([octets], rights)


async def test_nonsense_is_reported_closed_and_harms_nothing_else(
    receiver: Receiver, nursery: trio.Nursery
) -> None:
    before = open_descriptors()
    good = encode_hand_over(7, PEER)
    read_end, write_end = os.pipe()
    with (
        socket.socket() as stream,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        send(receiver.outbox, b"\xff", [stream.fileno()])
        send(receiver.outbox, good, [])
        send(receiver.outbox, good, [stream.fileno(), stream.fileno()])
        send(receiver.outbox, good, [stream.fileno()] * 5)
        send(receiver.outbox, good, [datagrams.fileno()])
        send(receiver.outbox, good, [read_end])
        send(receiver.outbox, good + b"x" * 2000, [stream.fileno()])
    os.close(read_end)
    os.close(write_end)
    nursery.start_soon(receiver.run)
    await wait_all_tasks_blocked()
    assert receiver.nonsense == [
        "a hand-over is not [key, peer]",
        "a hand-over came with 0 descriptors",
        "a hand-over came with 2 descriptors",
        "a hand-over came with 2 descriptors",
        "a hand-over came with a socket of another type",
        "a hand-over came with something else than a socket",
        "a hand-over is not msgpack: ExtraData",
    ]
    assert opened_since(before) == []
    receiver.give()
    await receiver.until_taken(1)
