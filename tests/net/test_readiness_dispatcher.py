"""What the dispatcher tells of real sockets."""

from __future__ import annotations

import itertools
import math
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.readiness import LOST, READ, WRITE, Deadlines, Dispatcher, Source, park
from tests.net.parked import Parked, blocked_source, park_task

if TYPE_CHECKING:
    from collections.abc import Callable

SocketPair = tuple[socket.socket, socket.socket]


async def test_arriving_bytes_wake_the_reader(
    dispatcher: Dispatcher, tcp_sockets: SocketPair, nursery: trio.Nursery
) -> None:
    near, far = tcp_sockets
    source = blocked_source()
    dispatcher.register(near.fileno(), source)
    parked = await park_task(nursery, ((source, READ),))
    far.send(b"x")
    while parked.result == "parked":
        await trio.lowlevel.checkpoint()
    assert parked.result is True
    assert source.ready == READ
    assert not source.wary


async def test_each_arrival_is_a_new_edge(dispatcher: Dispatcher, tcp_sockets: SocketPair) -> None:
    near, far = tcp_sockets
    source = Source()
    dispatcher.register(near.fileno(), source)
    for _ in range(5):
        source.ready &= ~READ
        far.send(b"x")  # what came before is still unread
        assert await park(((source, READ),), Deadlines(), math.inf)


