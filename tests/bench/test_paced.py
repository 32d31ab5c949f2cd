from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import trio

from bench.idle import IdleConnections
from bench.paced import percentile, run_paced
from bench.process import BenchError
from bench.rows import ROWS
from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import Backend, BackendConnection, Stage, text_response
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = dataclasses.replace(ROWS[0], connections=2)
REQUESTS = [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"]


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def port_of(backend: Backend) -> int:
    return int(backend.address.rpartition(":")[2])


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.51, 3.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value


def test_nothing_measured_has_no_percentile() -> None:
    assert percentile([], 0.5) == 0.0


@pytest.mark.parametrize("close", [False, True])
def test_as_many_requests_are_sent_as_are_due_each_in_its_turn(stage: Stage, close: bool) -> None:
    backend = stage.open("a")
    totals = run_paced(dataclasses.replace(ROW, close=close), REQUESTS, port_of(backend), 500.0, 0.02)
    assert (totals.requests, totals.failures, totals.rate) == (10, 0, 500.0)
    assert 0 < totals.p50_us <= totals.p90_us <= totals.p99_us
    assert sorted(request.target for request in backend.requests) == ["/a"] * 5 + ["/b"] * 5
    assert len(backend.connections) == (10 if close else 2)


def test_the_wait_for_a_connection_is_part_of_the_latency(stage: Stage) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()
        await trio.sleep(
            0.05
        )  # so slow is this backend once; the two requests after are due after 10 and 20 ms
        await connection.send(text_response("late"))
        while await connection.read_request() is not None:
            await connection.send(text_response("at once"))

    backend = stage.open("a", script)
    one = dataclasses.replace(ROW, connections=1)
    totals = run_paced(one, REQUESTS, port_of(backend), 100.0, 0.03)
    assert totals.requests == 3
    assert totals.p50_us >= 40_000


def test_failures_are_counted_and_do_not_end_the_run(stage: Stage) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()
        if connection.number % 2:
            await connection.send(text_response("ok"))

    backend = stage.open("a", script)
    totals = run_paced(ROW, REQUESTS, port_of(backend), 500.0, 0.02)
    assert totals.requests + totals.failures == 10
    assert totals.failures > 0


def test_a_run_without_answers_is_no_measurement() -> None:
    closing = dataclasses.replace(ROW, close=True)
    with pytest.raises(BenchError, match="none of 2 requests was answered"):
        run_paced(closing, REQUESTS, free_port(), 100.0, 0.02)


def test_idle_connections_are_held_and_those_that_are_closed_are_seen(stage: Stage) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()
        await connection.send(text_response("ok"))
        if connection.number != 1:
            await connection.receive()

    backend = stage.open("a", script)
    with IdleConnections(port_of(backend), 40, REQUESTS[0]) as idle:
        wait_until(lambda: idle.lost() == 1, "the one that the server has closed is seen")
        assert len(backend.connections) == 40


def test_a_connection_that_is_not_answered_cannot_be_held(stage: Stage) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()

    backend = stage.open("a", script)
    with pytest.raises(BenchError, match="not answered"), IdleConnections(port_of(backend), 2, REQUESTS[0]):
        pass
