"""One probe against backends of every kind: each ends in time, with one line that says why it failed."""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from lbproc.config.health import StatusRange
from lbproc.health import wire
from lbproc.health.probe import Outcome, Probe, run_probe
from lbproc.health.questions import LOOKED_AT, ByteQuestion, HttpQuestion, Question
from lbproc.health.wire import Encryption, ProbeFailed, ProbeImpossible, encrypt, one_line, open_stream
from lbproc.types import Address, Seconds, TcpAddress, UnixAddress

TLS = Path(__file__).parent / "tls"
GOOD = StatusRange(200, 299)
SOMEWHERE = TcpAddress("192.0.2.1", 80)

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


def http(body: bytes = b"", method: str = "GET", *, is_secret: bool = False) -> HttpQuestion:
    headers = (("Host", "app"), ("Connection", "close"))
    return HttpQuestion(method, "/healthz?full", headers, (GOOD,), body, is_secret)


def saying(*pieces: bytes, every: Seconds = 0.0, closes: bool = True) -> Serve:
    """A backend that reads a request and says something."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65_536)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(every)
        if closes:
            await stream.aclose()
        else:
            await trio.sleep_forever()

    return serve


async def over_memory(
    serve: Serve,
    question: Question,
    timeout: Seconds = 1.0,
    encryption: Encryption | None = None,
    greeting: bytes = b"",
) -> Outcome:
    """The outcome of a probe of a backend at the other end of a stream in memory."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve_till_gone() -> None:
        try:
            await serve(theirs)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def connect(addresses: Sequence[Address], within: Seconds) -> trio.abc.Stream:
        assert addresses == (SOMEWHERE,)
        assert within == timeout
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_till_gone)
        outcome = await run_probe(Probe((SOMEWHERE,), question, encryption, timeout, greeting), connect)
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some(1)  # whatever came of it, the connection is closed
    return outcome


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("serve", "question"),
    [
        (saying(OK), http()),
        (saying(OK), http(b"ok")),
        (saying(b"HTTP/1.1 204 No Content\r\n\r\n", closes=False), http()),
        (saying(b"HTTP/1.1 103 Early Hints\r\n\r\n", OK), http(b"ok")),
        (saying(b"HTTP/1.0 200 OK\r\n\r\nall is ok"), http(b"ok")),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nok", closes=False), http(b"ok")),
        (
            saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
            http(b"ok"),
        ),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), http(method="HEAD")),
        (saying(*(bytes([octet]) for octet in OK), every=0.01), http(b"ok")),
        (saying(b"+PO", b"NG\r\n", closes=False), ByteQuestion(b"PING\r\n", b"+PONG")),
    ],
)
async def test_a_good_answer_passes_as_soon_as_it_is_known(
    serve: Serve, question: Question, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await over_memory(serve, question)
    assert (outcome.passed, outcome.reason) == (True, "")
    assert outcome.seconds < 1.0


NO_ANSWER = "no answer within 1s"


@pytest.mark.parametrize(
    ("serve", "question", "reason"),
    [
        (saying(closes=False), http(), NO_ANSWER),
        (saying(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), http(), "status 500"),
        (saying(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), http(), "status 302"),
        (
            saying(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            http(),
            "the answer breaks HTTP: Received server _SWITCH_UPGRADE event without a pending proposal",
        ),
        (saying(), http(), "the connection was closed before the answer"),
        (saying(b"HTTP/1.1 200 "), http(), "the connection was closed before the answer"),
        (saying(*(bytes([octet]) for octet in OK), every=0.2), http(), NO_ANSWER),
        (saying(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 99, every=0.2), http(), NO_ANSWER),
        (saying(OK), http(b"fine"), "status 200, but the body lacks the expected text"),
        (
            saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * LOOKED_AT + b"ok"),
            http(b"ok"),
            "status 200, but the body lacks the expected text",
        ),
        (
            saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
            http(b"ok"),
            "the answer breaks HTTP: peer closed connection without sending complete message body "
            "(received 5 bytes, expected 10)",
        ),
        (
            saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            http(),
            "the answer breaks HTTP: illegal status line: bytearray(b'SSH-2.0-OpenSSH_9.2')",
        ),
        (saying(b"Authorization: hush\r\n\r\n"), http(is_secret=True), "the answer breaks HTTP"),
        (saying(*[b"HTTP/1.1 103 Hm\r\n\r\n" * 100] * 100), http(), "the answer is too long to be judged"),
        (saying(b"\x00" * 100), http(), "the answer breaks HTTP: illegal request line"),
        (saying(b"x" * 100_000), http(), "the answer breaks HTTP: Receive buffer too long"),
        (saying(closes=False), ByteQuestion(b"PING", b"PONG"), NO_ANSWER),
        (saying(), ByteQuestion(b"PING", b"PONG"), "the connection was closed before the answer"),
        (
            saying(b"-ERR\r\n"),
            ByteQuestion(b"PING", b"PONG"),
            "the connection was closed before the expected text",
        ),
        (saying(b"x" * 100_000), ByteQuestion(b"PING", b"PONG"), "the answer lacks the expected text"),
        (saying(*[b"x"] * 99, every=0.1), ByteQuestion(b"PING", b"PONG"), NO_ANSWER),
    ],
)
async def test_any_other_answer_fails_in_time_and_says_why(
    serve: Serve, question: Question, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await over_memory(serve, question)
    assert (outcome.passed, outcome.reason) == (False, reason)
    assert outcome.seconds <= 1.0


async def test_the_request_is_what_was_asked_for() -> None:
    heard = bytearray()

    async def serve(stream: trio.abc.Stream) -> None:
        heard.extend(await stream.receive_some(65_536))
        await stream.send_all(OK)

    assert (await over_memory(serve, http())).passed
    assert bytes(heard) == b"GET /healthz?full HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


async def test_with_nothing_to_say_the_connection_is_enough() -> None:
    assert (await over_memory(saying(), ByteQuestion(b"", b""))).passed


@pytest.mark.parametrize("question", [http(), ByteQuestion(b"PING", b"PONG")])
async def test_a_connection_that_breaks_fails(question: Question) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.StapledStream)
        await stream.aclose()

    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()

    async def connect(addresses: Sequence[Address], within: Seconds) -> trio.abc.Stream:
        return ours

    outcome = await run_probe(Probe((SOMEWHERE,), question, None, 1.0), connect)
    assert (outcome.passed, outcome.reason) == (False, "the connection was reset")


async def test_a_name_that_is_not_resolved_says_nothing_about_the_backend() -> None:
    outcome = await run_probe(Probe((), http(), None, 1.0))
    assert (outcome.passed, outcome.reason) == (None, "its host name is not resolved")


async def test_a_connect_that_takes_too_long_fails(autojump_clock: trio.testing.MockClock) -> None:
    async def connect(addresses: Sequence[Address], within: Seconds) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    outcome = await run_probe(Probe((SOMEWHERE,), http(), None, 2.0), connect)
    assert outcome == Outcome(False, "no connection within 2s", 2.0)


# Over real sockets


@asynccontextmanager
async def listening(serve: Serve, path: str = "") -> AsyncIterator[Address]:
    """A backend on loopback."""
    if path:
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(path)
        address: Address = UnixAddress(path)
    else:
        sock = trio.socket.socket()
        await sock.bind(("127.0.0.1", 0))
        address = TcpAddress("127.0.0.1", sock.getsockname()[1])
    sock.listen()

    async def serve_one(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError, ssl.SSLError):
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_one, [trio.SocketListener(sock)])
        yield address
        nursery.cancel_scope.cancel()


