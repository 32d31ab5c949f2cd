"""A reload as connections, balancers and backends meet it: who moves when, and what is left behind."""

from __future__ import annotations

import copy
import gc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.control.membership import Membership
from lbproc.core.http.head import parse_request_head
from lbproc.core.http.strict import HeadLimits
from lbproc.core.pick import NoBackend
from lbproc.proxy.balancer import Backend, Balancer, Lease
from lbproc.proxy.caller import Caller
from lbproc.proxy.http_listener import HttpListener
from lbproc.proxy.plan import Plan, Planner
from lbproc.proxy.runtime import Runtime
from lbproc.supervisor.publishing import Publishing
from tests.proxy.conftest import BASIC
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TWO = {"backends": ["127.0.0.1:9001", "127.0.0.1:9002"]}
OTHER = {"backends": ["127.0.0.1:9003"]}


def changed(**tables: dict[str, Any]) -> dict[str, Any]:
    """The basic configuration with other pools or listeners."""
    return copy.deepcopy({**BASIC, **tables})


async def begin(rig: Rig, nursery: trio.Nursery, **options: Any) -> tuple[Wire, Wire]:
    """A client and the idle backend connection that its first request has left."""
    client = rig.client(nursery, **options)
    await client.send(GET)
    backend = await rig.backend()
    await answer(client, backend)
    return client, backend


async def answer(client: Wire, backend: Wire) -> bytes:
    """Answers the request that is under way; returns what the client gets."""
    await backend.read_until(END)
    await backend.send(OK)
    got = await client.read_until(b"ok")
    await wait_all_tasks_blocked()
    return got


