"""The prober over a real table in virtual time: what is noticed when, and what a change of plan leads to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from lbproc.config.model import Config
from lbproc.core.health import SOON, Subject
from lbproc.health.probe import Outcome, Probe
from lbproc.health.prober import UNDER_WAY, Prober
from lbproc.health.targets import Member
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import ControllerView, Role, SupervisorView
from lbproc.telemetry.log import open_error_log
from lbproc.types import Health, Liveness

HEALTH = {"interval": "2s", "timeout": "1s", "rise": 2, "fall": 3}
BOUND = 3 * (2.0 + 1.0)


def make_config(health: dict[str, Any] | None = HEALTH, pools: Sequence[str] = ("web",)) -> Config:
    pool = {"backends": ["10.0.0.1:80"]} | ({} if health is None else {"health": health})
    return Config.model_validate(
        {"listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}}, "pools": dict.fromkeys(pools, pool)}
    )


Behaviour = Callable[[Probe], Awaitable[bool | None]]


async def fine(probe: Probe) -> bool:
    await trio.sleep(0.01)
    return True


async def refusing(probe: Probe) -> bool:
    await trio.sleep(0.02)
    return False


async def hanging(probe: Probe) -> bool:
    await trio.sleep(probe.timeout)
    return False


async def unknown(probe: Probe) -> None:
    await trio.lowlevel.checkpoint()


class Scene:
    """A prober, its table, and backends that behave as the test says."""

    def __init__(self, directory: Path, rows: int = 16) -> None:
        self.log_path = directory / "error.log"
        self.log = open_error_log(self.log_path, "debug", "controller")
        self.table = Table.create(
            Capacities(columns=8, backends=rows, pools=8, keys=8, ledger=8, membership_bytes=4096)
        )
        self.supervisor = SupervisorView(self.table)
        self.view = ControllerView(self.table, self.supervisor.allocate_column(None, Role.CONTROLLER))
        self.behaviour: dict[str, Behaviour] = {}
        self.begun: list[tuple[str, float]] = []
        self.under_way = self.most_under_way = 0
        self.prober = self.make_prober()

    def make_prober(self) -> Prober:
        return Prober(self.view, self.log, random.Random(7), self.probe)

    async def probe(self, probe: Probe) -> Outcome:
        began_at = trio.current_time()
        target = getattr(probe.question, "target", "")
        name = str(probe.addresses[0]) if probe.addresses else ""
        self.begun.append((f"{name}{target}", began_at))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            behaviour = self.behaviour.get(f"{name}{target}") or self.behaviour.get(name, fine)
            passed = await behaviour(probe)
        finally:
            self.under_way -= 1
        return Outcome(passed, "" if passed else "it is broken", trio.current_time() - began_at)

    def member(
        self, number: int, initial: Health = Health.CHECKING, pool: str = "web", resolved: bool = True
    ) -> Member:
        address = f"10.0.{number >> 8}.{number & 255}:80"
        row = self.supervisor.ensure_row(pool, address, initial)
        return Member(pool, f"b{number}", address, row, (address,) if resolved else ())

    def health(self, member: Member) -> Health:
        return self.view.reader.status(member.row).health

    def behave(self, member: Member, behaviour: Behaviour) -> None:
        self.behaviour[member.address] = behaviour

    async def until(self, member: Member, health: Health) -> float:
        """Waits for a health; gives the instant at which it was there."""
        with trio.fail_after(1000):
            while self.health(member) is not health:  # noqa: ASYNC110 - the table tells nobody
                await trio.sleep(0.02)
        return trio.current_time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.prober.run)
            yield nursery
            nursery.cancel_scope.cancel()

    def events(self) -> list[str]:
        """What the log says, without times and levels."""
        return [line.split(" ", 3)[3] for line in self.log_path.read_text().splitlines()]

    def close(self) -> None:
        self.table.close()
        self.log.close()


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(rows: int = 16) -> Scene:
        scenes.append(Scene(tmp_path, rows))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()


async def test_the_first_good_check_brings_a_backend_up_at_once(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = scene.member(1), scene.member(2)
    scene.behave(two, hanging)
    async with scene.running():
        scene.prober.follow(make_config(), [one, two])
        await trio.sleep(0.05)
        assert (scene.health(one), scene.health(two)) == (Health.UP, Health.CHECKING)
        assert scene.view.reader.checks(one.row).checked_at > 0
        await scene.until(two, Health.DOWN)
    assert "backend_up pool=web backend=b1 was=checking" in scene.events()[0]


@pytest.mark.parametrize("behaviour", [refusing, hanging])
@pytest.mark.parametrize("seed", range(5))
async def test_a_death_is_noticed_in_time_and_a_recovery_too(
    scene: Scene, autojump_clock: trio.testing.MockClock, behaviour: Behaviour, seed: int
) -> None:
    member = scene.member(1, Health.UP)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await trio.sleep(10 + random.Random(seed).random() * 5)
        died_at = trio.current_time()
        scene.behave(member, behaviour)
        assert await scene.until(member, Health.DOWN) - died_at <= BOUND + 0.01
        await trio.sleep(60)
        back_at = trio.current_time()
        scene.behave(member, fine)
        # one span of being down, until the first probe that passes, and one of doubt
        assert await scene.until(member, Health.UP) - back_at <= 4.0 + 1.0 + 1.0 + 0.1


async def test_every_change_bumps_the_status_epoch_and_nothing_else_does(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1)
    epoch = scene.table.layout.in_header("status_epoch")
    async with scene.running():
        scene.prober.follow(make_config({**HEALTH, "liveness_path": "/livez"}), [member])
        await trio.sleep(1)
        assert scene.health(member) is Health.UP
        before = scene.table.words.load(epoch)
        await trio.sleep(100)
        assert scene.table.words.load(epoch) == before
        scene.behave(member, refusing)
        await scene.until(member, Health.DOWN)
        assert scene.table.words.load(epoch) == before + 1


async def test_health_outlives_the_controller(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    down, up = scene.member(1), scene.member(2)
    scene.behave(down, refusing)
    async with scene.running():
        scene.prober.follow(make_config(), [down, up])
        await scene.until(down, Health.DOWN)
    scene.prober = scene.make_prober()
    scene.behave(down, fine)
    async with scene.running():
        scene.prober.follow(make_config(), [down, up])
        assert (scene.health(down), scene.health(up)) == (Health.DOWN, Health.UP)
        await scene.until(down, Health.UP)


async def test_readiness_and_liveness_are_told_apart(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1)
    scene.behaviour[f"{member.address}/ready"] = refusing
    config = make_config({**HEALTH, "path": "/ready", "liveness_path": "/livez"})
    async with scene.running():
        scene.prober.follow(config, [member])
        await scene.until(member, Health.DOWN)
        assert scene.view.reader.checks(member.row).liveness is Liveness.ALIVE
        scene.behave(member, hanging)
        await trio.sleep(30)
        assert scene.view.reader.checks(member.row).liveness is Liveness.DEAD
        counts = {counts.subject: counts for counts in scene.prober.counts()}
        assert counts[Subject.READINESS].passed == 0
        assert counts[Subject.LIVENESS].passed > 0
        assert counts[Subject.LIVENESS].failed > 0
        assert counts[Subject.LIVENESS].reason == "it is broken"
        scene.prober.follow(make_config(), [member])  # nobody asks about it any more
        assert scene.view.reader.checks(member.row).liveness is Liveness.UNKNOWN
    told = [event for event in scene.events() if event.startswith(("backend_alive", "backend_dead"))]
    assert told == [
        "backend_alive pool=web backend=b1",
        'backend_dead pool=web backend=b1 reason="it is broken"',
    ]


async def test_a_backend_that_comes_is_checked_and_one_that_goes_is_not(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = scene.member(1), scene.member(2)
    async with scene.running():
        scene.prober.follow(make_config(), [one])
        await trio.sleep(5)
        scene.prober.follow(make_config(), [two])
        scene.begun.clear()
        await trio.sleep(20)
        assert {name for name, _ in scene.begun} == {f"{two.address}/"}
        assert scene.health(two) is Health.UP


async def test_what_stays_keeps_its_counts_when_it_is_asked_for_in_another_way(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1, Health.UP)
    scene.behave(member, refusing)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        while sum(counts.failed for counts in scene.prober.counts()) < 2:  # noqa: ASYNC110 - likewise
            await trio.sleep(0.01)
        scene.prober.follow(make_config({**HEALTH, "path": "/other"}), [member])
        await scene.until(member, Health.DOWN)
        assert [counts.failed for counts in scene.prober.counts()] == [3]
        assert scene.begun[-1][0].endswith("/other")


async def test_the_same_again_disturbs_no_probe(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    member = scene.member(1, Health.UP)
    scene.behave(member, hanging)
    async with scene.running():
        for _ in range(300):
            scene.prober.follow(make_config(), [member])
            await trio.sleep(0.05)
        assert scene.health(member) is Health.DOWN


async def test_a_row_that_became_another_one_begins_anew(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1, Health.UP)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await trio.sleep(5)
        moved = scene.member(2)._replace(address=member.address, resolved=member.resolved)
        scene.behave(moved, hanging)
        scene.prober.follow(make_config(), [moved])
        await trio.lowlevel.checkpoint()
        assert scene.health(moved) is Health.CHECKING
        await scene.until(moved, Health.DOWN)


async def test_backends_are_up_when_checks_go_and_lose_nothing_when_checks_come(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1)
    scene.behave(member, refusing)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await scene.until(member, Health.DOWN)
        scene.prober.follow(make_config(None), [member])
        assert scene.health(member) is Health.UP
        scene.prober.follow(make_config(), [member])
        await trio.sleep(0.01)
        assert scene.health(member) is Health.UP
        await scene.until(member, Health.DOWN)
    assert any("no longer checked" in event for event in scene.events())


async def test_a_probe_that_ends_as_it_is_given_up_writes_nothing(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    """The row of a backend that is gone may be another's by then."""
    member = scene.member(1)

    async def deaf(probe: Probe) -> bool:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)
        return True

    scene.behave(member, deaf)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await trio.sleep(0.2)
        scene.prober.follow(make_config(), [])
        await trio.sleep(1)
        assert scene.health(member) is Health.CHECKING


