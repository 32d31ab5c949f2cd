"""Steps that many tests of transports take: send all, receive until."""

from __future__ import annotations

import math

from lbproc.net.readiness import Deadlines, park
from lbproc.net.transport import Transport

TransportPair = tuple[Transport, Transport]

NEVER_SWEPT = Deadlines()
"""For parks without a deadline."""


async def receive_some(transport: Transport, max_bytes: int = 65536) -> bytes:
    while True:
        received = transport.recv(max_bytes)
        if received is not None:
            return received
        await park(transport.until_readable, NEVER_SWEPT, math.inf)


async def receive_exactly(transport: Transport, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = await receive_some(transport, count - len(received))
        assert piece, "the stream ended early"
        received += piece
    return received


async def receive_to_end(transport: Transport) -> bytes:
    received = bytearray()
    while piece := await receive_some(transport):
        received += piece
    return bytes(received)


async def send_all(transport: Transport, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        count = transport.send(rest)
        rest = rest[count:]
        if rest:
            await park(transport.until_writable, NEVER_SWEPT, math.inf)


async def converse(transport: Transport, data: bytes) -> bytes:
    """Sends all and ends its stream, while receiving to the end.

    One task, since only one parks on a source.
    """
    rest = memoryview(data)
    received = bytearray()
    has_ended = False
    while rest or not has_ended:
        if rest:
            rest = rest[transport.send(rest) :]
            if not rest:
                transport.shutdown_write()
        piece = None if has_ended else transport.recv(65536)
        if piece:
            received += piece
        elif piece == b"":
            has_ended = True
        elif rest or not has_ended:
            waits = () if has_ended else transport.until_readable
            await park(waits + (transport.until_writable if rest else ()), NEVER_SWEPT, math.inf)
    return bytes(received)


def fill(transport: Transport) -> int:
    """Sends until it would block. Returns the number of bytes taken."""
    total = 0
    while count := transport.send(b"f" * 65536):
        total += count
    return total
