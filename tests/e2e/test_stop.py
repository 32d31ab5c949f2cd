"""Stopping: what was received is answered, what is queued is served, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until, web_config
from tests.e2e.harness_client import RawClient, fetch, render_request

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartLbproc, StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow


class Load(threading.Thread):
    """Requests on fresh connections, one after the other, until connecting is refused.

    A connection that was made and then ends without a response is a loss.
    """

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while True:
            try:
                client = RawClient(self.address)
            except OSError:  # refused, or never let in: nothing was accepted, nothing is lost
                return
            with client:
                try:
                    assert client.request().status == 200
                    self.answered += 1
                except (OSError, AssertionError) as error:
                    self.lost.append(repr(error))


def test_stop_under_load_answers_everything_that_was_accepted(stage: Stage, start_web: StartWeb) -> None:
    backends = [stage.open(name) for name in "ab"]
    server, address = start_web(backends, workers=2)
    loads = [Load(address) for _ in range(16)]
    for load in loads:
        load.start()
    wait_until(lambda: all(load.answered > 5 for load in loads), "the load runs")
    assert server.stop() == 0
    for load in loads:
        load.join(30)
        assert not load.is_alive()
        assert load.lost == []
    assert server.processes() == []
    assert not server.control_socket.exists()


def test_stop_waits_for_requests_in_flight_and_closes_their_connections(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    backend.hold()
    server, address = start_web([backend])
    clients = [connect(address) for _ in range(10)]
    for client in clients:
        client.send(render_request())
    backend.wait_in_flight(10)
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in server.events(), "the stop begins")
    backend.release()
    for client in clients:
        response = client.read_response()
        assert response.status == 200
        assert response.get("connection") == "close"
    assert server.wait() == 0


def test_stop_serves_what_is_queued_behind_a_stopped_worker(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    server, address = start_web([backend], workers=1)
    (worker,) = server.worker_pids()
    wait_until(lambda: server.status()["workers"][0]["state"] == "ready", "the worker is ready")
    signal_worker(worker, signal.SIGSTOP)
    clients = [connect(address) for _ in range(20)]  # complete handshakes that nobody accepts yet
    for client in clients:
        client.send(render_request())
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in server.events(), "the stop begins")
    signal_worker(worker, signal.SIGCONT)
    assert [client.read_response().status for client in clients] == [200] * 20
    assert server.wait() == 0


def test_idle_connections_are_closed_and_a_request_in_the_grace_is_answered(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    server, address = start_web([backend])
    idle, late = connect(address), connect(address)
    idle.request()
    late.request()
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in server.events(), "the stop begins")
    assert late.request().get("connection") == "close"
    assert idle.read_until_close() == b""
    assert server.wait() == 0


def test_stop_now_does_not_wait(stage: Stage, start_web: StartWeb, connect: Connect) -> None:
    backend = stage.open("a")
    backend.hold()
    server, address = start_web([backend])
    client = connect(address)
    client.send(render_request())
    backend.wait_in_flight(1)
    assert server.run_command("stop", "--now").returncode == 0
    assert server.wait() in {0, 1}
    assert server.processes() == []
    assert not server.control_socket.exists()


def test_stop_command_waits_until_lbproc_is_gone_with_its_sockets(
    stage: Stage, start_lbproc: StartLbproc, tmp_path: Path
) -> None:
    path = tmp_path / "web.sock"
    server = start_lbproc(web_config(f"unix:{path}", [stage.open("a").address]))
    assert fetch(f"unix:{path}").status == 200
    done = server.run_command("stop")
    assert done.returncode == 0, done.stderr
    assert server.wait() == 0
    assert server.processes() == []
    assert not path.exists()
    assert not server.control_socket.exists()


def signal_worker(pid: int, number: signal.Signals) -> None:
    """Sends a signal and waits until the kernel shows its effect."""
    os.kill(pid, number)
    stopped = number is signal.SIGSTOP
    wait_until(
        lambda: (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T") == stopped,
        f"{pid} has its signal",
    )
