"""Datagrams through real processes: answered from the address that was asked, one backend for each flow."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import LbprocServer, wait_until
from tests.e2e.scrape import Admin
from tests.e2e.udp import UdpBackend, UdpClient
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import StartLbproc

pytestmark = pytest.mark.slow

CONFIG = """
[listeners.dns]
bind = ["0.0.0.0:{port}", "[::1]:{port}"]
protocol = "udp"
pool = "dns"
max_connections = {most}
timeouts = {{ idle = "{idle}" }}
{more}
[pools.dns]
backends = [{backends}]
"""


class Scene:
    """lbproc with two backends behind it, and a TCP listener at the same port."""

    def __init__(self, start: StartLbproc, *, workers: int = 4, **values: object) -> None:
        self.backends = {name: UdpBackend(name) for name in ("a", "b")}
        self.port = free_port()
        self.admin = Admin()
        self.clients: list[UdpClient] = []
        self.values: dict[str, object] = {
            "port": self.port,
            "most": 200,
            "idle": "30s",
            "more": f'[listeners.tcp]\nbind = "0.0.0.0:{self.port}"\nprotocol = "tcp"\npool = "dns"',
            "backends": self.named("a", "b"),
            **values,
        }
        self.text = self.admin.table + CONFIG.format(**self.values)
        self.server: LbprocServer = start(self.text, workers=workers)

    def named(self, *names: str) -> str:
        return ", ".join(
            f'{{ name = "{name}", address = "{self.backends[name].address}" }}' for name in names
        )

    def client(self, host: str = "127.0.0.1", source: str = "") -> UdpClient:
        self.clients.append(UdpClient(self.port, host, source))
        return self.clients[-1]

    def reload(self, workers: tuple[int, int] | None = None, **values: object) -> None:
        """Changes values, or the number of workers from one to another, and waits until that is in force."""
        before = self.text
        self.values.update(values)
        self.text = self.admin.table + CONFIG.format(**self.values)
        path = self.server.config_path
        config = path.read_text().replace(before, self.text)
        if workers is not None:
            config = config.replace(f"workers = {workers[0]}", f"workers = {workers[1]}")
            self.server._workers = workers[1]
        path.write_text(config)
        done = self.server.run_command("reload")
        assert done.returncode == 0, done.stderr

    def sessions(self) -> float:
        return self.admin.total("lbproc_listener_connections", listener="dns")

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
        for backend in self.backends.values():
            backend.close()


@pytest.fixture
def scenes(start_lbproc: StartLbproc) -> Iterator[list[Scene]]:
    made: list[Scene] = []
    yield made
    for scene in made:
        scene.close()


def test_each_flow_has_one_backend_through_everything(start_lbproc: StartLbproc, scenes: list[Scene]) -> None:
    scene = Scene(start_lbproc)
    scenes.append(scene)
    server = scene.server
    clients = [scene.client() for _ in range(24)]
    owners = [client.owner() for client in clients]
    assert sorted(owners) == ["a"] * 12 + ["b"] * 12
    assert scene.sessions() == 24
    assert sum(worker["connections"] > 0 for worker in server.status()["workers"]) > 1
    # Whatever address was asked answers; a client hears no other.
    assert scene.client("127.0.0.2").ask(b"x" * 60_000).endswith(b"x" * 60_000)
    assert scene.client("::1").ask(b"") in {b"a ", b"b "}
    # Deaths.
    for _ in range(2):
        for pid in server.worker_pids()[::2]:
            os.kill(pid, signal.SIGKILL)
        assert [client.owner() for client in clients] == owners
        wait_until(server.is_ready, "the workers are back")
    assert [client.owner() for client in clients] == owners
    # Reloads: another limit, fewer workers, more workers.
    scene.reload(most=300)
    assert [client.owner() for client in clients] == owners
    scene.reload(workers=(4, 2), idle="1s")
    assert [client.owner() for client in clients] == owners
    wait_until(server.is_ready, "the others have left")
    scene.reload(workers=(2, 5), idle="30s")
    wait_until(server.is_ready, "there are more")
    assert [client.owner() for client in clients] == owners
    assert sum(worker["connections"] > 0 for worker in server.status()["workers"]) > 2
    # A backend dies: who asked it is served by the other, and stays there when it is back.
    port = scene.backends["b"].port
    scene.backends["b"].close()
    assert {client.owner() for client in clients} == {"a"}
    scene.backends["b"] = UdpBackend("b", port)
    assert {client.owner() for client in clients} == {"a"}
    # A backend is taken away.
    scene.reload(backends=scene.named("b"))
    assert {client.owner() for client in clients} == {"b"}
    # A drain lets what is there go on.
    assert server.run_command("drain", "dns/b").returncode == 0
    assert {client.owner() for client in clients} == {"b"}
    assert scene.admin.total("lbproc_datagrams_total", direction="out") > 0
    # The end: nobody is kept waiting for sessions that are silent.
    assert server.stop() == 0
    lines = server.access_log()
    assert {line["listener"] for line in lines} == {"dns"}
    # The last: of what siblings still served of slots that were given up.
    assert {line["cause"] for line in lines} <= {None, "destination_unavailable", "drain_timeout"}


def test_hostile_datagrams_cost_no_more_than_the_listener_allows(
    start_lbproc: StartLbproc, scenes: list[Scene]
) -> None:
    scene = Scene(start_lbproc, workers=2, most=50, idle="2s")
    scenes.append(scene)
    honest = scene.client()
    honest.ask()
    junk = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with junk:
        for size in (0, 1, 65_507, 512):  # from one source: one session, whatever it sends
            junk.sendto(os.urandom(size), ("127.0.0.1", scene.port))
    for number in range(2000):  # from as many sources as an attacker likes
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofed:
            spoofed.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
            spoofed.sendto(b"?", ("127.0.0.1", scene.port))
        if number % 100 == 0:
            honest.ask()
            assert scene.sessions() <= 50
    refused = scene.admin.total("lbproc_refused_connections_total", listener="dns", reason="max_connections")
    assert refused > 1000
    wait_until(lambda: scene.sessions() == 0, "all are forgotten")
    assert sum(scene.server.in_flight().values()) == 0
    assert scene.client().ask() in {b"a ?", b"b ?"}


def test_a_removed_listener_ends_and_comes_again(start_lbproc: StartLbproc, scenes: list[Scene]) -> None:
    scene = Scene(start_lbproc, workers=2)
    scenes.append(scene)
    client = scene.client()
    client.ask()
    with_udp = scene.server.config_path.read_text()
    scene.server.config_path.write_text(with_udp.replace('"udp"', '"tcp"', 1).replace('"30s"', '"75s"'))
    spare = f'bind = "127.0.0.1:{free_port()}"'
    path = scene.server.config_path
    path.write_text(path.read_text().replace(f'bind = "0.0.0.0:{scene.port}"', spare))
    done = scene.server.run_command("reload")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: sum(scene.server.in_flight().values()) == 0, "its session has ended")

    def is_closed() -> bool:
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probe:
            try:
                probe.bind(("0.0.0.0", scene.port))
            except OSError:
                return False
            return True

    wait_until(is_closed, "its sockets are closed")
    path.write_text(with_udp)
    done = scene.server.run_command("reload")
    assert done.returncode == 0, done.stderr
    assert client.ask() in {b"a ?", b"b ?"}


def test_a_backend_without_anybody_is_found_by_its_check(
    start_lbproc: StartLbproc, scenes: list[Scene]
) -> None:
    check = 'health = { check = "udp", send = "ping", expect = { body = "ping" }, interval = "200ms" }'
    scene = Scene(start_lbproc, workers=2)
    scenes.append(scene)
    path = scene.server.config_path
    path.write_text(path.read_text() + check)
    done = scene.server.run_command("reload")
    assert done.returncode == 0, done.stderr

    def health() -> dict[str, str]:
        pool = scene.server.status()["pools"]["dns"]
        return {backend["name"]: backend["health"] for backend in pool["backends"]}

    wait_until(lambda: health() == {"a": "up", "b": "up"}, "both are up")
    scene.backends["b"].close()
    wait_until(lambda: health() == {"a": "up", "b": "down"}, "one is down")
    assert {scene.client().owner() for _ in range(6)} == {"a"}
    assert "nobody listens there (ICMP port unreachable)" in scene.server.stderr()
