"""Connections by TLS, from their first byte to their protocol."""

from __future__ import annotations

import json
import ssl
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.proxy_protocol import render_v1
from lbproc.core.tls.certificate import read_certificate
from lbproc.errors import StartError
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.transport import ConnectionLost
from lbproc.types import TcpAddress
from tests.core.tls.hellos import hello, hello_of_openssl, server_name
from tests.proxy import secure
from tests.proxy.rig import END, Rig
from tests.proxy.secure import client_context, connect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.proxy.conftest import MakeRig
    from tests.proxy.rig import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(host: str = "a.test", *lines: str) -> bytes:
    """A request for a host."""
    return "\r\n".join(["GET /x HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


@pytest.fixture
def rig(make_rig: MakeRig, tmp_path: Path) -> Rig:
    return make_rig(listener={"tls": secure.hosts(tmp_path)})


async def exchange(rig: Rig, client: Wire, request: bytes, backend: Wire | None = None) -> tuple[Wire, bytes]:
    """Sends a request and answers it; gives the backend connection, and the head that came there."""
    await client.send(request)
    backend = backend or await rig.backend()
    head = await backend.read_until(END)
    await backend.send(OK)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    await wait_all_tasks_blocked()
    return backend, head


async def status(client: Wire) -> int:
    """Of an answer that is lbproc's own."""
    head = await client.read_until(END)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    await client.read_exactly(length)
    return int(head.split()[1])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_requests_are_served_inside_of_tls(rig: Rig, nursery: trio.Nursery, version: str) -> None:
    client = await connect(rig, nursery, context=client_context(maximum=version, alpn=("h2", "http/1.1")))
    assert client.tls.tls is not None
    assert client.tls.tls.alpn == "http/1.1"
    backend, head = await exchange(rig, client, get())
    assert b"\r\nX-Forwarded-Proto: https\r\n" in head
    assert b"\r\nX-Forwarded-For: 192.0.2.1\r\n" in head
    assert b"x-client-cert" not in head.lower()
    for _ in range(3):  # by the reflexes
        _, head = await exchange(rig, client, get(), backend)
        assert b"\r\nX-Forwarded-Proto: https\r\n" in head
    assert len(rig.dialled) == 1
    assert {json.loads(line)["tls"] for line in rig.log_lines()} == {f"TLSv{version}"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("a.test", ["a.test", "*.wild.test"]),
        ("b.test", ["b.test"]),
        ("x.wild.test", ["a.test", "*.wild.test"]),
        (None, ["a.test", "*.wild.test"]),
    ],
)
async def test_a_host_gets_its_certificate(
    rig: Rig, nursery: trio.Nursery, asked: str | None, names: list[str]
) -> None:
    client = await connect(rig, nursery, asked)
    assert client.names() == names


async def test_an_unknown_host_gets_the_first_certificate(rig: Rig, nursery: trio.Nursery) -> None:
    context = client_context()
    context.check_hostname = False
    client = await connect(rig, nursery, "x.y.wild.test", context)
    assert client.names() == ["a.test", "*.wild.test"]
    await exchange(rig, client, get("unknown.test"))


async def test_one_certificate_is_for_whatever_is_asked_for(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"tls": {"certificates": [secure.certificate(tmp_path, "a.test")]}})
    client = await connect(rig, nursery)
    await exchange(rig, client, get("b.test"))
    assert client.names() == ["a.test"]


@pytest.mark.parametrize("asked", ["unknown.test", "x.y.wild.test", None])
async def test_with_strict_sni_unknown_hosts_are_turned_away(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery, asked: str | None
) -> None:
    rig = make_rig(listener={"tls": secure.hosts(tmp_path, strict_sni=True)})
    with pytest.raises(TlsFailed, match="unrecognized name"):
        await connect(rig, nursery, asked)
    assert "tls_failed listener=web client_ip=192.0.2.1" in rig.log_path.read_text()
    client = await connect(rig, nursery, "b.test")
    await client.send(get("unknown.test"))
    assert await status(client) == 421


async def test_a_hello_in_pieces(rig: Rig, nursery: trio.Nursery) -> None:
    raw = hello_of_openssl("b.test", ["http/1.1"])
    wire = rig.client(nursery)
    for at in range(0, len(raw), 7):
        await wire.send(raw[at : at + 7])
        await wait_all_tasks_blocked()
    assert (await wire.read_exactly(6))[0] == 22


