"""TLS that is relayed as it is: routes by the ClientHello, and what becomes of what is none."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.tls.client_hello import MAX_RECEIVED, Alert, render_alert
from lbproc.proxy.cutting import cut_what_is_out
from lbproc.shm.views import ControllerView, Role, WorkerCounter
from lbproc.types import Health, Row
from tests.core.tls import hellos

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig

A, B, OTHER = "127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"
ROUTES = [
    {"match": {"sni": ["a.example"]}, "pool": "a", "name": "to-a"},
    {"match": {"sni": ["*.b.example"]}, "pool": "b"},
    {"match": {"alpn": ["postgresql"]}, "pool": "b"},
]
HELLO = hellos.hello(hellos.server_name(b"a.example"))
UNRECOGNIZED = render_alert(Alert.UNRECOGNIZED_NAME)


@pytest.fixture
def make(make_rig: MakeRig) -> Callable[..., Rig]:
    """A rig that passes through to three pools."""

    def make(*, default: bool = True, pools: dict[str, Any] | None = None, **listener: Any) -> Rig:
        return make_rig(
            listener={"protocol": "tls_passthrough", "routes": ROUTES, "pool": "web" if default else None}
            | listener,
            pool={"backends": [OTHER]},
            pools={"a": {"backends": [A]}, "b": {"backends": [B]}} | (pools or {}),
        )

    return make


def line(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.log_lines()[-1])
    return found


@pytest.mark.parametrize(
    ("extensions", "address", "route"),
    [
        ([hellos.server_name(b"a.example")], A, "to-a"),
        ([hellos.server_name(b"A.Example.")], A, "to-a"),
        ([hellos.server_name(b"x.b.example")], B, "1"),
        ([hellos.server_name(b"x.y.b.example"), hellos.alpn(b"h2")], B, "1"),
        ([hellos.server_name(b"c.example"), hellos.alpn(b"h2", b"postgresql")], B, "2"),
        ([hellos.alpn(b"postgresql")], B, "2"),
        ([hellos.server_name(b"b.example")], OTHER, None),
        ([], OTHER, None),
    ],
)
async def test_the_hello_says_where_it_goes_and_arrives_as_it_was_sent(
    make: Callable[..., Rig], nursery: trio.Nursery, extensions: list[bytes], address: str, route: str | None
) -> None:
    rig = make()
    client = rig.client(nursery)
    hello = hellos.hello(*extensions)
    await client.send(hello + b"early data")
    backend = await rig.backend()
    assert rig.dialled == [address]
    assert await backend.read_exactly(len(hello) + 10) == hello + b"early data"
    await backend.send(b"server hello")
    assert await client.read_exactly(12) == b"server hello"
    client.transport.abort()
    assert await backend.is_reset()
    found = line(rig)
    assert (found["route"], found["backend"], found["bytes_in"]) == (route, address, len(hello) + 10)


@pytest.mark.parametrize("split", ["every byte", "records of a byte"])
async def test_a_hello_in_pieces_arrives_as_it_was_sent(
    make: Callable[..., Rig], nursery: trio.Nursery, split: str
) -> None:
    rig = make()
    client = rig.client(nursery)
    hello = HELLO
    if split == "records of a byte":
        hello = hellos.records(hellos.message(hellos.body(hellos.server_name(b"a.example"))), 1)
    for at in range(len(hello)):
        await client.send(hello[at : at + 1])
        await wait_all_tasks_blocked()
    backend = await rig.backend()
    assert await backend.read_exactly(len(hello)) == hello
    assert rig.dialled == [A]


async def test_the_hello_of_a_real_client_arrives_as_it_was_sent(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make()
    hello = hellos.hello_of_openssl("a.example", ["h2"], ssl.TLSVersion.TLSv1_2)
    client = rig.client(nursery)
    await client.send(hello)
    backend = await rig.backend()
    assert await backend.read_exactly(len(hello)) == hello


async def test_a_name_that_goes_nowhere_is_told_so(make: Callable[..., Rig], nursery: trio.Nursery) -> None:
    rig = make(default=False)
    client = rig.client(nursery)
    await client.send(hellos.hello(hellos.server_name(b"nobody.example")))
    assert await client.read_exactly(len(UNRECOGNIZED)) == UNRECOGNIZED
    client.transport.close()
    await wait_all_tasks_blocked()
    found = line(rig)
    assert (found["cause"], found["host"], found["pool"]) == ("destination_not_found", "nobody.example", None)
    assert rig.view.counted(WorkerCounter.TLS_FAILED) == 1
    assert "tls_failed" in rig.log_path.read_text()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", render_alert(Alert.UNEXPECTED_MESSAGE)),
        (b"\x16\x03\x01" + b"\xff\xff", render_alert(Alert.RECORD_OVERFLOW)),
    ],
    ids=["http", "ssh", "another message", "a huge record"],
)
async def test_what_is_no_hello_is_closed(
    make: Callable[..., Rig], nursery: trio.Nursery, sent: bytes, answer: bytes
) -> None:
    rig = make()
    client = rig.client(nursery)
    await client.send(sent)
    assert await client.read_all() == answer
    client.transport.close()
    await wait_all_tasks_blocked()
    assert rig.dialled == []
    found = line(rig)
    assert (found["cause"], found["bytes_in"], found["bytes_out"]) == ("tls_protocol_error", len(sent), 0)


async def test_a_hello_without_end_is_not_kept_without_end(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make()
    client = rig.client(nursery)
    endless = hellos.records(b"\1\xff\xff\xff" + bytes(2 * MAX_RECEIVED))
    await client.send(endless[: MAX_RECEIVED + 1])
    assert (await client.read_exactly(7))[0] == 21
    assert rig.dialled == []


async def test_a_hello_that_does_not_come_in_time_is_not_waited_for(
    make: Callable[..., Rig], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = make(timeouts={"header": "5s"})
    silent, slow = rig.client(nursery), rig.client(nursery)
    await slow.send(HELLO[:-1])
    await trio.sleep(4)
    assert silent.transport.recv(1) is None
    await trio.sleep(2)
    assert await silent.read_all() == await slow.read_all() == b""
    (text,) = rig.log_lines()  # who said nothing leaves no line
    assert json.loads(text)["cause"] == "hello_timeout"


@pytest.mark.parametrize("sent", [b"", HELLO[:20]], ids=["nothing", "a part"])
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "resets"])
async def test_a_client_that_leaves_leaves_nothing(
    make: Callable[..., Rig], nursery: trio.Nursery, sent: bytes, *, ends: bool
) -> None:
    rig = make()
    client = rig.client(nursery)
    if sent:
        await client.send(sent)
    await wait_all_tasks_blocked()
    if ends:
        client.transport.close()
    else:
        client.transport.abort()
    await wait_all_tasks_blocked()
    assert [json.loads(text)["cause"] for text in rig.log_lines()] == (["client_gone"] if sent else [])


@pytest.mark.parametrize(
    ("key", "hello_of"),
    [
        ("sni", lambda number: hellos.hello(hellos.server_name(b"h%d.b.example" % number))),
        (
            "tls_session_id",
            lambda number: hellos.records(
                hellos.message(
                    hellos.body(hellos.server_name(b"x.b.example"), session_id=bytes([number]) * 32)
                )
            ),
        ),
    ],
    ids=["sni", "tls_session_id"],
)
async def test_equal_hellos_go_to_the_same_backend_where_the_pool_hashes_them(
    make: Callable[..., Rig], nursery: trio.Nursery, key: str, hello_of: Callable[[int], bytes]
) -> None:
    many = [f"127.0.0.1:{port}" for port in range(9001, 9005)]
    rig = make(pools={"b": {"backends": many, "policy": "consistent_hash", "hash_key": key}})
    for _ in range(2):
        for number in range(8):
            client = rig.client(nursery, peer_ip=f"192.0.2.{number}")
            await client.send(hello_of(number))
            backend = await rig.backend()
            client.transport.abort()
            await backend.is_reset()
            await wait_all_tasks_blocked()
    assert rig.dialled[:8] == rig.dialled[8:]
    assert len(set(rig.dialled)) > 1


async def test_it_is_cut_with_its_backend_once_it_has_one(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make(pools={"a": {"backends": [A], "on_down": "cut"}})
    client = rig.client(nursery)
    connection = rig.last_connection
    assert connection.cut([Row(0), Row(1), Row(2)]) is None
    await client.send(HELLO)
    await rig.backend()
    controller = ControllerView(rig.table, rig.supervisor.allocate_column(None, Role.CONTROLLER))
    for row in range(3):
        controller.set_health(Row(row), Health.DOWN)
    assert cut_what_is_out(rig.runtime, [connection], rig.context.log) == 1
    assert await client.is_reset()


async def test_a_connection_without_a_hello_ends_with_the_worker_and_one_with_a_part_of_it_does_not(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make()
    silent = rig.client(nursery)
    first = rig.last_connection
    begun = rig.client(nursery)
    second = rig.last_connection
    await begun.send(HELLO[:9])
    await wait_all_tasks_blocked()
    rig.context.leaving = True
    for connection in (first, second):
        connection.nudge_idle()
    assert await silent.read_all() == b""
    await begun.send(HELLO[9:])
    backend = await rig.backend()
    assert await backend.read_exactly(len(HELLO)) == HELLO
    second.nudge_idle()
    await begun.send(b"more")
    assert await backend.read_exactly(4) == b"more"


async def test_the_newest_routes_count_for_a_hello_that_is_whole_after_a_reload(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make()
    client = rig.client(nursery)
    await client.send(HELLO[:9])
    await wait_all_tasks_blocked()
    config = rig.config.model_dump(exclude_defaults=True)
    config["listeners"]["web"]["routes"] = [{"match": {"sni": ["a.example"]}, "pool": "b"}]
    rig.reload(config)
    await client.send(HELLO[9:])
    backend = await rig.backend()
    assert rig.dialled == [B]
    await backend.read_exactly(len(HELLO))
    assert rig.last_connection.follow()
    assert rig.last_connection.listener is rig.runtime.listeners["web"]


async def test_a_hello_that_is_whole_after_its_listener_was_removed_goes_where_it_would_have(
    make: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = make()
    client = rig.client(nursery)
    await client.send(HELLO[:9])
    await wait_all_tasks_blocked()
    config = rig.config.model_dump(exclude_defaults=True)
    config["listeners"]["other"] = config["listeners"].pop("web")
    rig.reload(config)
    await client.send(HELLO[9:])
    await rig.backend()
    assert rig.dialled == [A]
