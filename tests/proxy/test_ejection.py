"""Passive checks over a real table, in virtual time: who is ejected, when, for how long, and who returns."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.core.http.head import parse_request_head
from lbproc.core.http.strict import HeadLimits
from lbproc.core.pick import NoBackend
from lbproc.proxy.balancer import Balancer, Lease
from lbproc.proxy.ejection import PassiveChecks
from lbproc.shm.ejections import Ejections
from lbproc.shm.views import BackendCounter
from lbproc.types import Admin, Row
from tests.proxy.rig import END

if TYPE_CHECKING:
    from lbproc.proxy.balancer import Backend
    from lbproc.proxy.runtime import Runtime
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig, Wire

SECOND = 1_000_000_000
REQUEST = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadLimits())
THREE = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OUTLIER = {"consecutive_errors": 5, "eject_for": "30s"}


@dataclass
class Clock:
    """The virtual present of all workers, ns."""

    now: int = 1000 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def checks_of(balancer: Balancer) -> PassiveChecks:
    found = balancer.backends[0].outlier
    assert found is not None
    return found


class Fleet:
    """Some workers of one pool ``web`` with a common clock."""

    def __init__(self, rig: Rig, clock: Clock, workers: int) -> None:
        rig.context.stamp = clock
        self.rig = rig
        self.clock = clock
        self.runtimes: list[Runtime] = [rig.runtime, *(rig.sibling() for _ in range(workers - 1))]
        self.balancers: list[Balancer] = [runtime.pools["web"] for runtime in self.runtimes]

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the pulses of all workers look."""
        self.clock.advance(seconds)
        for runtime in self.runtimes:
            runtime.look()

    def checks(self, worker: int = 0) -> PassiveChecks:
        return checks_of(self.balancers[worker])

    def backend(self, index: int, worker: int = 0) -> Backend:
        return self.balancers[worker].backends[index]

    def fail(self, index: int, times: int = 5) -> None:
        """A backend fails so many requests, of all workers in turn."""
        for turn in range(times):
            worker = turn % len(self.balancers)
            self.checks(worker).failed(self.backend(index, worker), "test")

    def picked(self, count: int = 60) -> Counter[int]:
        """Who gets the next requests, of all workers in turn."""
        seen: Counter[int] = Counter()
        for turn in range(count):
            lease = self.balancers[turn % len(self.balancers)].take(REQUEST, "192.0.2.1", ())
            if isinstance(lease, Lease):
                seen[lease.backend.candidate.index] += 1
                lease.release()
        return seen

    def log(self) -> str:
        return self.rig.log_path.read_text()

    def events(self, name: str) -> list[str]:
        return [line for line in self.log().splitlines() if f" {name} " in line]


def fleet(
    make_rig: MakeRig, clock: Clock, *, workers: int = 3, backends: int = 3, **outlier: object
) -> Fleet:
    pool = {
        "backends": [f"127.0.0.1:{9001 + number}" for number in range(backends)],
        "policy": "round_robin",
        "outlier": {**OUTLIER, **outlier},
    }
    return Fleet(make_rig(pool=pool), clock, workers)


def is_ejected(rig: Rig, index: int) -> bool:
    return rig.reader.status(Row(index)).ejected


async def test_a_pool_without_outlier_has_no_passive_checks(make_rig: MakeRig) -> None:
    assert make_rig().runtime.pools["web"].backends[0].outlier is None


async def test_five_failures_in_a_row_over_all_workers_eject_for_all(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0, 4)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}
    pool.checks(2).failed(pool.backend(0, 2), "status 503")
    assert pool.picked() == {1: 30, 2: 30}
    (line,) = pool.events("backend_ejected")
    assert 'pool=web backend=127.0.0.1:9001 errors=5 cause="status 503" ejections=1 seconds=30.0' in line
    assert pool.rig.reader.backend_total(Row(0), BackendCounter.EJECTIONS) == 1


async def test_a_success_of_any_worker_ends_the_row(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0, 4)
    pool.checks(1).answered(pool.backend(0, 1), 404)
    pool.fail(0, 4)
    assert not is_ejected(pool.rig, 0)
    pool.fail(0, 1)
    assert is_ejected(pool.rig, 0)


async def test_failures_of_another_backend_do_not_count(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0, 4)
    pool.fail(1, 4)
    assert not is_ejected(pool.rig, 0)
    assert not is_ejected(pool.rig, 1)


async def test_it_comes_back_when_its_time_is_over_and_one_worker_says_so(
    make_rig: MakeRig, clock: Clock
) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    pool.pass_time(29.9)
    assert pool.picked() == {1: 30, 2: 30}
    pool.pass_time(0.2)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}
    assert len(pool.events("backend_returned")) == 1