async def test_protocols_without_http_are_refused(rig: Rig, nursery: trio.Nursery) -> None:
    wire = rig.client(nursery)
    await wire.send(hello_of_openssl("a.test", ["h2"]))
    assert await wire.read_all() == bytes.fromhex("15030300020278")
    assert "http/1.1 is none of them" in rig.log_path.read_text()


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", b""),
        (hello(server_name(b"a..b")), bytes.fromhex("15030300020270")),
        (b"\x16\x03\x01\x00\x01\x0e", bytes.fromhex("1503030002020a")),
        (b"\x80\x2e\x01\x00\x02", bytes.fromhex("15030300020246")),
    ],
)
async def test_what_is_no_hello_is_told_so_in_tls_if_at_all(
    rig: Rig, nursery: trio.Nursery, raw: bytes, answer: bytes
) -> None:
    wire = rig.client(nursery)
    await wire.send(raw)
    assert await wire.read_all() == answer
    assert "tls_failed" in rig.log_path.read_text()


async def test_plain_http_gets_an_answer_in_plain_http(rig: Rig, nursery: trio.Nursery) -> None:
    wire = rig.client(nursery)
    await wire.send(get())
    answer = await wire.read_all()
    wire.transport.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"plain HTTP was sent to a port that serves HTTPS; use https://" in answer
    assert b"\r\nConnection: close\r\n" in answer
    await wait_all_tasks_blocked()
    (line,) = rig.log_lines()
    assert (json.loads(line)["status"], json.loads(line)["tls"]) == (400, None)


@pytest.mark.parametrize("sent", ["nothing", "some", "hello"])
async def test_a_stalled_handshake_is_cut(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock, sent: str
) -> None:
    raw = {"nothing": b"", "some": b"\x16\x03\x01", "hello": hello_of_openssl("a.test")}[sent]
    wire = rig.client(nursery)
    if raw:
        await wire.send(raw)
    started_at = trio.current_time()
    with trio.move_on_after(11):
        while await wire.receive():
            pass
    assert 10 <= trio.current_time() - started_at < 11
    assert ("tls_failed" in rig.log_path.read_text()) is bool(raw)


async def test_garbage_in_a_handshake_ends_it(rig: Rig, nursery: trio.Nursery) -> None:
    wire = rig.client(nursery)
    await wire.send(hello_of_openssl("a.test") + b"\x17\x03\x03\x00\x20" + b"x" * 32)
    answer = await wire.read_all()
    assert answer[-24:-19] == bytes.fromhex("1703030013")  # an alert, encrypted
    assert "tls_failed" in rig.log_path.read_text()


async def test_a_client_that_does_not_trust_the_certificate_leaves(rig: Rig, nursery: trio.Nursery) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TlsFailed):
        await connect(rig, nursery, context=context)
    await wait_all_tasks_blocked()
    assert "refused_by_peer" in rig.log_path.read_text()


async def test_hostile_beginnings_end_and_break_nothing(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    random = Random(1)
    good = hello_of_openssl("a.test")
    wires = []
    for number in range(150):
        raw = bytearray(good)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(raw) if number % 2 else 120)
            raw[at : at + random.randint(0, 2)] = random.randbytes(random.randint(0, 3))
        wire = rig.client(nursery)
        wire.transport.send(bytes(raw[: random.choice([len(raw), 10, 100])]))
        wires.append(wire)
    await trio.sleep(17)  # the time of a handshake, and that to listen to an alert
    for wire in wires:
        assert await wire.is_reset() or wire.transport.recv(1) == b""
    await exchange(rig, await connect(rig, nursery), get())


async def test_bodies_of_any_size_both_ways_and_tunnels(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"tls": secure.hosts(tmp_path)}, capacity=5000)
    client = await connect(rig, nursery)
    body = Random(2).randbytes(200_000)

    async def upload() -> None:
        await client.send(get("a.test", f"Content-Length: {len(body)}").replace(b"GET", b"POST") + body)

    nursery.start_soon(upload)
    backend = await rig.backend()
    await backend.read_until(END)
    assert await backend.read_exactly(len(body)) == body

    async def answer() -> None:
        await backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 10_000):
            await backend.send(b"2710\r\n" + body[at : at + 10_000] + b"\r\n")
        await backend.send(b"0\r\n\r\n")

    nursery.start_soon(answer)
    await client.read_until(END)
    got = await client.read_until(b"\r\n0\r\n\r\n")
    assert len(got) > len(body)
    assert got[6:10_006] == body[:10_000]
    await client.send(get("a.test", "Connection: upgrade", "Upgrade: echo"))
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    await client.read_until(END)
    nursery.start_soon(client.send, body)
    assert await backend.read_exactly(len(body)) == body
    nursery.start_soon(backend.send, body)
    assert await client.read_exactly(len(body)) == body
    backend.transport.close()
    assert await client.read_all() == b""
    assert not client.tls.is_truncated


