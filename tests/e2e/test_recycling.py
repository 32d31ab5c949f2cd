"""Workers that have served enough are replaced, and nobody notices."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.load import Load

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow


def serving(server: LbprocServer) -> list[int]:
    """The workers that serve, without those that only finish."""
    return [worker["pid"] for worker in server.status()["workers"] if worker["state"] == "ready"]


def test_no_request_fails_while_workers_are_replaced(stage: Stage, start_web: StartWeb) -> None:
    backends = [stage.open(name) for name in "ab"]
    server, address = start_web(backends, workers=2, runtime="max_requests = 200")
    before = serving(server)
    with Load(address, clients=8) as load:
        wait_until(
            lambda: server.events().count("worker_replaced") >= 6 and load.answered > 3000, "replacements", 60
        )
    assert load.lost == 0
    assert load.refused == 0
    assert load.wrong == []
    assert not set(before) & set(serving(server))
    assert "worker_exited" not in server.events()
    assert [worker["restarts"] for worker in server.status()["workers"]][:2] == [0, 0]
    wait_until(lambda: sum(server.in_flight().values()) == 0, "nothing is left in flight")
    assert server.stop() == 0


def test_one_worker_is_replaced_at_a_time(stage: Stage, start_web: StartWeb, connect: Connect) -> None:
    backend = stage.open("a")
    server, address = start_web([backend], workers=2, runtime="max_requests = 50")
    most = 0
    with Load(address, clients=6) as load:

        def many_replaced() -> bool:
            nonlocal most
            most = max(most, len(server.status()["workers"]))
            return server.events().count("worker_replaced") >= 5

        wait_until(many_replaced, "replacements", 60)
    assert load.lost == 0
    assert most <= 3
    starts = [event for event in server.events() if event in {"worker_replaced", "worker_stopped"}]
    assert (
        starts == ["worker_replaced", "worker_stopped"] * (len(starts) // 2) + starts[len(starts) // 2 * 2 :]
    )


def test_a_connection_ends_with_its_next_response_and_is_not_cut(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    server, address = start_web([stage.open("a")], workers=1, runtime="max_requests = 20")
    kept = connect(address)
    assert kept.request().get("connection") != "close"
    for _ in range(40):
        connect(address).request()
    wait_until(lambda: "worker_replaced" in server.events(), "the replacement")
    last = kept.request()
    assert (last.status, last.get("connection")) == (200, "close")
    assert kept.read_until_close() == b""


def test_a_worn_worker_that_dies_is_succeeded_all_the_same(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([stage.open("a")], workers=2, runtime="max_requests = 100")
    with Load(address, clients=4) as load:
        for _ in range(3):
            replaced = server.events().count("worker_replaced")
            wait_until(lambda: server.events().count("worker_replaced") > replaced, "a replacement", 60)  # noqa: B023
            with suppress(ProcessLookupError):  # it may have been the leaver's last moment
                os.kill(serving(server)[0], signal.SIGKILL)
            wait_until(lambda: len(serving(server)) == 2, "both slots are served")
        answered = load.answered
        wait_until(lambda: load.answered > answered + 500, "the load goes on")
    assert load.wrong == []
    assert server.stop() == 0
