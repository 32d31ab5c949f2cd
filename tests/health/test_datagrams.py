"""Checks by datagram, against sockets on loopback."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.health.datagrams import failure, open_datagrams
from lbproc.health.probe import Probe, run_probe
from lbproc.health.questions import DatagramQuestion
from lbproc.health.wire import ProbeFailed, ProbeImpossible
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def probe(sock: socket.socket, send: bytes = b"ping", expect: bytes = b"", timeout: float = 5.0) -> Probe:
    address = TcpAddress(*sock.getsockname())
    return Probe((address,), DatagramQuestion(send, expect, 0.01), None, timeout, is_datagram=True)


async def answer(sock: socket.socket, make: Callable[[bytes], list[bytes]]) -> None:
    ours = trio.socket.from_stdlib_socket(sock.dup())
    with ours:
        question, sender = await ours.recvfrom(65536)
        for datagram in make(question):
            await ours.sendto(datagram, sender)


async def test_an_answer_with_the_expected_text_passes(server: socket.socket, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer, server, lambda question: [b"noise", b"re: " + question])
    outcome = await run_probe(probe(server, expect=b"ping"))
    assert (outcome.passed, outcome.reason) == (True, "")


async def test_without_an_expected_text_any_answer_passes(
    server: socket.socket, nursery: trio.Nursery
) -> None:
    nursery.start_soon(answer, server, lambda _: [b""])
    assert (await run_probe(probe(server, send=b""))).passed


async def test_silence_passes_only_where_nothing_is_expected(server: socket.socket) -> None:
    assert (await run_probe(probe(server))).passed
    assert server.recv(100) == b"ping"
    outcome = await run_probe(probe(server, expect=b"pong", timeout=0.01))
    assert (outcome.passed, outcome.reason) == (False, "no answer within 10ms")


@pytest.mark.parametrize("expect", [b"", b"pong"])
async def test_nobody_there_fails_at_once(server: socket.socket, expect: bytes) -> None:
    asked = probe(server, expect=expect)
    server.close()
    outcome = await run_probe(asked)
    assert (outcome.passed, outcome.reason) == (False, "nobody listens there (ICMP port unreachable)")


async def test_a_wrong_answer_is_none(server: socket.socket, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer, server, lambda _: [b"wrong"])
    assert (await run_probe(probe(server, expect=b"right", timeout=0.05))).passed is False


async def test_a_stream_of_datagrams_keeps_their_bounds(server: socket.socket, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer, server, lambda _: [b"one", b"two"])
    stream = open_datagrams([TcpAddress("255.255.255.255", 9), TcpAddress(*server.getsockname())])
    await stream.wait_send_all_might_not_block()
    async with stream:
        await stream.send_all(b"?")
        assert [await stream.receive_some(), await stream.receive_some(2)] == [b"one", b"tw"]


def test_errors_are_told_apart() -> None:
    with pytest.raises(ProbeFailed, match="No route to host"):
        open_datagrams([])
    assert isinstance(failure(OSError(errno.EMFILE, "")), ProbeImpossible)
    assert str(failure(OSError(errno.ENETUNREACH, ""))) == os.strerror(errno.ENETUNREACH)
    assert str(failure(OSError("odd"))) == "odd"