def unused() -> TcpAddress:
    """An address that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return TcpAddress("127.0.0.1", sock.getsockname()[1])


async def probe(question: Question, *addresses: Address, encryption: Encryption | None = None) -> Outcome:
    return await run_probe(Probe(addresses, question, encryption, 10.0))


async def test_backends_on_tcp_and_unix_sockets_are_probed(tmp_path: Path) -> None:
    async with listening(saying(OK)) as tcp, listening(saying(OK), str(tmp_path / "s")) as unix:
        assert (await probe(http(b"ok"), tcp)).passed
        assert (await probe(http(b"ok"), unix)).passed
        assert (await probe(ByteQuestion(b"", b""), tcp)).passed


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async with listening(saying(OK)) as address:
        assert (await probe(http(), unused(), address)).passed


async def test_a_refused_connection_fails_at_once(tmp_path: Path) -> None:
    gone = unused()
    outcome = await probe(http(), gone)
    assert (outcome.passed, outcome.reason) == (False, f"{gone}: Connection refused")
    outcome = await probe(http(), UnixAddress(str(tmp_path / "none")))
    assert outcome.passed is False
    assert outcome.reason.endswith("No such file or directory")


async def test_a_reset_fails() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        stream.socket.close()

    async with listening(serve) as address:
        for question in (http(), ByteQuestion(b"PING", b"PONG")):
            outcome = await probe(question, address)
            assert (outcome.passed, outcome.reason) == (False, "the connection was reset")


async def test_each_address_gets_a_part_of_the_time(autojump_clock: trio.testing.MockClock) -> None:
    tried: list[tuple[Address, float]] = []

    async def connect(address: Address) -> trio.SocketStream:
        tried.append((address, trio.current_time()))
        await trio.sleep_forever()
        raise AssertionError

    one, two, three = (TcpAddress("192.0.2.1", port) for port in (1, 2, 3))
    start = trio.current_time()
    with pytest.raises(ProbeFailed, match=r"no connection to 192\.0\.2\.1:3 in time"):
        await open_stream([one, two, three], 3.0, connect)
    assert [(address, at - start) for address, at in tried] == [(one, 0.0), (two, 1.0), (three, 2.0)]


async def test_no_address_is_no_connection() -> None:
    with pytest.raises(ProbeFailed, match="there is no address"):
        await open_stream([], 1.0)


async def test_a_host_without_descriptors_says_nothing_about_the_backend() -> None:
    async with listening(saying(OK)) as address:
        with _few_descriptors():
            outcome = await probe(http(), address)
    assert (outcome.passed, outcome.reason) == (None, "Too many open files")


class _few_descriptors:  # noqa: N801  a context manager
    """Takes the descriptors away, for a moment."""

    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, self._limits[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


# TLS


def server_side(stream: trio.abc.Stream) -> trio.SSLStream[trio.abc.Stream]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)


async def serve_secretly(stream: trio.abc.Stream) -> None:
    await saying(OK)(server_side(stream))


def trusting(server_name: str = "app.internal", *, verify: bool = True, ours: bool = True) -> Encryption:
    context = ssl.create_default_context(cadata=(TLS / "ca.pem").read_text() if ours else None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return Encryption(context, server_name)


@pytest.mark.parametrize(
    "encryption", [trusting(), trusting("127.0.0.1"), trusting("other.internal", verify=False, ours=False)]
)
async def test_a_request_over_tls_passes(encryption: Encryption) -> None:
    async with listening(serve_secretly) as address:
        assert (await probe(http(b"ok"), address, encryption=encryption)).passed
        assert (await probe(ByteQuestion(b"", b""), address, encryption=encryption)).passed


@pytest.mark.parametrize(
    ("encryption", "reason"),
    [
        (trusting("other.internal"), "Hostname mismatch"),
        (trusting(ours=False), "unable to get local issuer certificate"),
        (trusting("x" * 64 + ".internal"), "Hostname mismatch"),
        (trusting(".internal"), "server_hostname cannot be an empty string or start with a leading dot"),
    ],
)
async def test_a_certificate_that_is_not_right_fails(encryption: Encryption, reason: str) -> None:
    async with listening(serve_secretly) as address:
        outcome = await probe(http(), address, encryption=encryption)
    assert outcome.passed is False
    assert outcome.reason.startswith("TLS handshake failed: ")
    assert reason in outcome.reason


async def test_a_backend_that_does_not_speak_tls_fails(autojump_clock: trio.testing.MockClock) -> None:
    for serve, reason in (
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "TLS handshake failed: "),
        (saying(), "TLS handshake failed: "),
        (saying(closes=False), "no TLS handshake within 1s"),
    ):
        outcome = await over_memory(serve, http(), encryption=trusting())
        assert outcome.passed is False
        assert outcome.reason.startswith(reason)


async def test_a_reset_in_the_handshake_fails() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        stream.socket.close()

    async with listening(serve) as address:
        outcome = await probe(http(), address, encryption=trusting())
    assert (outcome.passed, outcome.reason) == (False, "TLS handshake failed: Connection reset by peer")


async def test_a_connection_that_is_gone_before_the_handshake_fails() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(ProbeFailed, match="TLS handshake failed: the connection broke"):
        await encrypt(ours, trusting())


def test_reasons_are_one_short_printable_line() -> None:
    assert one_line("a\nb\x1b[2J") == "a?b?[2J"
    assert len(one_line("x" * 1000)) == wire.LONGEST_REASON
    assert ProbeFailed("a\nb").reason == "a?b"
    assert ProbeImpossible("why").reason == "why"


async def test_a_greeting_comes_before_everything_else() -> None:
    heard = bytearray()

    async def serve(stream: trio.abc.Stream) -> None:
        while b"\r\n\r\n" not in heard:
            heard.extend(await stream.receive_some(65_536))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    outcome = await over_memory(serve, http(), greeting=b"PROXY UNKNOWN\r\n")
    assert outcome.passed
    assert heard.startswith(b"PROXY UNKNOWN\r\nGET /healthz")


async def test_a_backend_that_takes_no_greeting_has_failed() -> None:
    async def connect(_addresses: Sequence[Address], _within: Seconds) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.aclose()
        return ours

    outcome = await run_probe(Probe((SOMEWHERE,), http(), None, 1.0, b"PROXY UNKNOWN\r\n"), connect)
    assert (outcome.passed, outcome.reason) == (False, "the connection was reset")


async def test_a_backend_that_misses_our_certificate_says_so_after_the_handshake() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(TLS / "ca.pem"))
        context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        secret = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        with pytest.raises(trio.BrokenResourceError):
            await secret.do_handshake()
        await stream.send_all(secret._outgoing.read())  # the alert, which trio keeps to itself
        await stream.receive_some()

    async with listening(serve) as address:
        outcome = await probe(http(), address, encryption=trusting())
    assert (outcome.passed, outcome.reason) == (False, "TLS: TLSV13_ALERT_CERTIFICATE_REQUIRED")
