"""What TLS adds to the promises of every transport, which are checked in ``tests/net/test_transport.py``."""

from __future__ import annotations

import _ssl
import ctypes
import functools
import math
import ssl

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.net.readiness import READ, WRITE, Deadlines, park
from lbproc.net.relay import Pipe, Truncated
from lbproc.net.tls.failure import TlsFailed
from lbproc.net.tls.transport import TlsTransport
from lbproc.net.transport import ConnectionLost, Transport
from lbproc.net.tunnel import Stream
from tests.net.tls.pairs import client_context, server_context, shake_hands, tls_ends, tls_pair
from tests.net.waiting import (
    NEVER_SWEPT,
    converse,
    fill,
    receive_exactly,
    receive_some,
    receive_to_end,
    send_all,
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LARGE = bytes(range(256)) * 4096


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def server(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return server_context(request.param)


class Slicing(MemoryTransport):
    """Gives and takes so many bytes at most; always, and not only as far as there is room."""

    __slots__ = ("most",)
    most: int

    def recv(self, max_bytes: int) -> bytes | None:
        return super().recv(min(max_bytes, self.most))

    def send(self, data: bytes | memoryview) -> int:
        taken = super().send(data[: self.most])
        if taken < len(data):
            self.source.ready &= ~WRITE
            trio.lowlevel.current_trio_token().run_sync_soon(self.source.notify, WRITE)
        return taken


def slicing_pair(most: int) -> tuple[Slicing, Slicing]:
    near, far = (Slicing(f"192.0.2.{number}", 443, 65536) for number in (1, 9))
    near.most = far.most = most
    near._peer, far._peer = far, near
    return near, far


async def test_a_handshake_says_what_was_agreed_on(server: ssl.SSLContext) -> None:
    near, far = await tls_pair(*memory_pair(), server=server)
    assert near.tls is not None
    assert far.tls is not None
    assert near.tls.version == far.tls.version == server.maximum_version.name.replace("v1_", "v1.")
    assert near.tls.cipher == far.tls.cipher
    assert "GCM" in near.tls.cipher or "POLY1305" in near.tls.cipher
    assert (near.tls.server_name, near.tls.alpn, near.tls.resumed) == ("localhost", None, False)
    assert near.tls.peer_certificate
    assert far.tls.peer_certificate is None


@pytest.mark.parametrize("most", [1, 2, 7, 1000])
async def test_everything_arrives_whatever_pieces_the_network_makes_of_it(
    server: ssl.SSLContext, most: int
) -> None:
    near, far = await tls_pair(*slicing_pair(most), server=server)
    data = LARGE[: most * 3000]
    answers: dict[str, bytes] = {}

    async def talk(name: str, end: Transport, data: bytes) -> None:
        answers[name] = await converse(end, data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, "near", near, data)
        nursery.start_soon(talk, "far", far, data[::-1])
    assert answers == {"near": data[::-1], "far": data}
    assert not near.is_truncated
    assert not far.is_truncated


async def test_what_was_read_before_is_the_beginning() -> None:
    near, far = memory_pair()
    client = TlsTransport(near, client_context(), server_name="localhost")
    assert not client._shake_hands()  # has said hello
    hello = far.recv(65536)
    assert hello
    server = TlsTransport(far, server_context(), server_name="localhost", received=hello)
    await shake_hands(client, server)
    assert server.tls is not None
    assert server.tls.server_name == "localhost"


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 70_000), min_size=1, max_size=8),
    reads=st.lists(st.integers(1, 70_000), min_size=1, max_size=8),
    capacity=st.sampled_from([1000, 5000, 65_536, 1_000_000]),
)
def test_bytes_stay_in_order_whatever_is_sent_and_read(
    pieces: list[int], reads: list[int], capacity: int
) -> None:
    data = LARGE[: sum(pieces)]

    async def main() -> None:
        near, far = await tls_pair(*memory_pair(capacity))
        received = bytearray()

        async def write() -> None:
            start = 0
            for size in pieces:
                await send_all(near, data[start : start + size])
                start += size
            near.shutdown_write()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            turn = 0
            while True:
                size = reads[turn % len(reads)]
                buffer = memoryview(bytearray(size))
                count = far.recv_into(buffer) if turn % 2 else None
                piece = far.recv(size) if not turn % 2 else (None if count is None else bytes(buffer[:count]))
                turn += 1
                if piece is None:
                    assert not far.source.ready & READ
                    await park(far.until_readable, NEVER_SWEPT, math.inf)
                elif not piece:
                    break
                else:
                    received += piece
        assert bytes(received) == data

    trio.run(main)


