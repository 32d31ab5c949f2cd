"""TLS towards backends: what is verified, which failure is which, what is resumed, reused and kept apart."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.upstream import MAX_SESSION_AGE
from lbproc.net.transport import ConnectionLost
from lbproc.shm.views import BackendCounter
from lbproc.types import Row, parse_address
from tests.net.waiting import converse
from tests.proxy.conftest import BASIC, MakeRig
from tests.proxy.rig import END, Rig, Wire
from tests.proxy.secure_backend import (
    IP,
    SecureBackend,
    accept,
    authority,
    ca,
    context,
    own_pair,
    pair,
    stranger,
    tls,
)

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
TWO = ["127.0.0.1:9001", "127.0.0.1:9002"]
FIRST, SECOND = Row(0), Row(1)
LARGE = bytes(range(256)) * 4096
"""1 MiB."""


async def exchange(client: Wire, backend: SecureBackend, answer: bytes = OK) -> bytes:
    """A request, which has been sent already, and its answer. Returns the head that the backend got."""
    head = await backend.read_until(END)
    await backend.send(answer)
    assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200")
    await wait_all_tasks_blocked()
    return head


async def ask(rig: Rig, client: Wire, server: ssl.SSLContext, answer: bytes = OK) -> SecureBackend:
    """The same over a new connection."""
    await client.send(GET)
    backend = await accept(rig, server)
    await exchange(client, backend, answer)
    return backend


async def refuse(rig: Rig, server: ssl.SSLContext) -> None:
    with contextlib.suppress(TlsFailed):
        await accept(rig, server)


async def read_refusal(client: Wire) -> bytes:
    """An answer of lbproc's own."""
    head = await client.read_until(END)
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await client.read_exactly(int(length))


def last_line(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.log_lines()[-1])
    return found


# Connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", ["1.2", "1.3"])
async def test_requests_go_over_tls_and_the_connection_is_used_again(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, maximum: str
) -> None:
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(GET)
    backend = await accept(rig, context(maximum=maximum))
    assert backend.tls.tls is not None
    assert backend.tls.tls.version == f"TLSv{maximum}"
    assert backend.tls.tls.alpn == "http/1.1"
    head = await exchange(client, backend)
    assert b"X-Forwarded-Proto: http\r\n" in head
    for _ in range(3):  # by reflexes
        await client.send(GET)
        await exchange(client, backend)
    assert len(rig.dialled) == 1
    assert rig.reader.backend_total(FIRST, BackendCounter.REUSES) == 3
    assert rig.in_flight() == 0


async def test_large_bodies_pass_both_ways(make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path) -> None:
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    length = f"Content-Length: {len(LARGE)}\r\n\r\n".encode()
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + length
    nursery.start_soon(client.send, head + LARGE)
    backend = await accept(rig, context())
    await backend.read_until(END)
    assert await backend.read_exactly(len(LARGE)) == LARGE
    nursery.start_soon(backend.send, b"HTTP/1.1 200 OK\r\n" + length + LARGE)
    await client.read_until(END)
    assert await client.read_exactly(len(LARGE)) == LARGE
    await client.send(GET)
    await exchange(client, backend)


@pytest.mark.parametrize("body", [b"ok", b"x" * 3000 + b"ok"])
@pytest.mark.parametrize("record", [1, 7, 4000])
@pytest.mark.parametrize("packet", [1, 1000, 1_000_000])
async def test_answers_come_in_records_and_packets_of_any_size(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, body: bytes, record: int, packet: int
) -> None:
    if packet == 1 and len(body) > 2 and record < 4000:
        packet = 50  # by single bytes it takes long and shows nothing more
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(GET)
    backend = await accept(rig, context())
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(2):  # over a fresh connection by the task, then by reflexes
        await backend.read_until(END)
        for begin in range(0, len(answer), record):
            backend.tls._ssl.write(answer[begin : begin + record])
        wire = backend.tls._outgoing.read()
        for begin in range(0, len(wire), packet):
            await backend.wire.send(wire[begin : begin + packet])
            await wait_all_tasks_blocked()
        assert await client.read_until(b"ok") == answer
        await wait_all_tasks_blocked()
        await client.send(GET)
    await exchange(client, backend)
    assert len(rig.dialled) == 1
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 0


