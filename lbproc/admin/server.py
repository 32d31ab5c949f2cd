"""A small HTTP/1.1 server for the admin listener: h11 on trio, bounded in everything.

Owns connections, framing, sizes and timeouts. Does not own what is answered: that is a plain function from
a request to a response. Made for a few programs that ask now and then; a flood is turned away, not served.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import h11
import trio

from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Seconds

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
REQUEST_TIMEOUT: Seconds = 10.0
"""From one response, or the connection's beginning, to the end of the next request."""

WRITE_TIMEOUT: Seconds = 30.0
LINGER: Seconds = 1.0
"""How long what a refused client still sends is read, so that it sees the answer before a reset."""

_READ_BYTES = 16 * 1024
_ACCEPT_REST: Seconds = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked.

    Args:
        method: as sent, upper case as a rule.
        target: origin-form with query, or whatever was sent.
        authorization: the value of the Authorization header, or nothing.
    """

    method: bytes
    target: bytes
    authorization: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered.

    Args:
        status: of HTTP.
        content_type: of the body.
        body: whole.
        headers: more of them.
        is_refusal: somebody asked who may not; the log tells.
    """

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    is_refusal: bool = False


Answer = Callable[[Request], Response]
Refused = Callable[[int], None]
"""Takes the status of each answer that refused its request."""


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class AdminServer:
    """Serves one listening socket.

    Args:
        listening: bound and listening; belongs to the server from now on.
        answer: gives the response to each request. It does not wait.
        log: for defects and refused requests.
    """

    __slots__ = ("_answer", "_connections", "_listening", "_log")

    def __init__(self, listening: trio.socket.SocketType, answer: Answer, log: ErrorLog) -> None:
        self._listening = listening
        self._answer = answer
        self._log = log
        self._connections = 0

    async def run(self) -> None:
        """Accepts for ever. Cancelled, it closes everything."""
        with self._listening:
            async with trio.open_nursery() as nursery:
                while True:
                    accepted = await self._accept()
                    if accepted is None:
                        await trio.sleep(_ACCEPT_REST)
                        continue
                    sock, client_ip = accepted
                    if self._connections >= MAX_CONNECTIONS:
                        sock.close()
                    else:
                        self._connections += 1
                        nursery.start_soon(self._serve, trio.SocketStream(sock), client_ip)

    async def _accept(self) -> tuple[trio.socket.SocketType, str | None] | None:
        """The next connection and its client's address; None when there was none to have, and rest is due.

        A client on a Unix socket has no address.
        """
        try:
            sock, peer = await self._listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._log.write(Event.ACCEPT_PAUSED, listener="admin", reason=error.strerror)
            return None  # else: a connection that was gone before it was accepted
        return sock, str(peer[0]) if isinstance(peer, tuple) else None

    async def _serve(self, stream: trio.SocketStream, client_ip: str | None) -> None:
        """One connection. The barrier: nothing that a client does ends the controller."""
        try:
            async with stream:
                await serve_connection(stream, self._answer, partial(self._refused, client_ip))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError):
            pass
        except Exception as error:  # a defect costs one connection
            self._log.write_crash(Event.CONNECTION_CRASHED, error, listener="admin")
        finally:
            self._connections -= 1

    def _refused(self, client_ip: str | None, status: int) -> None:
        self._log.write(Event.ADMIN_REQUEST_REFUSED, client_ip=client_ip, status=status)


async def serve_connection(stream: trio.abc.HalfCloseableStream, answer: Answer, refused: Refused) -> None:
    """Serves requests until the client leaves, is refused, or takes too long."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    while True:
        try:
            request = await _receive_request(connection, stream)
        except h11.RemoteProtocolError as error:
            refused(error.error_status_hint)
            await _refuse(connection, stream, error.error_status_hint)
            return
        except _RefusedError as error:
            refused(error.status)
            await _refuse(connection, stream, error.status)
            return
        if request is None:
            return
        response = answer(request)
        if response.is_refusal:
            refused(response.status)
        await _send(connection, stream, response, request.method == b"HEAD")
        if connection.our_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _receive_request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    """The next request; its body is read and ignored. None when the client left before it began."""
    request = None
    body_bytes = 0
    with trio.fail_after(REQUEST_TIMEOUT):
        while True:
            match await _next_event(connection, stream):
                case h11.Request(method=method, target=target, headers=headers):
                    authorization = dict(headers).get(b"authorization", b"")
                    request = Request(bytes(method), bytes(target), authorization)
                case h11.Data(data=data):
                    body_bytes += len(data)
                    if body_bytes > MAX_BODY_BYTES:
                        raise _RefusedError(413)
                case h11.EndOfMessage():
                    return request
                case _:
                    return None


async def _next_event(connection: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        if connection.they_are_waiting_for_100_continue:
            interim = h11.InformationalResponse(status_code=100, headers=[])
            await stream.send_all(connection.send(interim) or b"")
        connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
    return event


async def _send(
    connection: h11.Connection, stream: trio.abc.Stream, response: Response, is_head: bool
) -> None:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        *response.headers,
    ]
    octets = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if not is_head:
        octets += connection.send(h11.Data(data=response.body)) or b""
    octets += connection.send(h11.EndOfMessage()) or b""
    with trio.fail_after(WRITE_TIMEOUT):
        await stream.send_all(octets)


async def _refuse(connection: h11.Connection, stream: trio.abc.HalfCloseableStream, status: int) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    body = b"the request cannot be served\n"
    close = (("Connection", "close"),)
    await _send(connection, stream, Response(status, "text/plain; charset=utf-8", body, close), is_head=False)
    await stream.send_eof()
    with trio.move_on_after(LINGER):
        while await stream.receive_some(_READ_BYTES):
            pass
