"""The checks follow what is published, and a reload that is rehearsed finds its backends up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.health.checking import FIRST_CHECKS, LOOK, Checking
from lbproc.health.probe import Outcome, Probe
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import ControllerView, Role, SupervisorView
from lbproc.telemetry.log import open_error_log
from lbproc.types import Health


def make_config(**pools: str) -> Config:
    """Checked pools of one backend each."""
    return Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:0", "pool": next(iter(pools))}},
            "pools": {name: {"backends": [address], "health": {}} for name, address in pools.items()},
        }
    )


class Scene:
    """Checks over a real table, with a membership that the test publishes."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.log = open_error_log(directory / "error.log", "info", "controller")
        self.table = Table.create(
            Capacities(columns=8, backends=16, pools=8, keys=8, ledger=8, membership_bytes=4096)
        )
        self.supervisor = SupervisorView(self.table)
        self.column = self.supervisor.allocate_column(None, Role.CONTROLLER)
        self.view = ControllerView(self.table, self.column)
        self.membership = Membership(config, self.supervisor.ensure_row, self.supervisor.ensure_pool)
        self.checking = Checking(self.view, config, 1, self.log, self.probe)
        self.silent: set[str] = set()

    async def probe(self, probe: Probe) -> Outcome:
        if not probe.addresses:
            return Outcome(None, "not resolved", 0.0)
        if str(probe.addresses[0]) in self.silent:
            await trio.sleep(probe.timeout)
            return Outcome(False, "it is broken", probe.timeout)
        await trio.sleep(0.001)
        return Outcome(True, "", 0.001)

    def publish(self) -> None:
        self.supervisor.publish_membership(self.membership.encode())

    def health(self, pool: str, address: str) -> Health:
        return self.view.reader.status(self.supervisor.ensure_row(pool, address)).health

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.checking.run)
            yield
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        self.table.close()
        self.log.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, make_config(web="10.0.0.1:80"))
    yield made
    made.close()