# Certificates of clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_what_a_client_has_shown_is_told_to_the_backend_and_nothing_else(
    rig: Rig, nursery: trio.Nursery, version: str
) -> None:
    pair = secure.client_pair()
    client = await connect(rig, nursery, "closed.test", client_context(pair=pair, maximum=version))
    said = ["X-Client-Cert-Subject: CN=root", "x-client-cert-san: DNS:root", "X_Client_Cert_Fingerprint: 0"]
    backend, head = await exchange(rig, client, get("closed.test", *said))
    fingerprint = read_certificate(secure.der(pair)).fingerprint
    told = [line for line in head.split(b"\r\n") if b"client" in line.lower() and b"cert" in line.lower()]
    assert told == [
        b"X-Client-Cert-Subject: CN=client",
        b"X-Client-Cert-San: DNS:client.test",
        b"X-Client-Cert-Fingerprint: " + fingerprint.encode(),
    ]
    _, again = await exchange(rig, client, get("closed.test", *said), backend)
    assert told[0] in again


@pytest.mark.parametrize("listener", [{}, {"trusted_proxies": ["192.0.2.0/24"]}])
async def test_nobody_may_say_what_a_client_has_shown(
    make_rig: MakeRig, nursery: trio.Nursery, listener: dict[str, Any]
) -> None:
    rig = make_rig(listener={**listener, "underscore_headers": "forward"})
    client = rig.client(nursery)
    said = ["X-Client-Cert-Subject: CN=root", "X_Client_Cert_San: DNS:root", "x-client-cert-fingerprint: 0"]
    _, head = await exchange(rig, client, get("a.test", *said))
    assert b"ert" not in head


async def test_a_trusted_proxys_request_by_tls_tells_of_its_certificate(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"tls": secure.hosts(tmp_path), "trusted_proxies": ["192.0.2.1"]})
    client = await connect(rig, nursery, "closed.test", client_context(pair=secure.client_pair()))
    _, head = await exchange(rig, client, get("closed.test", "X-Forwarded-For: 203.0.113.1"))
    assert b"\r\nX-Client-Cert-Subject: CN=client\r\n" in head
    assert b"\r\nX-Forwarded-For: 203.0.113.1, 192.0.2.1\r\n" in head
    assert b"\r\nX-Forwarded-Proto: https\r\n" in head


async def refusal(rig: Rig, nursery: trio.Nursery, host: str, context: ssl.SSLContext) -> str:
    """Why a client does not get in; in TLS 1.3 it learns that only when it reads."""
    with pytest.raises((TlsFailed, ConnectionLost)) as caught:
        client = await connect(rig, nursery, host, context)
        await client.send(get(host))
        await client.receive()
    assert not rig.dialled
    return str(caught.value)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_who_shows_no_good_certificate_does_not_get_in(
    rig: Rig, nursery: trio.Nursery, version: str
) -> None:
    none = client_context(maximum=version)
    assert "certificate required" in await refusal(rig, nursery, "closed.test", none) or version == "1.2"
    foreign = client_context(maximum=version, pair=secure.client_pair(is_foreign=True))
    assert "unknown ca" in await refusal(rig, nursery, "closed.test", foreign)
    expired = client_context(maximum=version, pair=secure.client_pair(days=-1))
    assert "certificate expired" in await refusal(rig, nursery, "closed.test", expired)
    assert "unknown ca" in await refusal(rig, nursery, "other.test", foreign)
    reasons = rig.log_path.read_text()
    assert "certificate_missing" in reasons
    assert "certificate_rejected" in reasons


async def test_a_certificate_of_which_too_much_would_be_told_is_refused(
    rig: Rig, nursery: trio.Nursery
) -> None:
    names = [f"{number}.client.test" for number in range(300)]
    pair = secure.clients().issue(*names, purpose="client")
    client = await connect(rig, nursery, "closed.test", client_context(pair=pair))
    await client.send(get("closed.test"))
    assert await client.read_all() == b""
    assert not rig.dialled
    assert "more names than fit into a head" in rig.log_path.read_text()