async def test_read_stays_set_while_something_is_held() -> None:
    near, far = await tls_pair(*memory_pair())
    for piece in (b"one", b"two", b"three"):
        near.send(piece)
    assert far.recv(100) == b"one"
    assert far.source.ready & READ
    assert far.recv(2) == b"tw"
    assert far.source.ready & READ
    assert far.recv(100) == b"o"
    assert far.recv(100) == b"three"
    assert far.recv(100) is None
    assert not far.source.ready & READ
    near.send(b"again")
    assert far.source.ready & READ


async def test_one_read_takes_many_records() -> None:
    near, far = await tls_pair(*memory_pair(1_000_000))
    for _ in range(10):
        near.send(b"x" * 1000)
    buffer = memoryview(bytearray(20_000))
    assert far.recv_into(buffer) == 10_000
    assert not far.source.ready & READ


async def test_what_did_not_fit_is_owed_and_nothing_of_it_can_be_read() -> None:
    inner_near, inner_far = memory_pair(1000)
    near, far = await tls_pair(inner_near, inner_far)
    assert await receive_nothing(near)
    assert near.send(b"a" * 900) == 900
    assert near.send(b"b" * 900) == 0
    assert not near.source.ready & WRITE
    assert near.room() == 0
    assert far.recv(10_000) == b"a" * 900
    assert far.recv(10_000) is None
    assert near.send(b"b" * 900 + b"c") == 900
    assert near.send(b"c") == 1
    assert await receive_exactly(far, 901) == b"b" * 900 + b"c"


async def receive_nothing(transport: Transport) -> bool:
    """Takes the tickets that a server has sent."""
    return transport.recv(1) is None


async def test_other_bytes_cannot_take_the_place_of_those_that_are_owed() -> None:
    near, far = await tls_pair(*memory_pair(1000))
    fill(near)
    far.recv(10_000)
    with pytest.raises(ConnectionLost, match="given up"):
        near.send(b"something else")
    with pytest.raises(ConnectionLost, match="given up"):
        near.send(b"f" * 65536)


async def test_a_large_send_counts_whole_records_only() -> None:
    inner_near, inner_far = memory_pair(100_000)
    near, far = await tls_pair(inner_near, inner_far)
    assert near.send(LARGE) == 6 * 16_384
    await receive_exactly(far, 6 * 16_384)
    assert far.recv(1) is None
    assert near.send(LARGE[6 * 16_384 :]) == 2 * 16_384  # what was owed
    assert await receive_exactly(far, 2 * 16_384) == LARGE[6 * 16_384 : 8 * 16_384]


@pytest.mark.parametrize("how", ["recv", "recv_into"])
async def test_a_stream_that_ends_without_a_word_is_truncated(server: ssl.SSLContext, how: str) -> None:
    inner_near, inner_far = memory_pair()
    near, far = await tls_pair(inner_near, inner_far, server=server)
    near.send(b"almost all")
    await receive_nothing(near)
    inner_near.close()  # as an attacker on the path can do
    assert await receive_exactly(far, 10) == b"almost all"
    for _ in range(2):
        assert (far.recv(10) if how == "recv" else far.recv_into(memoryview(bytearray(10)))) in {b"", 0}
    assert far.is_truncated
    assert not far.is_quiet()


async def test_a_stream_that_ends_within_a_record_is_truncated() -> None:
    inner_near, inner_far = memory_pair()
    near, far = await tls_pair(inner_near, inner_far)
    await receive_nothing(near)
    near.send(b"never whole")
    del inner_far._inbox[-1:]
    inner_near.close()
    assert await receive_to_end(far) == b""
    assert far.is_truncated


async def test_a_word_at_the_end_is_no_truncation(server: ssl.SSLContext) -> None:
    near, far = await tls_pair(*memory_pair(), server=server)
    near.close()
    assert await receive_to_end(far) == b""
    assert not far.is_truncated


class UntilTheEnd:
    """A body that ends with the connection."""

    complete = False
    lines = 0

    def take(self, data: memoryview) -> tuple[memoryview, bytes]:
        return data, b""

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        return not is_truncated