async def test_times_grow_with_ejections_in_a_row_and_begin_anew_after_a_good_time(
    make_rig: MakeRig, clock: Clock
) -> None:
    pool = fleet(make_rig, clock, max_eject_for="70s")
    for seconds in (30, 60, 70, 70):
        pool.fail(0)
        pool.pass_time(seconds - 0.1)
        assert is_ejected(pool.rig, 0)
        pool.pass_time(0.2)
        assert not is_ejected(pool.rig, 0)
    assert pool.rig.reader.ejections(Row(0)) == 4
    pool.pass_time(70)
    assert pool.rig.reader.ejections(Row(0)) == 0
    pool.fail(0)
    pool.pass_time(30.1)
    assert not is_ejected(pool.rig, 0)


async def test_failures_while_ejected_do_not_count_for_later(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0, 9)
    assert len(pool.events("backend_ejected")) == 1
    pool.pass_time(30.1)
    pool.fail(0, 4)
    assert not is_ejected(pool.rig, 0)


async def test_failures_of_attempts_from_before_an_ejection_change_nothing(
    make_rig: MakeRig, clock: Clock
) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    pool.picked()  # all workers know of it
    before = pool.rig.view.status_epoch()
    pool.fail(0)
    assert pool.rig.view.status_epoch() == before
    assert len(pool.events("backend_ejected")) == 1


async def test_a_worker_too_slow_with_its_claim_ejects_nobody(
    make_rig: MakeRig, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = fleet(make_rig, clock)
    count = Ejections.count

    def slowly(ejections: Ejections, rows: tuple[Row, ...], now: int) -> int:
        count(ejections, rows, now + 2 * SECOND)  # a sibling takes the claim for that of a dead worker
        return count(ejections, rows, now)

    monkeypatch.setattr(Ejections, "count", slowly)
    pool.fail(0)
    assert not is_ejected(pool.rig, 0)
    assert pool.events("backend_ejected") == []
    monkeypatch.undo()
    pool.fail(0)
    assert is_ejected(pool.rig, 0)


async def test_only_the_worker_that_ends_an_ejection_says_so(
    make_rig: MakeRig, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    pool.picked()
    give_back = Ejections.give_back

    def outrun(ejections: Ejections, row: Row, until: int, ended_at: int) -> bool:
        assert give_back(ejections, row, until, ended_at)  # the sibling's, which then dies
        return give_back(ejections, row, until, ended_at)

    monkeypatch.setattr(Ejections, "give_back", outrun)
    pool.pass_time(30.1)
    assert pool.events("backend_returned") == []
    assert pool.picked() == {0: 20, 1: 20, 2: 20}


async def test_never_more_than_max_ejected_and_the_next_goes_when_one_is_back(
    make_rig: MakeRig, clock: Clock
) -> None:
    pool = fleet(make_rig, clock, backends=5, max_ejected=0.5)
    for index in range(5):
        pool.fail(index)
    assert [is_ejected(pool.rig, index) for index in range(5)] == [True, True, False, False, False]
    assert [re.search(r"backend=(\S+)", line)[1] for line in pool.events("ejection_withheld")] == [  # type: ignore[index]
        "127.0.0.1:9003", "127.0.0.1:9004", "127.0.0.1:9005",
    ]  # fmt: skip
    pool.fail(2)
    assert len(pool.events("ejection_withheld")) == 3  # once for each run of failures
    pool.pass_time(30.1)
    pool.fail(2, 1)
    assert [is_ejected(pool.rig, index) for index in range(5)] == [False, False, True, False, False]


async def test_the_only_backend_stays(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock, backends=1)
    pool.fail(0, 20)
    assert not is_ejected(pool.rig, 0)


async def test_the_only_backend_goes_when_all_may(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock, backends=1, max_ejected=1.0)
    pool.fail(0)
    assert pool.balancers[0].take(REQUEST, "", ()) is NoBackend.NONE_ELIGIBLE


async def test_ejection_that_was_not_announced_is_by_the_next_failure(
    make_rig: MakeRig, clock: Clock
) -> None:
    """A worker that dies between the two leaves a word that nobody was told of."""
    pool = fleet(make_rig, clock)
    table = pool.rig.table
    table.words.store(table.layout.in_row(Row(0), "ejected"), clock.now + 30 * SECOND)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}
    pool.fail(0, 1)
    assert pool.picked() == {1: 30, 2: 30}
    pool.pass_time(30.1)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}


async def test_return_that_was_not_announced_is_seen_by_every_pulse(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    assert pool.picked() == {1: 30, 2: 30}
    table = pool.rig.table
    table.words.store(table.layout.in_row(Row(0), "ejected"), 0)
    pool.pass_time(0.1)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}


