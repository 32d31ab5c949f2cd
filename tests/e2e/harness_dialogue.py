"""Conversations through a real lbproc in which one test speaks for both ends.

The test is the client and the backend at once, in one thread: it sends bytes on one side, reads what came out
on the other, answers there, and reads the answer here. So a case says in order what happens, and nothing has
to be waited for but bytes and ends. What takes no bytes ("nothing comes") is asked after ``settle``, when the
one worker has done all that it was given to do.

Fragments are real ones: a piece is sent only when lbproc has taken the one before out of its socket.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from contextlib import ExitStack, suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from tests.e2e.harness import PATIENCE, LbprocServer, wait_until
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES = 256 * 1024

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
END = b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""Stands behind bytes that are refused; a backend that sees it has been tricked."""

KNOWN = GET + END
"""A whole request that lbproc has seen before."""

_CUT_BYTES = 150


class Manner(Enum):
    """How bytes are cut into pieces on their way to lbproc."""

    AT_ONCE = "at once"
    LINE_BY_LINE = "cut at each CR and LF"
    BYTE_BY_BYTE = "byte by byte"

    def cut(self, octets: bytes) -> list[bytes]:
        """The pieces, in order; none is empty. Of what is long only the begin and the end are cut."""
        if len(octets) > 2 * _CUT_BYTES and self is not Manner.AT_ONCE:
            begin, middle, end = octets[:_CUT_BYTES], octets[_CUT_BYTES:-_CUT_BYTES], octets[-_CUT_BYTES:]
            return [*self.cut(begin), middle, *self.cut(end)]
        match self:
            case Manner.AT_ONCE:
                return [octets]
            case Manner.LINE_BY_LINE:
                return re.findall(rb"\r|\n|[^\r\n]+", octets)
            case Manner.BYTE_BY_BYTE:
                return [octets[at : at + 1] for at in range(len(octets))]


class End(Enum):
    """How the other side ended a connection."""

    CLOSED = "in order, by FIN"
    RESET = "by RST"