async def test_the_next_request_of_a_connection_goes_by_the_new_configuration(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, _ = await begin(rig, nursery)
    rig.reload(changed(pools={"web": OTHER}))
    await client.send(GET)
    fresh = await rig.backend()
    assert b"200 OK" in await answer(client, fresh)
    assert rig.dialled == ["127.0.0.1:9001", "127.0.0.1:9003"]
    assert rig.last_connection.listener is rig.runtime.listeners["web"]


async def test_nobody_moves_before_the_commit(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    rig.prepare(changed(pools={"web": OTHER}))
    await client.send(GET)
    await answer(client, backend)
    assert rig.runtime.generation == 1


async def test_nobody_moves_before_the_membership_is_published(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    fresh = rig.prepare(changed(pools={"web": OTHER}))
    rig.supervisor.set_generation(2)
    assert not fresh.succeed(rig.runtime)
    rig.context.move = lambda: None
    await client.send(GET)
    await answer(client, backend)
    assert rig.last_connection.listener.generation == 1


async def test_a_backend_that_stays_keeps_its_idle_connections(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    before = rig.runtime.pools["web"].backends
    rig.reload(changed(pools={"web": {**TWO, "policy": "first_available"}}))
    await client.send(GET)
    await answer(client, backend)
    assert rig.dialled == ["127.0.0.1:9001"]
    assert rig.runtime.pools["web"].backends[:1] == before


async def test_a_backend_that_goes_is_closed_now_if_idle_and_else_when_its_request_ends(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(pool={**TWO, "policy": "round_robin"})
    one, idle = await begin(rig, nursery)
    other = rig.client(nursery)
    await other.send(GET)
    busy = await rig.backend()
    await busy.read_until(END)
    rig.reload(changed(pools={"web": OTHER}))
    await one.send(GET)  # moves the worker
    await answer(one, await rig.backend())
    assert await idle.read_all() == b""
    await busy.send(OK)
    assert b"200 OK" in await other.read_until(b"ok")
    assert await busy.read_all() == b""
    assert rig.in_flight() == 0


async def test_a_request_that_runs_keeps_what_it_began_with(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    rig.reload(changed(listeners={}, pools={"web": OTHER}))
    rig.context.move()
    await backend.send(CHUNKED)
    await backend.send(b"3\r\nabc\r\n0\r\n\r\n")
    got = await client.read_until(b"0\r\n\r\n")
    assert b"200 OK" in got
    assert b"abc" in got


async def test_a_connection_of_a_removed_listener_is_told_with_its_next_response(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await begin(rig, nursery)
    rig.reload(changed(listeners={"other": {"bind": "127.0.0.1:8081", "pool": "web"}}))
    rig.context.move()
    await client.send(GET)
    assert b"Connection: close" in await answer(client, backend)
    assert await client.read_all() == b""


async def test_a_listener_that_comes_again_is_another_one(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    rig.reload(changed(listeners={}))
    rig.context.move()
    rig.reload(BASIC)
    rig.context.move()
    await client.send(GET)
    assert b"Connection: close" in await answer(client, backend)
    newcomer = rig.client(nursery)
    await newcomer.send(GET)
    assert b"Connection" not in await answer(newcomer, backend)


async def test_idle_connections_of_a_removed_listener_end_when_its_grace_is_over(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, _ = await begin(rig, nursery)
    connection = rig.last_connection
    rig.reload(changed(listeners={}))
    rig.context.move()
    assert connection.lineage.draining
    connection.lineage.leaving = True
    connection.nudge_idle()
    assert await client.read_all() == b""


async def test_with_listener_and_pool_gone_what_is_left_is_served_as_before(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, idle = await begin(rig, nursery)
    rig.reload({"listeners": {"new": {"bind": "127.0.0.1:8081", "pool": "new"}}, "pools": {"new": OTHER}})
    rig.context.move()
    assert await idle.read_all() == b""
    await client.send(GET)
    got = await answer(client, await rig.backend())
    assert b"200 OK" in got
    assert b"Connection: close" in got
    assert rig.dialled == ["127.0.0.1:9001", "127.0.0.1:9001"]
    assert rig.in_flight() == 0


async def test_a_request_that_was_read_and_not_begun_goes_where_it_would_go_now(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, _ = await begin(rig, nursery)
    await client.send(POST)  # its body is to come, so it is left to the task, which has not run yet
    rig.reload({"listeners": BASIC["listeners"], "pools": {"web": OTHER}})
    await client.send(b"hello")
    fresh = await rig.backend()
    await fresh.read_until(b"hello")
    await fresh.send(OK)
    assert b"200 OK" in await client.read_until(b"ok")
    assert rig.dialled[-1] == "127.0.0.1:9003"


async def test_a_head_that_came_in_part_is_finished_by_its_own_listener(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"max_header_size": "8KiB"})
    client, backend = await begin(rig, nursery)
    await client.send(GET[:-2] + b"X-Filler: " + b"x" * 3000)
    await wait_all_tasks_blocked()
    smaller = copy.deepcopy(BASIC)
    smaller["listeners"]["web"]["max_header_size"] = "2KiB"
    rig.reload(smaller)
    await client.send(END)
    assert b"200 OK" in await answer(client, backend)
    await client.send(GET[:-2] + b"X-Filler: " + b"x" * 3000 + END)
    assert b"431" in await client.read_until(END)


async def test_idle_connections_follow_and_have_at_most_the_new_time(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, _ = await begin(rig, nursery)
    shorter = copy.deepcopy(BASIC)
    shorter["listeners"]["web"]["timeouts"] = {"idle": "2s"}
    rig.reload(shorter)
    rig.context.move()
    began_at = trio.current_time()
    assert rig.last_connection.follow()
    assert await client.read_all() == b""
    assert 2 <= trio.current_time() - began_at < 3


async def test_a_busy_connection_follows_later(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await backend.read_until(END)
    rig.reload(changed(pools={"web": TWO}))
    rig.context.move()
    connection = rig.last_connection
    assert not connection.follow()
    assert connection.listener.generation == 1
    await backend.send(OK)
    await client.read_until(b"ok")
    assert connection.follow()
    assert connection.listener is rig.runtime.listeners["web"]


async def test_whom_the_listener_trusts_changes_with_the_move(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    trusting = copy.deepcopy(BASIC)
    trusting["listeners"]["web"]["trusted_proxies"] = ["192.0.2.0/24"]
    rig.reload(trusting)
    await client.send(GET[:-2] + b"X-Forwarded-For: 198.51.100.7" + END)
    assert b"198.51.100.7, 192.0.2.1" in await backend.read_until(END)


@pytest.mark.parametrize("exists", [True, False])
async def test_a_place_is_asked_of_the_successor_if_there_is_one(make_rig: MakeRig, exists: bool) -> None:
    rig = make_rig(pool={"backends": ["127.0.0.1:9001"]})
    old = rig.runtime.pools["web"]
    head = parse_request_head(GET, HeadLimits())
    kept = old.take(head, "", ())
    assert isinstance(kept, Lease)
    pools = {"web": OTHER} if exists else {"new": OTHER}
    listeners = {"web": {"bind": "127.0.0.1:8080", "pool": next(iter(pools))}}
    rig.reload({"listeners": listeners, "pools": pools})
    rig.context.move()
    taken = [old.take(head, "", ()), old.take(head, "", ())]
    address = f"127.0.0.1:{9003 if exists else 9001}"
    for lease in taken:
        assert isinstance(lease, Lease)
        assert [str(one) for one in lease.backend.addresses] == [address]
        assert old.is_eligible(lease.backend)
        lease.release()
    kept.release()
    assert rig.in_flight() == 0


async def test_a_backend_that_was_tried_is_not_tried_by_the_successor(make_rig: MakeRig) -> None:
    rig = make_rig(pool=TWO)
    old = rig.runtime.pools["web"]
    head = parse_request_head(GET, HeadLimits())
    first = old.take(head, "", ())
    assert isinstance(first, Lease)
    rig.reload(changed(pools={"web": {**TWO, "policy": "round_robin"}}))
    rig.context.move()
    second = old.take(head, "", [first.backend])
    assert isinstance(second, Lease)
    assert old.take(head, "", [first.backend, second.backend]) is NoBackend.NONE_ELIGIBLE
    first.release()
    second.release()


GONE = {"listeners": {"new": {"bind": "127.0.0.1:8081", "pool": "new"}}, "pools": {"new": OTHER}}


def addresses(lease: Lease | NoBackend) -> list[str]:
    assert isinstance(lease, Lease)
    lease.release()
    return [str(one) for one in lease.backend.addresses]


async def test_places_of_a_pool_that_went_are_kept_before_it_is_said_and_while_something_of_it_is_left(
    rig: Rig, nursery: trio.Nursery
) -> None:
    kept_as_followed: list[bool] = []
    follow = rig.view.follow_membership

    def spy(epoch: int) -> None:
        kept_as_followed.append(rig.supervisor.is_pool_kept("web"))
        follow(epoch)

    client, backend = await begin(rig, nursery)
    await client.send(GET)
    await wait_all_tasks_blocked()
    rig.reload(GONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(rig.view), "follow_membership", lambda view, epoch: spy(epoch))
        rig.context.move()
    assert kept_as_followed == [True]
    rig.runtime.look()
    assert rig.supervisor.is_pool_kept("web"), "a request may still be tried again there"
    assert b"Connection: close" in await answer(client, backend)
    await client.read_all()
    await wait_all_tasks_blocked()
    del rig.last_connection
    rig.runtime.look()
    assert not rig.supervisor.is_pool_kept("web")


async def test_what_is_left_of_a_pool_that_went_never_takes_a_place_on_the_row_of_another(rig: Rig) -> None:
    supervisor, head = rig.supervisor, parse_request_head(GET, HeadLimits())
    membership = Membership(rig.config, supervisor.ensure_row, supervisor.ensure_pool)
    publishing = Publishing(supervisor, membership, rig.context.log)
    publishing.publish()
    rig.runtime.follow_membership()
    old = rig.runtime.pools["web"]
    row = old.backends[0].row
    publishing.membership = publishing.prepare(rig.prepare(GONE).config, 2)
    publishing.publish()
    supervisor.set_generation(2)
    rig.context.move()
    publishing.free_places()
    assert supervisor.ensure_row("new", "127.0.0.1:9004") != row
    lease = old.take(head, "", ())
    assert isinstance(lease, Lease)
    assert lease.backend.row == row
    lease.release()
    del lease, old
    rig.runtime.look()
    publishing.free_places()
    assert supervisor.ensure_row("new", "127.0.0.1:9005") == row


async def test_a_pool_that_stays_is_not_kept_for_its_old_balancers(rig: Rig) -> None:
    old = rig.runtime.pools["web"]
    rig.reload(changed(pools={"web": TWO}))
    rig.context.move()
    assert not rig.supervisor.is_pool_kept("web")
    assert old is not rig.runtime.pools["web"]


async def test_a_pool_that_went_later_serves_those_who_began_under_any_of_its_forms(rig: Rig) -> None:
    head = parse_request_head(GET, HeadLimits())
    first = rig.runtime.pools["web"]
    for config in (changed(pools={"web": TWO}), changed(pools={"web": OTHER})):
        rig.reload(config)
        rig.context.move()
    rig.reload(GONE)
    rig.context.move()
    assert addresses(first.take(head, "", ())) == ["127.0.0.1:9003"]
    rig.reload(changed(pools={"web": TWO, "new": OTHER}))
    rig.context.move()
    assert addresses(first.take(head, "", ())) == ["127.0.0.1:9001"]
    rig.reload(GONE)
    rig.context.move()
    assert addresses(first.take(head, "", ())) == ["127.0.0.1:9003"]
    rig.runtime.look()
    assert rig.supervisor.is_pool_kept("web")
    del first
    rig.runtime.look()
    assert not rig.supervisor.is_pool_kept("web")


async def test_a_pool_that_went_and_cannot_be_kept_picks_nobody(rig: Rig) -> None:
    head = parse_request_head(GET, HeadLimits())
    old, other = rig.runtime.pools["web"], rig.supervisor.ensure_row("else", "where")
    entries = [rig.view.take(other) for _ in range(256)]
    rig.reload(GONE)
    rig.context.move()
    for entry in entries:
        rig.view.release(entry)
    assert old.take(head, "", ()) is NoBackend.NONE_ELIGIBLE
    assert not rig.supervisor.is_pool_kept("web")


async def test_a_draining_worker_goes_on_draining(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await begin(rig, nursery)
    rig.context.draining = True
    both = copy.deepcopy(BASIC)
    both["listeners"]["new"] = {"bind": "127.0.0.1:8081", "pool": "web"}
    rig.reload(both)
    await client.send(GET)
    assert b"Connection: close" in await answer(client, backend)
    newcomer = rig.client(nursery, "new")
    await newcomer.send(GET)
    assert b"Connection: close" in await answer(newcomer, backend)


KINDS = (Runtime, Balancer, Backend, HttpListener, Planner, Plan, Caller)


def living() -> dict[type, int]:
    counts = dict.fromkeys(KINDS, 0)
    for item in gc.get_objects():
        if type(item) in counts:
            counts[type(item)] += 1
    return counts


async def test_nothing_of_old_configurations_is_left(rig: Rig, nursery: trio.Nursery) -> None:
    """Without a garbage collection, although a connection with a stream is there all the time."""
    first, second = copy.deepcopy(BASIC), copy.deepcopy(BASIC)
    second["listeners"]["other"] = {"bind": "127.0.0.1:8081", "pool": "other"}
    second["pools"] = {
        "web": {**TWO, "policy": "first_available"},
        "other": {**OTHER, "outlier": {}, "retries": {}},
    }
    client, backend = await begin(rig, nursery)
    streaming = rig.client(nursery)
    await streaming.send(GET)
    await backend.read_until(END)
    await backend.send(CHUNKED)
    await streaming.read_until(END)
    connection = rig.last_connection

    rig.reload(second)
    await client.send(GET)
    upstream = await rig.backend()
    await answer(client, upstream)
    rig.reload(first)
    await client.send(GET)
    await answer(client, upstream)
    gc.collect()
    gc.disable()
    try:
        before = living()
        for _ in range(20):
            for config in (second, first):
                rig.reload(config)
                await client.send(GET)
                await answer(client, upstream)
        assert living() == before
    finally:
        gc.enable()
    assert connection.listener.generation == 1
    await backend.send(b"0\r\n\r\n")
    await streaming.read_until(b"0\r\n\r\n")
    await wait_all_tasks_blocked()
    assert connection.follow()
    after = living()
    assert all(after[kind] <= before[kind] for kind in KINDS)
    assert after[Balancer] == 1
    assert after[Runtime] == 1
