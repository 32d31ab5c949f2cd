"""What the admin listener says of real traffic through real workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.harness_client import fetch, render_request
from tests.e2e.scrape import Admin

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow


def test_metrics_tell_of_real_traffic_over_all_workers(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    admin = Admin()
    good, bad = stage.open("good"), stage.open("bad")
    bad.response = text_response("broken", "500 Internal Server Error")
    _, address = start_web([good, bad], workers=4, pool='policy = "round_robin"', rest=admin.table)
    assert sorted(fetch(address).status for _ in range(20)) == [200] * 10 + [500] * 10
    with_malformed = connect(address)
    with_malformed.send(b"nonsense\r\n\r\n")
    assert with_malformed.read_response().status == 400
    wait_until(lambda: admin.total("lbproc_client_responses_total") == 21, "all are counted")
    for backend, code_class in ((good, "2xx"), (bad, "5xx")):
        labels = {"pool": "web", "backend": backend.address}
        assert admin.total("lbproc_requests_total", **labels) == 10
        assert admin.total("lbproc_responses_total", **labels) == 10
        assert admin.total("lbproc_responses_total", **labels, code_class=code_class) == 10
        assert admin.total("lbproc_connects_total", **labels) == len(backend.connections)
        assert admin.total("lbproc_in_flight", **labels) == 0
        assert admin.total("lbproc_backend_up", **labels) == 1
        assert 0 < admin.total("lbproc_response_seconds_total", **labels) < 20
    assert admin.total("lbproc_client_responses_total", code_class="2xx") == 10
    assert admin.total("lbproc_client_responses_total", code_class="4xx") == 1
    assert admin.total("lbproc_client_responses_total", code_class="5xx") == 10
    assert admin.total("lbproc_client_connections_total") == 21
    assert admin.total("lbproc_client_rejected_total") == 1
    assert admin.total("lbproc_workers", state="ready") == 4


def test_metrics_tell_of_requests_in_flight_and_connections_until_they_end(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    admin = Admin()
    backends = [stage.open(name) for name in "ab"]
    for backend in backends:
        backend.hold()
    _, address = start_web(backends, workers=4, rest=admin.table)
    clients = [connect(address) for _ in range(10)]
    for client in clients:
        client.send(render_request())
    for backend in backends:
        backend.wait_in_flight(5)
        assert admin.total("lbproc_in_flight", pool="web", backend=backend.address) == 5
    assert admin.total("lbproc_worker_connections") == 10
    for backend in backends:
        backend.release()
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    wait_until(lambda: admin.total("lbproc_in_flight") == 0, "nothing is in flight")
    wait_until(lambda: admin.total("lbproc_worker_connections") == 0, "no client is connected")


def test_healthz_counts_the_workers_that_are_ready(stage: Stage, start_web: StartWeb) -> None:
    admin = Admin()
    start_web([stage.open("a")], workers=3, rest=admin.table)
    answer = fetch(admin.address, "/healthz")
    assert answer.status == 200
    assert json.loads(answer.body) == {"status": "ok", "workers_ready": 3}
    assert fetch(admin.address, "/nothing").status == 404
