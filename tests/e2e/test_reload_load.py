"""Reloads under load: nothing that came is lost, nothing that goes on is disturbed, and nothing stays behind.

Two configurations take turns: other routes, pools, weights and policies, a listener that comes and goes, and
two workers or four.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from trio_websocket import serve_websocket

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.e2e.harness import LbprocServer, wait_until
from tests.e2e.memory import private_bytes
from tests.e2e.traffic import Connection, Traffic, connection_to, echo, stream_numbers
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

T = TypeVar("T")

TUNNELS = 20
STREAMS = 20
CLIENTS = 4
"""Of each kind: with kept connections and with new ones, to each of two targets."""

MEBIBYTE = 1 << 20

ALLOWED_GROWTH = 6 * MEBIBYTE
"""Of one worker, in all reloads after the first few."""

FIRST = """
[listeners.web]
bind = "127.0.0.1:{web}"
pool = "web"
[[listeners.web.routes]]
name = "streams"
match = {{ path = "/stream" }}
pool = "streams"
[[listeners.web.routes]]
name = "sockets"
match = {{ path = "/ws" }}
pool = "sockets"
[pools.web]
policy = "least_connections"
backends = ["{a}", "{b}"]
[pools.streams]
backends = ["{stream}"]
[pools.sockets]
backends = ["{ws}"]
"""

SECOND = """
[listeners.web]
bind = "127.0.0.1:{web}"
pool = "other"
timeouts = {{ idle = "50s" }}
[[listeners.web.routes]]
match = {{ path_prefix = "/api" }}
pool = "web"
[listeners.passing]
bind = "127.0.0.1:{passing}"
pool = "passing"
[pools.web]
policy = "round_robin"
backends = [{{ address = "{a}", weight = 3 }}, "{c}"]
[pools.other]
policy = "random"
backends = ["{b}"]
[pools.passing]
backends = ["{c}"]
"""


class Service:
    """The proxy, its two configurations, and what is expected of each."""

    def __init__(self, stage: Stage, websockets: str) -> None:
        self.web, self.passing = free_port(), free_port()
        addresses = {name: stage.open(name).address for name in "abc"}
        places = {
            "web": self.web,
            "passing": self.passing,
            "stream": stage.open("stream", stream_numbers).address,
            "ws": websockets,
            **addresses,
        }
        self.configs = [FIRST.format(**places), SECOND.format(**places)]
        self.expected = [{b"a", b"b"}, {b"a", b"c"}]
        """Who answers ``/api``."""
        self.workers = [4, 2]
        self.reloads = 0

    def start(self, start_lbproc: StartLbproc) -> None:
        self.server: LbprocServer = start_lbproc(self.configs[0], workers=self.workers[0])
        self._head = self.server.config_path.read_text().partition("[listeners.web]")[0]

    def reload(self) -> None:
        """Puts the other configuration in force."""
        self.reloads += 1
        turn = self.reloads % 2
        head = self._head.replace(f"workers = {self.workers[0]}", f"workers = {self.workers[turn]}")
        self.server.config_path.write_text(head + self.configs[turn])
        answer = ask(self.server.control_socket, ReloadRequest("", dry_run=False))
        assert answer["outcome"] == "done", answer

    async def check(self, kept: Connection) -> None:
        """After a reload every request goes by the new configuration, on connections old and new."""
        turn = self.reloads % 2
        message = await kept.request("/api")
        assert message.body in self.expected[turn], (turn, message)
        async with connection_to(self.web) as fresh:
            assert (await fresh.request("/api")).body in self.expected[turn]
        if turn:
            async with connection_to(self.passing) as passing:
                assert (await passing.request("/")).body == b"c"


async def in_thread(work: Callable[[], T]) -> T:
    """Does something that blocks, while the load goes on."""
    return await trio.to_thread.run_sync(work)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what the load brings about."""
    await in_thread(partial(wait_until, condition, "the load has come so far"))


async def run_reloads(service: Service, traffic: Traffic, reloads: int, nursery: trio.Nursery) -> list[int]:
    """Reloads so often under load. Returns how much memory each worker had gained at the end."""
    for number in range(STREAMS):
        nursery.start_soon(traffic.stream, service.web, f"stream {number}")
    for number in range(TUNNELS):
        nursery.start_soon(traffic.websocket, service.web, f"websocket {number}")
    for _ in range(CLIENTS):
        for target in ("/", "/api/1"):
            nursery.start_soon(traffic.keep_alive, service.web, target)
            nursery.start_soon(traffic.come_and_go, service.web, target)
        nursery.start_soon(partial(traffic.come_and_go, service.passing, "/", is_optional=True))
    await until(lambda: len(traffic.lives) == STREAMS + TUNNELS or bool(traffic.troubles))
    pids = service.server.worker_pids()[:2]
    before: list[int] = []
    for _ in range(reloads):
        if service.reloads == min(20, reloads // 2):
            before = [private_bytes(pid) for pid in pids]
        async with connection_to(service.web) as kept:
            await kept.request("/api")
            goal = traffic.answered + 50
            await in_thread(service.reload)
            await service.check(kept)
        await until(lambda: traffic.answered >= goal or bool(traffic.troubles))  # noqa: B023  awaited here
        assert not traffic.troubles
    assert service.server.worker_pids()[:2] == pids, "no worker was replaced"
    return [private_bytes(pid) - had for pid, had in zip(pids, before, strict=True)]


@pytest.mark.parametrize("reloads", [6, pytest.param(200, marks=pytest.mark.soak)])
async def test_no_request_fails_and_nothing_long_is_disturbed(
    stage: Stage, start_lbproc: StartLbproc, reloads: int
) -> None:
    traffic = Traffic()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, echo, "127.0.0.1", 0, None)
        service = await in_thread(partial(Service, stage, f"127.0.0.1:{server.port}"))
        await in_thread(partial(service.start, start_lbproc))
        grown = await run_reloads(service, traffic, reloads, nursery)
        lived = dict(traffic.lives)
        await until(
            lambda: (
                all(traffic.lives[name] > count for name, count in lived.items()) or bool(traffic.troubles)
            )
        )
        assert not traffic.troubles
        nursery.cancel_scope.cancel()
    assert max(grown) < ALLOWED_GROWTH, f"{grown} bytes in {reloads} reloads"
    assert service.server.status()["generation"] == 1 + reloads
    await trio.to_thread.run_sync(
        lambda: wait_until(lambda: not sum(service.server.in_flight().values()), "all ended")
    )