async def test_a_certificate_that_openssl_takes_and_nobody_can_read_is_refused(
    rig: Rig, nursery: trio.Nursery
) -> None:
    broken = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"\x30\x05nonsense")
    pair = secure.clients().issue("client.test", purpose="client", extension=broken)
    client = await connect(rig, nursery, "closed.test", client_context(pair=pair))
    await client.send(get("closed.test"))
    assert await client.read_all() == b""
    assert not rig.dialled
    assert "the certificate of the client: it cannot be read: " in rig.log_path.read_text()


async def test_where_a_certificate_is_optional_none_is_told(rig: Rig, nursery: trio.Nursery) -> None:
    client = await connect(rig, nursery, "other.test")
    _, head = await exchange(rig, client, get("other.test"))
    assert b"X-Client-Cert" not in head


@pytest.mark.parametrize(
    ("connected_to", "asked", "has_certificate", "expected"),
    [
        ("a.test", "b.test", False, 200),
        ("a.test", "x.wild.test", False, 200),
        ("a.test", "unknown.test", False, 200),
        ("a.test", "closed.test", False, 421),
        ("a.test", "closed.test:443", False, 421),
        ("a.test", "CLOSED.test.", False, 421),
        (None, "closed.test", False, 421),
        ("a.test", "other.test", False, 421),
        ("closed.test", "closed.test", True, 200),
        ("closed.test", "a.test", True, 421),
        ("closed.test", "other.test", True, 421),
        ("other.test", "closed.test", True, 421),
    ],
)
async def test_a_connection_serves_the_hosts_of_its_domain(
    rig: Rig,
    nursery: trio.Nursery,
    connected_to: str | None,
    asked: str,
    has_certificate: bool,
    expected: int,
) -> None:
    pair = secure.client_pair() if has_certificate else None
    client = await connect(rig, nursery, connected_to, client_context(pair=pair))
    if expected == 200:
        await exchange(rig, client, get(asked))
        return
    await client.send(get(asked))
    assert await status(client) == expected
    assert not rig.dialled
    if connected_to is not None:  # it goes on for hosts that are its own
        await exchange(rig, client, get(connected_to))


# Around it ------------------------------------------------------------------------------------------------


