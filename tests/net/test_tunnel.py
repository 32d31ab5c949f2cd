"""Tunnels over memory and sockets: both ways at once, to the last byte of either."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.memory import memory_pair
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.transport import Transport
from lbproc.net.tunnel import Tunnel as RelayedTunnel
from lbproc.net.tunnel import TunnelReason
from tests.net.tls.pairs import tls_pair
from tests.net.waiting import (
    TransportPair,
    converse,
    receive_exactly,
    receive_some,
    receive_to_end,
    send_all,
)


class TunnelEnd(NamedTuple):
    bytes_up: int
    bytes_down: int
    reason: TunnelReason


async def relay_tunnel(
    a: Transport,
    b: Transport,
    deadlines: Deadlines,
    idle: float,
    buffered_a: bytes = b"",
    buffered_b: bytes = b"",
) -> TunnelEnd:
    tunnel = RelayedTunnel(a, b, buffered_a, buffered_b)
    reason = await tunnel.relay(deadlines, idle)
    return TunnelEnd(tunnel.bytes_up, tunnel.bytes_down, reason)


class Tunnel:
    """A client and a backend with a tunnel between them."""

    def __init__(self, capacity: int = 65536) -> None:
        self.client, self.a = memory_pair(capacity)
        self.b, self.backend = memory_pair(capacity)
        self.end: TunnelEnd | None = None

    async def run(self, deadlines: Deadlines, idle: float = math.inf) -> None:
        self.end = await relay_tunnel(self.a, self.b, deadlines, idle)


@pytest.fixture
async def tunnel(nursery: trio.Nursery) -> Tunnel:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    tunnel = Tunnel()
    nursery.start_soon(tunnel.run, deadlines, 60.0)
    await wait_all_tasks_blocked()
    return tunnel


async def ended(tunnel: Tunnel) -> TunnelEnd:
    await wait_all_tasks_blocked()
    assert tunnel.end is not None
    return tunnel.end


async def test_the_end_gets_to_a_slow_reader_by_tls_who_talks_meanwhile(nursery: trio.Nursery) -> None:
    inner_client, inner_a = memory_pair(1000)
    client, a = await tls_pair(inner_client, inner_a)
    b, backend = memory_pair()
    client.recv(100)
    tunnel = RelayedTunnel(a, b)
    nursery.start_soon(tunnel.relay, Deadlines(), math.inf)
    await wait_all_tasks_blocked()
    backend.send(b"x" * (1000 - 22))  # with what a record costs, no room is left for close_notify
    backend.shutdown_write()
    await wait_all_tasks_blocked()
    for word in (b"one", b"two"):
        client.send(word)
        await wait_all_tasks_blocked()
    assert backend.recv(100) == b"onetwo"
    with trio.fail_after(5):
        assert await receive_to_end(client) == b"x" * 978
    assert not client.is_truncated
    client.close()


async def test_a_tunnel_carries_both_ways_at_once(tunnel: Tunnel, nursery: trio.Nursery) -> None:
    up, down = b"up" * 300_000, b"down" * 200_000
    received: list[bytes] = []

    async def answer() -> None:
        received.append(await converse(tunnel.backend, down))

    nursery.start_soon(answer)
    received.append(await converse(tunnel.client, up))
    await wait_all_tasks_blocked()
    assert sorted(received) == [down, up]
    assert await ended(tunnel) == TunnelEnd(len(up), len(down), "closed")


async def test_the_end_of_one_side_is_passed_on_and_the_other_goes_on(tunnel: Tunnel) -> None:
    tunnel.client.send(b"question")
    tunnel.client.shutdown_write()
    assert await receive_to_end(tunnel.backend) == b"question"
    await wait_all_tasks_blocked()
    assert tunnel.end is None
    tunnel.backend.send(b"answer")
    tunnel.backend.close()
    assert await receive_to_end(tunnel.client) == b"answer"
    assert await ended(tunnel) == TunnelEnd(8, 6, "closed")


async def test_the_tunnel_closes_neither_transport(tunnel: Tunnel) -> None:
    tunnel.client.shutdown_write()
    tunnel.backend.shutdown_write()
    await ended(tunnel)
    assert not tunnel.a.is_closed
    assert not tunnel.b.is_closed


async def test_a_reset_of_the_client_ends_the_tunnel(tunnel: Tunnel) -> None:
    tunnel.client.abort()
    assert (await ended(tunnel)).reason == "a_failed"


async def test_a_reset_of_the_backend_ends_the_tunnel(tunnel: Tunnel) -> None:
    tunnel.backend.abort()
    assert (await ended(tunnel)).reason == "b_failed"


async def test_what_the_backend_said_before_it_left_still_arrives(tunnel: Tunnel) -> None:
    tunnel.backend.send(b"goodbye")
    tunnel.backend.close()
    tunnel.client.send(b"too late")
    assert await receive_to_end(tunnel.client) == b"goodbye"
    assert await ended(tunnel) == TunnelEnd(0, 7, "closed")


async def test_what_the_client_said_before_it_left_still_arrives(tunnel: Tunnel) -> None:
    tunnel.client.send(b"goodbye")
    tunnel.client.close()
    tunnel.backend.send(b"too late")
    assert await receive_to_end(tunnel.backend) == b"goodbye"
    assert (await ended(tunnel)).reason == "closed"


async def test_a_client_that_resets_ends_the_tunnel_although_nobody_reads_it(nursery: trio.Nursery) -> None:
    tunnel = Tunnel(capacity=10)
    nursery.start_soon(tunnel.run, Deadlines())
    tunnel.client.send(bytes(10))
    await wait_all_tasks_blocked()
    tunnel.client.send(bytes(10))  # the backend takes nothing, so these stay unread
    await wait_all_tasks_blocked()
    tunnel.client.abort()
    assert (await ended(tunnel)).reason == "a_failed"


async def test_silence_both_ways_ends_the_tunnel_and_a_byte_either_way_renews_it(
    autojump_clock: MockClock, tunnel: Tunnel
) -> None:
    await trio.sleep(59)
    tunnel.client.send(b"x")
    await trio.sleep(59)
    tunnel.backend.send(b"y")
    await trio.sleep(59)
    assert tunnel.end is None
    await trio.sleep(1.5)
    assert tunnel.end == TunnelEnd(1, 1, "idle")


async def test_a_slow_reader_holds_up_the_writer_and_loses_nothing(nursery: trio.Nursery) -> None:
    deadlines = Deadlines()
    nursery.start_soon(deadlines.run)
    tunnel = Tunnel(capacity=1000)
    nursery.start_soon(tunnel.run, deadlines)
    await wait_all_tasks_blocked()
    sent = 0
    while taken := tunnel.client.send(b"x" * 1000):
        sent += taken
        await wait_all_tasks_blocked()
    assert sent <= 3000  # two buffers and what the pipe holds
    tunnel.client.shutdown_write()
    assert len(await receive_to_end(tunnel.backend)) == sent


async def test_bytes_read_before_the_tunnel_go_first(nursery: trio.Nursery) -> None:
    tunnel = Tunnel()
    ends: list[TunnelEnd] = []

    async def run() -> None:
        ends.append(await relay_tunnel(tunnel.a, tunnel.b, Deadlines(), math.inf, b"from a,", b"from b,"))

    tunnel.client.send(b"more of a")
    tunnel.backend.send(b"more of b")
    tunnel.client.shutdown_write()
    tunnel.backend.shutdown_write()
    nursery.start_soon(run)
    assert await receive_to_end(tunnel.backend) == b"from a,more of a"
    assert await receive_to_end(tunnel.client) == b"from b,more of b"
    await wait_all_tasks_blocked()
    assert ends == [TunnelEnd(16, 16, "closed")]


async def test_a_busy_tunnel_lets_others_have_their_turn(nursery: trio.Nursery) -> None:
    tunnel = Tunnel(capacity=1 << 23)
    tunnel.client.send(bytes(1 << 23))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(count)
    nursery.start_soon(tunnel.run, Deadlines())
    await receive_exactly(tunnel.backend, 1 << 23)
    assert turns > 5
    nursery.cancel_scope.cancel()


async def test_a_tunnel_over_real_connections(
    pair: TransportPair, dispatcher: Dispatcher, deadlines: Deadlines, nursery: trio.Nursery
) -> None:
    near, far = pair
    client, a = memory_pair()
    ends: list[TunnelEnd] = []

    async def run() -> None:
        ends.append(await relay_tunnel(a, near, deadlines, 3600.0))

    async def echo() -> None:
        while piece := await receive_some(far):
            await send_all(far, piece)
        far.shutdown_write()

    nursery.start_soon(run)
    nursery.start_soon(echo)
    data = bytes(range(256)) * 8000
    assert await converse(client, data) == data
    while not ends:
        await trio.lowlevel.checkpoint()
    assert ends == [TunnelEnd(len(data), len(data), "closed")]


# Small pieces, which reflexes move --------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts how often the task of a tunnel was stepped."""

    def __init__(self) -> None:
        self.taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += task.name.endswith("Tunnel.run")


