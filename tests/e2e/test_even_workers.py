"""Few and long connections are shared evenly by the workers, and none is lost on its way to another one."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until, web_config
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.scrape import Admin
from tests.e2e.test_stop import signal_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Connect, StartLbproc, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

HANDED_OVER = "lbproc_client_connections_handed_over_total"


@pytest.mark.parametrize(
    "rounds", [pytest.param(5, id="short"), pytest.param(100, id="soak", marks=pytest.mark.soak)]
)
def test_64_connections_on_4_workers_are_at_most_20_on_each(
    stage: Stage, start_web: StartWeb, rounds: int
) -> None:
    admin = Admin()
    server, address = start_web([stage.open(name) for name in "ab"], workers=4, rest=admin.table)
    for number in range(rounds):
        with ExitStack() as stack:
            if number % 2:  # all at once
                clients = [stack.enter_context(RawClient(address)) for _ in range(64)]
                assert {client.request().status for client in clients} == {200}
            else:  # one after the other, each with its first request
                clients = []
                for _ in range(64):
                    clients.append(stack.enter_context(RawClient(address)))
                    assert clients[-1].request().status == 200
            connections = wait_for_connections(server, 64)
            assert max(connections) <= 20, connections
            assert {client.request().status for client in clients} == {200}
        wait_for_connections(server, 0)
    assert admin.total("lbproc_client_connections_total") == 64 * rounds
    assert 0 < admin.total(HANDED_OVER) < 64 * rounds
    assert {entry["client_ip"] for entry in server.access_log(128 * rounds)} == {"127.0.0.1"}


def test_connections_to_a_unix_socket_are_shared_too(
    stage: Stage, start_lbproc: StartLbproc, connect: Connect, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/web.sock"
    server = start_lbproc(web_config(address, [stage.open("a").address]), workers=4)
    clients = [connect(address) for _ in range(64)]
    assert {client.request().status for client in clients} == {200}
    connections = wait_for_connections(server, 64)
    assert max(connections) <= 20, connections


def test_a_worker_that_lost_its_connections_gets_the_next_ones(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    server, address = start_web([stage.open("a")], workers=2)
    clients = [connect(address) for _ in range(40)]
    assert {client.request().status for client in clients} == {200}
    before = wait_for_connections(server, 40)
    kill_and_wait(server, 0)
    wait_for_connections(server, before[1])
    more = [connect(address) for _ in range(20)]
    assert {client.request().status for client in more} == {200}
    after = wait_for_connections(server, before[1] + 20)
    # the survivor keeps what it has, and takes no more while the other one has less
    assert after[1] <= max(before[1], sum(after) / 2 * 17 / 16 + 1.5)


class Frozen:
    """Two workers, the second of which stands still with connections in its inbox and in its queue.

    Args:
        clients: each has sent a request.
    """

    def __init__(self, stage: Stage, start_web: StartWeb, connect: Connect) -> None:
        admin = Admin()
        self.server, address = start_web([stage.open("a")], workers=2, rest=admin.table)
        self.pid = self.server.worker_pids()[1]
        signal_worker(self.pid, signal.SIGSTOP)
        self.clients = [connect(address) for _ in range(60)]
        for client in self.clients:
            client.send(render_request())
        wait_until(lambda: admin.total(HANDED_OVER) > 0, "some are given to the worker that stands still")

    def assert_answered(self) -> None:
        assert [client.read_response().status for client in self.clients] == [200] * 60


@pytest.fixture
def frozen(stage: Stage, start_web: StartWeb, connect: Connect) -> Frozen:
    return Frozen(stage, start_web, connect)


def test_what_waits_in_the_inbox_of_a_killed_worker_is_served(frozen: Frozen) -> None:
    os.kill(frozen.pid, signal.SIGKILL)
    frozen.assert_answered()
    wait_until(frozen.server.is_ready, "the replacement is ready")
    wait_for_connections(frozen.server, 60)


def test_what_waits_in_an_inbox_at_the_stop_is_served(frozen: Frozen) -> None:
    frozen.server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in frozen.server.events(), "the stop begins")
    signal_worker(frozen.pid, signal.SIGCONT)
    frozen.assert_answered()
    assert frozen.server.wait() == 0


def test_what_waits_in_the_inbox_of_a_worker_that_dies_in_the_drain_is_served(frozen: Frozen) -> None:
    frozen.server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in frozen.server.events(), "the stop begins")
    os.kill(frozen.pid, signal.SIGKILL)
    frozen.assert_answered()
    assert frozen.server.wait() == 0


def test_what_waits_in_an_inbox_when_the_supervisor_dies_is_served(frozen: Frozen) -> None:
    frozen.server.send_signal(signal.SIGKILL)
    frozen.server.wait()
    os.kill(frozen.pid, signal.SIGCONT)
    frozen.assert_answered()
    wait_until(lambda: not frozen.server.processes(), "the children are gone")


def test_workers_killed_while_connections_change_hands_lose_only_what_they_held(
    stage: Stage, start_web: StartWeb
) -> None:
    server, address = start_web([stage.open("a")], workers=4)
    lost = answered = at_most = 0
    for number in range(8):
        with ExitStack() as stack:
            victim = server.worker_pids()[number % 4]
            clients = [stack.enter_context(RawClient(address)) for _ in range(40)]
            for client in clients:
                client.send(render_request())
            signal_worker(victim, signal.SIGSTOP)
            # One more may have been accepted, or taken from its inbox, and not counted yet.
            at_most += server.status()["workers"][number % 4]["connections"] + 1
            kill_and_wait(server, number % 4)
            outcomes = [is_answered(client) for client in clients]
            lost += outcomes.count(False)
            answered += outcomes.count(True)
        wait_for_connections(server, 0)
    assert lost <= at_most
    assert answered >= 8 * 40 - at_most


def kill_and_wait(server: LbprocServer, slot: int) -> None:
    """Kills a worker, and waits for the one that takes its place."""
    pid = server.worker_pids()[slot]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.worker_pids()[slot] not in {pid, None}, "there is a new one")
    wait_until(server.is_ready, "it is ready")


def is_answered(client: RawClient) -> bool:
    try:
        return client.read_response().status == 200
    except (AssertionError, ConnectionResetError):
        return False


def wait_for_connections(server: LbprocServer, count: int) -> list[int]:
    """The connections of each worker, when they are so many in all."""

    def look() -> list[int] | None:
        connections = [worker["connections"] for worker in server.status()["workers"]]
        return connections if sum(connections) == count else None

    found = wait_until(look, f"{count} connections")
    assert found is not None
    return found