async def test_the_start_has_first_results(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    scene.publish()
    began_at = trio.current_time()
    async with scene.running():
        assert scene.health("web", "10.0.0.1:80") is Health.UP
        assert trio.current_time() - began_at < 0.1
        assert [counts.passed for counts in scene.checking.counts()] == [1]


async def test_the_start_does_not_wait_for_long(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    scene.silent.add("10.0.0.1:80")
    scene.publish()
    began_at = trio.current_time()
    async with scene.running():
        assert scene.health("web", "10.0.0.1:80") is Health.CHECKING
        assert trio.current_time() - began_at == FIRST_CHECKS


async def test_what_is_published_is_followed(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    async with scene.running():
        assert scene.checking.counts() == []
        scene.publish()
        await trio.sleep(2 * LOOK)
        assert scene.health("web", "10.0.0.1:80") is Health.UP
        assert scene.view.reader.followed(Role.CONTROLLER) == [scene.view.membership_epoch()]


async def test_a_rehearsal_brings_new_backends_up_before_they_are_published(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.publish()
    new = make_config(web="10.0.0.1:80", api="10.0.0.2:80", far="name.test:80", lost="other.test:80")
    async with scene.running():
        await scene.checking.rehearse(new, 2, {})  # nothing has a row yet
        assert len(scene.checking.counts()) == 1
        following = scene.membership.prepare(new, 2)
        await scene.checking.rehearse(new, 2, {"name.test:80": ["10.0.0.3:80"]})
        assert scene.health("api", "10.0.0.2:80") is Health.UP
        assert scene.health("far", "name.test:80") is Health.UP
        assert scene.health("lost", "other.test:80") is Health.CHECKING
        scene.membership = following
        scene.publish()
        scene.checking.move(new, 2)
        assert len(scene.checking.counts()) == 4


async def test_a_rehearsal_that_comes_to_nothing_leaves_nothing(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.publish()
    new = make_config(web="10.0.0.1:80", api="10.0.0.2:80")
    async with scene.running():
        scene.membership.prepare(new, 2)
        await scene.checking.rehearse(new, 2, {})
        assert len(scene.checking.counts()) == 2
        scene.checking.forget(2)
        assert [counts.pool for counts in scene.checking.counts()] == ["web"]


async def test_nothing_is_said_to_be_followed_while_something_is_checked_that_no_publication_has(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.publish()
    new = make_config(web="10.0.0.1:80", api="10.0.0.2:80")
    async with scene.running():
        before = scene.view.membership_epoch()
        scene.membership.prepare(new, 2)
        await scene.checking.rehearse(new, 2, {})
        scene.publish()
        await trio.sleep(2 * LOOK)
        assert scene.view.reader.followed(Role.CONTROLLER) == [before]
        scene.checking.forget(2)
        assert scene.view.reader.followed(Role.CONTROLLER) == [scene.view.membership_epoch()]


async def test_what_has_come_to_nothing_already_is_not_rehearsed(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.publish()
    new = make_config(web="10.0.0.1:80", api="10.0.0.2:80")
    async with scene.running():
        scene.membership.prepare(new, 3)
        scene.supervisor.set_abandoned(2)
        await scene.checking.rehearse(new, 2, {})
        assert len(scene.checking.counts()) == 1
        await scene.checking.rehearse(new, 3, {})
        assert len(scene.checking.counts()) == 2


async def test_an_end_that_comes_late_leaves_the_next_rehearsal_alone(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """What is abandoned may still be under way when the next configuration is rehearsed."""
    scene.publish()
    first = make_config(web="10.0.0.1:80", lost="10.0.0.2:80")
    second = make_config(web="10.0.0.1:80", api="10.0.0.3:80")
    scene.silent |= {"10.0.0.2:80", "10.0.0.3:80"}
    rehearsed: list[int] = []

    async def rehearse(config: Config, generation: int) -> None:
        scene.membership.prepare(config, generation)
        await scene.checking.rehearse(config, generation, {})
        rehearsed.append(generation)

    async with scene.running(), trio.open_nursery() as nursery:
        nursery.start_soon(rehearse, first, 2)
        await trio.sleep(0.1)
        scene.checking.forget(2)
        nursery.start_soon(rehearse, second, 3)
        await trio.testing.wait_all_tasks_blocked()
        scene.checking.forget(2)
        await scene.checking.rehearse(first, 2, {})
        assert [counts.pool for counts in scene.checking.counts()] == ["web", "api"]
        assert 3 not in rehearsed, "its backend has not answered yet"
        await trio.sleep(FIRST_CHECKS + 0.1)
        assert sorted(rehearsed) == [2, 3]
        scene.checking.forget(3)
        assert [counts.pool for counts in scene.checking.counts()] == ["web"]


async def test_a_rehearsal_changes_nothing_about_known_backends(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """A pool that is not checked yet is not judged before its checks are in force."""
    scene.publish()
    new = make_config(web="10.0.0.1:80", old="10.0.0.2:80")
    scene.supervisor.ensure_row("old", "10.0.0.2:80")
    scene.silent.add("10.0.0.2:80")
    async with scene.running():
        await scene.checking.rehearse(new, 2, {})
        await trio.sleep(60)
        assert scene.health("old", "10.0.0.2:80") is Health.UP


async def test_what_is_published_during_a_rehearsal_does_not_end_it(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.publish()
    new = make_config(web="10.0.0.1:80", api="10.0.0.2:80")
    async with scene.running(), trio.open_nursery() as nursery:
        scene.silent.add("10.0.0.2:80")
        scene.membership.prepare(new, 2)
        nursery.start_soon(scene.checking.rehearse, new, 2, {})
        await trio.testing.wait_all_tasks_blocked()
        scene.publish()
        await trio.sleep(2 * LOOK)
        assert [counts.pool for counts in scene.checking.counts()] == ["web", "api"]


async def test_what_is_published_for_the_next_configuration_waits_for_it(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """A look between the publication and the word to follow must not call a dead backend up."""
    unchecked = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
            "pools": {"web": {"backends": ["10.0.0.1:80"]}},
        }
    )
    new = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
            "pools": {"web": {"backends": ["10.0.0.1:80", "10.0.0.2:80"], "health": {"fall": 1}}},
        }
    )
    scene.membership = Membership(unchecked, scene.supervisor.ensure_row, scene.supervisor.ensure_pool)
    scene.checking = Checking(scene.view, unchecked, 1, scene.log, scene.probe)
    scene.silent.add("10.0.0.2:80")
    scene.publish()
    async with scene.running():
        before = scene.view.membership_epoch()
        scene.membership = scene.membership.prepare(new, 2)
        await scene.checking.rehearse(new, 2, {})
        scene.publish()
        await trio.sleep(3 * LOOK)
        assert scene.health("web", "10.0.0.2:80") is Health.DOWN
        assert scene.view.reader.followed(Role.CONTROLLER) == [before]
        scene.checking.move(new, 2)
        assert scene.view.reader.followed(Role.CONTROLLER) == [before + 1]
        await trio.sleep(60)
        assert scene.health("web", "10.0.0.1:80") is Health.UP
        assert scene.health("web", "10.0.0.2:80") is Health.DOWN
