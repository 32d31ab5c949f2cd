"""Where flows go: as the map and the pool agree, with one place held whatever happens."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from lbproc.core.pick import NoBackend
from lbproc.proxy.flow_places import FlowPlaces
from lbproc.types import Admin, Health, TcpAddress
from tests.proxy.udp_rig import UdpRig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lbproc.proxy.balancer import Balancer, Lease
    from tests.proxy.udp_rig import Worker

IDLE = 10.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[UdpRig]:
    async with trio.open_nursery() as nursery:
        made = UdpRig(tmp_path, nursery, Random(1))
        yield made
        nursery.cancel_scope.cancel()
    made.close()


def parts(worker: Worker) -> tuple[FlowPlaces, Balancer]:
    return FlowPlaces("dns", IDLE, worker.context), worker.runtime.pools["dns"]


def taken(place: Lease | NoBackend) -> Lease:
    assert not isinstance(place, NoBackend)
    return place


async def test_a_flow_has_one_name_in_all_workers_and_every_flow_another(rig: UdpRig) -> None:
    first, second = (parts(rig.start())[0] for _ in range(2))
    here = TcpAddress("127.0.0.1", 53)
    assert first.key_of("192.0.2.1", 5, here) == second.key_of("192.0.2.1", 5, here)
    names = [
        first.key_of(*name)
        for name in (
            ("192.0.2.1", 5, here),
            ("192.0.2.1", 6, here),
            ("192.0.2.15", 5, here),
            ("192.0.2.1", 5, TcpAddress("127.0.0.2", 53)),
            ("192.0.2.1", 5, TcpAddress("127.0.0.1", 54)),
        )
    ]
    assert len(set(names)) == len(names)


async def test_workers_that_see_a_flow_at_once_agree(rig: UdpRig) -> None:
    workers = [parts(rig.start()) for _ in range(2)]
    rows = [taken(flows.take(pool, 77, "192.0.2.1")).backend.row for flows, pool in workers]
    assert rows[0] == rows[1]
    assert sorted(rig.in_flight()) == [0, 2]


async def test_a_flow_that_was_forgotten_is_picked_for_anew(rig: UdpRig) -> None:
    flows, pool = parts(rig.start())
    first = taken(flows.take(pool, 77, "192.0.2.1"))
    first.release()
    rig.now += 2.9 * IDLE
    again = taken(flows.take(pool, 77, "192.0.2.1"))
    assert again.backend is first.backend
    again.release()
    rig.now += 3.1 * IDLE
    assert taken(flows.take(pool, 77, "192.0.2.1")).backend is not first.backend  # round robin goes on


async def test_a_flow_that_is_kept_is_not_forgotten(rig: UdpRig) -> None:
    flows, pool = parts(rig.start())
    place = taken(flows.take(pool, 77, "192.0.2.1"))
    for _ in range(10):
        rig.now += IDLE
        flows.keep(77, place.backend.row)
    place.release()
    assert taken(flows.take(pool, 77, "192.0.2.1")).backend is place.backend


@pytest.mark.parametrize("how", ["down", "drain", "tried"])
async def test_a_flow_whose_backend_takes_nothing_moves_for_good(rig: UdpRig, how: str) -> None:
    flows, pool = parts(rig.start())
    first = taken(flows.take(pool, 77, "192.0.2.1"))
    first.release()
    if how == "down":
        rig.set_health(int(first.backend.row), Health.DOWN)
    elif how == "drain":
        rig.set_admin(int(first.backend.row), Admin.DRAIN)
    tried = [first.backend] if how == "tried" else []
    second = taken(flows.take(pool, 77, "192.0.2.1", tried))
    assert second.backend is not first.backend
    rig.set_health(int(first.backend.row), Health.UP)
    rig.set_admin(int(first.backend.row), Admin.READY)
    assert taken(flows.take(pool, 77, "192.0.2.1")).backend is second.backend


async def test_a_flow_whose_backend_is_full_moves_too(rig: UdpRig) -> None:
    ends = [{"address": end.address, "max_connections": 1} for end in rig.backends]
    flows, pool = parts(rig.start(rig.config(backends=ends)))
    first = taken(flows.take(pool, 77, "192.0.2.1"))
    second = taken(flows.take(pool, 77, "192.0.2.1"))  # its former session holds the place still
    assert second.backend is not first.backend
    assert flows.take(pool, 77, "192.0.2.1") is NoBackend.ALL_FULL
    first.release()
    assert taken(flows.take(pool, 77, "192.0.2.1")).backend is first.backend
    assert rig.in_flight() == [1, 1]
