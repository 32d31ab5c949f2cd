"""What transports promise to those who move large pieces: reading into a buffer, and the room to send."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from lbproc.net.memory import memory_pair
from lbproc.net.readiness import READ, Deadlines, Dispatcher, park
from lbproc.net.transport import ConnectionLost, SocketTransport, Transport
from tests.net.waiting import NEVER_SWEPT, TransportPair, fill

if TYPE_CHECKING:
    import socket


async def received_into(transport: Transport, buffer: memoryview) -> int:
    while (count := transport.recv_into(buffer)) is None:
        await park(transport.until_readable, NEVER_SWEPT, math.inf)
    return count


async def test_bytes_are_read_into_the_beginning_of_a_buffer(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"abcdef")
    buffer = memoryview(bytearray(b"........"))
    assert await received_into(far, buffer[:4]) == 4
    assert bytes(buffer) == b"abcd...."
    assert await received_into(far, buffer) == 2
    assert bytes(buffer) == b"efcd...."


async def test_a_read_into_of_nothing_would_block_and_says_so_to_the_source(pair: TransportPair) -> None:
    near, _ = pair
    buffer = memoryview(bytearray(8))
    assert near.recv_into(buffer) is None
    assert not near.source.ready & READ
    assert near.recv_into(buffer) is None


async def test_a_read_into_meets_the_end_again_and_again(pair: TransportPair) -> None:
    near, far = pair
    near.send(b"last")
    near.shutdown_write()
    buffer = memoryview(bytearray(8))
    assert await received_into(far, buffer) == 4
    assert [await received_into(far, buffer) for _ in range(3)] == [0, 0, 0]


async def test_a_read_into_of_a_broken_or_closed_connection_says_so(pair: TransportPair) -> None:
    near, far = pair
    buffer = memoryview(bytearray(8))
    far.close()
    with pytest.raises(ConnectionLost, match="closed on this side"):
        far.recv_into(buffer)
    near.close()
    with pytest.raises(ConnectionLost):
        near.recv_into(buffer)


async def test_a_reset_stays_one_for_reads_into(
    tcp_sockets: tuple[socket.socket, socket.socket], dispatcher: Dispatcher
) -> None:
    near, far = (SocketTransport(sock, dispatcher, sock.getpeername()) for sock in tcp_sockets)
    buffer = memoryview(bytearray(8))
    near.abort()
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="reset by peer"):
            await received_into(far, buffer)


async def test_a_short_read_of_tcp_spares_the_one_that_would_block(
    tcp_sockets: tuple[socket.socket, socket.socket], dispatcher: Dispatcher, deadlines: Deadlines
) -> None:
    near, far = (SocketTransport(sock, dispatcher, sock.getpeername()) for sock in tcp_sockets)
    near.send(b"abc")
    assert far.recv_into(memoryview(bytearray(8))) == 3
    assert not far.source.ready & READ
    near.send(b"abc")
    assert await park(far.until_readable, deadlines, math.inf)
    assert far.recv_into(memoryview(bytearray(3))) == 3
    assert far.source.ready & READ


async def test_room_falls_as_the_buffer_fills(pair: TransportPair) -> None:
    near, _ = pair
    empty = near.room()
    assert empty > 0
    sent = fill(near)
    assert near.room() < min(empty, sent)


async def test_room_of_a_closed_socket_is_a_guess(
    tcp_sockets: tuple[socket.socket, socket.socket], dispatcher: Dispatcher
) -> None:
    transport = SocketTransport(tcp_sockets[0], dispatcher, tcp_sockets[0].getpeername())
    transport.close()
    assert transport.room() > 0


def test_room_in_memory_is_what_the_capacity_leaves() -> None:
    near, far = memory_pair(10)
    near.send(b"abcd")
    assert near.room() == 6
    far.recv(3)
    assert near.room() == 9