@pytest.mark.parametrize(("body", "is_broken"), [(UntilTheEnd, True), (Stream, False)])
async def test_a_body_that_ends_with_a_truncated_stream_is_broken_and_a_tunnel_is_not(
    body: type[UntilTheEnd], is_broken: bool
) -> None:
    inner_near, inner_far = memory_pair()
    near, far = await tls_pair(inner_near, inner_far)
    sink, receiver = memory_pair()
    near.send(b"some")
    await receive_nothing(near)
    inner_near.close()
    pipe = Pipe(far, sink, body())
    if is_broken:
        with pytest.raises(Truncated):
            pipe.pump()
    else:
        pipe.pump()
        assert pipe.finished
    assert receiver.recv(10) == b"some"


async def test_half_close_keeps_what_was_not_read_yet(server: ssl.SSLContext) -> None:
    near, far = await tls_pair(*memory_pair(), server=server)
    near.send(b"first")
    near.send(b"second")
    assert far.recv(3) == b"fir"
    far.shutdown_write()
    assert await receive_to_end(near) == b""
    assert not near.is_truncated
    near.send(b"third")
    near.shutdown_write()
    assert far.source.ready & READ
    assert await receive_to_end(far) == b"stsecondthird"
    assert not far.is_truncated


async def test_the_last_word_goes_when_there_is_room_for_it(nursery: trio.Nursery) -> None:
    inner_near, inner_far = memory_pair(1000)
    near, far = await tls_pair(inner_near, inner_far)
    await receive_nothing(near)
    near.send(b"x" * (1000 - 22))  # with what a record costs, not a byte is left
    near.shutdown_write()
    read: list[bytes] = []

    async def read_near() -> None:
        read.append(await receive_some(near))

    nursery.start_soon(read_near)
    await wait_all_tasks_blocked()
    assert await receive_to_end(far) == b"x" * 978
    assert not far.is_truncated
    assert read == []
    far.send(b"answer")
    await wait_all_tasks_blocked()
    assert read == [b"answer"]


async def test_closing_with_no_room_for_the_last_word_does_not_wait() -> None:
    near, far = await tls_pair(*memory_pair(1000))
    fill(near)
    near.close()
    await receive_to_end(far)
    assert far.is_truncated


async def test_the_last_piece_and_the_last_word_go_in_one(server: ssl.SSLContext) -> None:
    near, far = await tls_pair(*memory_pair(), server=server)
    while near.recv(100) is not None:
        pass  # no tickets
    raw = near._inner
    assert far.send_last(b"bye") == 3
    wire = raw.recv(65_536)
    assert wire is not None
    near._incoming.write(wire)
    near._holds = True
    near.source.ready |= READ
    assert near.recv(100) == b"bye"
    assert near.recv(100) == b""
    assert not near.is_truncated
    far.close()
    assert raw.recv(100) == b""  # and nothing is said twice


async def test_a_last_piece_that_does_not_fit_is_owed_with_the_last_word_behind_it() -> None:
    near, far = await tls_pair(*memory_pair(1000))
    assert far.send_last(b"x" * 5000) == 0
    received = bytearray()

    async def read() -> None:
        received.extend(await receive_to_end(near))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await send_all(far, b"x" * 5000)
        far.close()
    assert received == b"x" * 5000
    assert not near.is_truncated


@pytest.mark.parametrize("size", [16_384, 16_385, 100_000])
async def test_a_last_piece_of_any_size_is_sent(size: int) -> None:
    near, far = await tls_pair(*memory_pair(1_000_000))
    assert far.send_last(LARGE[:size]) == size
    far.shutdown_write()
    assert await receive_to_end(near) == LARGE[:size]
    assert not near.is_truncated


async def test_what_the_peer_sent_before_a_last_piece_is_not_lost() -> None:
    near, far = await tls_pair(*memory_pair(1_000_000))
    near.send(b"one")
    near.send(b"two")
    assert far.recv(100) == b"one"  # the other record is held
    assert far.send_last(b"bye") == 3
    near.send(b"three")
    assert await receive_exactly(far, 8) == b"twothree"
    far.shutdown_write()
    assert await receive_to_end(near) == b"bye"


