"""Death of processes by ``kill -9``: what is lost is what they held, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import all_processes, wait_until
from tests.e2e.harness_client import fetch, render_request
from tests.e2e.load import Load
from tests.e2e.test_stop import signal_worker

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage
    from tests.e2e.harness_client import RawClient

pytestmark = pytest.mark.slow


def test_killed_worker_loses_only_what_it_held_and_its_places_are_taken_back(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backends = [stage.open(name) for name in "abc"]
    for backend in backends:
        backend.hold()
    server, address = start_web(backends, workers=4)
    clients = [connect(address) for _ in range(60)]
    for client in clients:
        client.send(render_request())
    wait_until(lambda: sum(backend.in_flight for backend in backends) == 60, "60 requests are in flight")
    victim = max(server.status()["workers"], key=lambda worker: worker["connections"])
    held = victim["connections"]
    assert held > 0
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: sum(server.in_flight().values()) == 60 - held, "the victim's places are taken back")
    for backend in backends:
        backend.release()
    assert sum(is_answered(client) for client in clients) == 60 - held
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
    wait_until(server.is_ready, "the replacement is ready")
    assert fetch(address).status == 200


def test_queue_of_a_killed_worker_is_served(stage: Stage, start_web: StartWeb, connect: Connect) -> None:
    server, address = start_web([stage.open("a")], workers=2)
    for pid in server.worker_pids():
        signal_worker(pid, signal.SIGSTOP)
    clients = [connect(address) for _ in range(40)]
    for client in clients:
        client.send(render_request())
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert [client.read_response().status for client in clients] == [200] * 40


def test_death_of_the_supervisor_leaves_no_orphans_and_a_new_one_starts_at_once(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    backend = stage.open("a")
    backend.hold()
    server, address = start_web([backend], workers=2)
    client = connect(address)
    client.send(render_request())
    backend.wait_in_flight(1)
    server.send_signal(signal.SIGKILL)
    server.wait()
    orphans = server.pid
    server.start()
    backend.release()
    assert client.read_response().status == 200  # the children finish what they hold
    wait_until(
        lambda: not [process for process in all_processes() if process.group == orphans],
        "the children of the dead supervisor are gone",
    )
    assert fetch(address).status == 200
    assert server.stop() == 0


def test_crash_loop_is_slowed_down_while_siblings_serve_the_slot(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([stage.open("a")], workers=2)
    for _ in range(4):
        wait_until(lambda: server.status()["workers"][0]["state"] == "ready", "slot 0 is ready")
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        for _ in range(20):  # both slots get some of these
            assert fetch(address).status == 200
    assert server.events().count("slot_adopted") >= 1
    wait_until(server.is_ready, "all workers are ready again")


def test_hung_worker_is_dumped_and_replaced(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([stage.open("a")], workers=2, runtime='heartbeat_timeout = "2s"', clean=False)
    victim = server.worker_pids()[0]
    signal_worker(victim, signal.SIGSTOP)
    wait_until(lambda: server.status()["workers"][0]["pid"] not in {victim, None}, "it is replaced")
    wait_until(server.is_ready, "all workers are ready again")
    assert "worker_hung" in server.events()
    assert fetch(address).status == 200


def test_aborted_worker_leaves_the_stacks_of_its_threads_and_is_replaced(
    stage: Stage, start_web: StartWeb
) -> None:
    server, address = start_web([stage.open("a")], workers=2, clean=False)
    fetch(address)
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGABRT)  # what the supervisor does to a worker that hangs
    wait_until(lambda: server.status()["workers"][0]["pid"] not in {victim, None}, "it is replaced")
    wait_until(server.is_ready, "all workers are ready again")
    said = server.stderr()
    assert "Fatal Python error: Aborted" in said
    assert "telemetry/writer.py" in said
    assert "in run_worker" in said
    assert "worker_exited" in server.events()
    assert fetch(address).status == 200


@pytest.mark.parametrize(
    "kills", [pytest.param(3, id="short"), pytest.param(30, id="soak", marks=pytest.mark.soak)]
)
def test_random_kills_under_load_lose_only_what_the_victims_held(
    stage: Stage, start_web: StartWeb, kills: int
) -> None:
    random = Random(7)
    server, address = start_web([stage.open(name) for name in "abc"], workers=4)
    at_most = 0
    with Load(address, clients=24) as load:
        wait_until(lambda: load.answered > 200, "the load runs")
        start = time.perf_counter()
        for number in range(kills):
            due = start + number  # one a second
            wait_until(lambda due=due: time.perf_counter() >= due, "the next kill is due")  # type: ignore[misc]
            answered = load.answered
            slot, victim = random.choice(ready_workers(server))
            if number % 2:
                # Caught in the middle of its work. Each client has one connection, and may lose it.
                at_most += len(load.clients)
            else:
                # Frozen first, so that what it holds stays what status says, and connections queue behind it.
                # One more may have been accepted and not counted yet.
                signal_worker(victim, signal.SIGSTOP)
                at_most += server.status()["workers"][slot]["connections"] + 1
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda answered=answered: load.answered > answered + 100, "the load goes on")  # type: ignore[misc]
        wait_until(server.is_ready, "all workers are ready")
    assert (load.refused, load.wrong) == (0, [])
    assert load.lost <= at_most
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
    assert server.events().count("worker_exited") == kills
    assert fetch(address).status == 200


def ready_workers(server: LbprocServer) -> list[tuple[int, int]]:
    """Slot and process of each worker that serves; there is always one."""

    def ready() -> list[tuple[int, int]]:
        workers = enumerate(server.status()["workers"])
        return [(slot, worker["pid"]) for slot, worker in workers if worker["state"] == "ready"]

    return wait_until(ready, "a worker is ready")


def is_answered(client: RawClient) -> bool:
    """Whether a response comes before the connection ends."""
    try:
        return client.read_response().status == 200
    except (AssertionError, ConnectionResetError):
        return False
