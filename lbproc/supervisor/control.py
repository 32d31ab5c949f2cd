"""The control socket's server side: takes requests of the command line, without ever waiting for a client.

Owns the connections and their bounds: how many there are, how long one may be silent, how long a request
may be. Does not own the answers. A client that sends nonsense gets a reply that says so, and is closed; one
that does not read its answer is closed after a while.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from functools import partial

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import CommandLineRequest, Message, Reply, StatusRequest, StopRequest
from lbproc.errors import ControlError
from lbproc.net.control_socket import ControlListener
from lbproc.types import Seconds

MAX_CLIENTS = 64
MAX_REQUEST_BYTES = 64 * 1024
CLIENT_TIMEOUT: Seconds = 30.0
"""How long a client may take to send a request, or to read its answer."""

_LAST_WORD_TIMEOUT: Seconds = 1.0
_READ_BYTES = 64 * 1024

Answer = Callable[[CommandLineRequest], Reply | None]
"""Gives the answer to a request, or None when the answer comes with `ControlServer.close`."""


class _Client:
    __slots__ = ("awaits_end", "deadline", "decoder", "is_leaving", "socket", "unsent")

    def __init__(self, sock: socket.socket, deadline: Seconds) -> None:
        self.socket = sock
        self.deadline = deadline
        self.decoder = Decoder(MAX_REQUEST_BYTES)
        self.unsent = b""
        self.awaits_end = False
        self.is_leaving = False


class ControlServer:
    """Serves the control socket as part of a selector's loop.

    Args:
        listener: the open control socket; belongs to the server from now on.
        selector: whose keys carry a function that takes the ready events.
        answer: called for each request.
        clock: monotonic time.
    """

    __slots__ = ("_answer", "_clients", "_clock", "_listener", "_selector")

    def __init__(
        self,
        listener: ControlListener,
        selector: selectors.BaseSelector,
        answer: Answer,
        clock: Callable[[], Seconds],
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._answer = answer
        self._clock = clock
        self._clients: set[_Client] = set()
        selector.register(listener.socket, selectors.EVENT_READ, self._accept)

    def expire(self) -> None:
        """Closes clients that took too long. Call it now and then."""
        now = self._clock()
        for client in [
            client for client in self._clients if not client.awaits_end and now >= client.deadline
        ]:
            self._drop(client)

    def close(self, last_word: Reply | None = None) -> None:
        """Removes the socket, then tells those that wait for the end that it has come.

        Args:
            last_word: what they are told; None tells them nothing.
        """
        self._selector.unregister(self._listener.socket)
        self._listener.close()
        for client in list(self._clients):
            if client.awaits_end and last_word is not None:
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
        except OSError:  # gone again, or no descriptor left: the next event tells
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock, self._clock() + CLIENT_TIMEOUT)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._serve, client))

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not client.unsent:
                self._read(client)
            self._flush(client)
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        octets = client.socket.recv(_READ_BYTES)
        if not octets:
            raise ConnectionResetError
        client.decoder.feed(octets)
        try:
            while not client.unsent and (message := client.decoder.next_message()) is not None:
                self._reply(client, self._answer(_as_request(message)))
        except ControlError as error:
            client.is_leaving = True
            self._reply(client, Reply(ok=False, body=str(error)))

    def _reply(self, client: _Client, reply: Reply | None) -> None:
        if reply is None:
            client.awaits_end = True
        else:
            client.unsent += encode(reply)
            client.deadline = self._clock() + CLIENT_TIMEOUT

    def _flush(self, client: _Client) -> None:
        if client.unsent:
            with contextlib.suppress(BlockingIOError):
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
        if client.is_leaving and not client.unsent:
            self._drop(client)
            return
        # One answer at a time: while it is being sent, nothing more is read.
        events = selectors.EVENT_WRITE if client.unsent else selectors.EVENT_READ
        self._selector.modify(client.socket, events, partial(self._serve, client))

    def _drop(self, client: _Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()


def _as_request(message: Message) -> CommandLineRequest:
    if isinstance(message, StatusRequest | StopRequest):
        return message
    raise ControlError(f"{type(message).__name__} is no request")
