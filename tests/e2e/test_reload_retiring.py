"""Fewer workers: who is given up finishes what it holds, however long that takes; only a stop limits it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, fetch

if TYPE_CHECKING:
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import BackendConnection, Stage

pytestmark = pytest.mark.slow

DRAIN_TIMEOUT = 0.5
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


async def echo(connection: BackendConnection) -> None:
    """Switches protocols, and sends back what comes."""
    head = await connection.read_head()
    if head is None or b"Upgrade: x" not in head:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return
    await connection.send(SWITCHED)
    while octets := await connection.read_some():
        await connection.send(octets)


def passes(client: RawClient, octets: bytes) -> bool:
    client.send(octets)
    return client.read_exactly(len(octets)) == octets


def test_a_tunnel_of_a_retired_worker_outlasts_the_drain_timeout_and_ends_with_a_stop(
    stage: Stage, start_web: StartWeb
) -> None:
    server, address = start_web(
        [stage.open("a", echo)], workers=2, runtime=f'drain_timeout = "{DRAIN_TIMEOUT * 1000:.0f}ms"'
    )
    with ExitStack() as stack:
        tunnels = []
        while not all(worker["connections"] for worker in server.status()["workers"]):
            client = stack.enter_context(RawClient(address))
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            assert client.read_exactly(12) == b"HTTP/1.1 101"
            rest = b""
            while not rest.endswith(b"\r\n\r\n"):
                rest += client.read_exactly(1)
            tunnels.append(client)
        text = server.config_path.read_text()
        server.config_path.write_text(text.replace("workers = 2", "workers = 1"))
        assert server.run_command("reload").returncode == 0
        retired_at = time.perf_counter()
        states = [worker["state"] for worker in server.status()["workers"]]
        assert states == ["ready", "retired"]
        wait_until(lambda: time.perf_counter() > retired_at + 2 * DRAIN_TIMEOUT, "the limit of a stop")
        assert all(passes(client, b"still here") for client in tunnels)
        assert fetch(address).status == 200
        assert server.stop() == 0
        assert "drain_timed_out" in server.events()
        assert all(client.read_until_close() == b"" for client in tunnels)