@pytest.mark.parametrize("way", ["close", "abort", "garbage"])
async def test_an_idle_connection_that_has_ended_is_not_used(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, way: str
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    client = rig.client(nursery)
    backend = await ask(rig, client, server)
    match way:
        case "close":
            backend.tls.close()
        case "abort":
            backend.tls.abort()
        case _:
            await backend.wire.send(b"no TLS")
    await ask(rig, client, server)
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 0


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_body_that_ends_with_the_connection_is_whole_only_with_a_goodbye(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, says_goodbye: bool
) -> None:
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(GET)
    backend = await accept(rig, context())
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 200 OK\r\n\r\nsome of it")
    await client.read_until(b"some of it")
    if says_goodbye:
        backend.tls.close()
        assert await client.read_all() == b""
    else:
        backend.wire.transport.close()
        assert await client.is_reset()
    await wait_all_tasks_blocked()
    assert last_line(rig)["cause"] == (None if says_goodbye else "http_response_incomplete")


async def test_the_proxy_header_goes_before_the_handshake_in_clear(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(pool={"proxy_protocol": "v1", **tls(tmp_path)})
    client = rig.client(nursery)
    await client.send(GET)
    wire = await rig.backend()
    assert (await wire.read_until(b"\r\n")).startswith(b"PROXY TCP4 192.0.2.1 ")
    backend = await accept(rig, context(), wire=wire, received=wire.received)
    await exchange(client, backend)
    await client.send(GET)
    await exchange(client, backend)


async def test_an_upgrade_leads_through(make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path) -> None:
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    backend = await accept(rig, context())
    await backend.read_until(END)
    await backend.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
    await client.read_until(b"hello")
    await client.send(b"back")
    assert await backend.read_exactly(4) == b"back"
    backend.tls.shutdown_write()
    assert await client.read_all() == b""


# Names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "keys", "names"),
    [
        ("127.0.0.1:9001", {}, ["127.0.0.1"]),
        ("[::1]:9001", {}, ["::1"]),
        ("unix:/b.sock", {}, ["localhost"]),
        ("127.0.0.1:9001", {"server_name": "app.test"}, ["app.test"]),
        ("127.0.0.1:9001", {"server_name": "app.x.test."}, ["*.x.test"]),
        ("127.0.0.1:9001", {"server_name": "10.0.0.7"}, ["10.0.0.7"]),
        ("127.0.0.1:9001", {"verify": False}, ["other.test"]),
        ("127.0.0.1:9001", {"min_version": "1.3"}, ["127.0.0.1"]),
    ],
)
async def test_the_certificate_is_for_the_name_or_the_address(
    make_rig: MakeRig,
    nursery: trio.Nursery,
    tmp_path: Path,
    backend: str,
    keys: dict[str, Any],
    names: list[str],
) -> None:
    table = keys if "verify" in keys else {"ca": ca(tmp_path), **keys}
    rig = make_rig(pool={"backends": [backend], "tls": table})
    server = context(pair(*names, is_foreign="verify" in keys))
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    await ask(rig, rig.client(nursery), server)
    name = keys.get("server_name", "localhost" if backend.startswith("unix") else "").rstrip(".")
    assert asked == [name if name and not name[0].isdigit() else None]


async def test_a_backend_that_asks_is_shown_the_certificate(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    cert, key = own_pair().write(tmp_path, "own")
    rig = make_rig(pool=tls(tmp_path, certificate={"cert": str(cert), "key": str(key)}))
    backend = await ask(rig, rig.client(nursery), context(asks=True))
    assert backend.tls.tls is not None
    assert backend.tls.tls.peer_certificate == ssl.PEM_cert_to_DER_cert(own_pair().chain.decode())


# Failures ---------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[], ssl.SSLContext], str, str]] = {
    "wrong name": (lambda: context(pair("other.test")), "tls_certificate_error", "ip address mismatch"),
    "untrusted": (
        lambda: context(pair(IP, is_foreign=True)),
        "tls_certificate_error",
        "unable to get local issuer certificate",
    ),
    "expired": (
        lambda: context(pair(IP, days=-1)),
        "tls_certificate_error",
        "certificate has expired",
    ),
    "wants a certificate": (
        lambda: context(asks=True, maximum="1.2"),
        "tls_alert_received",
        "handshake failure",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_backend_that_is_not_trusted_gets_nothing(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, case: str
) -> None:
    make_context, cause, words = WRONG[case]
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    for _ in range(2):
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        await refuse(rig, make_context())
        answer = await read_refusal(client)
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert f"Proxy-Status: lbproc; error={cause}; details=".encode() in answer
        assert words in answer.decode().lower()
        assert b"for '" not in answer
    assert rig.in_flight() == 0
    line = last_line(rig)
    assert (line["status"], line["cause"]) == (502, cause)
    assert rig.reader.backend_total(FIRST, BackendCounter.CONNECT_FAILURES) == 2
    assert rig.reader.backend_total(FIRST, BackendCounter.FAILURES) == 2
    logged = rig.log_path.read_text()
    assert "backend_unreachable" in logged
    if case == "wrong name":
        assert "not valid for '127.0.0.1'" in logged


@pytest.mark.parametrize(
    ("answer", "status", "cause"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 502, "tls_protocol_error"),
        (b"\x15\x03\x01\x00\x02\x02\x28", 502, "tls_alert_received"),
        (b"", 502, "connection_terminated"),
        (None, 504, "connection_timeout"),
    ],
)
async def test_a_handshake_that_comes_to_nothing(
    make_rig: MakeRig,
    nursery: trio.Nursery,
    tmp_path: Path,
    autojump_clock: MockClock,
    answer: bytes | None,
    status: int,
    cause: str,
) -> None:
    rig = make_rig(pool={"timeouts": {"connect": "3s"}, **tls(tmp_path)})
    client = rig.client(nursery)
    began_at = trio.current_time()
    await client.send(GET)
    wire = await rig.backend()
    if answer is not None:
        await wire.receive()
        if answer:
            await wire.send(answer)
        wire.transport.shutdown_write()
    reply = await client.read_until(END)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"error={cause};".encode() in reply
    if answer is None:
        assert 3 <= trio.current_time() - began_at < 4
    assert wire.transport.is_closed or await wire.read_all() is not None


async def test_versions_without_an_overlap_are_a_failure(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(pool=tls(tmp_path, min_version="1.3"))
    client = rig.client(nursery)
    await client.send(GET)
    await refuse(rig, context(maximum="1.2"))
    reply = await client.read_until(END)
    assert b"error=tls_alert_received;" in reply
    assert b"protocol version" in reply


@pytest.mark.parametrize("case", WRONG)
async def test_a_failed_handshake_leads_to_another_backend(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, case: str
) -> None:
    rig = make_rig(pool={"backends": TWO, "policy": "first_available", **tls(tmp_path)})
    client = rig.client(nursery)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    await refuse(rig, WRONG[case][0]())
    backend = await accept(rig, context())
    await backend.read_until(END + b"body")
    await backend.send(OK)
    await client.read_until(b"ok")
    assert rig.dialled == TWO
    assert rig.reader.backend_total(FIRST, BackendCounter.REDISPATCHES) == 1
    assert rig.reader.backend_total(SECOND, BackendCounter.FAILURES) == 0
    line = last_line(rig)
    assert (line["backend"], line["retries"], line["cause"]) == (TWO[1], 1, None)


async def test_every_address_of_a_backend_is_tried(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(pool=tls(tmp_path))
    (backend,) = rig.runtime.pools["web"].backends
    backend.addresses = (parse_address("10.0.0.1:1"), parse_address("10.0.0.2:2"))
    client = rig.client(nursery)
    await client.send(GET)
    await refuse(rig, WRONG["untrusted"][0]())
    await exchange(client, await accept(rig, context()))
    assert rig.dialled == ["10.0.0.1:1", "10.0.0.2:2"]
    assert last_line(rig)["retries"] == 0


async def test_failed_handshakes_eject_as_failed_connects_do(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(
        pool={
            "backends": TWO,
            "policy": "first_available",
            "outlier": {"consecutive_errors": 1},
            **tls(tmp_path),
        }
    )
    client = rig.client(nursery)
    await client.send(GET)
    await refuse(rig, WRONG["expired"][0]())
    await exchange(client, await accept(rig, context()))
    assert "backend_ejected" in rig.log_path.read_text()
    assert "cause=tls_certificate_error" in rig.log_path.read_text()


async def test_a_certificate_that_is_missed_after_the_handshake_is_told(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(GET)
    await refuse(rig, context(asks=True))
    reply = await client.read_until(END)
    assert b"error=tls_alert_received;" in reply
    assert b"certificate required" in reply
    assert last_line(rig)["cause"] == "tls_alert_received"


# Sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", ["1.2", "1.3"])
async def test_connections_resume_the_session_of_an_earlier_one(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, autojump_clock: MockClock, maximum: str
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context(maximum=maximum)
    client = rig.client(nursery)
    resumed = [(await ask(rig, client, server, LAST)).is_resumed for _ in range(4)]
    assert resumed == [False, True, True, True]
    autojump_clock.jump(MAX_SESSION_AGE)
    client = rig.client(nursery)
    assert not (await ask(rig, client, server, LAST)).is_resumed
    assert (await ask(rig, client, server, LAST)).is_resumed
    assert not (await ask(rig, client, context(maximum=maximum), LAST)).is_resumed  # it has forgotten


async def test_a_session_is_resumed_while_the_connection_it_came_on_stands(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    one, other = rig.client(nursery), rig.client(nursery)
    first = await ask(rig, one, server)
    await one.send(GET)
    await first.read_until(END)
    assert (await ask(rig, other, server)).is_resumed
    await first.send(OK)
    await one.read_until(b"ok")


async def test_sessions_belong_to_one_backend(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool={"backends": TWO, "policy": "round_robin", **tls(tmp_path)}), context()
    client = rig.client(nursery)
    resumed = [(await ask(rig, client, server, LAST)).is_resumed for _ in range(4)]
    assert resumed == [False, False, True, True]


async def test_a_failed_handshake_forgets_the_session(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    client = rig.client(nursery)
    await ask(rig, client, server, LAST)
    await client.send(GET)
    (await rig.backend()).transport.close()
    await read_refusal(client)
    assert not (await ask(rig, client, server, LAST)).is_resumed


# Reloads ----------------------------------------------------------------------------------------------------


def config_of(rig: Rig, **pool: Any) -> dict[str, Any]:
    config = copy.deepcopy(BASIC)
    config["pools"]["web"].update(pool)
    return config


async def test_a_reload_that_changes_nothing_of_tls_keeps_connections_and_sessions(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    client = rig.client(nursery)
    backend = await ask(rig, client, server)
    (tmp_path / "again").mkdir()
    rig.reload(config_of(rig, timeouts={"connect": "9s"}, **tls(tmp_path / "again")))
    await client.send(GET)
    await exchange(client, backend, LAST)
    assert rig.runtime.generation == 2
    assert (await ask(rig, client, server)).is_resumed


@pytest.mark.parametrize("change", ["ca", "server_name", "certificate", "verify"])
async def test_after_other_rules_nothing_goes_over_connections_or_sessions_of_the_old_ones(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, change: str
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context(pair(IP, "app.test"))
    one, other = rig.client(nursery), rig.client(nursery)
    idle = await ask(rig, one, server)
    await one.send(GET)
    await idle.read_until(END)
    busy, idle = idle, await ask(rig, other, server)
    cert, key = own_pair().write(tmp_path, "own")
    both = tmp_path / "both.pem"
    both.write_bytes(stranger().pem + authority().pem)
    changed = {
        "ca": {"ca": str(both)},
        "server_name": {"ca": ca(tmp_path), "server_name": "app.test"},
        "certificate": {"ca": ca(tmp_path), "certificate": {"cert": str(cert), "key": str(key)}},
        "verify": {"verify": False},
    }[change]
    rig.reload(config_of(rig, tls=changed))
    await other.send(GET)  # moves
    new = await accept(rig, server)
    assert not new.is_resumed
    await exchange(other, new)
    assert await idle.read_all() == b""  # it was ended, and properly
    assert not idle.tls.is_truncated
    await busy.send(OK)  # a request under way finishes
    await one.read_until(b"ok")
    assert await busy.read_all() == b""
    await one.send(GET)
    await exchange(one, new)


async def test_an_authority_that_is_not_trusted_any_more_is_not_after_the_reload(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    client = rig.client(nursery)
    await ask(rig, client, server)
    rig.reload(config_of(rig, tls={"ca": ca(tmp_path, stranger(), "stranger")}))
    await client.send(GET)
    await refuse(rig, server)
    assert b"error=tls_certificate_error;" in await client.read_until(END)


# Connections without HTTP -----------------------------------------------------------------------------------

TCP = {"protocol": "tcp"}


async def test_any_protocol_is_relayed_over_tls_and_none_is_named(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(listener=TCP, pool=tls(tmp_path))
    server = context()
    for is_resumed in (False, True):
        client = rig.client(nursery)
        backend = await accept(rig, server)
        assert backend.tls.tls is not None
        assert (backend.tls.tls.alpn, backend.is_resumed) == (None, is_resumed)
        heard: list[bytes] = []

        async def answer(backend: SecureBackend, heard: list[bytes]) -> None:
            heard.append(await converse(backend.tls, LARGE[:1_000_000]))
            backend.tls.close()

        async with trio.open_nursery() as answering:
            answering.start_soon(answer, backend, heard)
            assert await converse(client.transport, LARGE[:900_000]) == LARGE[:1_000_000]
        assert heard == [LARGE[:900_000]]
        await wait_all_tasks_blocked()
        assert last_line(rig)["cause"] is None


async def test_a_connection_goes_to_a_backend_that_is_trusted(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(listener=TCP, pool={"backends": TWO, "policy": "first_available", **tls(tmp_path)})
    client = rig.client(nursery)
    await refuse(rig, WRONG["untrusted"][0]())
    backend = await accept(rig, context())
    await client.send(b"hello")
    assert await backend.read_exactly(5) == b"hello"


@pytest.mark.parametrize("case", WRONG)
async def test_without_a_backend_that_is_trusted_the_client_is_reset(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path, case: str
) -> None:
    rig = make_rig(listener=TCP, pool=tls(tmp_path))
    client = rig.client(nursery)
    await client.send(b"hello")
    await refuse(rig, WRONG[case][0]())
    assert await client.is_reset()
    assert last_line(rig)["cause"] == WRONG[case][1]


async def test_a_certificate_that_is_missed_is_told_of_connections_too(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = make_rig(listener=TCP, pool=tls(tmp_path))
    client = rig.client(nursery)
    await refuse(rig, context(asks=True))
    assert await client.is_reset()
    assert last_line(rig)["cause"] == "tls_alert_received"


# What is left -----------------------------------------------------------------------------------------------


async def test_connections_leave_nothing_for_the_collector(
    make_rig: MakeRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig, server = make_rig(pool=tls(tmp_path)), context()
    client = rig.client(nursery)

    def living() -> int:
        return sum(type(one).__name__ == "_Upstream" for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        await ask(rig, client, server, LAST)
        await client.send(GET)
        await refuse(rig, WRONG["expired"][0]())
        await read_refusal(client)
        (await ask(rig, client, server)).tls.abort()
        with contextlib.suppress(ConnectionLost):
            await ask(rig, client, server, LAST)
        await wait_all_tasks_blocked()
        assert living() == 0
    finally:
        gc.enable()
