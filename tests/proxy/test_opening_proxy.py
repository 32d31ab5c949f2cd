"""PROXY headers in front of connections of clients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.proxy_protocol import LOCAL, ProxyFields, ProxyHeader, ProxyTls, render_v1, render_v2
from lbproc.types import TcpAddress, UnixAddress
from tests.core.tls.hellos import hello_of_openssl
from tests.proxy.rig import END, Rig, Wire

if TYPE_CHECKING:
    from tests.proxy.conftest import MakeRig

PROXY = "10.0.0.1"
CLIENT = TcpAddress("203.0.113.7", 4711)
HERE = TcpAddress("198.51.100.1", 443)
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LISTENER = {"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}
V1 = render_v1(CLIENT, HERE)
V2 = render_v2(ProxyHeader(CLIENT, HERE))
V6 = render_v2(ProxyHeader(TcpAddress("2001:db8::7", 1), TcpAddress("2001:db8::1", 2)))
MAPPED = render_v2(ProxyHeader(TcpAddress("::ffff:203.0.113.7", 1), TcpAddress("::1", 2)))
BY_TLS = render_v2(ProxyHeader(CLIENT, HERE, fields=ProxyFields(tls=ProxyTls("TLSv1.2"))))


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(listener=LISTENER)


async def forwarded(rig: Rig, client: Wire) -> bytes:
    """The head that the backend gets; it is answered."""
    backend = await rig.backend()
    head = await backend.read_until(END)
    await backend.send(OK)
    await client.read_until(b"ok")
    return head


@pytest.mark.parametrize(
    ("header", "client_ip", "scheme", "tls"),
    [
        (V1, "203.0.113.7", b"http", None),
        (V2, "203.0.113.7", b"http", None),
        (V6, "2001:db8::7", b"http", None),
        (MAPPED, "203.0.113.7", b"http", None),
        (BY_TLS, "203.0.113.7", b"https", "TLSv1.2"),
    ],
)
async def test_the_client_is_who_the_header_says(
    rig: Rig, nursery: trio.Nursery, header: bytes, client_ip: str, scheme: bytes, tls: str | None
) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(header + GET)
    head = await forwarded(rig, client)
    assert b"\r\nX-Forwarded-For: %b\r\n" % client_ip.encode() in head
    assert b"\r\nX-Forwarded-Proto: %b\r\n" % scheme in head
    await wait_all_tasks_blocked()
    (line,) = rig.log_lines()
    assert (json.loads(line)["client_ip"], json.loads(line)["tls"]) == (client_ip, tls)


@pytest.mark.parametrize(
    "header", [render_v2(LOCAL), b"PROXY UNKNOWN\r\n", render_v2(ProxyHeader(CLIENT, UnixAddress("/a")))]
)
async def test_a_header_without_addresses_keeps_the_peer(
    rig: Rig, nursery: trio.Nursery, header: bytes
) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(header + GET)
    assert b"\r\nX-Forwarded-For: 10.0.0.1\r\n" in await forwarded(rig, client)


async def test_a_header_in_pieces_with_the_request_behind_it(rig: Rig, nursery: trio.Nursery) -> None:
    raw = BY_TLS + GET
    client = rig.client(nursery, peer_ip=PROXY)
    for at in range(len(raw)):
        await client.send(raw[at : at + 1])
        await wait_all_tasks_blocked()
    assert b"X-Forwarded-For: 203.0.113.7" in await forwarded(rig, client)


async def test_keep_alive_goes_on_by_reflexes_behind_a_header(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(V1 + GET)
    backend = await rig.backend()
    for _ in range(3):
        assert b"X-Forwarded-For: 203.0.113.7" in await backend.read_until(END)
        await backend.send(OK)
        await client.read_until(b"ok")
        await client.send(GET)
    assert len(rig.dialled) == 1


async def test_a_trusted_client_behind_a_header_is_believed(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    inner = TcpAddress("10.0.0.9", 1)
    await client.send(render_v1(inner, HERE) + GET[:-2] + b"X-Forwarded-For: 192.0.2.9\r\n\r\n")
    assert b"X-Forwarded-For: 192.0.2.9, 10.0.0.9" in await forwarded(rig, client)


@pytest.mark.parametrize(
    "raw", [GET, b"PROXY TCP4 1.2.3.4\r\n" + GET, V1[:-2] + b"\n" + GET, b"\x16\x03\x01"]
)
async def test_a_wrong_or_missing_header_ends_the_connection(
    rig: Rig, nursery: trio.Nursery, raw: bytes
) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(raw)
    assert await client.read_all() == b""
    assert not rig.dialled
    assert "proxy_header_rejected listener=web peer_ip=10.0.0.1" in rig.log_path.read_text()


@pytest.mark.parametrize("raw", [V1 + GET, GET])
async def test_nobody_else_may_come(rig: Rig, nursery: trio.Nursery, raw: bytes) -> None:
    client = rig.client(nursery, peer_ip="192.0.2.1")
    await client.send(raw)
    assert await client.is_reset()  # nothing was read of it
    assert not rig.dialled
    assert 'reason="the peer is not in trusted_proxies"' in rig.log_path.read_text()


async def test_refusals_are_told_once_a_second_with_their_number(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for _ in range(5):
        await rig.client(nursery, peer_ip="192.0.2.1").read_all()
    await trio.sleep(1.1)
    await rig.client(nursery, peer_ip="192.0.2.1").read_all()
    lines = rig.log_path.read_text().splitlines()
    assert [line.partition("refused=")[2] for line in lines] == ["1", "5"]


@pytest.mark.parametrize("raw", [b"", b"PROXY ", V2[:-1]])
async def test_a_header_that_does_not_come_in_time_ends_the_connection(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock, raw: bytes
) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    if raw:
        await client.send(raw)
    started_at = trio.current_time()
    assert await client.read_all() == b""
    assert 10 <= trio.current_time() - started_at < 11
    assert ("proxy_header_rejected" in rig.log_path.read_text()) is bool(raw)


async def test_a_proxy_that_goes_away_ends_the_connection(rig: Rig, nursery: trio.Nursery) -> None:
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(b"PROXY")
    client.transport.close()
    await wait_all_tasks_blocked()
    assert not rig.dialled


@pytest.mark.parametrize("protocol", ["tcp", "tls_passthrough"])
async def test_connections_that_are_relayed_begin_with_a_header_too(
    make_rig: MakeRig, nursery: trio.Nursery, protocol: str
) -> None:
    rig = make_rig(listener={"protocol": protocol, **LISTENER}, pool={"proxy_protocol": "v1"})
    hello = hello_of_openssl("a.test")
    client = rig.client(nursery, peer_ip=PROXY)
    await client.send(V2 + hello)
    backend = await rig.backend()
    assert await backend.read_exactly(len(V1 + hello)) == V1 + hello
    backend.transport.close()
    await client.read_all()
    client.transport.close()
    await wait_all_tasks_blocked()
    stranger = rig.client(nursery, peer_ip="192.0.2.1")
    await stranger.send(V2 + hello)
    assert await stranger.is_reset()
    (line,) = rig.log_lines()
    assert json.loads(line)["client_ip"] == "203.0.113.7"


async def test_limits_that_come_count_clients_that_are_there_by_their_headers(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    listener = {"bind": "127.0.0.1:8080", "pool": "web", **LISTENER}
    pools = {"web": {"backends": ["127.0.0.1:9001"]}}
    rig = make_rig(listener=LISTENER)
    first = rig.client(nursery, peer_ip=PROXY)
    await first.send(V1)
    await wait_all_tasks_blocked()
    limited = {
        "listeners": {"web": {**listener, "limits": ["few"]}},
        "pools": pools,
        "limits": {"few": {"connections": 1}},
    }
    rig.reload(limited)
    rig.context.move()
    opening = rig.last_connection
    opening.follow()
    for _ in range(2):
        second = rig.client(nursery, peer_ip=PROXY)
        await second.send(V2 + GET)
        assert await second.is_reset()
    first.transport.close()
    await wait_all_tasks_blocked()
    opening.follow()  # too late to count
    third = rig.client(nursery, peer_ip=PROXY)
    await third.send(V2 + GET)
    assert b"X-Forwarded-For: 203.0.113.7" in await forwarded(rig, third)


async def test_limits_of_clients_hold_for_whom_the_header_names(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    limits = {"few": {"key": "client_ip", "connections": 1}}
    rig = make_rig(listener={"limits": ["few"], **LISTENER}, limits=limits)
    first = rig.client(nursery, peer_ip=PROXY)
    await first.send(V1)
    await wait_all_tasks_blocked()
    second = rig.client(nursery, peer_ip=PROXY)
    await second.send(V2 + GET)
    assert await second.is_reset()
    other = rig.client(nursery, peer_ip=PROXY)
    await other.send(V6)
    first.transport.close()
    await wait_all_tasks_blocked()
    third = rig.client(nursery, peer_ip=PROXY)
    await third.send(V2 + GET)
    assert b"X-Forwarded-For: 203.0.113.7" in await forwarded(rig, third)
    assert not other.transport.recv(1)
