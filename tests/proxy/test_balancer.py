"""Taking places on backends: what the table says is obeyed by the very next pick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbproc.core.http.head import parse_request_head
from lbproc.core.http.strict import HeadLimits
from lbproc.core.pick import NoBackend
from lbproc.proxy.balancer import Balancer, Lease
from lbproc.shm.views import Role
from lbproc.types import Admin, Row

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig

REQUEST = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadLimits())
THREE = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


def take(balancer: Balancer, *tried: Any) -> Lease:
    lease = balancer.take(REQUEST, "192.0.2.1", tried)
    assert isinstance(lease, Lease)
    return lease


def row_of(rig: Rig, address: str) -> Row:
    return rig.supervisor.ensure_row("web", address)


async def test_places_are_taken_evenly_and_given_back(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": THREE})
    balancer = rig.runtime.pools["web"]
    leases = [take(balancer) for _ in range(9)]
    assert [rig.reader.in_flight(row_of(rig, address)) for address in THREE] == [3, 3, 3]
    for lease in leases:
        lease.release()
    assert [rig.reader.in_flight(row_of(rig, address)) for address in THREE] == [0, 0, 0]


async def test_two_workers_share_one_count(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": [{"address": THREE[0], "max_connections": 2}]})
    sibling = rig.sibling()
    take(rig.runtime.pools["web"])
    take(sibling.pools["web"])
    for runtime in (rig.runtime, sibling):
        assert runtime.pools["web"].take(REQUEST, "", ()) is NoBackend.ALL_FULL


async def test_change_of_the_admin_state_is_obeyed_by_the_next_pick(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": THREE[:2], "policy": "first_available"})
    balancer = rig.runtime.pools["web"]
    assert take(balancer).backend.name == THREE[0]
    rig.supervisor.set_admin(row_of(rig, THREE[0]), Admin.DRAIN)
    assert take(balancer).backend.name == THREE[1]
    rig.supervisor.set_admin(row_of(rig, THREE[1]), Admin.MAINTENANCE)
    assert balancer.take(REQUEST, "", ()) is NoBackend.NONE_ELIGIBLE
    rig.supervisor.set_admin(row_of(rig, THREE[0]), Admin.READY)
    assert take(balancer).backend.name == THREE[0]


async def test_tried_backends_are_passed_over_and_backups_come_last(make_rig: MakeRig) -> None:
    backup = {"address": THREE[2], "backup": True}
    rig = make_rig(pool={"backends": [*THREE[:2], backup], "policy": "first_available"})
    balancer = rig.runtime.pools["web"]
    first = take(balancer).backend
    second = take(balancer, first).backend
    third = take(balancer, first, second).backend
    assert [first.name, second.name, third.name] == THREE
    assert balancer.take(REQUEST, "", [first, second, third]) is NoBackend.NONE_ELIGIBLE


async def test_new_membership_is_followed_and_keeps_counts_and_idle_connections(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": THREE[:2]})
    balancer = rig.runtime.pools["web"]
    before = {backend.name: backend for backend in balancer.backends}
    rig.publish(pool={"backends": [THREE[2], THREE[1]]})
    take(balancer)
    after = {backend.name: backend for backend in balancer.backends}
    assert list(after) == [THREE[2], THREE[1]]
    assert after[THREE[1]] is before[THREE[1]]


async def test_round_robin_takes_one_ticket_for_each_request_of_all_workers(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": THREE, "policy": "round_robin"})
    sibling = rig.sibling()
    names = []
    for _ in range(50):
        names.append(take(rig.runtime.pools["web"]).backend.name)
        names += [take(sibling.pools["web"]).backend.name for _ in range(2)]
    assert names[:3] * 50 == names


async def test_a_backend_whose_name_is_not_resolved_yet_gets_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": ["name.test:9001", THREE[1]]})
    balancer = rig.runtime.pools["web"]
    assert [take(balancer).backend.name for _ in range(4)] == [THREE[1]] * 4
    rig.publish(pool={"backends": ["name.test:9001"]})
    assert balancer.take(REQUEST, "", ()) is NoBackend.NONE_ELIGIBLE


async def test_what_is_followed_is_said_in_the_table(make_rig: MakeRig) -> None:
    rig = make_rig(pool={"backends": THREE[:2]})
    assert rig.reader.followed(Role.WORKER) == [rig.view.membership_epoch()]
    rig.publish(pool={"backends": THREE})
    assert rig.reader.followed(Role.WORKER) == [rig.view.membership_epoch() - 1]
    take(rig.runtime.pools["web"])
    assert rig.reader.followed(Role.WORKER) == [rig.view.membership_epoch()]
