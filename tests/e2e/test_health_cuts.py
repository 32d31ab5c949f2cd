"""Checks that find a backend down cut what it has under way where ``on_down`` says so, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.scrape import Admin

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness_backend import Backend, BackendConnection, Stage

pytestmark = pytest.mark.slow

POOL = """
policy = "round_robin"
on_down = "cut"
retries = { on = ["reset"] }
[pools.web.health]
path = "/ready"
interval = "500ms"
timeout = "500ms"
doubt_interval = "100ms"
fall = 2
"""
KINDS = {
    "tunnel": render_request("/tunnel", headers=["Connection: Upgrade", "Upgrade: echo"]),
    "stream": render_request("/stream"),
    "get": render_request("/get"),
    "post": render_request("/post", method="POST", body=b"x"),
}


class Checked:
    """A backend that says how it is, and keeps all requests but checks under way until it is released."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.ready = True
        self.tunnel_ended = False
        self.targets: list[str] = []
        self.backend: Backend = stage.open(name, self.serve)

    async def serve(self, connection: BackendConnection) -> None:
        name = self.backend.name.encode()
        while (request := await connection.read_request()) is not None:
            if request.target == "/ready":
                status = "200 OK" if self.ready else "503 Service Unavailable"
                await connection.send(text_response("so it is", status))
                continue
            self.targets.append(request.target)
            if request.target == "/tunnel":
                await connection.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                )
                while octets := await connection.receive():
                    await connection.send(name + b" " + octets)
                self.tunnel_ended = True
                return
            if request.target == "/stream":
                await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + name)
                await self.backend.released.wait()
                await connection.send(b"!")
                continue
            await self.backend.released.wait()
            await connection.send(text_response(self.backend.name))


def assert_reset(client: RawClient) -> None:
    with pytest.raises(ConnectionResetError):
        client.socket.recv(65536)


def echoed(client: RawClient) -> bytes:
    client.send(b"hello")
    return client.read_exactly(len(b"a hello"))


def test_what_a_backend_that_goes_down_has_under_way_is_cut_and_nothing_else(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    admin = Admin()
    sick, well = Checked(stage, "a"), Checked(stage, "b")
    server, address = start_web([sick.backend, well.backend], workers=2, pool=POOL, rest=admin.table)
    at: dict[str, dict[str, RawClient]] = {"a": {}, "b": {}}
    for kind, request in KINDS.items():
        for _ in range(2):  # turns are taken exactly, over all workers
            before = (len(sick.targets), len(well.targets))
            client = connect(address)
            client.send(request)
            wait_until(lambda: (len(sick.targets), len(well.targets)) != before, "it is under way")  # noqa: B023
            at["a" if len(sick.targets) > before[0] else "b"][kind] = client
            if kind == "tunnel":
                assert client.read_response().status == 101
            elif kind == "stream":
                while not client.socket.recv(65536).endswith((b"a", b"b")):
                    pass
    assert [len(clients) for clients in at.values()] == [len(KINDS)] * 2

    sick.ready = False
    assert_reset(at["a"]["tunnel"])
    assert_reset(at["a"]["stream"])
    refused = at["a"]["post"].read_response()
    assert refused.status == 502
    assert "error=destination_unavailable" in (refused.get("Proxy-Status") or "")
    wait_until(lambda: well.targets.count("/get") == 2, "what may be repeated is repeated elsewhere")
    wait_until(lambda: sick.tunnel_ended, "the backend sees the end of its tunnel")

    assert echoed(at["b"]["tunnel"]) == b"b hello"
    well.backend.release()
    assert at["b"]["stream"].socket.recv(65536) == b"!"
    assert [client.read_response().body for client in (at["a"]["get"], at["b"]["get"], at["b"]["post"])] == [
        b"b"
    ] * 3
    assert echoed(at["b"]["tunnel"]) == b"b hello"

    cut = re.findall(r" connections_cut .*backends=(\S+) connections=(\d+)", server.stderr())
    assert {backend for backend, _ in cut} == {f"web/{sick.backend.address}"}
    assert sum(int(count) for _, count in cut) == len(KINDS)
    assert admin.total("lbproc_failures_total", backend=sick.backend.address) == 0
    # All but the tunnel that goes on; each worker writes its lines in its own time.
    logged = {line["target"]: line for line in server.access_log(2 * len(KINDS) - 1) if line["cause"]}
    assert {line["cause"] for line in logged.values()} == {"destination_unavailable"}
    assert logged.keys() == {"/tunnel", "/stream", "/post"}
    at["b"]["tunnel"].close()
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