async def test_a_dialogue_wakes_no_task(tunnel: Tunnel) -> None:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for number in range(10):
        word = b"%d" % number
        tunnel.client.send(word)
        assert await receive_exactly(tunnel.backend, len(word)) == word
        tunnel.backend.send(word * 2)
        assert await receive_exactly(tunnel.client, 2 * len(word)) == word * 2
    await wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(steps)
    assert steps.taken == 0
    tunnel.client.shutdown_write()
    tunnel.backend.shutdown_write()
    assert await ended(tunnel) == TunnelEnd(10, 20, "closed")


async def test_what_does_not_fit_in_a_moment_is_brought_later(nursery: trio.Nursery) -> None:
    deadlines = Deadlines()
    tunnel = Tunnel(capacity=100)
    nursery.start_soon(tunnel.run, deadlines)
    await wait_all_tasks_blocked()
    tunnel.client.send(b"a" * 100)
    await wait_all_tasks_blocked()
    tunnel.client.send(b"b" * 100)
    await wait_all_tasks_blocked()
    tunnel.backend.send(b"answer")
    assert await receive_exactly(tunnel.client, 6) == b"answer"
    assert await receive_exactly(tunnel.backend, 200) == b"a" * 100 + b"b" * 100
    tunnel.client.close()
    tunnel.backend.close()
    assert await ended(tunnel) == TunnelEnd(200, 6, "closed")


