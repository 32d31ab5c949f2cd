"""The controller over a real channel and table: beats, resolves, serves the admin listener, leaves."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from lbproc.boot import ControllerBoot
from lbproc.config.model import BackendConfig, Config
from lbproc.config.sealed import open_memory, seal
from lbproc.controller import BEAT, Controller, run_controller
from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import (
    Abandon,
    Follow,
    Following,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    ReopenLogs,
    Resolved,
    Stop,
)
from lbproc.net.channel import SupervisorChannel, open_pair
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import ProcessState, Role, SupervisorView
from lbproc.telemetry.log import open_error_log
from lbproc.telemetry.sink import Sink
from lbproc.types import TcpAddress


class Scene:
    """A controller and what the supervisor holds of it."""

    def __init__(self, directory: Path, backend: str = "127.0.0.1:80", token: str | None = None) -> None:
        self.log_path = directory / "error.log"
        admin = {"bind": "127.0.0.1:0"} | ({"token": token} if token else {})
        self.config = Config.model_validate(
            {
                "admin": admin,
                "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
                "pools": {"web": {"backends": [backend]}},
            }
        )
        self.table = Table.create(
            Capacities(columns=8, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096)
        )
        self.view = SupervisorView(self.table)
        self.membership = Membership(self.config, self.view.ensure_row, self.view.ensure_pool)
        self.column = self.view.allocate_column(None, Role.CONTROLLER)
        ours, self.theirs = open_pair()
        self.channel = SupervisorChannel(ours)
        self.admin = socket.create_server(("127.0.0.1", 0))
        self.address = self.admin.getsockname()
        self.log = open_error_log(self.log_path, "info", "controller")
        self.heard: list[Message] = []
        self.status: int | None = None

    def boot(self, has_admin: bool = True) -> ControllerBoot:
        admin = self.admin if has_admin else None
        return ControllerBoot(self.column, self.table, self.config, admin, self.theirs, self.log, 1)

    async def lookup(self, name: TcpAddress) -> Sequence[TcpAddress]:
        return [TcpAddress("10.0.0.1", name.port)]

    @asynccontextmanager
    async def running(self, has_admin: bool = True) -> AsyncIterator[None]:
        controller = Controller(self.boot(has_admin), self.lookup)

        async def run() -> None:
            self.status = await controller.main()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with trio.fail_after(10):
                while Ready() not in self.heard:
                    await trio.lowlevel.wait_readable(self.channel.socket)
                    self.heard += self.channel.receive()
            yield
            self.channel.close()

    async def get(self, path: str, head: str = "") -> bytes:
        async with await trio.open_tcp_stream(*self.address) as stream:
            await stream.send_all(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode()
            )
            return b"".join([bytes(octets) async for octets in stream])

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        self.admin.close()
        self.table.close()
        self.log.close()


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(backend: str = "127.0.0.1:80", token: str | None = None) -> Scene:
        scenes.append(Scene(tmp_path, backend, token))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()


async def test_it_is_ready_and_beats(scene: Scene) -> None:
    born_at = scene.view.heartbeat_at(scene.column)
    async with scene.running():
        assert scene.heard == [Ready()]
        assert scene.view.reader.column(scene.column).state is ProcessState.READY
        assert scene.view.heartbeat_at(scene.column) > born_at
    assert scene.status == 0


async def test_it_goes_on_beating(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    async with scene.running(has_admin=False):
        before = scene.view.heartbeat_at(scene.column)
        await trio.sleep(1.5 * BEAT)
        assert scene.view.heartbeat_at(scene.column) > before


async def test_names_are_told_before_it_is_ready(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene("name.test:80")
    scene.view.publish_membership(scene.membership.encode())
    async with scene.running():
        assert scene.heard == [Resolved({"name.test:80": ["10.0.0.1:80"]}), Ready()]


async def test_names_that_operators_add_are_resolved(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.view.publish_membership(scene.membership.encode())
    added = BackendConfig.model_validate("name.test:80")
    async with scene.running():
        membership = scene.membership
        membership.override(membership.overrides.with_backend("web", membership.config.pools["web"], added))
        epoch = scene.view.publish_membership(membership.encode())
        with trio.fail_after(10):
            while len(scene.heard) < 2:
                await trio.lowlevel.wait_readable(scene.channel.socket)
                scene.heard += scene.channel.receive()
            while scene.view.reader.followed(Role.CONTROLLER) != [epoch]:  # noqa: ASYNC110 - a word of the table
                await trio.sleep(0.01)
        assert scene.heard == [Ready(), Resolved({"name.test:80": ["10.0.0.1:80"]})]


async def test_of_the_next_generation_names_and_metrics_count_at_once_and_checks_wait(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene()
    epoch = scene.view.publish_membership(scene.membership.encode())
    tables = scene.config.model_dump(mode="python", include={"listeners"})
    following = Config.model_validate({**tables, "pools": {"web": {"backends": ["name.test:80"]}}})
    async with scene.running():
        scene.view.publish_membership(scene.membership.prepare(following, 2).encode())
        assert b'lbproc_in_flight{backend="name.test:80",pool="web"} 0.0' in await scene.get("/metrics")
        with trio.fail_after(10):
            while len(scene.heard) < 2:
                await trio.lowlevel.wait_readable(scene.channel.socket)
                scene.heard += scene.channel.receive()
        assert scene.heard == [Ready(), Resolved({"name.test:80": ["10.0.0.1:80"]})]
        assert scene.view.reader.followed(Role.CONTROLLER) == [epoch]


async def test_metrics_follow_the_published_membership(scene: Scene) -> None:
    async with scene.running():
        assert b"127.0.0.1:80" not in await scene.get("/metrics")
        scene.view.publish_membership(scene.membership.encode())
        for _ in range(2):
            assert b'lbproc_in_flight{backend="127.0.0.1:80",pool="web"} 0.0' in await scene.get("/metrics")
        assert (await scene.get("/healthz")).startswith(b"HTTP/1.1 503")


async def test_the_token_is_asked_for(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(token="hush")
    async with scene.running():
        assert (await scene.get("/metrics")).startswith(b"HTTP/1.1 401")
        assert (await scene.get("/metrics", "Authorization: Bearer hush\r\n")).startswith(b"HTTP/1.1 200")


async def test_it_reopens_its_log_and_stops_when_told(scene: Scene, tmp_path: Path) -> None:
    async with scene.running():
        scene.log_path.rename(tmp_path / "old.log")
        scene.channel.send(ReopenLogs())
        scene.channel.send(Stop(now=False))
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(scene.channel.socket)
    assert scene.status == 0
    assert scene.log_path.exists()
    assert "supervisor_lost" not in scene.log_path.read_text()


async def say(scene: Scene, message: Message, *descriptors: int) -> Message:
    """Says something to the controller; returns its next answer."""
    scene.heard.clear()
    scene.channel.send(message, descriptors)
    with trio.fail_after(10):
        while not scene.heard or isinstance(scene.heard[-1], Resolved):
            await trio.lowlevel.wait_readable(scene.channel.socket)
            scene.heard += scene.channel.receive()
    return scene.heard[-1]


def sealed(config: Config) -> int:
    memory = open_memory()
    seal(memory, config)
    return memory


def prepare(generation: int, *, error_log: bool = False) -> Prepare:
    return Prepare(generation, 1, (), (), access_log=False, error_log=error_log)


async def test_a_reload_resolves_new_names_first_and_changes_token_and_log(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene(token="hush")
    changed = {"admin": {"bind": "127.0.0.1:0", "token": "other"}, "log": {"level": "error"}}
    tables = scene.config.model_dump(mode="python", include={"listeners"})
    pools = {"web": {"backends": ["name.test:80"]}}
    config = Config.model_validate({**tables, **changed, "pools": pools})
    fresh = Sink(tmp_path / "fresh.log")
    memory = sealed(config)
    async with scene.running():
        assert await say(scene, prepare(2, error_log=True), memory, fresh.fileno()) == Prepared(2)
        assert Resolved({"name.test:80": ["10.0.0.1:80"]}) in scene.heard
        assert (await scene.get("/metrics", "Authorization: Bearer hush\r\n")).startswith(b"HTTP/1.1 200")
        assert await say(scene, Follow(2)) == Following(2)
        assert (await scene.get("/metrics", "Authorization: Bearer hush\r\n")).startswith(b"HTTP/1.1 401")
        assert (await scene.get("/metrics", "Authorization: Bearer other\r\n")).startswith(b"HTTP/1.1 200")
        assert scene.view.reader.column(scene.column).generation == 2
    os.close(memory)
    fresh.close()
    assert "supervisor_lost" not in scene.log_path.read_text(), "the log went elsewhere"


async def test_what_cannot_be_read_is_refused_and_what_is_abandoned_is_not_followed(scene: Scene) -> None:
    memory, empty = sealed(scene.config), open_memory()
    async with scene.running():
        assert await say(scene, prepare(2), empty) == Refused(2, "the new configuration is not sealed")
        assert await say(scene, prepare(3), memory) == Prepared(3)
        scene.channel.send(Abandon(3))
        scene.channel.send(Follow(3))
        assert await say(scene, prepare(4), memory) == Prepared(4)
        assert await say(scene, Follow(4)) == Following(4)
    for descriptor in (memory, empty):
        os.close(descriptor)


async def test_what_is_abandoned_while_names_are_looked_up_is_not_rehearsed(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene()
    tables = scene.config.model_dump(mode="python", include={"listeners"})
    pools = {"web": {"backends": ["slow.test:80", "127.0.0.1:9"], "health": {"check": "tcp"}}}
    slow = Config.model_validate({**tables, "admin": {"bind": "127.0.0.1:0"}, "pools": pools})
    memories = sealed(slow), sealed(scene.config)
    answered = trio.Event()

    async def look_up(name: TcpAddress) -> Sequence[TcpAddress]:
        await answered.wait()
        return []

    scene.lookup = look_up  # type: ignore[method-assign]
    async with scene.running():
        row = scene.view.ensure_row("web", "127.0.0.1:9")
        scene.channel.send(prepare(2), [memories[0]])
        scene.channel.send(Abandon(2))
        assert await say(scene, prepare(3), memories[1]) == Prepared(3)
        answered.set()
        assert await say(scene, Follow(3)) == Following(3)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.view.reader.checks(row).checked_at == 0
    for memory in memories:
        os.close(memory)


async def test_it_leaves_when_the_supervisor_is_gone(scene: Scene) -> None:
    async with scene.running():
        scene.channel.close()
    assert scene.status == 0
    assert "supervisor_lost" in scene.log_path.read_text()


async def test_a_supervisor_that_dies_during_the_boot_is_noticed(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene("name.test:80")
    scene.channel.close()
    with trio.fail_after(5):
        assert await Controller(scene.boot(), scene.lookup).main() == 0


def test_it_runs_as_a_process_main(scene: Scene) -> None:
    scene.channel.send(Stop(now=True))
    assert run_controller(scene.boot()) == 0