async def test_what_was_there_before_the_registration_is_reported(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    near, far = tcp_sockets
    far.send(b"x")
    source = blocked_source()
    dispatcher.register(near.fileno(), source, writes=True)
    assert await park(((source, READ),), Deadlines(), math.inf)
    assert source.ready == READ | WRITE


async def test_room_to_write_is_reported_only_on_demand(
    dispatcher: Dispatcher, tcp_sockets: SocketPair, nursery: trio.Nursery
) -> None:
    near, far = tcp_sockets
    source = blocked_source()
    dispatcher.register(near.fileno(), source)
    far.send(b"x")
    await park(((source, READ),), Deadlines(), math.inf)
    assert source.ready == READ
    fill_socket(near)
    drain_socket(far)  # there is room again before anybody asked for it
    dispatcher.watch_writes(near.fileno())
    assert await park(((source, WRITE),), Deadlines(), math.inf)
    fill_socket(near)
    source.ready &= ~WRITE
    parked = await park_task(nursery, ((source, WRITE),))
    assert parked.result == "parked"
    drain_socket(far)
    while parked.result == "parked":
        await trio.lowlevel.checkpoint()


def fill_socket(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(b"f" * 65536)
    except BlockingIOError:
        return


def drain_socket(sock: socket.socket) -> None:
    try:
        while True:
            sock.recv(1 << 20)
    except BlockingIOError:
        return


async def test_the_end_of_the_stream_makes_wary(dispatcher: Dispatcher, tcp_sockets: SocketPair) -> None:
    near, far = tcp_sockets
    source = blocked_source()
    dispatcher.register(near.fileno(), source)
    far.shutdown(socket.SHUT_WR)
    assert await park(((source, READ),), Deadlines(), math.inf)
    assert source.wary


async def test_a_reset_makes_everything_ready(dispatcher: Dispatcher, tcp_sockets: SocketPair) -> None:
    near, far = tcp_sockets
    source = blocked_source()
    dispatcher.register(near.fileno(), source)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    assert await park(((source, WRITE),), Deadlines(), math.inf)
    assert source.ready == READ | WRITE | LOST
    assert source.wary


async def test_closing_a_parked_socket_wakes_its_task_for_good(
    dispatcher: Dispatcher, tcp_sockets: SocketPair, nursery: trio.Nursery
) -> None:
    near, _ = tcp_sockets
    source = blocked_source()
    dispatcher.register(near.fileno(), source)
    parked = await park_task(nursery, ((source, READ),))
    dispatcher.unregister(near.fileno())
    near.close()
    await wait_all_tasks_blocked()
    assert parked.result is True
    assert await park(((source, READ),), Deadlines(), math.inf)
    assert await park(((source, WRITE),), Deadlines(), math.inf)


async def test_a_reused_descriptor_number_reaches_only_its_new_source(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    near, far = tcp_sockets
    old = blocked_source()
    number = near.fileno()
    dispatcher.register(number, old)
    far.send(b"for the old one")  # an event is on its way, and not yet dispatched
    dispatcher.unregister(number)
    near.close()
    old.ready = 0
    left, right = socket.socketpair()
    with left, right:
        replacement = left
        if left.fileno() != number:
            os.dup2(left.fileno(), number)
            replacement = socket.socket(fileno=number)
        with replacement:
            new = blocked_source()
            dispatcher.register(number, new)
            await wait_all_tasks_blocked()
            assert new.ready == 0
            right.send(b"for the new one")
            assert await park(((new, READ),), Deadlines(), math.inf)
            assert old.ready == 0
            dispatcher.unregister(number)


async def test_a_description_that_lives_on_elsewhere_is_no_longer_reported(
    dispatcher: Dispatcher, tcp_sockets: SocketPair, nursery: trio.Nursery
) -> None:
    near, far = tcp_sockets
    number = near.fileno()
    dispatcher.register(number, Source())
    with near.dup():  # as if handed over to a sibling
        dispatcher.unregister(number)
        near.close()
        far.send(b"for the sibling")
        left, right = socket.socketpair()
        with left, right:
            source = blocked_source()
            dispatcher.register(left.fileno(), source)
            right.send(b"x")
            assert await park(((source, READ),), Deadlines(), math.inf)
            dispatcher.unregister(left.fileno())


async def test_a_descriptor_closed_behind_its_back_is_found_out(dispatcher: Dispatcher) -> None:
    left, right = socket.socketpair()
    with left, right:
        dispatcher.register(left.fileno(), Source())
        with pytest.raises(ValueError, match="without being unregistered"):
            dispatcher.register(left.fileno(), Source())


async def test_one_busy_socket_does_not_starve_the_others(
    dispatcher: Dispatcher, nursery: trio.Nursery
) -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    sources = [blocked_source() for _ in pairs]
    for (near, _), source in zip(pairs, sources, strict=True):
        near.setblocking(False)
        dispatcher.register(near.fileno(), source)
    rounds = 0
    all_woken = False
    stopped = trio.Event()

    async def keep_busy() -> None:
        nonlocal rounds
        while not all_woken:
            pairs[0][1].send(b"x")
            await park(((sources[0], READ),), Deadlines(), math.inf)
            pairs[0][0].recv(1)
            sources[0].ready &= ~READ
            rounds += 1
        stopped.set()

    nursery.start_soon(keep_busy)
    while rounds < 5:
        await trio.lowlevel.checkpoint()
    parked = [Parked(((source, READ),), Deadlines()) for source in sources[1:]]
    for one in parked:
        nursery.start_soon(one.run)
    while not all(source.is_parked for source in sources[1:]):
        await trio.lowlevel.checkpoint()
    for _, far in pairs[1:]:
        far.send(b"x")
    begin = rounds
    while any(one.result == "parked" for one in parked):
        await trio.lowlevel.checkpoint()
    assert rounds - begin < 10
    all_woken = True
    await stopped.wait()
    for near, far in pairs:
        dispatcher.unregister(near.fileno())
        near.close()
        far.close()


async def test_a_client_that_leaves_wakes_the_task_that_waits_for_the_backend(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    near, far = tcp_sockets
    left, right = socket.socketpair()
    with left, right:
        client, backend = blocked_source(), blocked_source()
        dispatcher.register(near.fileno(), client)
        dispatcher.register(left.fileno(), backend)
        far.close()
        assert await park(((backend, READ), (client, READ)), Deadlines(), math.inf)
        assert client.ready & READ
        assert not backend.ready
        assert not backend.is_parked
        dispatcher.unregister(left.fileno())


async def test_close_wakes_everybody(tcp_sockets: SocketPair, nursery: trio.Nursery) -> None:
    dispatcher = Dispatcher()
    sources = [blocked_source(), blocked_source()]
    for sock, source in zip(tcp_sockets, sources, strict=True):
        dispatcher.register(sock.fileno(), source)
    parked = [await park_task(nursery, ((source, READ),)) for source in sources]
    dispatcher.close()
    await wait_all_tasks_blocked()
    assert [one.result for one in parked] == [True, True]


async def test_an_event_for_a_source_that_a_reflex_has_just_closed_is_nobodys(
    dispatcher: Dispatcher, nursery: trio.Nursery
) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    sources = [blocked_source() for _ in pairs]
    closed: list[int] = []

    def closing(other: int) -> Callable[[], bool]:
        def reflex() -> bool:
            dispatcher.unregister(pairs[other][0].fileno())
            sources[1 - other].reflex = sources[other].reflex = None
            pairs[other][0].close()
            closed.append(other)
            return False

        return reflex

    for (near, far), source in zip(pairs, sources, strict=True):
        dispatcher.register(near.fileno(), source)
        far.send(b"x")  # both are in one batch
    for other, source in zip((1, 0), sources, strict=True):
        source.reflex = closing(other)
    await wait_all_tasks_blocked(0.01)
    assert len(closed) == 1
    kept = 1 - closed[0]
    pairs[kept][1].send(b"x")
    parked = await park_task(nursery, ((sources[kept], READ),))
    await wait_all_tasks_blocked(0.01)
    assert parked.result is True
    dispatcher.unregister(pairs[kept][0].fileno())
    for near, far in pairs:
        near.close()
        far.close()


async def test_reflexes_that_always_find_more_leave_the_others_their_turn(
    dispatcher: Dispatcher, nursery: trio.Nursery
) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        source = blocked_source()
        echoes = 0

        def reflex() -> bool:
            nonlocal echoes
            echoes += 1
            near.recv(100)
            far.send(b"x")  # the next batch has an event again
            return False

        source.reflex = reflex
        dispatcher.register(near.fileno(), source)
        far.send(b"x")
        before = []
        for _ in range(20):
            before.append(echoes)
            await trio.lowlevel.checkpoint()
        assert echoes > 0
        assert max(after - then for then, after in itertools.pairwise(before)) <= 16
        source.reflex = None
        dispatcher.unregister(near.fileno())
