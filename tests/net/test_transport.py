"""What every transport promises, checked over memory, sockets and TLS; then what only sockets do."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.readiness import READ, WRITE, Dispatcher, park
from lbproc.net.tls.transport import TlsTransport
from lbproc.net.transport import ConnectionLost, SocketTransport
from tests.net.waiting import (
    NEVER_SWEPT,
    TransportPair,
    fill,
    receive_exactly,
    receive_some,
    receive_to_end,
    send_all,
)

if TYPE_CHECKING:
    from pathlib import Path

SocketPair = tuple[socket.socket, socket.socket]


# Promises of every transport


async def test_bytes_arrive_both_ways(pair: TransportPair) -> None:
    near, far = pair
    assert near.send(b"ping") == 4
    assert await receive_some(far) == b"ping"
    assert far.send(memoryview(b"pong")) == 4
    assert await receive_exactly(near, 4) == b"pong"


async def test_recv_takes_at_most_what_was_asked_and_keeps_the_rest(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"abcdef")
    assert await receive_exactly(far, 2) == b"ab"
    assert await receive_exactly(far, 3) == b"cde"
    assert await receive_exactly(far, 1) == b"f"


async def test_recv_of_nothing_would_block_and_says_so_to_the_source(pair: TransportPair) -> None:
    near, _ = pair
    assert near.recv(100) is None
    assert not near.source.ready & READ
    assert near.recv(100) is None


async def test_a_full_buffer_would_block_and_room_wakes_the_writer(
    pair: TransportPair, nursery: trio.Nursery
) -> None:
    near, far = pair
    sent = fill(near)
    assert sent > 0
    assert not near.source.ready & WRITE
    assert near.send(b"f") == 0
    again = b"f" * 65536  # what was not taken
    nursery.start_soon(send_all, near, again + b"the last")
    await wait_all_tasks_blocked()
    assert (await receive_exactly(far, sent + len(again))).strip(b"f") == b""
    assert await receive_exactly(far, 8) == b"the last"


async def test_much_more_than_fits_arrives_whole(pair: TransportPair, nursery: trio.Nursery) -> None:
    near, far = pair
    data = bytes(range(256)) * 20_000

    async def send_and_end() -> None:
        await send_all(near, data)
        near.shutdown_write()

    nursery.start_soon(send_and_end)
    assert await receive_to_end(far) == data


async def test_the_end_of_one_direction_leaves_the_other_open(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"question")
    near.shutdown_write()
    assert await receive_to_end(far) == b"question"
    assert far.recv(10) == b""  # the end stays the end
    far.send(b"answer")
    far.close()
    assert await receive_to_end(near) == b"answer"


async def test_after_shutdown_write_sending_fails(pair: TransportPair) -> None:
    near, _ = pair
    near.shutdown_write()
    near.shutdown_write()
    with pytest.raises(ConnectionLost):
        near.send(b"x")


async def test_bytes_and_end_that_arrive_together_are_both_seen(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"bye")
    near.close()
    await wait_all_tasks_blocked()  # one event for both
    assert await receive_to_end(far) == b"bye"


async def test_the_end_is_seen_when_it_comes_after_a_short_read(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"bye")
    assert await receive_some(far) == b"bye"
    near.close()
    assert await receive_some(far) == b""


async def test_abort_breaks_the_connection_for_the_peer(pair: TransportPair) -> None:
    near, far = pair
    if far.peer_ip:  # a Unix socket has no reset, only the end
        near.abort()
        with pytest.raises(ConnectionLost, match="reset by peer"):
            await receive_some(far)
    else:
        near.abort()
        assert await receive_some(far) == b""


async def test_closing_with_unread_bytes_resets(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"never read")
    await park(far.until_readable, NEVER_SWEPT, math.inf)
    far.close()
    with pytest.raises(ConnectionLost):
        while await receive_some(near):
            pass
        assert isinstance(far, TlsTransport)  # its closing word may be read before the reset
        raise ConnectionLost("it said so")


async def test_sending_to_a_peer_that_is_gone_fails(pair: TransportPair) -> None:
    near, far = pair
    far.abort()
    await wait_all_tasks_blocked()
    with pytest.raises(ConnectionLost):
        near.send(b"x")


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_closing_is_final_and_may_be_repeated(pair: TransportPair, how: str) -> None:
    near, _ = pair
    for _ in range(2):
        getattr(near, how)()
        near.close()
        near.abort()
    with pytest.raises(ConnectionLost, match="closed on this side"):
        near.recv(1)
    with pytest.raises(ConnectionLost, match="closed on this side"):
        near.send(b"x")
    near.shutdown_write()
    assert not near.is_quiet()


async def test_closing_wakes_the_task_that_is_parked_here(pair: TransportPair, nursery: trio.Nursery) -> None:
    near, _ = pair
    outcomes: list[str] = []

    async def read() -> None:
        try:
            await receive_some(near)
        except ConnectionLost as error:
            outcomes.append(error.detail)

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    near.close()
    await wait_all_tasks_blocked()
    assert outcomes == ["closed on this side"]


async def test_an_idle_connection_is_quiet_until_the_peer_sends(pair: TransportPair) -> None:
    near, far = pair
    assert near.is_quiet()
    assert near.is_quiet()
    far.send(b"unasked")
    assert not near.is_quiet()


@pytest.mark.parametrize("how", ["close", "abort", "shutdown_write"])
async def test_an_idle_connection_that_the_peer_left_is_not_quiet(pair: TransportPair, how: str) -> None:
    near, far = pair
    getattr(far, how)()
    assert not near.is_quiet()


async def test_a_quiet_connection_is_used_again(pair: TransportPair) -> None:
    near, far = pair
    for _ in range(3):
        assert near.is_quiet()
        near.send(b"request")
        assert await receive_exactly(far, 7) == b"request"
        far.send(b"response")
        assert await receive_exactly(near, 8) == b"response"


async def test_both_ends_agree_on_their_addresses(pair: TransportPair) -> None:
    near, far = pair
    assert near.local_address == (far.peer_ip, far.peer_port)
    assert far.local_address == (near.peer_ip, near.peer_port)


async def test_what_the_peer_sent_before_it_left_is_read_after_a_failed_send(pair: TransportPair) -> None:
    near, far = pair
    far.send(b"goodbye")
    far.close()
    await wait_all_tasks_blocked()
    with pytest.raises(ConnectionLost):
        while True:
            near.send(b"too late")
            await trio.lowlevel.checkpoint()
    assert await receive_to_end(near) == b"goodbye"


# Sockets


def connect(dispatcher: Dispatcher, sockets: SocketPair) -> tuple[SocketTransport, socket.socket]:
    near, far = sockets
    return SocketTransport(near, dispatcher, near.getpeername()), far


async def test_tcp_sends_at_once(dispatcher: Dispatcher, tcp_sockets: SocketPair) -> None:
    transport, _ = connect(dispatcher, tcp_sockets)
    assert tcp_sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not tcp_sockets[0].getblocking()
    transport.close()


async def test_a_bit_that_is_set_too_much_costs_a_call_that_would_block(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    transport, _ = connect(dispatcher, tcp_sockets)
    fill(transport)
    transport.source.notify(READ | WRITE)
    assert transport.send(b"x") == 0
    assert transport.recv(1) is None
    assert transport.source.ready == 0
    transport.close()


async def test_a_short_read_spares_the_read_that_would_block(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    transport, far = connect(dispatcher, tcp_sockets)
    far.send(b"abc")
    assert await receive_some(transport) == b"abc"
    assert not transport.source.ready & READ
    far.send(b"def")
    assert await receive_some(transport, 3) == b"def"
    assert transport.source.ready & READ  # as much as was asked: there may be more
    transport.close()


async def test_bytes_behind_urgent_data_are_not_forgotten(
    dispatcher: Dispatcher, tcp_sockets: SocketPair
) -> None:
    transport, far = connect(dispatcher, tcp_sockets)
    far.send(b"before")
    far.send(b"!", socket.MSG_OOB)
    far.send(b"after")
    await wait_all_tasks_blocked()  # all of it has arrived: no further event will come
    assert await receive_exactly(transport, 11) == b"beforeafter"
    transport.close()


async def test_descriptors_sent_along_do_not_cut_a_stream_short(dispatcher: Dispatcher) -> None:
    near, far = socket.socketpair()
    far.send(b"before")
    socket.send_fds(far, [b"with"], [far.fileno()])
    far.send(b"after")
    transport = SocketTransport(near, dispatcher, "")
    await wait_all_tasks_blocked()
    assert await receive_exactly(transport, 15) == b"beforewithafter"
    transport.close()
    far.close()


async def test_reset_while_blocked_on_writing_is_noticed(
    dispatcher: Dispatcher, tcp_sockets: SocketPair, nursery: trio.Nursery
) -> None:
    transport, far = connect(dispatcher, tcp_sockets)
    fill(transport)
    lost: list[ConnectionLost] = []

    async def write() -> None:
        try:
            await send_all(transport, b"x")
        except ConnectionLost as error:
            lost.append(error)

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    far.close()  # with unread bytes: a reset
    while not lost:
        await trio.lowlevel.checkpoint()
    for _ in range(2):  # the kernel says it once, and then pretends that the stream has ended
        with pytest.raises(ConnectionLost, match="reset by peer"):
            transport.recv(1)
    transport.shutdown_write()
    transport.close()


async def test_a_closed_transport_has_no_address(dispatcher: Dispatcher, tcp_sockets: SocketPair) -> None:
    transport, _ = connect(dispatcher, tcp_sockets)
    transport.close()
    with pytest.raises(ConnectionLost, match="closed on this side"):
        _ = transport.local_address


async def test_a_socket_that_cannot_be_registered_is_closed(tcp_sockets: SocketPair) -> None:
    dispatcher = Dispatcher()
    dispatcher.close()
    with pytest.raises(ValueError, match="closed epoll"):
        connect(dispatcher, tcp_sockets)
    assert tcp_sockets[0].fileno() == -1


async def test_a_unix_peer_without_a_name_has_no_address(dispatcher: Dispatcher, tmp_path: Path) -> None:
    near, far = socket.socketpair()
    transport = SocketTransport(near, dispatcher, b"")
    assert (transport.peer_ip, transport.peer_port) == ("", 0)
    assert transport.local_address == ("", 0)
    transport.close()
    far.close()