async def test_what_came_with_the_end_of_a_handshake_is_there_at_once() -> None:
    near, far = tls_ends(*memory_pair())
    first: list[bytes] = []

    async def ask() -> None:
        await near.handshake(NEVER_SWEPT, math.inf)
        near.send(b"a request")

    async def answer() -> None:
        await far.handshake(NEVER_SWEPT, math.inf)
        first.append(far.recv_first(2))
        first.append(far.recv_first(100))
        first.append(far.recv_first(100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(answer)
    assert first == [b"a ", b"request", b""]
    assert far.recv(100) is None
    assert not far.source.ready & READ
    near.send(b"another")
    assert far.source.ready & READ
    assert far.recv(100) == b"another"


async def test_what_was_tampered_with_is_refused_and_the_peer_is_told(server: ssl.SSLContext) -> None:
    inner_near, inner_far = memory_pair()
    near, far = await tls_pair(inner_near, inner_far, server=server)
    await receive_nothing(near)
    near.send(b"good")
    near.send(b"bad")
    inner_far._inbox[-1] ^= 1
    assert far.recv(100) == b"good"
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="decryption failed or bad record mac"):
            far.recv(100)
        with pytest.raises(ConnectionLost):
            far.send(b"x")
    with pytest.raises(ConnectionLost, match="alert bad record mac"):
        near.recv(100)


async def test_what_came_before_a_break_is_given_first() -> None:
    inner_near, inner_far = memory_pair()
    near, far = await tls_pair(inner_near, inner_far)
    near.send(b"good")
    near.send(b"bad")
    inner_far._inbox[-1] ^= 1
    buffer = memoryview(bytearray(100))
    assert far.recv_into(buffer) == 4
    with pytest.raises(ConnectionLost):
        far.recv_into(buffer)


async def test_tickets_that_come_while_it_is_idle_are_no_news() -> None:
    near, far = await tls_pair(*memory_pair())
    assert not near._inner.is_quiet()
    assert near.is_quiet()
    assert near.is_quiet()
    far.send(b"unasked")
    assert not near.is_quiet()


async def test_updated_keys_are_followed() -> None:
    """OpenSSL updates its keys by itself after many records; what is read goes on through it."""
    near, far = await tls_pair(*memory_pair(1 << 22))
    for _ in range(3):
        assert near.send(LARGE) == len(LARGE)
        assert await receive_exactly(far, len(LARGE)) == LARGE


# Peers that send much that brings little


async def test_a_flood_of_tiny_records_lets_others_have_their_turn_and_loses_nothing() -> None:
    near, far = await tls_pair(*memory_pair(1 << 22))
    data = LARGE[:20_000]
    for byte in data:
        assert near.send(bytes([byte])) == 1
    near.shutdown_write()
    received = bytearray()
    buffer = memoryview(bytearray(1 << 20))
    turns = 0
    while (count := far.recv_into(buffer)) != 0:
        if count is None:
            turns += 1
            assert not far.source.ready & READ
            assert await park(far.until_readable, NEVER_SWEPT, math.inf)
        else:
            assert count < 4096
            received += buffer[:count]
    assert received == data
    assert turns > 4


@pytest.mark.parametrize("by", ["recv", "recv_into"])
async def test_a_flood_that_brings_nothing_lets_others_have_their_turn_and_ends_the_connection(
    by: str,
) -> None:
    near, far = await tls_pair(*memory_pair(1 << 22))
    near.send(b"x")
    near._inner.send(update_keys(near, 10_000))
    buffer = memoryview(bytearray(1))

    def read() -> object:
        return far.recv(1) if by == "recv" else far.recv_into(buffer)

    assert read()  # behind what was agreed on before
    for _ in range(3):
        assert read() is None  # however often it is asked, nothing is done before others were here
        assert not far.source.ready & READ
    assert isinstance(far._inner, MemoryTransport)
    assert len(far._inner._inbox) > 200_000
    await park(far.until_readable, NEVER_SWEPT, math.inf)
    with pytest.raises(ConnectionLost, match="no end of empty records"):
        read()


async def test_a_word_now_and_then_in_a_flood_is_heard_in_turn() -> None:
    near, far = await tls_pair(*memory_pair(1 << 22))
    for _ in range(6):
        near._inner.send(update_keys(near, 1000))
        assert near.send(b"x") == 1
    received = b""
    while len(received) < 6:
        piece = far.recv(100)
        if piece is None:
            await park(far.until_readable, NEVER_SWEPT, math.inf)
        else:
            received += piece
    assert received == b"x" * 6
    far.close()
    await wait_all_tasks_blocked()  # a turn that was to come finds it closed


def update_keys(end: TlsTransport, times: int) -> bytes:
    """Has one end update its keys, which nobody asked for; gives what it says."""
    library = ctypes.PyDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.SSL_do_handshake.argtypes = (ctypes.c_void_p,)
    connection = ctypes.c_void_p.from_address(id(end._ssl._sslobj) + object.__basicsize__ + 8)  # type: ignore[attr-defined]
    for _ in range(times):
        assert library.SSL_key_update(connection, 0) == 1
        assert library.SSL_do_handshake(connection) == 1
    return end._outgoing.read()


# Handshakes that fail


async def fail(end: TlsTransport) -> TlsFailed:
    with pytest.raises(TlsFailed) as caught:
        await end.handshake(NEVER_SWEPT, math.inf)
    end.close()
    return caught.value


async def fail_both(near: TlsTransport, far: TlsTransport) -> tuple[TlsFailed, TlsFailed]:
    found: dict[TlsTransport, TlsFailed] = {}

    async def run(end: TlsTransport) -> None:
        found[end] = await fail(end)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, near)
        nursery.start_soon(run, far)
    return found[near], found[far]


