"""Limits of connections over four worker processes: exact at every moment, and nothing is left of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import LbprocServer, wait_until
from tests.e2e.harness_client import render_request
from tests.e2e.scrape import Admin
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lbproc.types import Seconds
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

CONFIG = """
[listeners.all]
bind = "127.0.0.1:{all}"
pool = "web"
max_connections = {most}
{more}
[listeners.each]
bind = "127.0.0.1:{each}"
pool = "web"
limits = ["per_ip"]
[listeners.paced]
bind = "127.0.0.1:{paced}"
pool = "fast"
limits = ["rate"]
[pools.web]
backends = ["{web}"]
[pools.fast]
backends = ["{fast}"]
[limits.per_ip]
connections = {most}
[limits.rate]
new_connections = "{rate}/second"
burst = {burst}
"""


class Scene:
    """One lbproc with a listener for each kind of limit, and what it is asked."""

    def __init__(self, stage: Stage, start: StartLbproc) -> None:
        self.web, self.fast = stage.open("a"), stage.open("b")
        self.web.hold()
        self.ports = {name: free_port() for name in ("all", "each", "paced")}
        self.admin = Admin()
        self.sockets: list[socket.socket] = []
        self.values: dict[str, object] = {"most": 10, "rate": 50, "burst": 20, "more": ""}
        self.server: LbprocServer = start(self.text(), workers=4)

    def text(self) -> str:
        backends = {"web": self.web.address, "fast": self.fast.address}
        return self.admin.table + CONFIG.format(**self.ports, **backends, **self.values)

    def reload(self, **values: object) -> None:
        before = self.text()
        self.values.update(values)
        path = self.server.config_path
        path.write_text(path.read_text().replace(before, self.text()))
        done = self.server.run_command("reload")
        assert done.returncode == 0, done.stderr

    def open(self, listener: str) -> float:
        return self.admin.total("lbproc_listener_connections", listener=listener)

    def refused(self, listener: str, reason: str) -> float:
        return self.admin.total("lbproc_refused_connections_total", listener=listener, reason=reason)

    def knock(self, listener: str, source: str = "127.0.0.1") -> socket.socket:
        """A connection with a request on it; closed if it is refused before it is even sent."""
        sock = socket.socket()
        self.sockets.append(sock)
        sock.settimeout(20)
        sock.bind((source, 0))
        try:
            sock.connect(("127.0.0.1", self.ports[listener]))
            sock.sendall(render_request(headers=["Connection: close"]))
        except ConnectionError:
            sock.close()
        return sock

    def flood(
        self, listener: str, reason: str, count: int, admitted: int, source: str = "127.0.0.1"
    ) -> list[socket.socket]:
        """So many at once, of which so many get in and all others are reset; returns those that are open."""
        refused_before = self.refused(listener, reason)
        clients = [self.knock(listener, source) for _ in range(count)]
        wait_until(
            lambda: self.refused(listener, reason) - refused_before == count - admitted,
            f"{count - admitted} are refused",
        )
        wait_until(lambda: len(still_open(clients)) == admitted, "those are reset")
        return still_open(clients)

    def release(self, clients: list[socket.socket]) -> None:
        self.web.release()
        for client in clients:
            assert client.recv(64).startswith(b"HTTP/1.1 200 ")
            client.close()
        self.web.hold()


def still_open(clients: list[socket.socket], *, resets: bool = True) -> list[socket.socket]:
    """Those that the other end has not ended; nothing was sent on them. The others are closed.

    Args:
        clients: some may be closed already.
        resets: no other end is expected.
    """
    return [client for client in clients if client.fileno() >= 0 and not is_over(client, resets=resets)]


def is_over(client: socket.socket, *, resets: bool) -> bool:
    client.setblocking(False)
    try:
        octets = client.recv(1)
    except BlockingIOError:
        client.settimeout(20)
        return False
    except ConnectionResetError:
        octets = b""
    else:
        assert not resets, f"{octets!r} came, not a reset"
    client.close()
    return not octets


@pytest.fixture
def scene(stage: Stage, start_lbproc: StartLbproc) -> Iterator[Scene]:
    scene = Scene(stage, start_lbproc)
    yield scene
    for sock in scene.sockets:
        sock.close()


def kill_one(scene: Scene) -> int:
    """Kills the worker that has most; says how many it had."""
    victim = max(scene.server.status()["workers"], key=lambda worker: worker["connections"])
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: victim["pid"] not in scene.server.worker_pids(), "it is replaced")
    wait_until(scene.server.is_ready, "all workers are ready again")
    return int(victim["connections"])


@pytest.mark.parametrize(("listener", "reason"), [("all", "max_connections"), ("each", "connections")])
def test_never_more_connections_than_may_be_and_all_places_come_back(
    scene: Scene, listener: str, reason: str
) -> None:
    clients = scene.flood(listener, reason, 200, 10)
    scene.web.wait_in_flight(10)
    if listener == "each":
        others = scene.flood(listener, reason, 12, 10, "127.0.0.2")
        scene.web.wait_in_flight(20)
        for other in others:
            other.close()
        wait_until(lambda: scene.open(listener) == 10, "the other client is gone")
    held = kill_one(scene)
    assert held > 0
    wait_until(lambda: scene.open(listener) == 10 - held, "the places of the dead are given back")
    more = scene.flood(listener, reason, 50, held)
    assert scene.open(listener) == 10
    clients = still_open(clients, resets=False) + more
    scene.reload(most=4)
    assert not scene.flood(listener, reason, 20, 0)
    scene.release(clients)
    wait_until(lambda: scene.open(listener) == 0, "all places are free")
    scene.release(scene.flood(listener, reason, 100, 4))
    scene.reload(most=12)
    scene.release(scene.flood(listener, reason, 100, 12))
    wait_until(lambda: scene.open(listener) == 0, "all places are free")
    assert scene.web.peak_in_flight == (20 if listener == "each" else 12)
    lines = [line for line in scene.server.stderr().splitlines() if " connection_refused " in line]
    assert 1 <= len(lines) <= 30


def test_a_limit_that_comes_with_a_reload_counts_what_is_open(scene: Scene) -> None:
    scene.reload(more="limits = []", most=100)
    clients = scene.flood("all", "max_connections", 15, 15)
    scene.reload(most=10, more='limits = ["per_ip"]')
    assert not scene.flood("all", "connections", 10, 0)
    for client in clients[:5]:
        client.close()
    wait_until(lambda: scene.open("all") == 10, "five have gone")
    assert not scene.flood("all", "connections", 10, 0)
    scene.release(clients[5:])


class Pace:
    """Connections as fast as they go, and how many of them were let in."""

    def __init__(self, scene: Scene, rate: int, burst: int) -> None:
        self._scene = scene
        self._rate, self._burst = rate, burst
        self._began_at = time.perf_counter()
        self.admitted = 0

    def run(self, seconds: Seconds) -> None:
        end_at = time.perf_counter() + seconds
        while time.perf_counter() < end_at:
            clients = [self._scene.knock("paced") for _ in range(20)]
            for client in clients:
                try:
                    self.admitted += bool(client.recv(64))
                except OSError:
                    continue
                finally:
                    client.close()
            self.check()

    def check(self) -> None:
        spent = time.perf_counter() - self._began_at
        assert self.admitted <= self._burst + self._rate * spent


def test_new_connections_never_exceed_burst_and_rate_over_a_kill_and_reloads(scene: Scene) -> None:
    first = Pace(scene, 50, 20)
    first.run(0.5)
    assert first.admitted >= 20
    kill_one(scene)
    first.run(0.3)
    scene.reload(most=11)
    first.run(0.5)
    assert first.admitted > 40, "the rate is let in as well"
    second = Pace(scene, 5, 4)
    scene.reload(rate=5, burst=4)
    first.check()
    second.run(0.5)
    assert scene.refused("paced", "new_connections") > 0
