"""Paths, methods and the token of the admin listener."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lbproc.admin.endpoints import METRICS_TYPE, Endpoints
from lbproc.admin.server import Request, Response
from lbproc.config.secret import Secret
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import ProcessState, Reader, Role, SupervisorView, WorkerView
from lbproc.types import Slot


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table.create(Capacities(columns=8, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096))
    yield table
    table.close()


def ask(
    table: Table, target: bytes, method: bytes = b"GET", authorization: bytes = b"", token: str | None = None
) -> Response:
    endpoints = Endpoints(Reader(table), lambda: b"metrics\n", Secret(token) if token else None)
    return endpoints.answer(Request(method, target, authorization))


@pytest.mark.parametrize(
    ("states", "status", "ready"),
    [
        ([], 503, 0),
        ([ProcessState.STARTING], 503, 0),
        ([ProcessState.DRAINING, ProcessState.STARTING], 503, 0),
        ([ProcessState.STARTING, ProcessState.READY], 200, 1),
        ([ProcessState.READY, ProcessState.READY], 200, 2),
    ],
)
def test_healthz_tells_whether_a_worker_is_ready(
    table: Table, states: list[ProcessState], status: int, ready: int
) -> None:
    view = SupervisorView(table)
    for number, state in enumerate(states):
        WorkerView(table, view.allocate_column(Slot(number), Role.WORKER)).set_state(state)
    response = ask(table, b"/healthz?verbose")
    assert response.status == status
    assert response.content_type == "application/json"
    assert json.loads(response.body) == {"status": "ok" if ready else "unavailable", "workers_ready": ready}


def test_metrics_are_text_for_prometheus(table: Table) -> None:
    assert ask(table, b"/metrics") == Response(200, METRICS_TYPE, b"metrics\n")
    assert ask(table, b"/metrics?x=1").status == 200
    assert ask(table, b"/metrics", b"HEAD").status == 200


@pytest.mark.parametrize(
    "target", [b"/", b"", b"/Metrics", b"/metrics/", b"//metrics", b"*", b"http://x/metrics"]
)
def test_there_is_nothing_else(table: Table, target: bytes) -> None:
    assert ask(table, target).status == 404


@pytest.mark.parametrize("target", [b"/metrics", b"/healthz"])
def test_other_methods_are_refused(table: Table, target: bytes) -> None:
    response = ask(table, target, b"POST")
    assert response.status == 405
    assert ("Allow", "GET, HEAD") in response.headers


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer wrong",
        b"Bearer secre",
        b"Bearer secrets",
        b"Basic secret",
        b"secret",
        b"Bearer \xff",
    ],
)
def test_a_wrong_token_is_refused(table: Table, authorization: bytes) -> None:
    for target in (b"/metrics", b"/elsewhere"):
        response = ask(table, target, b"GET", authorization, "secret")
        assert response.status == 401
        assert response.headers[0][0] == "WWW-Authenticate"
        assert b"secret" not in response.body


@pytest.mark.parametrize("authorization", [b"Bearer secret", b"bearer secret", b"BEARER  secret "])
def test_the_right_token_opens(table: Table, authorization: bytes) -> None:
    assert ask(table, b"/metrics", b"GET", authorization, "secret").status == 200


def test_healthz_needs_no_token(table: Table) -> None:
    assert ask(table, b"/healthz", token="secret").status == 503
