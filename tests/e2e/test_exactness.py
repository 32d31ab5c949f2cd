"""Balancing that is exact over four worker processes, seen from the backends."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, render_request
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.conftest import StartLbproc, StartWeb
    from tests.e2e.harness_backend import Backend, Stage

HELD = 300


def open_three(stage: Stage) -> list[Backend]:
    backends = [stage.open(name) for name in "abc"]
    for backend in backends:
        backend.hold()
    return backends


def send_held(address: str, count: int) -> list[RawClient]:
    clients = [RawClient(address) for _ in range(count)]
    for client in clients:
        client.send(render_request())
    return clients


def finish(clients: list[RawClient], backends: Sequence[Backend]) -> Counter[bytes]:
    for backend in backends:
        backend.release()
    answers = Counter(client.read_response().body for client in clients)
    for client in clients:
        client.close()
    return answers


@pytest.mark.slow
def test_least_connections_holds_equal_numbers_while_only_arrivals_happen(
    stage: Stage, start_web: StartWeb
) -> None:
    backends = open_three(stage)
    server, address = start_web(backends, workers=4)
    clients = []
    for count in range(1, HELD + 1):  # one at a time, so that the order at the backends is the order of takes
        clients += send_held(address, 1)
        wait_until(lambda count=count: len(stage.journal) == count, f"request {count} arrives")  # type: ignore[misc]
    totals = accumulate(stage.journal, lambda seen, name: seen + Counter([name]), initial=Counter[str]())
    for seen in totals:
        counts = [seen[name] for name in "abc"]
        assert max(counts) - min(counts) <= 1
    assert set(server.in_flight().values()) == {100}
    assert finish(clients, backends) == {b"a": 100, b"b": 100, b"c": 100}
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")


@pytest.mark.slow
def test_least_connections_is_exact_when_all_arrive_at_once(stage: Stage, start_web: StartWeb) -> None:
    backends = open_three(stage)
    server, address = start_web(backends, workers=4)
    clients = send_held(address, HELD)
    for backend in backends:
        backend.wait_in_flight(100)
    workers_used = sum(worker["connections"] > 0 for worker in server.status()["workers"])
    assert workers_used > 1
    finish(clients, backends)


@pytest.mark.slow
def test_least_connections_follows_weights(stage: Stage, start_lbproc: StartLbproc) -> None:
    backends = open_three(stage)
    address = f"127.0.0.1:{free_port()}"
    members = ", ".join(
        f'{{ address = "{backend.address}", weight = {weight} }}'
        for weight, backend in enumerate(backends, 1)
    )
    config = f'[listeners.web]\nbind = "{address}"\npool = "web"\n[pools.web]\nbackends = [{members}]\n'
    start_lbproc(config, workers=4)
    clients = send_held(address, HELD)
    for backend, share in zip(backends, (50, 100, 150), strict=True):
        backend.wait_in_flight(share)
    finish(clients, backends)


@pytest.mark.slow
def test_round_robin_has_one_order_over_all_workers(stage: Stage, start_web: StartWeb) -> None:
    backends = [stage.open(name) for name in "abc"]
    _, address = start_web(backends, workers=4, pool='policy = "round_robin"')
    clients = [RawClient(address) for _ in range(30)]
    for _ in range(100):
        for client in clients:
            client.send(render_request())
        for client in clients:
            client.read_response()
    for client in clients:
        client.close()
    assert Counter(stage.journal) == {"a": 1000, "b": 1000, "c": 1000}


@pytest.mark.slow
def test_max_connections_is_never_exceeded_and_the_rest_get_503(stage: Stage, start_web: StartWeb) -> None:
    backends = open_three(stage)
    server, address = start_web(backends, workers=4, backend_options="max_connections = 10")
    clients = send_held(address, 100)
    for backend in backends:
        backend.wait_in_flight(10)
    refused = 0
    for client in clients:
        client.socket.settimeout(0.0)
    pending = set(clients)

    def count_refused() -> bool:
        nonlocal refused
        for client in tuple(pending):
            try:
                response = client.read_response()
            except BlockingIOError:
                continue
            assert response.status == 503
            pending.discard(client)
            refused += 1
        return refused == 70

    wait_until(count_refused, "70 requests are refused")
    for client in pending:
        client.socket.settimeout(20)
    assert sum(finish(list(pending), backends).values()) == 30
    assert all(backend.peak_in_flight == 10 for backend in backends)
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
    for client in clients:
        client.close()
