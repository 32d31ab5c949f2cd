"""PROXY headers towards backends: what they say, and that a connection stays the client's that it is for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.proxy_protocol import ProxyHeader, ProxyHeaderBuffer
from lbproc.core.proxy_tlv import ProxyFields, ProxyTls
from lbproc.core.tls.client_hello import ClientHello, HelloBuffer
from lbproc.net.memory import memory_pair
from lbproc.proxy.arrival import Arrival
from lbproc.shm.views import BackendCounter
from lbproc.types import Row, TcpAddress, UnixAddress
from tests.core.tls import hellos
from tests.proxy.rig import END

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.net.memory import MemoryTransport
    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Rig, Wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PEER, HERE = TcpAddress("192.0.2.7", 40000), TcpAddress("192.0.2.1", 80)


async def read_header(backend: Wire) -> ProxyHeader:
    """The PROXY header at the beginning of a backend connection, taken off what was received."""
    buffer = ProxyHeaderBuffer()
    while (header := buffer.feed(await backend.read_exactly(1))) is None:
        pass
    return header


def parse(raw: bytes) -> ProxyHeader:
    buffer = ProxyHeaderBuffer()
    header = buffer.feed(raw)
    assert header is not None
    assert buffer.take_rest() == b""
    return header


def hello_for(name: bytes) -> ClientHello:
    hello = HelloBuffer().feed(hellos.hello(hellos.server_name(name)))
    assert hello is not None
    return hello


@pytest.fixture
def transport() -> MemoryTransport:
    _, ours = memory_pair()
    ours.peer_ip, ours.peer_port = PEER.host, PEER.port
    return ours


# What they say ----------------------------------------------------------------------------------------------


def test_the_client_and_where_it_connected_to(transport: MemoryTransport) -> None:
    local = TcpAddress(*transport.local_address)
    arrival = Arrival(transport)
    assert parse(arrival.greeting(transport, "v1", "")) == ProxyHeader(PEER, local)
    assert parse(arrival.greeting(transport, "v2", "abc")) == ProxyHeader(
        PEER, local, fields=ProxyFields(unique_id=b"abc")
    )


def test_what_the_header_before_said_goes_on(transport: MemoryTransport) -> None:
    fields = ProxyFields(b"h2", "a.example", b"first", ProxyTls("TLSv1.3", common_name="joe"))
    given = ProxyHeader(TcpAddress("2001:db8::1", 5), TcpAddress("2001:db8::2", 443), fields=fields)
    arrival = Arrival(transport, given)
    assert arrival.client_ip == "2001:db8::1"
    assert parse(arrival.greeting(transport, "v2", "second")) == given
    assert arrival.greeting(transport, "v1", "") == b"PROXY TCP6 2001:db8::1 2001:db8::2 5 443\r\n"


def test_what_is_known_better_here_takes_its_place(transport: MemoryTransport) -> None:
    given = ProxyHeader(PEER, HERE, fields=ProxyFields(b"h2", "a.example", b"", ProxyTls("TLSv1.2")))
    tls = ProxyTls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "joe", has_certificate=True, is_verified=True)
    arrival = Arrival(transport, given, hello_for(b"b.example"), tls, b"http/1.1")
    assert parse(arrival.greeting(transport, "v2", "id")).fields == ProxyFields(
        b"http/1.1", "b.example", b"id", tls
    )


def test_a_connection_of_the_proxy_itself_counts_as_what_it_is(transport: MemoryTransport) -> None:
    arrival = Arrival(transport, ProxyHeader(None, None))
    assert arrival.client_ip == PEER.host
    assert parse(arrival.greeting(transport, "v1", "")).source == PEER


def test_a_client_of_a_unix_socket_has_no_address(transport: MemoryTransport) -> None:
    arrival = Arrival(transport, ProxyHeader(UnixAddress("/a"), UnixAddress("/b")))
    assert arrival.client_ip == ""
    assert arrival.greeting(transport, "v1", "") == b"PROXY UNKNOWN\r\n"
    transport.peer_ip = ""
    assert Arrival(transport).greeting(transport, "v1", "") == b"PROXY UNKNOWN\r\n"


@pytest.mark.parametrize(
    ("peer", "local", "line"),
    [
        ("192.0.2.7", "::ffff:192.0.2.1", b"PROXY TCP4 192.0.2.7 192.0.2.1 "),
        ("fe80::7%eth0", "fe80::1%eth0", b"PROXY TCP6 fe80::7 fe80::1 "),
    ],
)
def test_addresses_are_written_as_headers_want_them(peer: str, local: str, line: bytes) -> None:
    theirs, ours = memory_pair()
    ours.peer_ip, theirs.peer_ip = peer, local
    assert Arrival(ours).greeting(ours, "v1", "").startswith(line)


def test_a_client_is_hashed_by_what_its_hello_said(transport: MemoryTransport) -> None:
    assert Arrival(transport).facts().server_name == b""
    assert Arrival(transport, hello=hello_for(b"b.example")).facts().server_name == b"b.example"


# Connections that are relayed -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_relayed_connection_begins_with_a_header(
    make_rig: MakeRig, nursery: trio.Nursery, version: str
) -> None:
    rig = make_rig(listener={"protocol": "tcp"}, pool={"proxy_protocol": version})
    client = rig.client(nursery, peer_ip=PEER.host)
    backend = await rig.backend()
    header = await read_header(backend)
    assert (header.source, header.destination) == (PEER, HERE)
    await client.send(b"hello")
    assert await backend.read_exactly(5) == b"hello"
    client.transport.close()
    backend.transport.close()
    await wait_all_tasks_blocked()
    (line,) = map(json.loads, rig.log_lines())
    assert line["bytes_in"] == 5
    assert line["request_id"] == (header.fields.unique_id.decode() or None)
    assert bool(header.fields.unique_id) is (version == "v2")


async def test_tls_that_is_passed_through_tells_the_name_that_was_asked_for(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"protocol": "tls_passthrough"}, pool={"proxy_protocol": "v2"})
    client = rig.client(nursery)
    hello = hellos.hello(hellos.server_name(b"a.example"), hellos.alpn(b"h2"))
    await client.send(hello)
    backend = await rig.backend()
    fields = (await read_header(backend)).fields
    assert (fields.authority, fields.alpn, fields.tls) == ("a.example", b"", None)
    assert await backend.read_exactly(len(hello)) == hello


# Requests ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(make_rig: MakeRig) -> Callable[..., Rig]:
    return lambda **pool: make_rig(pool={"proxy_protocol": "v1"} | pool)


async def exchange(client: Wire, backend: Wire) -> None:
    await backend.read_until(END)
    await backend.send(OK)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_requests_of_one_connection_share_a_backend_connection_and_those_of_others_do_not(
    ask: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = ask()
    backends = []
    for number in (1, 2):
        client = rig.client(nursery, peer_ip=f"192.0.2.{number}")
        await client.send(GET)
        backend = await rig.backend()
        backends.append(backend)
        assert (await read_header(backend)).source == TcpAddress(f"192.0.2.{number}", 40000)
        for _ in range(3):
            await exchange(client, backend)
            await client.send(GET)
        await exchange(client, backend)
        client.transport.close()
        assert await backend.read_all() == b""
    assert len(rig.dialled) == 2
    assert rig.reader.backend_total(Row(0), BackendCounter.REUSES) == 6
    assert rig.in_flight() == 0


async def test_an_own_connection_that_the_backend_has_ended_is_replaced(
    ask: Callable[..., Rig], nursery: trio.Nursery
) -> None:
    rig = ask()
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await read_header(backend)
    await exchange(client, backend)
    await wait_all_tasks_blocked()
    backend.transport.close()
    await client.send(GET)
    other = await rig.backend()
    assert (await read_header(other)).source is not None
    await exchange(client, other)


async def test_an_own_connection_is_not_kept_for_longer_than_others(
    ask: Callable[..., Rig], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig = ask()
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await read_header(backend)
    await exchange(client, backend)
    await trio.sleep(56)
    await client.send(GET)
    other = await rig.backend()
    await read_header(other)
    await exchange(client, other)


async def test_few_own_connections_are_kept(make_rig: MakeRig, nursery: trio.Nursery) -> None:
    many = [f"127.0.0.1:{port}" for port in range(9001, 9007)]
    rig = make_rig(pool={"proxy_protocol": "v2", "backends": many, "policy": "round_robin"})
    client = rig.client(nursery)
    opened = []
    for _ in many:
        await client.send(GET)
        backend = await rig.backend()
        await read_header(backend)
        await exchange(client, backend)
        opened.append(backend)
    await wait_all_tasks_blocked()
    closed = [wire.transport.recv(1) == b"" for wire in opened]
    assert closed == [True, True, False, False, False, False]


async def test_connections_from_before_a_reload_are_not_used_without_a_header(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig()
    client = rig.client(nursery)
    await client.send(GET)
    backend = await rig.backend()
    await exchange(client, backend)
    await wait_all_tasks_blocked()
    config = rig.config.model_dump(exclude_defaults=True)
    config["pools"]["web"]["proxy_protocol"] = "v1"
    rig.reload(config)
    await client.send(GET)
    other = await rig.backend()
    assert (await read_header(other)).source is not None
    await exchange(client, other)
    assert await backend.read_all() == b""


# Backends that take a header slowly, or not -----------------------------------------------------------------


async def test_a_header_that_does_not_fit_at_once_is_sent_whole(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"protocol": "tcp"}, pool={"proxy_protocol": "v2"}, capacity=10)
    client = rig.client(nursery)
    backend = await rig.backend()
    assert (await read_header(backend)).source is not None
    await client.send(b"hello")
    assert await backend.read_exactly(5) == b"hello"


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_a_backend_that_takes_no_header_in_time_is_not_waited_for(
    make_rig: MakeRig, nursery: trio.Nursery, autojump_clock: MockClock, protocol: str
) -> None:
    rig = make_rig(listener={"protocol": protocol}, pool={"proxy_protocol": "v2"}, capacity=50)
    client = rig.client(nursery)
    if protocol == "http":
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await client.read_all()).startswith(b"HTTP/1.1 502 ")
    else:
        assert await client.is_reset()
    await wait_all_tasks_blocked()
    assert rig.in_flight() == 0
    assert json.loads(rig.log_lines()[-1])["cause"] == "destination_unavailable"


async def test_a_header_that_is_being_sent_when_the_worker_leaves_is_given_up(make_rig: MakeRig) -> None:
    rig = make_rig(listener={"protocol": "tcp"}, pool={"proxy_protocol": "v2"}, capacity=10)
    async with trio.open_nursery() as serving:
        rig.client(serving)
        backend = await rig.backend()
        await wait_all_tasks_blocked()
        serving.cancel_scope.cancel()
    await backend.read_all()
    assert rig.in_flight() == 0
