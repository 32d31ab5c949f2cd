"""TCP that is relayed as it is, under a real supervisor: through reloads, deaths and the end."""

from __future__ import annotations

import os
import signal
import threading
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import PATIENCE, wait_until
from tests.e2e.harness_echo import EchoBackend, EchoClient
from tests.e2e.memory import Growth
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness import LbprocServer, Program

pytestmark = pytest.mark.slow

MEGABYTE = 1_000_000

ALLOWED_GROWTH = 4 * 1024 * 1024
"""Of one worker, however much it relays: the buffer that all its connections read into, and a rest."""


class Service:
    """lbproc in front of two echo backends."""

    def __init__(self, start: StartLbproc, backends: list[EchoBackend]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.backends = backends
        self.server: LbprocServer = start(self._config("relay"))
        self._before = self.server.config_path.read_text()

    def _config(self, listener: str) -> str:
        addresses = ", ".join(
            f'{{ address = "{backend.address}", name = "{backend.name}" }}' for backend in self.backends
        )
        return (
            f'[listeners.{listener}]\nbind = "{self.address}"\nprotocol = "tcp"\npool = "echo"\n'
            f"[pools.echo]\nbackends = [{addresses}]\n"
        )

    def rename(self, listener: str) -> None:
        """Removes the listener, with another at its address, by a reload."""
        self.server.config_path.write_text(
            self._before.replace("[listeners.relay]", f"[listeners.{listener}]")
        )
        self.reload()

    def reload(self) -> None:
        finished = self.server.run_command("reload")
        assert finished.returncode == 0, finished.stderr

    def in_flight(self) -> int:
        return sum(self.server.in_flight().values())

    def client(self) -> EchoClient:
        return EchoClient(self.address)


@pytest.fixture
def service(tmp_path: Path, programs: Callable[[Program], None], start_lbproc: StartLbproc) -> Service:
    backends = [EchoBackend(tmp_path, name) for name in "ab"]
    for backend in backends:
        programs(backend)
        backend.start()
    return Service(start_lbproc, backends)


def test_transfers_are_exact_through_reloads_and_the_death_of_a_backend_and_of_a_worker(
    service: Service,
) -> None:
    server = service.server
    verdicts: list[bool] = []
    reloaded = threading.Event()

    def transfer(seed: int) -> None:
        client = service.client()
        data = Random(seed).randbytes(4 * MEGABYTE)
        first = client.echo(data[:MEGABYTE] if seed % 2 else data[:10])
        assert reloaded.wait(PATIENCE)
        verdicts.append(first and client.transfer(data))

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: service.in_flight() == 8, "all transfers have begun")
    service.reload()
    service.rename("other")
    reloaded.set()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 8
    wait_until(lambda: service.in_flight() == 0, "all places are given back")

    lines = server.access_log(8)
    assert {line["listener"] for line in lines} == {"relay"}
    assert {(line["method"], line["status"], line["cause"]) for line in lines} == {(None, None, None)}
    assert sum(line["bytes_in"] for line in lines) == 8 * 4 * MEGABYTE + 4 * MEGABYTE + 4 * 10

    # A backend dies: its connections break, the others go on, and new ones go where somebody is.
    clients = [service.client() for _ in range(8)]
    victim, other = service.backends
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    by_backend = {name: [client for client in clients if client.backend == name] for name in "ab"}
    assert all(client.is_broken() for client in by_backend[victim.name])
    assert all(client.echo(b"still here") for client in by_backend[other.name])
    after = [service.client() for _ in range(8)]
    assert {client.backend for client in after} == {other.name}
    victim.start()
    for client in clients:
        client.close()

    # A worker dies: only what it held breaks, and what it had taken is given back.
    wait_until(lambda: service.in_flight() == 8, "only the last eight are left")
    held = [service.client() for _ in range(16)]
    wait_until(lambda: service.in_flight() == 24, "all have their places")
    worker = max(server.status()["workers"], key=lambda one: one["connections"])
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: service.in_flight() == 24 - worker["connections"], "its places are taken back")
    wait_until(server.is_ready, "the replacement is ready")
    broken = 0
    for client in held:
        try:
            broken += not client.echo(b"are you there")
        except ConnectionError:
            broken += 1
    assert 0 < broken <= worker["connections"]
    assert service.client().echo(b"hello")


@pytest.mark.parametrize(
    "megabytes", [pytest.param(30, id="short"), pytest.param(1000, id="soak", marks=pytest.mark.soak)]
)
def test_much_is_brought_both_ways_to_a_slow_reader_and_nothing_is_heaped_up(
    service: Service, megabytes: int
) -> None:
    assert service.client().transfer(b"warm")
    growth = Growth(service.server)
    client = EchoClient(service.address, receive_buffer=4096)
    watched = threading.Event()

    def watch() -> None:
        while not watched.wait(0.02):
            growth.look()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        block = Random(1).randbytes(MEGABYTE)
        assert client.stream(block, megabytes)
    finally:
        watched.set()
        watching.join()
    assert growth.looks > 0
    assert growth.most < ALLOWED_GROWTH
    line = service.server.access_log(2)[-1]
    assert line["bytes_in"] == megabytes * MEGABYTE


def test_a_stop_waits_for_connections_and_takes_no_new_ones(service: Service) -> None:
    server = service.server
    held = [service.client() for _ in range(4)]
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in server.stderr() or "draining" in server.stderr(), "it drains")
    wait_until(lambda: not _is_open(service), "nobody listens")
    assert all(client.echo(b"go on") for client in held)
    assert server.is_running()
    assert all(client.transfer(b"x" * MEGABYTE) for client in held)
    assert server.wait() == 0
    assert {line["cause"] for line in server.access_log(4)} == {None}


def _is_open(service: Service) -> bool:
    try:
        service.client().close()
    except (OSError, EOFError):
        return False
    return True
