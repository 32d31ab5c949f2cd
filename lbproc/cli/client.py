"""The client's side of the control socket: one question to the running lbproc, one answer.

Owns the connection and what each failure means to the person at the keyboard. The messages and their framing
are ``lbproc.core.control``; what a question does is the supervisor's.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import CommandLineRequest, Progress, Reply, StopRequest
from lbproc.errors import ControlError
from lbproc.types import Seconds

ANSWER_TIMEOUT: Seconds = 10.0
"""The supervisor answers between two other things it does, in milliseconds; this long, and it is stuck."""

EXIT_TIMEOUT: Seconds = 10.0
"""After its last answer the supervisor only removes its files and exits."""

OnProgress = Callable[[dict[str, Any]], None]
"""Is told how far a request is."""


def ask(
    path: Path,
    request: CommandLineRequest,
    timeout: Seconds = ANSWER_TIMEOUT,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Sends one request to the lbproc at ``path`` and waits for its answer.

    Args:
        path: the control socket.
        request: what is asked.
        timeout: how long it may stay silent, in seconds.
        on_progress: called with how far it is, as often as lbproc says so.

    Returns:
        The body of the answer.

    Raises:
        ControlError: nobody listens there, no answer came, or the answer was a refusal.
    """
    with _connect(path, timeout) as connection:
        body = _exchange(connection, path, request, on_progress)
    if not isinstance(body, dict):
        raise ControlError(f"lbproc at {path} gave an answer of another kind; is it another version?")
    return body


def ask_to_stop(path: Path, *, now: bool, timeout: Seconds = ANSWER_TIMEOUT) -> None:
    """Asks the lbproc at ``path`` to stop, and returns when its process has ended.

    Args:
        path: the control socket.
        now: cut off what is in flight.
        timeout: how long it may take to accept the connection; draining may take as long as it does.

    Raises:
        ControlError: as in `ask`.
    """
    with _connect(path, timeout) as connection:
        connection.settimeout(None)
        ended = _open_peer(connection)
        try:
            _exchange(connection, path, StopRequest(now=now, wait=True))
            # The answer is the last thing but one that the supervisor does. Who starts a new lbproc in the
            # next line of a script needs the old one gone.
            if ended is not None:
                select.select([ended], [], [], EXIT_TIMEOUT)
        finally:
            if ended is not None:
                os.close(ended)


def _connect(path: Path, timeout: Seconds) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ControlError(_why_unreachable(path, error)) from None
    return connection


def _why_unreachable(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"no lbproc is running here: there is no control socket {path}; -c or --socket say which"
        case ConnectionRefusedError():
            return f"no lbproc is running here: nobody listens on the control socket {path}"
        case PermissionError():
            return f"the control socket {path} belongs to another user; ask as that user, or as root"
        case TimeoutError() | BlockingIOError():
            return f"lbproc at {path} is too busy to take a connection"
        case _:
            return f"{path} cannot be a control socket: {error.strerror or error}"


def _exchange(
    connection: socket.socket,
    path: Path,
    request: CommandLineRequest,
    on_progress: OnProgress | None = None,
) -> object:
    try:
        connection.sendall(encode(request))
        reply = _receive(connection, path, on_progress)
    except TimeoutError:
        raise ControlError(f"lbproc at {path} did not answer in {connection.gettimeout():g} s") from None
    except ConnectionError:
        raise ControlError(f"lbproc at {path} closed the connection without an answer") from None
    if not reply.ok:
        raise ControlError(str(reply.body))
    return reply.body


def _receive(connection: socket.socket, path: Path, on_progress: OnProgress | None) -> Reply:
    decoder = Decoder()
    while (message := decoder.next_message()) is None or isinstance(message, Progress):
        if message is not None:
            if on_progress is not None and isinstance(message.body, dict):
                on_progress(message.body)
            continue
        received = connection.recv(65536)
        if not received:
            raise ConnectionResetError
        decoder.feed(received)
    if not isinstance(message, Reply):
        raise ControlError(f"lbproc at {path} answered with {type(message).__name__}; is it another version?")
    return message


def _open_peer(connection: socket.socket) -> int | None:
    """A descriptor that becomes readable when the process that listens there ends; None if there is none."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    (pid, _, _) = struct.unpack("3i", credentials)
    try:
        return os.pidfd_open(pid)
    except OSError:  # ended already, or in another process namespace
        return None