async def test_a_certificate_that_is_not_trusted_is_said_with_its_cause() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    near, far = await fail_both(*tls_ends(*memory_pair(), client=stranger))
    assert (near.reason, near.detail) == ("certificate_rejected", "unable to get local issuer certificate")
    assert (far.reason, far.detail) == ("refused_by_peer", "unknown ca")


async def test_a_certificate_for_another_host_is_said_with_the_host() -> None:
    near, _ = await fail_both(*tls_ends(*memory_pair(), server_name="db.internal"))
    assert near.reason == "certificate_rejected"
    assert near.detail == "Hostname mismatch, certificate is not valid for 'db.internal'"


async def test_versions_without_one_in_common_are_said_to_be_so() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    near, far = await fail_both(*tls_ends(*memory_pair(), client=client, server=server))
    assert (near.reason, near.detail) == ("refused_by_peer", "protocol version")
    assert far.reason == "version"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
        (b"\x16\x03\x01" + b"\xff" * 100, "malformed"),
        (b"\0" * 50, None),
    ],
)
async def test_garbage_ends_a_handshake(sent: bytes, reason: str | None) -> None:
    near, far = memory_pair()
    near.send(sent)
    near.shutdown_write()
    failed = await fail(TlsTransport(far, server_context()))
    assert failed.reason == reason or reason is None


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_peer_that_leaves_ends_a_handshake(how: str) -> None:
    near, far = memory_pair()
    getattr(near, how)()
    assert (await fail(TlsTransport(far, server_context()))).reason == "closed"


async def test_a_handshake_that_stalls_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        _, far = memory_pair()
        started = trio.current_time()
        with pytest.raises(TlsFailed, match="timeout"):
            await TlsTransport(far, server_context()).handshake(deadlines, started + 5)
        assert 5 <= trio.current_time() - started < 6
        nursery.cancel_scope.cancel()


async def test_a_peer_that_never_reads_cannot_keep_a_handshake_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        near, far = tls_ends(*memory_pair(400))
        nursery.start_soon(functools.partial(fail_quietly, near))
        with pytest.raises(TlsFailed, match="timeout"):
            await far.handshake(deadlines, trio.current_time() + 5)
        nursery.cancel_scope.cancel()


async def fail_quietly(end: TlsTransport) -> None:
    """Says hello as far as there is room, and then no more."""
    end._shake_hands()


@pytest.mark.parametrize("end", [0, 1])
async def test_before_the_handshake_it_can_only_be_closed(end: int) -> None:
    ends = tls_ends(*memory_pair())
    ends[end].close()
    with pytest.raises(ConnectionLost, match="closed on this side"):
        ends[end].recv(1)
    assert (await fail(ends[1 - end])).reason == "closed"


async def test_a_session_goes_on_at_the_next_connection(server: ssl.SSLContext) -> None:
    near, far = await tls_pair(*memory_pair(), server=server)
    far.send(b"x")
    assert await receive_some(near) == b"x"
    again, _ = await tls_pair(*memory_pair(), server=server, session=near.session)
    assert again.tls is not None
    assert again.tls.resumed