async def test_a_proxy_header_comes_before_tls(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    listener = {"tls": secure.hosts(tmp_path), "proxy_protocol": True, "trusted_proxies": ["192.0.2.1"]}
    rig = make_rig(listener=listener)
    before = render_v1(TcpAddress("203.0.113.7", 1), TcpAddress("198.51.100.1", 443))
    client = await connect(rig, nursery, before=before)
    _, head = await exchange(rig, client, get())
    assert b"\r\nX-Forwarded-For: 203.0.113.7\r\n" in head
    assert b"\r\nX-Forwarded-Proto: https\r\n" in head


async def test_hosts_that_are_passed_through_get_every_byte(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    passthrough = {"db.test": "web", "*.wild.test": "web"}
    tls = secure.hosts(tmp_path, passthrough=passthrough)
    tls["certificates"][0] = secure.certificate(tmp_path, "a.test", "in.wild.test")
    rig = make_rig(listener={"tls": tls})
    for name in ("db.test", "x.y.wild.test"):
        raw = hello_of_openssl(name, ["postgresql"])
        wire = rig.client(nursery)
        await wire.send(raw[:100])
        await wait_all_tasks_blocked()
        await wire.send(raw[100:] + b"and more")
        backend = await rig.backend()
        assert await backend.read_exactly(len(raw) + 8) == raw + b"and more"
        await backend.send(b"answer")
        assert await wire.read_exactly(6) == b"answer"
        wire.transport.close()
    client = await connect(rig, nursery, "in.wild.test")
    assert client.names() == ["a.test", "in.wild.test"]
    await client.send(get("db.test"))
    assert await status(client) == 421


async def test_tcp_inside_of_tls(make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery) -> None:
    rig = make_rig(listener={"protocol": "tcp", "tls": secure.hosts(tmp_path)})
    client = await connect(rig, nursery, "b.test", client_context(alpn=("redis",)))
    backend = await rig.backend()
    await client.send(b"ping")
    assert await backend.read_exactly(4) == b"ping"
    await backend.send(b"pong")
    assert await client.read_exactly(4) == b"pong"
    backend.transport.close()
    assert await client.read_all() == b""
    client.tls.close()
    wire = rig.client(nursery)
    await wire.send(get())
    assert await wire.is_reset() or not wire.received


@pytest.mark.parametrize(
    ("port", "request_line", "host", "location"),
    [
        (True, "GET /a?b=c HTTP/1.1", "A.test:80", "https://a.test/a?b=c"),
        (8443, "POST / HTTP/1.1", "[::1]", "https://[::1]:8443/"),
        (True, "OPTIONS * HTTP/1.1", "a.test", "https://a.test"),
        (True, "GET http://b.test/x HTTP/1.1", "b.test", "https://b.test/x"),
    ],
)
async def test_requests_are_sent_to_https(
    make_rig: MakeRig, nursery: trio.Nursery, port: int, request_line: str, host: str, location: str
) -> None:
    rig = make_rig(listener={"pool": None, "redirect_https": port})
    client = rig.client(nursery)
    for _ in range(3):
        await client.send(f"{request_line}\r\nHost: {host}\r\nAccept: application/json\r\n\r\n".encode())
        head = await client.read_until(END)
        assert head.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n")
        assert b"\r\nLocation: %b\r\n" % location.encode() in head
        assert b"Proxy-Status" not in head
        await client.read_until(b"308 Permanent Redirect: this is served by HTTPS\n")
        await client.read_until(b"\n")
    entries = [json.loads(line) for line in rig.log_lines()]
    assert {(entry["status"], entry["cause"]) for entry in entries} == {(308, None)}


async def test_a_request_without_a_host_cannot_be_sent_to_https(
    make_rig: MakeRig, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"pool": None, "redirect_https": True})
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert await status(client) == 400


# Reloads and ends -----------------------------------------------------------------------------------------


def listening(rig_config: dict[str, Any], **listener: Any) -> dict[str, Any]:
    """Another form of the listener."""
    web = {"bind": "127.0.0.1:8080", "pool": "web", **listener}
    return {"listeners": {"web": web}, "pools": rig_config}


POOLS = {"web": {"backends": ["127.0.0.1:9001"]}}


async def test_new_certificates_are_for_new_connections_and_touch_no_others(
    rig: Rig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    old = await connect(rig, nursery, "b.test")
    backend, _ = await exchange(rig, old, get("b.test"))
    begun = rig.client(nursery)
    raw = hello_of_openssl("b.test")
    await begun.send(raw[:50])
    await wait_all_tasks_blocked()
    tls = secure.hosts(tmp_path)
    tls["certificates"][1] = secure.certificate(tmp_path, "b.test", number=2)
    rig.reload(listening(POOLS, tls=tls))
    new = await connect(rig, nursery, "b.test")
    assert (old.common_name(), new.common_name()) == ("b.test 0", "b.test 2")
    await exchange(rig, old, get("b.test"), backend)
    await exchange(rig, new, get("b.test"), backend)
    await begun.send(raw[50:])
    assert (await begun.read_exactly(6))[0] == 22


async def test_connections_end_when_other_authorities_are_asked_for(
    rig: Rig, tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    context = client_context(pair=secure.client_pair())
    client = await connect(rig, nursery, "closed.test", context)
    backend, _ = await exchange(rig, client, get("closed.test"))
    idle = await connect(rig, nursery, "closed.test", context)
    await exchange(rig, idle, get("closed.test"), backend)
    resting = rig.last_connection
    other = await connect(rig, nursery, "b.test")
    await exchange(rig, other, get("b.test"), backend)
    tls = secure.hosts(tmp_path)
    for entry in tls["certificates"][2:]:
        entry["client_ca"] = str(secure.authority().write(tmp_path, "others"))
    rig.reload(listening(POOLS, tls=tls))
    await client.send(get("closed.test"))
    assert await status(client) == 421
    assert await client.read_all() == b""
    with pytest.raises((TlsFailed, ConnectionLost), match="unknown ca"):
        await (await connect(rig, nursery, "closed.test", context)).receive()
    assert resting.follow()
    started_at = trio.current_time()
    assert await idle.read_all() == b""
    assert trio.current_time() - started_at < 2
    await exchange(rig, other, get("b.test"), backend)


async def test_a_request_of_http_10_without_a_host_is_for_where_it_came(
    rig: Rig, nursery: trio.Nursery
) -> None:
    client = await connect(rig, nursery, "closed.test", client_context(pair=secure.client_pair()))
    await exchange(rig, client, b"GET / HTTP/1.0\r\n\r\n")


async def test_connections_in_clear_end_when_tls_comes(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    rig = make_rig()
    client = rig.client(nursery)
    await exchange(rig, client, get())
    connection = rig.last_connection
    rig.reload(listening(POOLS, tls=secure.hosts(tmp_path)))
    rig.context.move()
    assert connection.lineage.draining
    connection.lineage.leaving = True  # as a worker says a second later
    connection.nudge_idle()
    assert await client.read_all() == b""


async def test_a_handshake_under_way_goes_on_when_its_listener_is_removed(
    rig: Rig, nursery: trio.Nursery
) -> None:
    raw = hello_of_openssl("a.test")
    wire = rig.client(nursery)
    await wire.send(raw[:50])
    await wait_all_tasks_blocked()
    other = {"other": {"bind": "127.0.0.1:8081", "pool": "web"}}
    rig.reload({"listeners": other, "pools": POOLS})
    rig.context.move()
    await wire.send(raw[50:])
    assert (await wire.read_exactly(6))[0] == 22


async def test_a_handshake_under_way_goes_on_when_tls_goes(
    make_rig: MakeRig, tmp_path: Path, nursery: trio.Nursery
) -> None:
    rig = make_rig(listener={"protocol": "tcp", "tls": secure.hosts(tmp_path)})
    wire = rig.client(nursery)
    raw = hello_of_openssl("b.test")
    await wire.send(raw[:50])
    await wait_all_tasks_blocked()
    proxied = {"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}
    rig.reload(listening(POOLS, protocol="tcp", **proxied))
    await wire.send(raw[50:])
    assert (await wire.read_exactly(6))[0] == 22


async def test_idle_connections_by_tls_end_with_their_worker(rig: Rig, nursery: trio.Nursery) -> None:
    client = await connect(rig, nursery)
    await exchange(rig, client, get())
    idle = rig.last_connection
    silent, talking = rig.client(nursery), None
    waiting = rig.last_connection
    talking = rig.client(nursery)
    begun = rig.last_connection
    await talking.send(b"\x16\x03\x01")
    await wait_all_tasks_blocked()
    rig.context.draining = rig.context.leaving = True
    for connection in (idle, waiting, begun):
        connection.nudge_idle()
    assert await client.read_all() == b""
    assert not client.tls.is_truncated
    assert await silent.read_all() == b""
    await wait_all_tasks_blocked()
    assert talking.transport.recv(1) is None  # what has begun has its time


async def test_a_draining_worker_announces_the_end_by_tls(rig: Rig, nursery: trio.Nursery) -> None:
    client = await connect(rig, nursery)
    backend, _ = await exchange(rig, client, get())
    rig.context.draining = True
    await client.send(get())
    await backend.read_until(END)
    await backend.send(OK)
    assert b"\r\nConnection: close\r\n" in await client.read_until(b"ok")
    assert await client.read_all() == b""


async def test_the_client_of_an_opening_is_the_one_that_it_became(rig: Rig, nursery: trio.Nursery) -> None:
    client = await connect(rig, nursery)
    opening = rig.last_connection
    await client.send(get())
    backend = await rig.backend()
    await backend.read_until(END)
    await wait_all_tasks_blocked()
    row = rig.http().directions.find("a.test", b"/", b"GET").balancer
    assert row is not None
    rows = {one.row for one in row.backends}
    assert not opening.follow()
    assert opening.listener is rig.http()
    assert opening.cut(rows) in rows
    assert await status(client) == 502
    fresh = rig.client(nursery)
    assert fresh.transport.recv(1) is None
    assert rig.last_connection.cut(rows) is None
    assert rig.last_connection.follow()
    assert rig.last_connection.listener is rig.http()


async def test_only_a_listener_that_asks_for_client_certificates_needs_what_reads_them(
    make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lbproc.core.tls.certificate_reader", None)
    plain = {"certificates": [secure.certificate(tmp_path, "a.test")]}
    make_rig(listener={"tls": plain})
    with pytest.raises(StartError, match="cannot be loaded"):
        make_rig(listener={"tls": secure.hosts(tmp_path)})
