from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import trio
from trio.testing import MockClock, memory_stream_pair

from lbproc.cli.demo.backend import Backend
from lbproc.cli.demo.traffic import ANSWER_TIMEOUT, PAUSE_AFTER_LOSS, Traffic

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


async def run_traffic(serve: Serve, seconds: float, clients: int = 2) -> Traffic:
    """Traffic for so long against a server in memory."""
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            near, far = memory_stream_pair()
            nursery.start_soon(serve, far)
            return near

        traffic = Traffic(connect, "127.0.0.1:8080", Random(1))
        with trio.move_on_after(seconds):
            await traffic.run(clients)
        nursery.cancel_scope.cancel()
    return traffic


async def test_clients_ask_and_are_answered(autojump_clock: MockClock) -> None:
    backend = Backend("a", 0.03, Random(2))
    traffic = await run_traffic(backend.serve, 60.0)
    assert traffic.failed == 0
    assert traffic.answered > 600
    assert 0 <= backend.answered - traffic.answered <= 2
    latency = traffic.median_latency()
    assert latency is not None
    assert 0.015 <= latency <= 0.045


async def test_before_the_first_answer_there_is_no_latency(autojump_clock: MockClock) -> None:
    traffic = await run_traffic(Backend("a", 30.0, Random(2)).serve, 1.0)
    assert (traffic.answered, traffic.median_latency()) == (0, None)


async def test_connection_that_breaks_is_counted_and_the_client_goes_on(autojump_clock: MockClock) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    traffic = await run_traffic(hang_up, 10.0, clients=1)
    assert traffic.answered == 0
    assert 10 / (PAUSE_AFTER_LOSS + 0.2) < traffic.failed <= 10 / PAUSE_AFTER_LOSS


async def test_idle_connection_that_is_closed_is_no_failure(autojump_clock: MockClock) -> None:
    opened = 0

    async def close_at_once(stream: trio.abc.Stream) -> None:
        nonlocal opened
        opened += 1
        await stream.aclose()

    traffic = await run_traffic(close_at_once, 1.0, clients=1)
    assert (traffic.answered, traffic.failed) == (0, 0)
    assert opened > 1


async def test_silence_is_a_failure(autojump_clock: MockClock) -> None:
    async def keep_silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    traffic = await run_traffic(keep_silent, ANSWER_TIMEOUT + 1, clients=1)
    assert traffic.failed == 1


async def test_error_answer_and_closing_are_understood(autojump_clock: MockClock) -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        if not await stream.receive_some():
            return  # the client's time was over
        await stream.send_all(b"HTTP/1.1 503 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await stream.aclose()

    traffic = await run_traffic(refuse, 10.0, clients=1)
    assert traffic.answered == 0
    assert traffic.failed > 50


async def test_refused_connection_is_a_failure(autojump_clock: MockClock) -> None:
    async def connect() -> trio.abc.Stream:
        raise ConnectionRefusedError

    traffic = Traffic(connect, "h", Random(1))
    with trio.move_on_after(1.1):
        await traffic.run(1)
    assert traffic.failed == 6
