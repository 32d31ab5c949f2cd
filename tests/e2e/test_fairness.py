"""Turns of real connections: what waits in the kernel for a worker is not served one client at a time."""

from __future__ import annotations

import os
import signal
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from lbproc.proxy.connection import TURNS
from tests.e2e.harness import all_processes, wait_until
from tests.e2e.harness_client import render_request
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartLbproc
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

CONFIG = """
[listeners.web]
bind = "{address}"
[[listeners.web.routes]]
match = {{ path = "/far" }}
pool = "web"
[pools.web]
backends = ["{backend}"]
"""


def is_stopped(pid: int) -> bool:
    return any(process.pid == pid and process.state == "T" for process in all_processes())


def longest_run(journal: list[str], target: str) -> int:
    """The longest row of one target while others still waited."""
    last = max(index for index, seen in enumerate(journal) if seen != target)
    return max(len(list(group)) for seen, group in groupby(journal[:last]) if seen == target)


@pytest.mark.parametrize("where", ["near", "far"])
def test_requests_that_were_all_there_before_are_answered_in_turns(
    stage: Stage, start_lbproc: StartLbproc, connect: Connect, where: str
) -> None:
    """``near`` requests get 404 from lbproc itself, so that no wait for a backend makes the turns."""
    address = f"127.0.0.1:{free_port()}"
    server = start_lbproc(CONFIG.format(address=address, backend=stage.open("a").address), workers=1)
    (pid,) = server.worker_pids()
    clients = [connect(address) for _ in range(3)]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(pid), "the worker stands still")
        for number, client in enumerate(clients):
            target = f"/far?{number}" if where == "far" else f"/near?{number}"
            client.send(render_request(target) * 150)
    finally:
        os.kill(pid, signal.SIGCONT)
    status = 200 if where == "far" else 404
    for client in clients:
        assert [client.read_response().status for _ in range(150)] == [status] * 150
    served = [line["target"] for line in server.access_log(450)]
    for target in set(served):
        assert served.count(target) == 150
        # trio runs the tasks of a round in either order, so two turns may follow each other.
        assert longest_run(served, target) <= 2 * TURNS
