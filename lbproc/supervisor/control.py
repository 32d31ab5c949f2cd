"""The control socket's server side: takes requests of the command line, without ever waiting for a client.

Owns the connections and their bounds: how many there are, how long one may be silent, how long a request
may be. Does not own the answers, which may come later: a client that waits for one is not silent, and may
leave. A client that sends nonsense gets a reply that says so, and is closed; one
that does not read its answer is closed after a while, or when so many are connected that a new one needs its
place. When a connection cannot be accepted, for lack of
descriptors say, the socket is left alone until the next `expire`: it stays readable, so that the loop would
turn without rest.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from functools import partial

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import CommandLineRequest, Message, Progress, Reply
from lbproc.errors import ControlError
from lbproc.net.control_socket import ControlListener
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Seconds

MAX_CLIENTS = 64
MAX_REQUEST_BYTES = 64 * 1024
CLIENT_TIMEOUT: Seconds = 30.0
"""How long a client may take to send a request, or to read its answer."""

_LAST_WORD_TIMEOUT: Seconds = 1.0
_READ_BYTES = 64 * 1024

Respond = Callable[[Progress | Reply], bool]
"""Tells a client how far its request is, any number of times, and gives it its answer, once. Returns whether
it is still there."""

Answer = Callable[[CommandLineRequest, Respond], Reply | None]
"""Gives the answer to a request, or None when it comes later: by the function that is passed, or with
`ControlServer.close`."""


class _Client:
    __slots__ = ("awaits_answer", "deadline", "decoder", "is_being_served", "is_leaving", "socket", "unsent")

    def __init__(self, sock: socket.socket, deadline: Seconds) -> None:
        self.socket = sock
        self.deadline = deadline
        self.decoder = Decoder(MAX_REQUEST_BYTES)
        self.unsent = b""
        self.awaits_answer = False
        self.is_being_served = False
        self.is_leaving = False


class ControlServer:
    """Serves the control socket as part of a selector's loop.

    Args:
        listener: the open control socket; belongs to the server from now on.
        selector: whose keys carry a function that takes the ready events.
        answer: called for each request.
        clock: monotonic time.
        log: for what is refused.
    """

    __slots__ = ("_answer", "_clients", "_clock", "_is_resting", "_listener", "_log", "_selector")

    def __init__(
        self,
        listener: ControlListener,
        selector: selectors.BaseSelector,
        answer: Answer,
        clock: Callable[[], Seconds],
        log: ErrorLog,
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._answer = answer
        self._clock = clock
        self._log = log
        self._clients: dict[_Client, None] = {}  # in the order in which they came
        self._is_resting = True
        self._accept_again()

    def expire(self) -> None:
        """Closes clients that took too long, and accepts again if that failed. Call it now and then."""
        now = self._clock()
        for client in [
            client for client in self._clients if not client.awaits_answer and now >= client.deadline
        ]:
            self._drop(client)
        self._accept_again()

    def close(self, last_word: Reply | None = None) -> None:
        """Removes the socket, then tells those that still wait for an answer that the end has come.

        Args:
            last_word: what they are told; None tells them nothing.
        """
        self._rest()
        self._listener.close()
        for client in list(self._clients):
            if client.awaits_answer and last_word is not None:
                with contextlib.suppress(OSError):
                    client.socket.settimeout(_LAST_WORD_TIMEOUT)
                    client.socket.sendall(encode(last_word))
            self._drop(client)

    def close_in_child(self) -> None:
        """Closes the sockets in a forked child; the file stays, and the selector is the parent's."""
        self._listener.socket.close()
        for client in self._clients:
            client.socket.close()

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # gone again
            return
        except OSError as error:
            self._log.write(Event.ACCEPT_PAUSED, listener="control", reason=error.strerror)
            self._rest()
            return
        if len(self._clients) >= MAX_CLIENTS and not self._drop_silent():
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock, self._clock() + CLIENT_TIMEOUT)
        self._clients[client] = None
        self._selector.register(sock, selectors.EVENT_READ, partial(self._serve, client))

    def _drop_silent(self) -> bool:
        """Makes room: whoever has been connected longest and waits for no answer of ours leaves."""
        silent = next((client for client in self._clients if not client.awaits_answer), None)
        if silent is not None:
            self._drop(silent)
        return silent is not None

    def _rest(self) -> None:
        if not self._is_resting:
            self._is_resting = True
            self._selector.unregister(self._listener.socket)

    def _accept_again(self) -> None:
        if self._is_resting:
            self._is_resting = False
            self._selector.register(self._listener.socket, selectors.EVENT_READ, self._accept)

    def _serve(self, client: _Client, events: int) -> None:
        client.is_being_served = True
        try:
            if events & selectors.EVENT_READ and not client.unsent:
                self._read(client)
            self._flush(client)
            # One answer at a time: while one is being sent, nothing more is read or answered.
            while not (client.unsent or client.awaits_answer or client.is_leaving) and self._answer_next(
                client
            ):
                self._flush(client)
        except OSError:
            self._drop(client)
            return
        finally:
            client.is_being_served = False
        if client.is_leaving and not client.unsent:
            self._drop(client)
            return
        waits_for = selectors.EVENT_WRITE if client.unsent else selectors.EVENT_READ
        self._selector.modify(client.socket, waits_for, partial(self._serve, client))

    def _read(self, client: _Client) -> None:
        octets = client.socket.recv(_READ_BYTES)
        if not octets:
            raise ConnectionResetError
        client.decoder.feed(octets)
        if client.awaits_answer:
            raise ConnectionResetError  # it talks instead of waiting, without a bound

    def _answer_next(self, client: _Client) -> bool:
        """Answers the next request that is there whole; False when there is none."""
        try:
            message = client.decoder.next_message()
            if message is None:
                return False
            client.awaits_answer = True  # also for whoever looks while the answer is made
            reply = self._answer(_as_request(message), partial(self._respond, client))
            if reply is not None:
                self._reply(client, reply)
        except ControlError as error:
            client.is_leaving = True
            self._log.write(Event.CONTROL_REQUEST_REFUSED, reason=error)
            self._reply(client, Reply(ok=False, body=str(error)))
        return True

    def _respond(self, client: _Client, message: Progress | Reply) -> bool:
        """Answers a request later than at once, or says how far it is."""
        if client not in self._clients or not client.awaits_answer:
            return False
        if isinstance(message, Reply):
            self._reply(client, message)
        elif not client.unsent:  # who has not read how far it was has no need to hear more of it
            client.unsent = encode(message)
        if not client.is_being_served:
            self._serve(client, 0)
        return client in self._clients

    def _reply(self, client: _Client, reply: Reply) -> None:
        client.awaits_answer = False
        client.unsent += encode(reply)
        client.deadline = self._clock() + CLIENT_TIMEOUT

    def _flush(self, client: _Client) -> None:
        if client.unsent:
            with contextlib.suppress(BlockingIOError):
                client.unsent = client.unsent[client.socket.send(client.unsent) :]

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client, None)
        self._selector.unregister(client.socket)
        client.socket.close()


def _as_request(message: Message) -> CommandLineRequest:
    if isinstance(message, CommandLineRequest):
        return message
    raise ControlError(f"{type(message).__name__} is no request")
