"""Messages and descriptors between supervisor and child; neither can be harmed by the other."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import Adopt, Disown, FailedToBoot, Message, Ready, Resolved, Stop
from lbproc.errors import ControlError
from lbproc.net.channel import (
    MAX_UNSENT_BYTES,
    ChildChannel,
    SupervisorChannel,
    as_sockets,
    close_all,
    open_pair,
    send_last_words,
)
from tests.descriptors import open_descriptors, opened_since

Pair = tuple[SupervisorChannel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = open_pair()
    channel = SupervisorChannel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def read_message(sock: socket.socket) -> Message:
    decoder = Decoder()
    while (message := decoder.next_message()) is None:
        decoder.feed(sock.recv(65536))
    return message


def test_the_supervisors_end_never_blocks_and_neither_survives_exec(pair: Pair) -> None:
    channel, theirs = pair
    assert not channel.socket.getblocking()
    assert not channel.socket.get_inheritable()
    assert not theirs.get_inheritable()
    assert channel.receive() == []


async def test_messages_go_both_ways(pair: Pair) -> None:
    channel, theirs = pair
    child = ChildChannel(theirs)
    channel.send(Disown(1))
    channel.send(Stop(now=False))
    assert await child.receive() == (Disown(1), ())
    assert await child.receive() == (Stop(now=False), ())
    await child.send(Ready())
    await child.send(FailedToBoot("no"))
    assert channel.receive() == [Ready(), FailedToBoot("no")]
    child.close()


async def test_descriptors_arrive_with_their_message_in_order(pair: Pair) -> None:
    channel, theirs = pair
    child = ChildChannel(theirs)
    sockets = [listening() for _ in range(3)]
    names = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    channel.send(Disown(9))
    channel.send(
        Adopt(0, ((1, "a", names[0]), (2, "b", names[1]))), [sockets[0].fileno(), sockets[1].fileno()]
    )
    channel.send(Disown(0))
    channel.send(Adopt(1, ((3, "c", names[2]),)), [sockets[2].fileno()])
    for sock in sockets:
        sock.close()
    received = [await child.receive() for _ in range(4)]
    found = []
    for item in received:
        assert item is not None
        message, adopted = item
        if isinstance(message, Adopt):
            for (_, _, address), sock in zip(message.listeners, as_sockets(adopted), strict=True):
                assert f"127.0.0.1:{sock.getsockname()[1]}" == address
                assert not sock.getblocking()
                assert not sock.get_inheritable()
                found.append(address)
                sock.close()
    assert found == names
    child.close()


async def test_a_message_longer_than_the_socket_takes_is_sent_bit_by_bit_with_its_descriptors() -> None:
    ours, theirs = open_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel, child = SupervisorChannel(ours), ChildChannel(theirs)
    sock = listening()
    message = Adopt(0, ((1, "a" * 100_000, "b"),))
    channel.send(message, [sock.fileno()])
    sock.close()
    channel.send(Disown(3))
    assert channel.has_unsent

    async def flush() -> None:
        while channel.has_unsent:
            await trio.lowlevel.wait_writable(channel.socket)
            channel.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        received = await child.receive()
        assert received is not None
        assert received[0] == message
        close_all(received[1])
        assert await child.receive() == (Disown(3), ())
    child.close()
    channel.close()


def test_a_child_that_does_not_read_never_blocks_the_supervisor_and_is_lost(pair: Pair) -> None:
    channel, _ = pair
    before = open_descriptors()
    sock = listening()
    with pytest.raises(ControlError, match="does not read"):
        for _ in range(1000):
            channel.send(Adopt(0, ((1, "x" * 10_000, "y"),)), [sock.fileno()])
    assert channel.has_unsent
    sock.close()
    channel.close()
    assert opened_since(before) == []
    assert MAX_UNSENT_BYTES >= 1_000_000


def test_sending_to_a_child_that_is_gone(pair: Pair) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(ControlError, match="broke"):
        channel.send(Disown(1))


def test_a_child_that_closes_is_lost(pair: Pair) -> None:
    channel, theirs = pair
    theirs.sendall(encode(Ready()))
    theirs.close()
    assert channel.receive() == [Ready()]
    with pytest.raises(ControlError, match="closed"):
        channel.receive()


def test_a_child_that_dies_with_unread_messages_is_lost(pair: Pair) -> None:
    channel, theirs = pair
    channel.send(Disown(1))
    theirs.close()
    with pytest.raises(ControlError, match="broke"):
        channel.receive()


def test_garbage_of_a_child_is_refused(pair: Pair) -> None:
    channel, theirs = pair
    theirs.sendall(b"\xff" * 100)
    with pytest.raises(ControlError):
        channel.receive()


def test_a_message_that_comes_in_portions_is_put_together(pair: Pair) -> None:
    channel, theirs = pair
    octets = encode(Resolved({"name:1": ["10.0.0.1:1"]}))
    for octet in octets[:-1]:
        theirs.sendall(bytes([octet]))
        assert channel.receive() == []
    theirs.sendall(octets[-1:])
    assert channel.receive() == [Resolved({"name:1": ["10.0.0.1:1"]})]


def test_descriptors_that_a_child_sends_do_not_stay(pair: Pair) -> None:
    channel, theirs = pair
    before = open_descriptors()
    socket.send_fds(theirs, [encode(Ready())], [0, 1, 2])
    assert channel.receive() == [Ready()]
    assert opened_since(before) == []


def test_descriptors_and_message_must_agree(pair: Pair) -> None:
    channel, _ = pair
    with pytest.raises(ValueError, match="Disown with 1"):
        channel.send(Disown(0), [0])
    with pytest.raises(ValueError, match="Adopt with 0"):
        channel.send(Adopt(0, ((1, "a", "b"),)))


async def test_a_child_sees_that_the_supervisor_is_gone(pair: Pair) -> None:
    channel, theirs = pair
    child = ChildChannel(theirs)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await child.receive() is None

        await trio.testing.wait_all_tasks_blocked()
        channel.close()
    with pytest.raises(ControlError, match="gone"):
        await child.send(Ready())
    child.close()


async def test_a_child_whose_supervisor_died_with_unread_words_sees_it_too(pair: Pair) -> None:
    channel, theirs = pair
    child = ChildChannel(theirs)
    await child.send(Ready())
    channel.close()
    assert await child.receive() is None
    child.close()


async def test_tasks_that_send_at_once_do_not_mix_their_messages() -> None:
    ours, theirs = open_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel, child = SupervisorChannel(ours), ChildChannel(theirs)
    messages = [Resolved({f"name{number}": ["x" * 20_000]}) for number in range(10)]
    found: list[Message] = []
    async with trio.open_nursery() as nursery:
        for message in messages:
            nursery.start_soon(child.send, message)
        while len(found) < len(messages):
            await trio.lowlevel.wait_readable(channel.socket)
            found += channel.receive()
    assert sorted(found, key=repr) == sorted(messages, key=repr)
    child.close()
    channel.close()


async def test_sockets_that_find_no_room_in_the_receiver_do_not_break_the_channel() -> None:
    ours, theirs = open_pair()
    channel, child = SupervisorChannel(ours), ChildChannel(theirs)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as one, socket.socket() as other:
        channel.send(
            Adopt(1, ((1, "web", "127.0.0.1:1"), (2, "web", "127.0.0.1:2"))), (one.fileno(), other.fileno())
        )
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            # The kernel then drops the descriptors of the message and delivers its bytes (MSG_CTRUNC).
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            received = await child.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert received is not None
    assert len(received[1]) < 2
    ours.send(encode(Disown(1)))
    assert await child.receive() == (Disown(1), ())
    child.close()
    channel.close()


async def test_descriptors_that_nobody_took_are_closed() -> None:
    ours, theirs = open_pair()
    child = ChildChannel(theirs)
    before = open_descriptors()
    socket.send_fds(ours, [encode(Disown(0))], [0])
    assert await child.receive() == (Disown(0), ())
    assert len(opened_since(before)) == 1
    child.close()
    assert opened_since(before) == []
    ours.close()


def test_last_words_of_a_child_without_an_event_loop(pair: Pair) -> None:
    channel, theirs = pair
    send_last_words(theirs, FailedToBoot("no"))
    assert channel.receive() == [FailedToBoot("no")]
    channel.close()
    send_last_words(theirs, FailedToBoot("nobody hears this"))


def test_without_descriptors_only_what_has_to_wait_breaks_the_channel(pair: Pair) -> None:
    channel, _ = pair
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as sock:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            adopt = Adopt(0, ((1, "web", "127.0.0.1:1"),))
            channel.send(adopt, (sock.fileno(),))  # the kernel takes it at once
            with pytest.raises(ControlError, match="no descriptor is left"):
                while True:
                    channel.send(adopt, (sock.fileno(),))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
