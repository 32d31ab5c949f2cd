"""Slow start in virtual time: each policy gives a backend the share that the documented curve says."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from lbproc.core.http.head import parse_request_head
from lbproc.core.http.strict import HeadLimits
from lbproc.core.slow_start import FULL, level
from lbproc.proxy.balancer import Balancer, Lease
from lbproc.types import Health, Row

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig

SECOND = 1_000_000_000
SLOW_START = 30 * SECOND
START = 1000 * SECOND
REQUEST = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadLimits())
BACKENDS = [f"127.0.0.1:{9001 + number}" for number in range(3)]


class Scene:
    """One worker of a pool of three, of which some have started."""

    def __init__(self, make_rig: MakeRig, policy: str, started: dict[int, int], **pool: object) -> None:
        self.now = START
        backends = pool.pop("backends", BACKENDS)
        self.rig: Rig = make_rig(pool={"backends": backends, "policy": policy, "slow_start": "30s", **pool})
        self.rig.context.stamp = lambda: self.now
        for number in range(3):
            self.rig.supervisor.start_row(Row(number), started.get(number, 1))
        self.rig.supervisor.publish_membership(self.rig.view.read_membership()[1])
        self.balancer: Balancer = self.rig.runtime.pools["web"]
        self.balancer.look()

    def at(self, seconds: float) -> Scene:
        """So many seconds after the start."""
        self.now = START + round(seconds * SECOND)
        self.balancer.look()
        return self

    def picked(self, count: int, *, held: int = 0) -> list[int]:
        """Who gets the next requests, while so many are under way."""
        seen: Counter[int] = Counter()
        under_way: list[Lease] = []
        for turn in range(count + held):
            lease = self.balancer.take(REQUEST, f"198.51.{turn >> 8}.{turn & 255}", ())
            assert isinstance(lease, Lease)
            under_way.append(lease)
            if turn >= held:
                seen[lease.backend.candidate.index] += 1
                under_way.pop(0).release()
        for lease in under_way:
            lease.release()
        return [seen[index] for index in range(3)]


MOMENTS = [0, 1.7, 5, 10, 15, 20, 25, 28.4, 29.9, 30, 100]


def level_at(seconds: float) -> int:
    return level(START, SLOW_START, START + round(seconds * SECOND))


@pytest.mark.parametrize("seconds", MOMENTS)
async def test_round_robin_gives_exactly_the_share_of_the_curve(make_rig: MakeRig, seconds: float) -> None:
    scene = Scene(make_rig, "round_robin", {0: START}).at(seconds)
    twentieths = level_at(seconds)
    assert scene.picked(10 * (2 * FULL + twentieths)) == [10 * twentieths, 10 * FULL, 10 * FULL]


@pytest.mark.parametrize("seconds", MOMENTS)
async def test_least_connections_holds_requests_in_the_shares_of_the_curve(
    make_rig: MakeRig, seconds: float
) -> None:
    """With as many under way as all effective weights together each holds its weight, exactly."""
    scene = Scene(make_rig, "least_connections", {0: START}).at(seconds)
    twentieths = level_at(seconds)
    held = [0, 0, 0]
    for _ in range(2 * FULL + twentieths):
        lease = scene.balancer.take(REQUEST, "", ())
        assert isinstance(lease, Lease)
        held[lease.backend.candidate.index] += 1
    assert held == [twentieths, FULL, FULL]


@pytest.mark.parametrize("seconds", [0, 10, 20, 30])
@pytest.mark.parametrize("policy", ["random", "power_of_two", "ip_hash", "consistent_hash"])
async def test_policies_that_draw_or_hash_follow_the_curve_within_four_deviations(
    make_rig: MakeRig, policy: str, seconds: float
) -> None:
    scene = Scene(make_rig, policy, {0: START}).at(seconds)
    twentieths, count = level_at(seconds), 8000
    share = twentieths / (2 * FULL + twentieths)
    deviation = (count * share * (1 - share)) ** 0.5
    # power_of_two prefers the one with the lower load for its weight, which evens out further.
    assert abs(scene.picked(count, held=200)[0] - count * share) <= 4 * deviation


async def test_a_weight_is_a_share_of_the_operators_weight(make_rig: MakeRig) -> None:
    backends = [{"address": BACKENDS[0], "weight": 4}, BACKENDS[1], {"address": BACKENDS[2], "weight": 0}]
    scene = Scene(make_rig, "round_robin", {0: START}, backends=backends).at(10)
    assert level_at(10) == 8
    assert scene.picked(52) == [32, 20, 0]


async def test_when_all_have_just_started_traffic_is_spread_as_usual(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START, 1: START, 2: START})
    for seconds in MOMENTS:
        assert scene.at(seconds).picked(30) == [10, 10, 10]


async def test_two_that_start_apart_each_have_their_own_share(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START, 1: START - 15 * SECOND}).at(0)
    assert scene.picked(2 + 11 + 20) == [2, 11, 20]


async def test_the_only_one_that_is_available_gets_everything(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START})
    for row in (1, 2):
        scene.rig.table.change_status(scene.rig.table.layout.in_row(Row(row), "health"), Health.DOWN)
    assert scene.at(0).picked(10) == [10, 0, 0]


async def test_recovery_and_return_begin_it_at_the_next_pick(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {})
    assert scene.picked(30) == [10, 10, 10]
    table = scene.rig.table
    scene.rig.supervisor.start_row(Row(1), scene.now)
    table.change_status(table.layout.in_row(Row(1), "health"), Health.STARTING)
    assert scene.picked(42) == [20, 2, 20]
    scene.now += SLOW_START
    scene.balancer.look()
    assert scene.picked(30) == [10, 10, 10]


async def test_a_return_from_ejection_is_slow(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {}, outlier={"consecutive_errors": 1, "eject_for": "10s"})
    backend = scene.balancer.backends[2]
    assert backend.outlier is not None
    backend.outlier.failed(backend, "test")
    assert scene.at(9.9).picked(20) == [10, 10, 0]
    assert scene.at(10.1).picked(42) == [20, 20, 2]


async def test_progress_is_kept_by_a_worker_that_comes_later(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START}).at(10)
    scene.balancer = scene.rig.sibling().pools["web"]
    assert scene.picked(48) == [8, 20, 20]


async def test_shares_follow_the_straight_line_all_the_way(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START})
    for tenth in range(0, 310, 5):
        first, second, _ = scene.at(tenth / 10).picked(40 + level_at(tenth / 10))
        line = Fraction(1, 10) + Fraction(9, 10) * min(Fraction(tenth, 300), Fraction(1))
        assert line - Fraction(1, FULL) < Fraction(first, second) <= line


async def test_without_slow_start_nobody_starts_slowly(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {0: START}, slow_start="0s")
    assert scene.picked(30) == [10, 10, 10]


# Panic ------------------------------------------------------------------------------------------------------


def take_down(scene: Scene, *rows: int, health: Health = Health.DOWN) -> None:
    for row in rows:
        scene.rig.table.change_status(scene.rig.table.layout.in_row(Row(row), "health"), health)


async def test_panic_is_told_once_by_whoever_sees_it_first_and_so_is_its_end(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {}, panic_threshold=0.5)
    sibling = scene.rig.sibling()
    take_down(scene, 0, 1)
    for _ in range(2):
        scene.balancer.look()
        sibling.look()
    assert scene.rig.reader.panic(scene.balancer.pool_index)
    assert scene.picked(30) == [10, 10, 10]
    take_down(scene, 0, health=Health.UP)
    scene.balancer.look()
    sibling.look()
    assert not scene.rig.reader.panic(scene.balancer.pool_index)
    assert scene.picked(30) == [15, 0, 15]
    log = scene.rig.log_path.read_text()
    assert log.count(" pool_panic ") == 1
    assert log.count(" pool_calm ") == 1


async def test_a_worker_that_comes_later_ends_a_panic_that_is_over(make_rig: MakeRig) -> None:
    scene = Scene(make_rig, "round_robin", {}, panic_threshold=0.5)
    word = scene.rig.table.layout.pools.at(scene.balancer.pool_index, "panic")
    scene.rig.table.words.store(word, 1)  # left by workers that died
    scene.rig.sibling()
    assert not scene.rig.reader.panic(scene.balancer.pool_index)