async def test_claim_of_a_dead_worker_keeps_nobody_in_for_long(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    Ejections(pool.rig.table).claim(Row(0), clock.now)
    pool.fail(0, 6)
    assert not is_ejected(pool.rig, 0)
    pool.pass_time(1.1)
    pool.fail(0, 1)
    assert is_ejected(pool.rig, 0)


async def test_ejections_end_when_a_new_configuration_has_no_rules(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    config = pool.rig.config.pools["web"].model_copy(update={"outlier": None})
    bare = Balancer("web", config, pool.rig.context, pool.rig.runtime.follow_membership)
    bare.follow(msgpack.unpackb(pool.rig.view.read_membership()[1])["pools"]["web"])
    assert bare.backends[0].outlier is None
    clock.advance(0.1)
    bare.look()
    assert not is_ejected(pool.rig, 0)
    assert pool.picked() == {0: 20, 1: 20, 2: 20}


async def test_ejected_and_drained_are_two_things(make_rig: MakeRig, clock: Clock) -> None:
    pool = fleet(make_rig, clock)
    pool.fail(0)
    pool.rig.supervisor.set_admin(Row(1), Admin.DRAIN)
    assert pool.picked() == {2: 60}
    pool.pass_time(30.1)
    assert pool.picked() == {0: 30, 2: 30}


# Real exchanges ---------------------------------------------------------------------------------------------


async def answered(backend: Wire, status: int) -> None:
    await backend.read_until(END)
    await backend.send(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok".encode())


def errors(rig: Rig) -> int:
    return rig.table.words.load(rig.table.layout.in_row(Row(0), "errors"))


@pytest.mark.parametrize(("status", "expected"), [(500, [1, 2, 3]), (599, [1, 2, 3]), (404, [0, 0, 0])])
async def test_answers_are_judged_by_their_status_whoever_serves_them(
    make_rig: MakeRig, nursery: trio.Nursery, status: int, expected: list[int]
) -> None:
    """The first by the task, over a new connection; then by reflexes."""
    rig = make_rig(pool={"outlier": OUTLIER})
    client, seen = rig.client(nursery), []
    await client.send(GET)
    backend = await rig.backend()
    for _ in range(3):
        await answered(backend, status)
        await client.read_until(b"ok")
        await wait_all_tasks_blocked()
        seen.append(errors(rig))
        await client.send(GET)
    assert seen == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_answers_that_break_off_or_make_no_sense_count(
    make_rig: MakeRig, nursery: trio.Nursery, answer: bytes
) -> None:
    rig = make_rig(pool={"outlier": OUTLIER})
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(answer)
    backend.transport.close()
    await wait_all_tasks_blocked()
    assert errors(rig) == 1


async def answer_all(rig: Rig) -> None:
    """Answers whatever comes to any backend."""

    async def serve(backend: Wire) -> None:
        while True:
            await answered(backend, 200)

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(serve, await rig.backend())


@pytest.mark.parametrize("kind", ["refused", "unreachable", "timeout"])
async def test_connects_that_fail_count_though_another_backend_answers(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, kind: str
) -> None:
    rig = make_rig(pool={"backends": THREE[:2], "policy": "first_available", "outlier": OUTLIER})
    rig.refusing[THREE[0]] = kind
    nursery.start_soon(answer_all, rig)
    client, seen = rig.client(nursery), []
    for _ in range(5):
        await client.send(GET)
        await client.read_until(b"ok")
        seen.append(errors(rig))
    assert seen == [1, 2, 3, 4, 0]
    assert is_ejected(rig, 0)
    assert rig.dialled.count(THREE[0]) == 5


async def test_a_backend_that_never_answers_is_ejected(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    rig = make_rig(pool={"backends": THREE[:2], "policy": "first_available", "outlier": OUTLIER})
    for _ in range(5):
        client = rig.client(nursery)
        await client.send(GET)
        assert (await client.read_until(END)).startswith(b"HTTP/1.1 504 ")
    assert is_ejected(rig, 0)


async def test_what_the_client_does_never_counts(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(pool={"outlier": OUTLIER})
    for message in (
        GET,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        client = rig.client(nursery)
        await client.send(message)
        await wait_all_tasks_blocked()
        client.transport.close()
        await wait_all_tasks_blocked()
    assert errors(rig) == 0
    assert rig.in_flight() == 0


async def test_a_tunnel_is_a_success_when_it_opens(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(pool={"outlier": OUTLIER})
    checks = checks_of(rig.runtime.pools["web"])
    checks.failed(rig.runtime.pools["web"].backends[0], "test")
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    backend = await rig.backend()
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    await client.read_until(END)
    assert errors(rig) == 0
    checks.failed(rig.runtime.pools["web"].backends[0], "test")
    client.transport.close()
    backend.transport.close()
    await wait_all_tasks_blocked()
    assert errors(rig) == 1  # its end says nothing


async def test_an_answer_that_is_tried_again_counts_against_who_gave_it(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    retries = {"attempts": 1, "on": ["503"]}
    rig = make_rig(
        pool={"backends": THREE[:2], "policy": "first_available", "outlier": OUTLIER, "retries": retries}
    )
    client = rig.client(nursery)
    await client.send(GET)
    await answered(await rig.backend(), 503)
    await answered(await rig.backend(), 200)
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 200 ")
    await wait_all_tasks_blocked()
    assert errors(rig) == 1
    assert rig.table.words.load(rig.table.layout.in_row(Row(1), "errors")) == 0
