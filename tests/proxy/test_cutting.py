"""Backends that go out of use: what becomes of what is under way there, and of connections that lie idle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.connect import ConnectFailed
from lbproc.proxy.cutting import cut_what_is_out
from lbproc.shm.views import BackendCounter, ControllerView, Role
from lbproc.types import Admin, Health, Row
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.net.connect import FailureKind
    from lbproc.proxy.client import Client
    from tests.proxy.conftest import MakeRig

BACKENDS = ["127.0.0.1:9001", "127.0.0.1:9002"]
FIRST = Row(0)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RETRIES = {"on": ["reset"]}


class Stage:
    """A rig whose worker looks for what is out, as its pulse does."""

    def __init__(self, rig: Rig, nursery: trio.Nursery, pool: dict[str, Any]) -> None:
        self.rig = rig
        self.pool = pool
        self._nursery = nursery
        self._connections: list[Client] = []
        self._controller = ControllerView(rig.table, rig.supervisor.allocate_column(None, Role.CONTROLLER))

    def client(self) -> Wire:
        client = self.rig.client(self._nursery)
        self._connections.append(self.rig.last_connection)
        return client

    async def begin(self, client: Wire, request: bytes = GET, *, warm: bool) -> Wire:
        """Sends a request, over a fresh connection or an idle one; returns the backend that has got it."""
        backend = None
        if warm:
            await client.send(GET)
            backend = await self.rig.backend()
            await backend.read_until(END)
            await backend.send(OK)
            await client.read_until(b"ok")
        await client.send(request)
        backend = backend or await self.rig.backend()
        await backend.read_until(END)
        return backend

    def lose(self) -> int:
        """The first backend goes down; returns how much was cut."""
        self._controller.set_health(FIRST, Health.DOWN)
        return self.pulse()

    def recover(self) -> int:
        self._controller.set_health(FIRST, Health.UP)
        return self.pulse()

    def maintain(self, admin: Admin) -> int:
        self.rig.supervisor.set_admin(FIRST, admin)
        return self.pulse()

    def pulse(self) -> int:
        return cut_what_is_out(self.rig.runtime, self._connections, self.rig.context.log)

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.rig.log_lines()[-1])
        return line


@pytest.fixture
def make_stage(make_rig: MakeRig, nursery: trio.Nursery) -> Callable[..., Stage]:
    def make(**changes: Any) -> Stage:
        pool = {"backends": BACKENDS, "policy": "first_available", "on_down": "cut"} | changes
        return Stage(make_rig(pool=pool), nursery, pool)

    return make


warm_or_not = pytest.mark.parametrize("warm", [False, True], ids=["fresh", "idle"])


@warm_or_not
@pytest.mark.parametrize("request_bytes", [GET, POST])
async def test_a_request_without_an_answer_is_502(
    make_stage: Callable[..., Stage], request_bytes: bytes, *, warm: bool
) -> None:
    stage = make_stage()
    client = stage.client()
    backend = await stage.begin(client, request_bytes, warm=warm)
    assert stage.lose() == 1
    answer = await client.read_until(END)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"error=destination_unavailable" in answer
    assert await backend.is_reset()
    assert stage.rig.in_flight() == 0
    assert len(stage.rig.dialled) == 1
    assert stage.rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 0  # it was lbproc that ended it
    assert "connections_cut" in stage.rig.log_path.read_text()
    assert stage.line()["cause"] == "destination_unavailable"


@warm_or_not
async def test_with_retries_it_is_repeated_on_another_backend(
    make_stage: Callable[..., Stage], *, warm: bool
) -> None:
    stage = make_stage(retries=RETRIES)
    client = stage.client()
    await stage.begin(client, warm=warm)
    assert stage.lose() == 1
    other = await stage.rig.backend()
    await other.read_until(END)
    await other.send(OK)
    assert await client.read_until(b"ok") == OK
    await wait_all_tasks_blocked()
    assert stage.rig.dialled == BACKENDS
    line = stage.line()
    assert (line["status"], line["cause"], line["retries"], line["backend"]) == (200, None, 1, BACKENDS[1])


@warm_or_not
async def test_a_client_that_has_a_part_of_the_response_is_reset(
    make_stage: Callable[..., Stage], *, warm: bool
) -> None:
    stage = make_stage(retries=RETRIES)
    client = stage.client()
    backend = await stage.begin(client, warm=warm)
    await backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await client.read_until(b"half")
    assert stage.lose() == 1
    assert await client.is_reset()
    line = stage.line()
    assert (line["status"], line["cause"]) == (200, "destination_unavailable")


async def test_a_tunnel_is_reset_at_both_ends(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    client = stage.client()
    backend = await stage.begin(client, UPGRADE, warm=False)
    await backend.send(SWITCHING)
    await client.read_until(END)
    assert stage.lose() == 1
    assert await client.is_reset()
    assert await backend.is_reset()
    assert stage.rig.in_flight() == 0
    line = stage.line()
    assert (line["status"], line["cause"]) == (101, "destination_unavailable")


async def test_a_connection_on_its_way_is_given_up_and_another_backend_gets_the_request(
    make_stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage()
    slow = trio.Event()
    connect = stage.rig.context.connect

    async def connect_slowly(address: Any, deadline: float) -> Any:
        transport = await connect(address, deadline)
        if str(address) == BACKENDS[0]:
            await slow.wait()
        return transport

    stage.rig.context.connect = connect_slowly
    client = stage.client()
    await client.send(POST)
    first = await stage.rig.backend()
    await wait_all_tasks_blocked()
    assert stage.lose() == 1
    slow.set()
    second = await stage.rig.backend()
    await second.read_until(END)
    assert await first.read_all() == b""
    await second.send(OK)
    await client.read_until(b"ok")


@pytest.mark.parametrize("retries", [{}, {"retries": RETRIES}], ids=["no_retries", "retries"])
@pytest.mark.parametrize("kind", ["timeout", "refused"])
async def test_a_connect_that_fails_after_the_cut_is_redispatched(
    make_stage: Callable[..., Stage], kind: FailureKind, retries: dict[str, Any]
) -> None:
    stage = make_stage(**retries)
    lost = trio.Event()
    connect = stage.rig.context.connect

    async def connect_in_vain(address: Any, deadline: float) -> Any:
        if str(address) == BACKENDS[0]:
            await lost.wait()
            raise ConnectFailed(kind, "no answer")
        return await connect(address, deadline)

    stage.rig.context.connect = connect_in_vain
    client = stage.client()
    await client.send(POST)
    await wait_all_tasks_blocked()
    assert stage.lose() == 1
    lost.set()
    with trio.fail_after(2):
        other = await stage.rig.backend()
        assert (await other.read_until(END)).startswith(b"POST ")
        await other.send(OK)
        assert await client.read_until(b"ok") == OK
    await wait_all_tasks_blocked()
    line = stage.line()
    assert (line["status"], line["retries"], line["backend"]) == (200, 1, BACKENDS[1])
    assert stage.rig.reader.backend_total(FIRST, BackendCounter.REDISPATCHES) == 1
    assert stage.rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 1


async def test_a_connect_that_fails_after_the_cut_keeps_its_cause_when_nobody_else_is_there(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage(backends=BACKENDS[:1])
    lost = trio.Event()

    async def connect_in_vain(address: Any, deadline: float) -> Any:
        await lost.wait()
        raise ConnectFailed("timeout", "no answer")

    stage.rig.context.connect = connect_in_vain
    client = stage.client()
    await client.send(POST)
    await wait_all_tasks_blocked()
    assert stage.lose() == 1
    lost.set()
    answer = await client.read_until(END)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"error=connection_timeout" in answer


async def test_what_is_not_under_way_there_goes_on(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(backends=[{"address": BACKENDS[0], "max_connections": 1}, BACKENDS[1]])
    held, client, idle = stage.client(), stage.client(), stage.client()
    await stage.begin(held, warm=False)
    backend = await stage.begin(client, warm=False)
    assert stage.lose() == 1
    await backend.send(OK)
    assert await client.read_until(b"ok") == OK
    await idle.send(GET)
    await backend.read_until(END)
    await backend.send(OK)
    assert await idle.read_until(b"ok") == OK


async def test_an_answer_that_lbproc_gives_itself_is_not_cut(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(backends=BACKENDS[:1])
    stage.rig.refusing[BACKENDS[0]] = "refused"
    client = stage.client()
    await client.send(GET)
    await wait_all_tasks_blocked()
    assert stage.lose() == 0
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")


@warm_or_not
async def test_keep_lets_everything_end_by_itself(make_stage: Callable[..., Stage], *, warm: bool) -> None:
    stage = make_stage(on_down="keep")
    client, tunnel = stage.client(), stage.client()
    inside = await stage.begin(tunnel, UPGRADE, warm=False)
    await inside.send(SWITCHING)
    await tunnel.read_until(END)
    backend = await stage.begin(client, warm=warm)
    assert stage.lose() == 0
    await backend.send(OK)
    assert await client.read_until(b"ok") == OK
    await inside.send(b"still here")
    await tunnel.read_until(b"still here")


@pytest.mark.parametrize("on_down", ["keep", "cut"])
async def test_idle_connections_are_closed_and_none_is_kept_until_it_is_back(
    make_stage: Callable[..., Stage], on_down: str
) -> None:
    stage = make_stage(on_down=on_down)
    idle_client, busy_client = stage.client(), stage.client()
    busy = await stage.begin(busy_client, warm=False)
    idle = await stage.begin(idle_client, warm=False)
    await idle.send(OK)
    await idle_client.read_until(b"ok")
    stage.lose()
    assert await idle.read_all() == b""
    if on_down == "keep":
        await busy.send(OK)
        await busy_client.read_until(b"ok")
        assert await busy.read_all() == b""
    stage.recover()
    client = stage.client()
    again = await stage.begin(client, warm=True)
    await again.send(OK)
    await client.read_until(b"ok")
    assert stage.rig.dialled[-1] == BACKENDS[0]
    assert stage.rig.dialled.count(BACKENDS[0]) == 3


async def test_it_is_cut_once(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    client = stage.client()
    await stage.begin(client, warm=False)
    assert stage.lose() == 1
    assert stage.pulse() == 0
    stage.maintain(Admin.DRAIN)  # another change of status
    assert stage.pulse() == 0


async def test_maintenance_cuts_as_well_and_drain_does_not(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    client = stage.client()
    await stage.begin(client, warm=False)
    assert stage.maintain(Admin.DRAIN) == 0
    assert stage.maintain(Admin.MAINTENANCE) == 1
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")


async def test_what_panic_keeps_in_use_is_cut_when_the_panic_is_over(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage(panic_threshold=0.6)
    client = stage.client()
    backend = await stage.begin(client, warm=True)
    assert stage.lose() == 0  # one of two is left: fewer than the threshold asks for
    await backend.send(OK)
    await client.read_until(b"ok")
    await client.send(GET)
    await backend.read_until(END)  # the idle connection was kept, and is used
    stage.rig.publish(pool=stage.pool | {"backends": [*BACKENDS, "127.0.0.1:9003"]})
    assert stage.pulse() == 1
    assert (await client.read_until(END)).startswith(b"HTTP/1.1 502 ")