class Wire:
    """One TCP connection with lbproc at its other end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._addresses = (sock.getpeername(), sock.getsockname())
        self._buffer = bytearray()
        self._sending: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, octets: bytes, manner: Manner = Manner.AT_ONCE) -> Self:
        """Sends ``octets`` in pieces. That lbproc has ended the connection is seen when it is read."""
        pieces = manner.cut(octets)
        try:
            for number, piece in enumerate(pieces, 1):
                self._sock.sendall(piece)
                if number < len(pieces):
                    self.wait_taken()
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def send_in_background(self, octets: bytes) -> None:
        """Sends what is more than the sockets on the way hold."""
        sending = threading.Thread(target=self.send, args=(octets,), daemon=True)
        sending.start()
        self._sending = sending

    def wait_taken(self) -> None:
        """Waits until lbproc has taken everything sent so far out of its socket, or has closed that."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as asking:
            for _ in range(1000):  # it takes some 50 µs, so the pause of wait_until is far too long
                if not _unread_bytes(asking, *self._addresses):
                    return
                os.sched_yield()
            wait_until(lambda: not _unread_bytes(asking, *self._addresses), "lbproc takes what was sent")

    def read_head(self) -> bytes:
        """The next head, with its empty line."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        return self.read_exactly(end + 4)

    def read_exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        while len(self._buffer) < size:
            self._receive()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def read_rest(self) -> tuple[bytes, End]:
        """Everything up to the end of the connection, and which end it was."""
        end = End.CLOSED
        try:
            while octets := self._sock.recv(READ_BYTES):
                self._buffer += octets
        except ConnectionResetError:
            end = End.RESET
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest, end

    def assert_silent(self) -> None:
        """Nothing has come and the connection stands. Settle first."""
        assert not self._buffer, f"unasked: {bytes(self._buffer)!r}"
        self._sock.settimeout(0)
        try:
            octets = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        finally:
            self._sock.settimeout(PATIENCE)
        raise AssertionError(f"unasked: {octets!r}" if octets else "the connection has ended")

    def half_close(self) -> None:
        """Sends FIN; reading goes on."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        """Closes the connection; idempotent."""
        if self._sending is not None:
            with suppress(OSError):  # it has ended
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sending.join(PATIENCE)
            self._sending = None
        self._sock.close()

    def _receive(self) -> None:
        octets = self._sock.recv(READ_BYTES)
        assert octets, f"the connection ended after {bytes(self._buffer)!r}"
        self._buffer += octets


_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_MESSAGE_HEADER = 16
_OFFSET_OF_RQUEUE = _MESSAGE_HEADER + 4 + 48 + 4
_ERROR = 2


def _unread_bytes(asking: socket.socket, here: tuple[str, int], there: tuple[str, int]) -> int:
    """Bytes in the receive queue of the socket at ``here`` that is connected to ``there``; 0 without one.

    sock_diag(7): one inet_diag_req_v2 for one socket, and its inet_diag_msg.
    """
    request = (
        struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        + struct.pack(">HH", here[1], there[1])
        + socket.inet_aton(here[0]).ljust(16, b"\0")
        + socket.inet_aton(there[0]).ljust(16, b"\0")
        + struct.pack("=I", 0)
        + b"\xff" * 8
    )
    asking.send(
        struct.pack("=IHHII", _MESSAGE_HEADER + len(request), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + request
    )
    answer = asking.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
        return 0
    return int(struct.unpack_from("=I", answer, _OFFSET_OF_RQUEUE)[0])


POOLS = {"web": "127.0.0.1", "hasty": "127.0.0.1", "elsewhere": "127.0.0.2"}
"""The pools and where their backends are, all of them played by the test."""

LISTENERS = {
    "web": 'pool = "web"',
    "elsewhere": 'pool = "elsewhere"',
    "trusting": 'pool = "web"\ntrusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]',
    "underscores_rejected": 'pool = "web"\nunderscore_headers = "reject"',
    "underscores_forwarded": 'pool = "web"\nunderscore_headers = "forward"',
    "small": 'pool = "web"\nmax_header_size = "1KiB"\nmax_header_count = 10\nmax_body_size = "100B"',
    "hasty": (
        'pool = "hasty"\n[listeners.hasty.timeouts]\n'
        'header = "0.4s"\nbody = "0.4s"\nidle = "0.4s"\nwrite = "0.4s"\ntunnel = "0.4s"'
    ),
    "nowhere": 'routes = [{ match = { host = "never" }, pool = "web" }]',
}
"""The listeners of the one lbproc that all cases share, and how each differs from the defaults."""


class Proxy:
    """One lbproc with one worker, and this test at all of its ends."""

    def __init__(self, directory: Path) -> None:
        self._open = ExitStack()
        self._listening = {
            pool: self._open.enter_context(socket.create_server((host, 0), backlog=64))
            for pool, host in POOLS.items()
        }
        self.pools = {
            pool: "{}:{}".format(*listening.getsockname()) for pool, listening in self._listening.items()
        }
        """The address of each pool's backend."""
        self._backends: list[Wire] = []
        self._idle: list[Wire] = []
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in LISTENERS}
        self._clients = ExitStack()
        self._heard = 0
        self._is_settled = True
        self._is_used = False
        self.unix_address = f"unix:{directory / 'client.sock'}"
        """Where the listener "trusting" listens too."""
        tables = [
            f"[listeners.{name}]\nbind = {json.dumps([address, *self._also(name)])}\n{LISTENERS[name]}"
            for name, address in self._addresses.items()
        ]
        tables += [f'[pools.{name}]\nbackends = ["{address}"]' for name, address in self.pools.items()]
        tables.append('[pools.hasty.timeouts]\nresponse = "0.4s"\nread = "0.4s"')
        # With one worker the pool of idle backend connections is one, so its order is known.
        self.server = LbprocServer(directory, "\n".join(tables), workers=1, name="conformance")

    def __enter__(self) -> Self:
        with self._open:  # closed again if the server does not start
            self._open.enter_context(self.server)
            for _ in range(3):  # lbproc remembers this head: wherever it comes, it is found at once
                self.warm_up()
                self.hang_up()
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._open.close()

    def _also(self, listener: str) -> list[str]:
        return [self.unix_address] if listener == "trusting" else []

    def client(self, listener: str = "web", *, source: str = "127.0.0.1") -> Wire:
        """A new client connection to a listener."""
        self._is_settled = False
        host, _, port = self._addresses[listener].rpartition(":")
        sock = socket.create_connection((host, int(port)), PATIENCE, source_address=(source, 0))
        return self._clients.enter_context(Wire(sock))

    def backend(self, pool: str = "web") -> Wire:
        """The connection over which the next request comes: an idle one that was warmed up, or a new one."""
        if self._idle:
            return self._idle.pop()
        self._listening[pool].settimeout(PATIENCE)
        wire = Wire(self._listening[pool].accept()[0])
        self._backends.append(wire)
        return wire

    def warm_up(self, pool: str = "web") -> None:
        """Leaves an idle connection in lbproc's pool, which ``backend`` then gives out as the next one."""
        client = self.client(pool)
        client.send(GET + END)
        backend = self.backend(pool)
        backend.read_head()
        backend.send(OK)
        assert client.read_exactly(len(OK)) == OK
        client.close()
        self._idle.append(backend)

    def settle(self) -> None:
        """Waits until the worker has done what it could do with all that it was given before."""
        for _ in range(2):
            with self.client("nowhere") as client:
                client.send(GET + b"Connection: close\r\n\r\n")
                assert client.read_rest()[0].startswith(b"HTTP/1.1 404 ")
        self._is_settled = True

    def logged(self, target: str) -> dict[str, Any]:
        """The entry of the access log for the one request with this target."""

        def find() -> list[str]:
            return [line for line in self.server.access_lines() if f'"target":"{target}"' in line]

        (line,) = wait_until(find, f"{target} is in the access log")
        return dict(json.loads(line))

    def backends_waiting(self) -> list[Wire]:
        """The connections that lbproc has made and ``backend`` was not asked for. Settle first."""
        found: list[Wire] = []
        for listening in self._listening.values():
            listening.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    found.append(Wire(listening.accept()[0]))
        self._backends += found
        return found

    def hang_up(self) -> None:
        """Ends all that a case has left open, so that the next one finds nothing of it.

        Ends of idle backend connections are seen by lbproc before it would use them again.
        """
        self._clients.close()
        self._clients = ExitStack()
        if not self._is_settled:
            self.settle()
        self.backends_waiting()
        for wire in self._backends:
            wire.close()
        self._is_used = self._is_used or bool(self._backends)
        self._backends.clear()
        self._idle.clear()

    def assert_clean(self) -> None:
        """Since this was asked last, no defect showed itself, and every place has been given back."""
        if self._is_used:
            wait_until(lambda: set(self.server.in_flight().values()) == {0}, "nothing is in flight")
            self._is_used = False
        with self.server.stderr_path.open() as stderr:
            stderr.seek(self._heard)
            new = stderr.read()
            self._heard = stderr.tell()
        assert "Traceback" not in new, new.replace("\\n", "\n")
        assert " crashed " not in new, new


