"""Who is let in, over a real table and several workers: exact, nothing left behind, and told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lbproc.config.model import Config
from lbproc.proxy.entrance import Entrance, Places, make_entrance
from lbproc.shm.layout import Capacities
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.views import Refusal, Role, WorkerView
from lbproc.types import Column, Slot
from tests.proxy.conftest import BASIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.proxy.rig import Rig

SECOND = 1_000_000_000
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
PER_IP = {"connections": 2}
RATE = {"new_connections": "10/second", "burst": 3}


class World:
    """A table, a clock, and workers with an entrance each."""

    def __init__(self, rig: Rig, capacities: Capacities) -> None:
        self.now = 100 * SECOND
        self.table = Table.create(capacities)
        self.supervisor = SupervisorView(self.table)
        self.supervisor.ensure_listener("web")
        self._rig = rig
        self.columns: list[Column] = []
        self.generation = 1

    def worker(self, listener: dict[str, Any], **limits: dict[str, Any]) -> Entrance:
        column = self.supervisor.allocate_column(Slot(0), Role.WORKER)
        self.columns.append(column)
        config = Config.model_validate({
            **BASIC, "listeners": {"web": {**BASIC["listeners"]["web"], **listener}}, "limits": limits
        })  # fmt: skip
        view = WorkerView(self.table, column)
        context = replace(self._rig.context, view=view, stamp=lambda: self.now)
        entrance = make_entrance("web", config.listeners["web"], config.limits, self.generation, context)
        assert entrance is not None
        return entrance

    def counts(self) -> int:
        """Everything that is held, in all shared counts."""
        layout, words = self.table.layout, self.table.words
        cells = [layout.keys.at(cell, "concurrency") for cell in range(layout.keys.blocks)]
        return sum(words.counts((layout.listeners.at(0, "open"), *cells)))

    def refused(self, refusal: Refusal) -> int:
        return self.supervisor.reader.listeners(["web"])["web"].refused[refusal]


MakeWorld = "Callable[..., World]"


@pytest.fixture
def make_world(rig: Rig) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(keys: int = 1024, ledger: int = 64) -> World:
        made.append(
            World(
                rig,
                Capacities(
                    columns=8, backends=2, pools=2, keys=keys, ledger=ledger, membership_bytes=64, flows=2
                ),
            )
        )
        return made[-1]

    yield make
    for world in made:
        world.table.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def admitted(entrance: Entrance, times: int, peer: str = CLIENT) -> list[Places]:
    return [places for places in (entrance.enter(peer) for _ in range(times)) if places is not None]


async def test_a_listener_without_limits_has_no_entrance(rig: Rig) -> None:
    assert rig.http().entrance is None


async def test_a_listener_with_limits_has_one(make_rig: Callable[..., Rig]) -> None:
    assert make_rig(listener={"max_connections": 1}).http().entrance is not None


async def test_the_most_connections_are_those_of_all_workers(world: World) -> None:
    mine, theirs = (world.worker({"max_connections": 3}) for _ in range(2))
    held = admitted(mine, 2) + admitted(theirs, 2, OTHER)
    assert len(held) == 3
    held.pop().release()
    assert len(admitted(mine, 2, OTHER)) == 1
    assert world.refused(Refusal.MAX_CONNECTIONS) == 2


async def test_connections_are_counted_for_each_client_over_all_workers(world: World) -> None:
    mine, theirs = (world.worker({"limits": ["per_ip"]}, per_ip=PER_IP) for _ in range(2))
    held = admitted(mine, 2) + admitted(theirs, 2)
    assert len(held) == 2
    assert len(admitted(theirs, 3, OTHER)) == 2
    held[0].release()
    held[0].release()
    assert len(admitted(theirs, 3)) == 1
    assert world.refused(Refusal.CONNECTIONS) == 5


async def test_an_ipv6_client_is_its_network(world: World) -> None:
    entrance = world.worker({"limits": ["per_ip"]}, per_ip=PER_IP)
    addresses = [f"2001:db8:0:1::{number:x}" for number in range(1, 6)]
    assert sum(entrance.enter(address) is not None for address in addresses) == 2
    assert entrance.enter("2001:db8:0:2::1") is not None
    assert len(admitted(entrance, 4, "::ffff:192.0.2.1")) == 2
    assert entrance.enter(CLIENT) is None


async def test_what_is_no_client_is_under_no_limit_of_clients(world: World) -> None:
    entrance = world.worker(
        {"limits": ["per_ip"], "trusted_proxies": ["10.0.0.0/8"], "max_connections": 9}, per_ip=PER_IP
    )
    assert len(admitted(entrance, 4, "10.1.1.1")) == 4
    assert len(admitted(entrance, 4, "")) == 4
    assert len(admitted(entrance, 4)) == 1, "but all count at the listener"


async def test_a_limit_may_count_for_the_whole_listener(world: World) -> None:
    whole = {"key": "listener", "connections": 2}
    entrance = world.worker({"limits": ["whole"]}, whole=whole)
    assert [entrance.enter(address) is not None for address in (CLIENT, OTHER, "192.0.2.3", "")] == [
        True,
        True,
        False,
        False,
    ]


async def test_who_is_refused_holds_nothing(world: World) -> None:
    entrance = world.worker(
        {"limits": ["per_ip", "wide", "rate"], "max_connections": 2},
        per_ip={"connections": 5},
        wide={"key": "listener", "connections": 4},
        rate={"new_connections": "1/second", "burst": 3},
    )
    held = admitted(entrance, 6)
    assert len(held) == 2
    for places in held:
        assert len(places.held) == 3
        places.release()
    assert world.counts() == 0
    assert len(admitted(entrance, 2)) == 1, "those that were refused for their number were not charged"
    assert world.refused(Refusal.NEW_CONNECTIONS) == 1
    assert world.counts() == 3


async def test_new_connections_never_exceed_burst_and_rate(world: World) -> None:
    entrances = [world.worker({"limits": ["rate"]}, rate=RATE) for _ in range(2)]
    began_at, let_in = world.now, 0
    for step in range(400):
        let_in += entrances[step % 2].enter(CLIENT) is not None
        world.now += SECOND // 100
        assert let_in <= 3 + (world.now - began_at) * 10 // SECOND
    assert let_in == 3 + 39


async def test_who_is_refused_by_one_rate_is_not_charged_by_another(world: World) -> None:
    entrance = world.worker(
        {"limits": ["per_ip", "whole"]},
        per_ip={"new_connections": "1/day", "burst": 1},
        whole={"key": "listener", "new_connections": "1/day", "burst": 3},
    )
    assert len(admitted(entrance, 50)) == 1
    assert len(admitted(entrance, 50, OTHER)) == 1
    assert len(admitted(entrance, 50, "192.0.2.3")) == 1
    assert len(admitted(entrance, 50, "192.0.2.4")) == 0


async def test_a_header_tells_who_the_client_is(world: World) -> None:
    entrance = world.worker(
        {
            "limits": ["per_ip"],
            "trusted_proxies": ["10.0.0.0/8"],
            "proxy_protocol": True,
            "max_connections": 4,
        },
        per_ip=PER_IP,
    )
    held = admitted(entrance, 5, "10.0.0.1")
    assert len(held) == 4
    recognised = [entrance.recognise(CLIENT) for _ in range(3)]
    assert [places is not None for places in recognised] == [True, True, False]
    assert entrance.recognise("") is not None, "such as a check of the proxy itself"
    assert recognised[0] is not None
    recognised[0].release()
    assert entrance.recognise(CLIENT) is not None
    for places in held:
        places.release()
    assert world.supervisor.reader.listeners(["web"])["web"].open == 0


async def test_a_listener_whose_limits_are_for_no_client_recognises_all(world: World) -> None:
    places = world.worker({"max_connections": 1, "proxy_protocol": True}).recognise(CLIENT)
    assert places is not None
    assert not places.held


async def test_a_new_number_holds_for_what_is_open_already(world: World) -> None:
    old = world.worker({"limits": ["per_ip"], "max_connections": 9}, per_ip={"connections": 4})
    held = admitted(old, 3)
    new = world.worker({"limits": ["per_ip"], "max_connections": 9}, per_ip=PER_IP)
    assert not admitted(new, 1)
    held.pop().release()
    held.pop().release()
    assert len(admitted(new, 3)) == 1


async def test_a_rate_with_new_numbers_begins_with_what_is_owed(world: World) -> None:
    old = world.worker({"limits": ["rate"]}, rate=RATE)
    assert len(admitted(old, 5)) == 3
    world.generation = 2
    new = world.worker({"limits": ["rate"]}, rate={"new_connections": "1/second", "burst": 4})
    assert len(admitted(new, 5)) == 1
    world.now += SECOND
    assert len(admitted(new, 5)) == 1
    assert not admitted(old, 9), "who has not heard of them obeys them, too"
    world.generation = 3
    back = world.worker({"limits": ["rate"]}, rate=RATE)
    assert not admitted(back, 1)
    world.now += SECOND // 10
    assert len(admitted(back, 3)) == 1


async def test_connections_that_were_there_are_counted_at_limits_that_come(world: World) -> None:
    before = [Places(WorkerView(world.table, Column(2)).release) for _ in range(3)]
    entrance = world.worker({"limits": ["per_ip", "whole"], "max_connections": 4}, per_ip=PER_IP, whole={
        "key": "listener", "new_connections": "1/second"
    })  # fmt: skip
    for places in before * 2:
        entrance.complete(places, CLIENT)
    assert world.counts() == 6
    assert not admitted(entrance, 1)
    before[0].release()
    assert not admitted(entrance, 1), "two are still open"
    assert len(admitted(entrance, 1, OTHER)) == 1


async def test_a_limit_that_counts_by_something_else_now_counts_what_is_open(world: World) -> None:
    old = world.worker({"limits": ["one"]}, one={"connections": 3})
    held = admitted(old, 2)
    world.generation = 2
    new = world.worker({"limits": ["one"]}, one={"connections": 3, "key": "listener"})
    for places in held:
        new.complete(places, CLIENT)
    assert len(admitted(new, 3, OTHER)) == 1


@pytest.mark.parametrize("when_full", ["admit", "refuse"])
async def test_a_full_table_of_keys_admits_or_refuses_and_says_so(
    make_world: Callable[..., World], rig: Rig, when_full: str
) -> None:
    world = make_world(keys=2)
    limit = {"connections": 1, "new_connections": "1/day", "burst": 5, "when_full": when_full}
    entrance = world.worker({"limits": ["per_ip"]}, per_ip=limit)
    held = [entrance.enter(f"192.0.2.{number}") for number in range(1, 6)]
    assert held[0] is not None
    is_admitted = when_full == "admit"
    assert [places is not None for places in held[1:]] == [is_admitted] * 4
    assert (world.refused(Refusal.KEYS_FULL) == 0) is is_admitted
    assert (world.refused(Refusal.ADMITTED) > 0) is is_admitted
    said = rig.log_path.read_text()
    assert ("limit_not_counted" in said) is is_admitted
    assert ("keys_full" in said) is not is_admitted
    for places in held:
        if places is not None:
            places.release()
    assert world.counts() == 0


async def test_a_worker_that_can_hold_no_more_refuses(make_world: Callable[..., World]) -> None:
    world = make_world(ledger=3)
    entrance = world.worker({"limits": ["per_ip"], "max_connections": 50}, per_ip={"connections": 50})
    assert len(admitted(entrance, 3)) == 1
    assert world.refused(Refusal.LEDGER_FULL) == 2
    assert world.counts() == 2
    entrance.complete(Places(lambda _: None), CLIENT)


async def test_at_a_listener_that_is_gone_nothing_is_counted(world: World) -> None:
    entrance = world.worker({"max_connections": 1})
    assert world.supervisor.release_listener("web")
    world.supervisor.ensure_listener("next")
    assert [places.held for places in admitted(entrance, 2)] == [{}, {}]
    places = Places(lambda _: None)
    entrance.complete(places, CLIENT)
    assert not places.held
    assert world.counts() == 0


async def test_what_there_is_no_room_to_count_stays_all_the_same(make_world: Callable[..., World]) -> None:
    world = make_world(keys=1)
    entrance = world.worker({"limits": ["per_ip"]}, per_ip=PER_IP)
    assert entrance.enter(OTHER) is not None
    places = Places(lambda _: None)
    entrance.complete(places, CLIENT)
    assert list(places.held) == [("", "")]


async def test_what_a_dead_worker_held_is_taken_back(world: World) -> None:
    doomed, other = (
        world.worker({"limits": ["per_ip"], "max_connections": 3}, per_ip=PER_IP) for _ in range(2)
    )
    assert len(admitted(doomed, 5)) == 2
    assert not admitted(other, 1)
    assert world.supervisor.repair(world.columns[0]).returned == 4
    assert world.counts() == 0
    assert len(admitted(other, 5)) == 2


async def test_refusals_are_told_once_a_second_for_each_reason(world: World, rig: Rig) -> None:
    entrances = [world.worker({"limits": ["per_ip"], "max_connections": 3}, per_ip=PER_IP) for _ in range(2)]
    for entrance in entrances:
        for peer in (CLIENT, CLIENT, CLIENT, OTHER, OTHER):
            entrance.enter(peer)
    lines = [line for line in rig.log_path.read_text().splitlines() if "connection_refused" in line]
    assert len(lines) == 2
    assert "reason=connections" in lines[0]
    assert "limit=per_ip" in lines[0]
    assert f"client_ip={CLIENT}" in lines[0]
    assert "reason=max_connections" in lines[1]
    world.now += SECOND
    entrances[1].enter(CLIENT)
    lines = [line for line in rig.log_path.read_text().splitlines() if "connection_refused" in line]
    assert len(lines) == 3
    assert "refused=5" in lines[2]


async def test_nothing_of_a_client_is_in_the_table(world: World) -> None:
    entrance = world.worker({"limits": ["per_ip"]}, per_ip={**PER_IP, **RATE})
    entrance.enter(CLIENT)
    assert bytes([192, 0, 2, 1]) not in bytes(world.table.cells)
    assert json.dumps(CLIENT) not in repr(entrance)
