"""A drain that loses its workers or its supervisor: what was queued is served, and everybody leaves."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from tests.e2e.harness import wait_until, web_config
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.test_stop import signal_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Connect, StartLbproc, StartWeb
    from tests.e2e.harness_backend import Stage


def test_queue_of_a_lone_worker_that_dies_in_the_drain_is_served(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    server, address = start_web([backend], workers=1)
    (worker,) = server.worker_pids()
    signal_worker(worker, signal.SIGSTOP)
    clients = [connect(address) for _ in range(5)]
    for client in clients:
        client.send(render_request())
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in server.events(), "the stop begins")
    os.kill(worker, signal.SIGKILL)
    assert [client.read_response().status for client in clients] == [200] * 5
    assert server.wait() == 0


def test_a_busy_unix_socket_does_not_keep_the_orphans_of_a_dead_supervisor(
    stage: Stage, start_lbproc: StartLbproc, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/web.sock"
    server = start_lbproc(web_config(address, [stage.open("a").address]))
    done = threading.Event()

    def knock() -> None:
        while not done.wait(0.05):
            try:
                RawClient(address).close()
            except OSError:
                continue

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.start()  # at once, while clients keep coming
    finally:
        done.set()
        knocking.join()
    assert server.stop() == 0