def assert_refused(answer: bytes, status: int, cause: str = "http_request_error") -> None:
    """One answer of lbproc's own, whole, that says why and that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Connection: close" in lines
    assert b"Content-Length: %d" % len(body) in lines
    proxy_status = b"Proxy-Status: lbproc; error=%b; details=" % cause.encode()
    assert any(line.startswith(proxy_status) for line in lines), answer


# What a head looks like, apart from the order of what lbproc sets itself -----------------------------------

_SET_BY_LBPROC = frozenset({
    b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"via", b"x-forwarded-for",
    b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id", b"traceparent",
})  # fmt: skip
_FRESH = re.compile(
    rb"(?m)^(X-Request-Id: )[0-9a-f]{32}\r$|^(traceparent: )00-[0-9a-f]{32}-[0-9a-f]{16}-01\r$"
)


def canonical(head: bytes) -> list[bytes]:
    """The lines of a head: what was passed on in its order, then what lbproc sets, sorted by name."""
    start, *fields = head.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n").split(b"\r\n")
    names = [line.partition(b":")[0].lower() for line in fields]
    passed = [line for line, name in zip(fields, names, strict=True) if name not in _SET_BY_LBPROC]
    given = [(name, line) for line, name in zip(fields, names, strict=True) if name in _SET_BY_LBPROC]
    return [start, *passed, *(line for _, line in sorted(given, key=lambda entry: entry[0]))]


def without_fresh_ids(head: bytes) -> bytes:
    """The head with ``*`` for a request id and a trace of lbproc's making."""
    return _FRESH.sub(lambda found: (found[1] or found[2]) + b"*\r", head)


def fresh_ids(head: bytes) -> list[bytes]:
    """The request id and the trace of lbproc's making."""
    return [found[0] for found in _FRESH.finditer(head)]