async def test_a_piece_for_a_side_that_has_left_does_not_stop_the_other_direction(tunnel: Tunnel) -> None:
    tunnel.backend.send(b"last words")
    tunnel.b.shutdown_write()  # from now on the tunnel cannot send there
    await wait_all_tasks_blocked()
    tunnel.client.send(b"too late")
    await wait_all_tasks_blocked()
    assert tunnel.end is None
    tunnel.backend.close()
    assert await receive_to_end(tunnel.client) == b"last words"
    assert (await ended(tunnel)).reason == "closed"


async def test_what_has_moved_is_told_of_at_once(nursery: trio.Nursery) -> None:
    client, a = memory_pair()
    b, backend = memory_pair()
    seen: list[tuple[int, int]] = []
    tunnel = RelayedTunnel(a, b, b"early ")

    async def run() -> None:
        await tunnel.relay(Deadlines(), math.inf, lambda: seen.append((tunnel.bytes_up, tunnel.bytes_down)))

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    client.send(b"hello")
    backend.send(b"yes")
    await wait_all_tasks_blocked()
    assert seen[0] == (6, 0)
    assert seen[-1] == (11, 3)
    assert not tunnel.has_a_ended
    client.shutdown_write()
    await wait_all_tasks_blocked()
    assert tunnel.has_a_ended
    backend.close()
