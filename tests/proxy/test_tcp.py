"""Connections that are relayed as they are: where they go, how they end, and what is kept of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.proxy.cutting import cut_what_is_out
from lbproc.proxy.relayed import RelayedConnection
from lbproc.shm.views import BackendCounter, ControllerView, Role, WorkerCounter
from lbproc.types import Health, Row
from tests.net.waiting import converse

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig, Wire

TCP = {"protocol": "tcp"}
TWO = ["127.0.0.1:9001", "127.0.0.1:9002"]
FIRST_OF_TWO: dict[str, Any] = {"backends": TWO, "policy": "first_available"}
FIRST, SECOND = Row(0), Row(1)


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(listener=TCP)


def line(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.log_lines()[-1])
    return found


async def dialogue(rig: Rig, nursery: trio.Nursery) -> tuple[Wire, Wire]:
    """A client and a backend that have said something to each other."""
    client = rig.client(nursery)
    backend = await rig.backend()
    await client.send(b"hello")
    assert await backend.read_exactly(5) == b"hello"
    await backend.send(b"welcome")
    assert await client.read_exactly(7) == b"welcome"
    return client, backend


async def end(client: Wire, backend: Wire) -> None:
    client.transport.shutdown_write()
    assert await backend.read_all() == b""
    backend.transport.close()
    assert await client.read_all() == b""
    await wait_all_tasks_blocked()


# Where they go ----------------------------------------------------------------------------------------------


async def test_the_backend_may_speak_first(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery)
    backend = await rig.backend()
    await backend.send(b"220 mail\r\n")
    assert await client.read_until(b"\r\n") == b"220 mail\r\n"


async def test_all_is_brought_both_ways_to_the_last_byte(rig: Rig, nursery: trio.Nursery) -> None:
    up, down = bytes(range(256)) * 8000, bytes(reversed(range(256))) * 9000
    client = rig.client(nursery)
    backend = await rig.backend()
    heard: list[bytes] = []

    async def answer() -> None:
        heard.append(await converse(backend.transport, down))

    async with trio.open_nursery() as answering:
        answering.start_soon(answer)
        assert await converse(client.transport, up) == down
    assert heard == [up]
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    found = line(rig)
    assert (found["bytes_in"], found["bytes_out"], found["cause"]) == (len(up), len(down), None)


async def test_a_backend_that_refuses_is_replaced_by_another(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, pool=FIRST_OF_TWO)
    rig.refusing[TWO[0]] = "refused"
    client, backend = await dialogue(rig, nursery)
    assert rig.dialled == TWO
    assert rig.in_flight() == 1
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 1
    assert rig.reader.backend_total(FIRST, BackendCounter.REDISPATCHES) == 1
    await end(client, backend)
    found = line(rig)
    assert (found["backend"], found["retries"], found["cause"]) == (TWO[1], 1, None)
    assert "backend_unreachable" in rig.log_path.read_text()


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("refused", "connection_refused"),
        ("timeout", "connection_timeout"),
        ("unreachable", "destination_ip_unroutable"),
        ("local", "proxy_internal_error"),
    ],
)
async def test_without_a_backend_that_answers_the_client_is_reset(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock, kind: str, cause: str
) -> None:
    rig.refusing["127.0.0.1:9001"] = kind
    assert await rig.client(nursery).is_reset()
    assert rig.in_flight() == 0
    found = line(rig)
    assert (found["cause"], found["backend"], found["status"]) == (cause, "127.0.0.1:9001", None)


async def test_without_a_backend_that_is_up_the_client_is_reset(rig: Rig, nursery: trio.Nursery) -> None:
    ControllerView(rig.table, rig.supervisor.allocate_column(None, Role.CONTROLLER)).set_health(
        FIRST, Health.DOWN
    )
    assert await rig.client(nursery).is_reset()
    assert rig.dialled == []
    assert line(rig)["cause"] == "destination_unavailable"
    assert "pool_exhausted" in rig.log_path.read_text()


async def test_a_connection_is_one_place_and_a_full_backend_gets_no_other(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    one = {"address": "127.0.0.1:9001", "max_connections": 1}
    rig = make_rig(listener=TCP, pool={"backends": [one]})
    client, backend = await dialogue(rig, nursery)
    assert await rig.client(nursery).is_reset()
    await end(client, backend)
    await dialogue(rig, nursery)
    causes = [json.loads(text)["cause"] for text in rig.log_lines()]
    assert causes == ["connection_limit_reached", None]


async def test_connections_of_one_client_stay_together_where_the_pool_hashes_addresses(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, pool={"backends": TWO, "policy": "consistent_hash", "hash_key": "client_ip"})
    for _ in range(2):
        for number in range(8):
            rig.client(nursery, peer_ip=f"192.0.2.{number}")
            await rig.backend()
    first, second = rig.dialled[:8], rig.dialled[8:]
    assert first == second
    assert set(first) == set(TWO)


async def test_round_robin_goes_round(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(listener=TCP, pool={"backends": TWO, "policy": "round_robin"})
    for _ in range(4):
        await dialogue(rig, nursery)
    assert sorted(rig.dialled) == sorted(TWO * 2)


# How they end -----------------------------------------------------------------------------------------------


async def test_the_end_of_the_client_is_passed_on_and_the_backend_goes_on(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await dialogue(rig, nursery)
    client.transport.shutdown_write()
    assert await backend.read_all() == b""
    await backend.send(b"the rest")
    assert await client.read_exactly(8) == b"the rest"
    backend.transport.close()
    assert await client.read_all() == b""
    await wait_all_tasks_blocked()
    found = line(rig)
    assert (found["cause"], found["bytes_in"], found["bytes_out"]) == (None, 5, 15)


async def test_the_end_of_the_backend_is_passed_on_and_the_client_goes_on(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await dialogue(rig, nursery)
    backend.transport.shutdown_write()
    assert await client.read_all() == b""
    await client.send(b"the rest")
    assert await backend.read_exactly(8) == b"the rest"
    client.transport.close()
    assert await backend.read_all() == b""


async def test_a_reset_is_passed_on_to_the_client(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await dialogue(rig, nursery)
    backend.transport.abort()
    assert await client.is_reset()
    assert rig.in_flight() == 0
    assert line(rig)["cause"] == "connection_terminated"


async def test_a_reset_is_passed_on_to_the_backend(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await dialogue(rig, nursery)
    client.transport.abort()
    assert await backend.is_reset()
    assert line(rig)["cause"] == "client_gone"


async def test_what_a_backend_said_last_reaches_a_client_that_still_talks(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, backend = await dialogue(rig, nursery)
    await backend.send(b"too much")
    backend.transport.close()
    await wait_all_tasks_blocked()
    await client.send(b"more")
    assert await client.read_all() == b"too much"
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0  # the place is not held while the client is waited for
    await trio.sleep(6)
    assert line(rig)["cause"] is None


async def test_silence_both_ways_ends_it(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make_rig(listener=TCP | {"timeouts": {"tunnel": "10s"}})
    client, backend = await dialogue(rig, nursery)
    await trio.sleep(9)
    await client.send(b"x")
    await trio.sleep(9)
    await backend.send(b"y")
    await trio.sleep(9)
    assert rig.in_flight() == 1
    await trio.sleep(2)
    assert await client.read_all() == b"y"
    assert await backend.read_all() == b"x"
    assert line(rig)["cause"] == "idle_timeout"


@pytest.mark.parametrize("who", ["client", "backend"])
async def test_silence_of_one_who_takes_nothing_does_not_look_like_an_end(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, who: str
) -> None:
    rig = make_rig(listener=TCP | {"timeouts": {"tunnel": "10s"}}, capacity=1000)
    client, backend = await dialogue(rig, nursery)
    talker, silent = (backend, client) if who == "client" else (client, backend)
    while talker.transport.send(b"x" * 1000):
        await wait_all_tasks_blocked()
    await trio.sleep(11)
    assert await silent.is_reset()
    assert rig.in_flight() == 0
    assert line(rig)["cause"] == "idle_timeout"


async def test_what_is_cut_off_by_the_end_of_a_drain_does_not_look_complete(rig: Rig) -> None:
    async with trio.open_nursery() as serving:
        client, backend = await dialogue(rig, serving)
        serving.cancel_scope.cancel()
    assert await client.is_reset()
    assert await backend.is_reset()
    assert rig.in_flight() == 0
    assert line(rig)["cause"] == "drain_timeout"


async def test_a_backend_that_goes_down_takes_its_connections_along_where_that_is_asked_for(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, pool={"on_down": "cut"})
    client, backend = await dialogue(rig, nursery)
    ControllerView(rig.table, rig.supervisor.allocate_column(None, Role.CONTROLLER)).set_health(
        FIRST, Health.DOWN
    )
    assert cut_what_is_out(rig.runtime, [rig.last_connection], rig.context.log) == 1
    assert await client.is_reset()
    assert await backend.is_reset()
    assert line(rig)["cause"] == "destination_unavailable"
    assert rig.last_connection.cut([FIRST]) is None


async def test_a_backend_that_goes_down_while_it_is_connected_to_is_replaced(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, pool=FIRST_OF_TWO | {"on_down": "cut"})
    slow, connect = trio.Event(), rig.context.connect

    async def connect_slowly(address: Any, deadline: float) -> Any:
        transport = await connect(address, deadline)
        if str(address) == TWO[0]:
            await slow.wait()
        return transport

    rig.context.connect = connect_slowly
    client = rig.client(nursery)
    first = await rig.backend()
    await wait_all_tasks_blocked()
    assert rig.last_connection.cut([FIRST]) == FIRST
    slow.set()
    second = await rig.backend()
    await client.send(b"hello")
    assert await second.read_exactly(5) == b"hello"
    assert await first.read_all() == b""
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 0


# What is kept of them ---------------------------------------------------------------------------------------


async def test_its_line_has_the_keys_of_every_line(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await dialogue(rig, nursery)
    await end(client, backend)
    found = line(rig)
    assert list(found) == [
        "time", "client_ip", "listener", "route", "pool", "backend", "method", "host", "target", "version",
        "status", "cause", "bytes_in", "bytes_out", "queue_ms", "connect_ms", "first_byte_ms", "total_ms",
        "retries", "request_id", "tls",
    ]  # fmt: skip
    assert found["connect_ms"] >= 0
    assert {name: value for name, value in found.items() if value is not None and name[-3:] != "_ms"} == {
        "time": found["time"],
        "client_ip": "192.0.2.1",
        "listener": "web",
        "pool": "web",
        "backend": "127.0.0.1:9001",
        "bytes_in": 5,
        "bytes_out": 7,
        "retries": 0,
    }


async def test_its_line_in_the_combined_format_has_hyphens_where_a_request_would_be(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, log={"format": "combined"})
    client, backend = await dialogue(rig, nursery)
    await end(client, backend)
    (text,) = rig.log_lines()
    assert text.startswith("192.0.2.1 - - [")
    assert text.endswith('] "-" - 7 "-" "-"')


async def test_bytes_are_counted_while_it_goes_on(rig: Rig, nursery: trio.Nursery) -> None:
    client, backend = await dialogue(rig, nursery)
    view, reader = rig.view, rig.reader
    assert view.counted(WorkerCounter.TUNNELS) == 1
    assert (view.counted(WorkerCounter.BYTES_IN), view.counted(WorkerCounter.BYTES_OUT)) == (5, 7)
    assert reader.backend_total(FIRST, BackendCounter.BYTES_IN) == 5
    assert reader.backend_total(FIRST, BackendCounter.BYTES_OUT) == 7
    await end(client, backend)
    assert view.counted(WorkerCounter.TUNNELS) == view.counted(WorkerCounter.REQUESTS) == 0
    assert (view.counted(WorkerCounter.BYTES_IN), view.counted(WorkerCounter.BYTES_OUT)) == (5, 7)
    assert reader.backend_total(FIRST, BackendCounter.REQUESTS) == 1


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "after a word"])
async def test_passive_checks_hear_of_backends_that_break_before_they_have_said_anything(
    make_rig: MakeRig, nursery: trio.Nursery, *, speaks: bool
) -> None:
    rig = make_rig(listener=TCP, pool=FIRST_OF_TWO | {"outlier": {"consecutive_errors": 2}})
    for _ in range(2):
        client = rig.client(nursery)
        backend = await rig.backend()
        if speaks:
            await backend.send(b"x")
            await client.read_exactly(1)
        backend.transport.abort()
        assert await client.is_reset()
    rig.client(nursery)
    await rig.backend()
    assert rig.dialled[-1] == TWO[0 if speaks else 1]
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == (0 if speaks else 2)


async def test_passive_checks_hear_of_backends_that_refuse(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    rig = make_rig(listener=TCP, pool=FIRST_OF_TWO | {"outlier": {"consecutive_errors": 2}})
    rig.refusing[TWO[0]] = "refused"
    for _ in range(3):
        rig.client(nursery)
        await rig.backend()
    assert rig.dialled == [TWO[0], TWO[1], TWO[0], TWO[1], TWO[1]]


# Reloads and drains -----------------------------------------------------------------------------------------


async def test_a_reload_leaves_them_alone_and_they_hold_nothing_of_what_was_before(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client, backend = await dialogue(rig, nursery)
    connection = rig.last_connection
    before = connection.listener
    config = rig.config.model_dump()
    rig.reload(config)
    rig.context.move()
    assert connection.follow()
    assert connection.listener is rig.runtime.listeners["web"] is not before
    await client.send(b"more")
    assert await backend.read_exactly(4) == b"more"
    await end(client, backend)
    assert rig.in_flight() == 0


@pytest.mark.parametrize("change", ["removed", "another protocol"])
async def test_those_of_a_listener_that_is_gone_are_kept(
    rig: Rig, nursery: trio.Nursery, change: str
) -> None:
    client, backend = await dialogue(rig, nursery)
    connection = rig.last_connection
    config = rig.config.model_dump()
    if change == "removed":
        config["listeners"]["other"] = config["listeners"].pop("web")
    else:
        config["listeners"]["web"]["protocol"] = "http"
    rig.reload(config)
    rig.context.move()
    assert connection.lineage.current is None
    connection.lineage.leaving = True
    assert connection.follow()
    connection.nudge_idle()
    await wait_all_tasks_blocked()
    await client.send(b"more")
    assert await backend.read_exactly(4) == b"more"
    await backend.send(b"yes")
    assert await client.read_exactly(3) == b"yes"


async def test_requests_of_a_listener_that_relays_now_are_not_relayed(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig()
    client = rig.client(nursery)
    config = rig.config.model_dump()
    config["listeners"]["web"]["protocol"] = "tcp"
    rig.reload(config)
    rig.context.move()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    backend = await rig.backend()
    assert (await backend.read_until(b"\r\n\r\n")).startswith(b"GET / HTTP/1.1\r\n")
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert b"connection: close" in (await client.read_until(b"\r\n\r\n")).lower()


async def test_it_is_a_connection_of_its_own_kind(rig: Rig, nursery: trio.Nursery) -> None:
    await dialogue(rig, nursery)
    assert isinstance(rig.last_connection, RelayedConnection)


async def test_a_backend_that_cannot_take_a_proxy_header_is_replaced(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener=TCP, pool=FIRST_OF_TWO | {"proxy_protocol": "v1"})
    connect = rig.context.connect

    async def connect_badly(address: Any, deadline: float) -> Any:
        if str(address) == TWO[0]:
            transport = await connect(address, deadline)
            transport.shutdown_write()
            return transport
        return await connect(address, deadline)

    rig.context.connect = connect_badly
    rig.client(nursery)
    await rig.backend()
    second = await rig.backend()
    assert await second.read_until(b"\r\n") == b"PROXY TCP4 192.0.2.1 192.0.2.1 40000 80\r\n"
