from __future__ import annotations

from random import Random

import h11
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from lbproc.cli.demo.backend import Backend


async def talk(backend: Backend, sent: bytes) -> bytes:
    """What one connection answers to these bytes, sent at once and then half-closed."""
    near, far = memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.serve, far)
        await near.send_all(sent)
        await near.send_eof()
        async for chunk in near:
            received += chunk
    return received


@pytest.fixture
def backend() -> Backend:
    return Backend("b", 1.0, Random(1))


async def test_answers_who_it_is_and_what_the_balancer_added(
    backend: Backend, autojump_clock: MockClock
) -> None:
    began_at = trio.current_time()
    received = await talk(
        backend,
        b"GET /x HTTP/1.1\r\nHost: h\r\nVia: 1.1 lbproc\r\nCookie: secret\r\nConnection: close\r\n\r\n",
    )
    head, body = received.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"X-Backend: b" in head
    assert body == b"Hello from backend b, its answer number 1.\n\nGET /x\nHost: h\nVia: 1.1 lbproc\n"
    assert 0.5 <= trio.current_time() - began_at <= 1.5


async def test_keeps_the_connection_and_counts(backend: Backend, autojump_clock: MockClock) -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    received = await talk(backend, request * 3)
    assert received.count(b"HTTP/1.1 200") == 3
    assert backend.answered == 3


async def test_head_has_no_body(backend: Backend, autojump_clock: MockClock) -> None:
    received = await talk(backend, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert b"Content-Length:" in received


async def test_expectation_is_met(backend: Backend, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.serve, far)
        await near.send_all(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await near.receive_some()).startswith(b"HTTP/1.1 100")
        await near.send_all(b"ok")
        assert (await near.receive_some()).startswith(b"HTTP/1.1 200")
        await near.aclose()


@pytest.mark.parametrize("sent", [b"", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost"])
async def test_connection_that_cannot_be_used_is_dropped(backend: Backend, sent: bytes) -> None:
    assert await talk(backend, sent) == b""


async def test_client_that_leaves_is_no_error(backend: Backend, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.serve, far)
        await near.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await near.aclose()


def test_description_is_readable_by_h11() -> None:
    request = h11.Request(method="GET", target="/", headers=[("Host", "h"), ("X-Request-Id", "7")])
    assert Backend("a", 0, Random(1)).describe(request).endswith(b"Host: h\nX-Request-Id: 7\n")