async def test_a_pool_that_is_gone_is_not_checked(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1, pool="old")
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await trio.sleep(5)
    assert scene.begun == []


async def test_a_probe_that_cannot_be_made_counts_for_nothing(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    up, new = scene.member(1, Health.UP), scene.member(2)
    for member in (up, new):
        scene.behave(member, unknown)
    async with scene.running():
        scene.prober.follow(make_config(), [up, new])
        await trio.sleep(60)
        assert (scene.health(up), scene.health(new)) == (Health.UP, Health.CHECKING)
    assert any(event.startswith("health_check_impossible") for event in scene.events())


async def test_a_name_that_is_resolved_at_last_is_probed_at_once(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1, resolved=False)
    scene.behaviour[""] = unknown
    async with scene.running():
        scene.prober.follow(make_config({**HEALTH, "interval": "60s", "timeout": "1s"}), [member])
        await trio.sleep(5)
        scene.prober.follow(
            make_config({**HEALTH, "interval": "60s", "timeout": "1s"}),
            [member._replace(resolved=("10.0.0.9:80",))],
        )
        await trio.sleep(0.1)
        assert scene.health(member) is Health.UP


async def test_a_start_waits_for_first_results_but_not_for_long(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = scene.member(1), scene.member(2)
    async with scene.running():
        scene.prober.follow(make_config(), [one])
        await scene.prober.settle(10.0)
        assert scene.health(one) is Health.UP
        scene.behave(two, hanging)
        scene.prober.follow(make_config(), [one, two])
        began_at = trio.current_time()
        await scene.prober.settle(0.5)
        assert trio.current_time() - began_at == 0.5
        await scene.prober.settle(10.0)
        assert trio.current_time() - began_at < 1.2
        three = scene.member(3)
        scene.behave(three, hanging)
        scene.prober.follow(make_config(), [one, two, three])
        scene.prober.follow(make_config(), [one, two])
        await scene.prober.settle(10.0)
        assert trio.current_time() - began_at < 1.2


def most_within(times: Sequence[float], span: float) -> int:
    """The most of some instants that lie within a span."""
    ordered = sorted(times)
    return max(
        sum(first <= at < first + span for at in ordered[place:]) for place, first in enumerate(ordered)
    )


@pytest.mark.slow
@pytest.mark.parametrize("initial", [Health.CHECKING, Health.UP])
async def test_a_thousand_backends_are_no_burst(
    make_scene: Callable[..., Scene], autojump_clock: trio.testing.MockClock, initial: Health
) -> None:
    scene = make_scene(1024)
    members = [scene.member(number, initial) for number in range(1000)]
    async with scene.running():
        scene.prober.follow(make_config(), members)
        await trio.sleep(SOON + 0.1)
        assert all(scene.health(member) is Health.UP for member in members)
        await trio.sleep(30)
        span = 2.0 if initial is Health.UP else SOON
        first = list(dict(reversed(scene.begun)).values())
        assert most_within(first, span / 10) <= 1000 / 10 + 2
        times = [at for _, at in scene.begun]
        # Jitter shortens each span by itself, so they drift apart and never come together again.
        later = [at for at in times if at > times[0] + 20]
        assert most_within(later, 0.1) <= 2.5 * 1000 * 0.1 / (2.0 * 0.95)
        assert scene.most_under_way < 100


@pytest.mark.slow
async def test_no_more_probes_than_that_are_under_way_at_once(
    make_scene: Callable[..., Scene], autojump_clock: trio.testing.MockClock
) -> None:
    scene = make_scene(2048)
    members = [scene.member(number, Health.UP) for number in range(1500)]
    for member in members:
        scene.behave(member, hanging)
    async with scene.running():
        scene.prober.follow(make_config({**HEALTH, "interval": "1s", "timeout": "1s"}), members)
        await trio.sleep(10)
        assert scene.most_under_way == UNDER_WAY
        assert all(scene.health(member) is Health.DOWN for member in members)


async def test_a_table_that_says_something_else_than_was_decided_is_set_right(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    member = scene.member(1)
    scene.behave(member, refusing)
    async with scene.running():
        scene.prober.follow(make_config(), [member])
        await scene.until(member, Health.DOWN)
        scene.view.set_health(member.row, Health.UP)
        await trio.sleep(2 * BOUND)
        assert scene.health(member) is Health.DOWN
