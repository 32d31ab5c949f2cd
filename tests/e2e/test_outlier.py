"""Real workers share what they have seen of a backend, and agree on who is ejected."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.harness_client import render_request

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Backend, Stage
    from tests.e2e.harness_client import RawClient

pytestmark = pytest.mark.slow

WORKERS = 3
CLIENTS = 12


def backends(server: LbprocServer) -> dict[str, Any]:
    return {entry["address"]: entry for entry in server.status()["pools"]["web"]["backends"]}


def is_ejected(server: LbprocServer, backend: Backend) -> bool:
    return bool(backends(server)[backend.address]["ejected"])


def spread(server: LbprocServer, address: str, connect: Connect) -> list[RawClient]:
    """Clients that every worker has some of."""
    clients = [connect(address) for _ in range(CLIENTS)]

    def is_spread() -> bool:
        counts = [worker["connections"] for worker in server.status()["workers"]]
        return bool(sum(counts) == CLIENTS and min(counts) > 0)

    wait_until(is_spread, "every worker has some clients")
    return clients


def ask(clients: list[RawClient], times: int) -> list[int]:
    """So many requests, one after the other, over all clients in turn."""
    statuses = []
    for turn in range(times):
        client = clients[turn % len(clients)]
        client.send(render_request())
        statuses.append(client.read_response().status)
    return statuses


def answer(backend: Backend, status: int) -> None:
    backend.response = text_response("x", status=f"{status} Status")


def test_five_errors_in_a_row_over_all_workers_eject_and_the_time_brings_it_back(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    bad, good = stage.open("a"), stage.open("b")
    pool = 'policy = "round_robin"\n[pools.web.outlier]\neject_for = "1s"'
    server, address = start_web([bad, good], workers=WORKERS, pool=pool)
    clients = spread(server, address, connect)
    answer(bad, 503)
    statuses = ask(clients, 60)
    assert statuses.count(503) == 5
    assert len(bad.requests) == 5
    assert is_ejected(server, bad)
    answer(bad, 200)
    wait_until(lambda: not is_ejected(server, bad), "its time is over")
    assert ask(clients, 40).count(200) == 40
    assert len(bad.requests) == 25
    log = server.stderr()
    assert log.count(" backend_ejected ") == 1
    assert log.count(" backend_returned ") == 1


def test_4xx_never_eject(stage: Stage, start_web: StartWeb, connect: Connect) -> None:
    bad, good = stage.open("a"), stage.open("b")
    server, address = start_web(
        [bad, good], workers=WORKERS, pool="[pools.web.outlier]\nconsecutive_errors = 1"
    )
    answer(bad, 429)
    ask(spread(server, address, connect), 60)
    assert not is_ejected(server, bad)
    assert " backend_ejected " not in server.stderr()


def test_an_ejection_survives_the_death_of_every_worker(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    bad, good = stage.open("a"), stage.open("b")
    pool = '[pools.web.outlier]\nconsecutive_errors = 2\neject_for = "1h"'
    server, address = start_web([bad, good], workers=2, pool=pool)
    answer(bad, 500)
    ask([connect(address) for _ in range(4)], 20)
    assert is_ejected(server, bad)
    before = len(bad.requests)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.is_ready() and len(set(server.worker_pids())) == 2, "there are new workers")
    assert ask([connect(address) for _ in range(4)], 20) == [200] * 20
    assert len(bad.requests) == before
    assert is_ejected(server, bad)


def test_a_reload_keeps_ejections_while_there_are_rules_and_ends_them_with_the_rules(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    bad, good = stage.open("a"), stage.open("b")
    pool = '[pools.web.outlier]\nconsecutive_errors = 2\neject_for = "1h"'
    server, address = start_web([bad, good], workers=2, pool=pool)
    answer(bad, 500)
    clients = spread(server, address, connect)
    ask(clients, 20)
    assert is_ejected(server, bad)
    before = backends(server)[bad.address]["ejected_seconds_left"]
    config = server.config_path.read_text()
    reload(server, config.replace("consecutive_errors = 2", "consecutive_errors = 3"), generation=2)
    assert ask(clients, 20) == [200] * 20
    assert before - 60 < backends(server)[bad.address]["ejected_seconds_left"] <= before
    reload(server, config.replace(pool, ""), generation=3)
    wait_until(lambda: not is_ejected(server, bad), "the ejection is over")


def reload(server: LbprocServer, config: str, *, generation: int) -> None:
    server.config_path.write_text(config)
    server.send_signal(signal.SIGHUP)

    def is_followed() -> bool:
        status = server.status()
        followed = {worker["generation"] for worker in status["workers"]}
        return bool(status["generation"] == generation and followed == {generation})

    wait_until(is_followed, f"generation {generation} is followed")


def test_no_more_than_half_are_ejected_and_panic_sends_to_all(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    members = [stage.open(name) for name in "abcd"]
    for member in members:
        answer(member, 500)
    pool = (
        'policy = "round_robin"\npanic_threshold = 0.6\n'
        '[pools.web.outlier]\nconsecutive_errors = 3\neject_for = "1h"'
    )
    server, address = start_web(members, workers=WORKERS, pool=pool)
    clients = spread(server, address, connect)
    ask(clients, 60)
    assert sum(entry["ejected"] for entry in backends(server).values()) == 2
    assert server.status()["pools"]["web"]["panic"] is True
    before = [len(member.requests) for member in members]
    ask(clients, 40)
    assert [len(member.requests) - count for member, count in zip(members, before, strict=True)] == [10] * 4
    assert server.stderr().count(" pool_panic ") == 1
