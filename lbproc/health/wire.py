"""The connection of one probe: opened, made secret where that is asked for, and why it could not be.

Owns the connect, the handshake and the words for their failures. What is said over the connection is in
``questions``. A failure of this host (no descriptors, no ports) is told apart, because it says nothing about
the backend.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio
from trio.abc import Stream

from lbproc.net.sockaddr import address_family, socket_address
from lbproc.types import Address, Seconds, UnixAddress

LONGEST_REASON = 200

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

Open = Callable[[Sequence[Address], Seconds], Awaitable[Stream]]
"""Connects to the first of some addresses that takes the connection, within a time."""


class ProbeFailed(Exception):  # noqa: N818  it is what happened, not a defect
    """The backend did not do what a good one does.

    Args:
        reason: one line, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason))
        self.reason = one_line(reason)


class ProbeImpossible(Exception):  # noqa: N818  likewise
    """The probe could not be made, and nothing is known of the backend.

    Args:
        reason: one line, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a probe speaks TLS.

    Attributes:
        context: verifies or not; shared by all probes of a pool.
        server_name: is asked for, and must be in the certificate.
    """

    context: ssl.SSLContext
    server_name: str


def one_line(text: str) -> str:
    """A text of hostile origin as a short and printable line."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    return plain if len(plain) <= LONGEST_REASON else plain[: LONGEST_REASON - 3] + "..."


async def connect_once(address: Address) -> trio.SocketStream:
    """Connects to one address.

    Raises:
        ProbeFailed: it does not take the connection.
        ProbeImpossible: this host cannot connect to anybody.
    """
    try:
        if isinstance(address, UnixAddress):
            sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            sock = trio.socket.socket(address_family(address), socket.SOCK_STREAM)
        try:
            await sock.connect(address.path if isinstance(address, UnixAddress) else socket_address(address))
            return trio.SocketStream(sock)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _OURS:
            raise ProbeImpossible(reason) from error
        raise ProbeFailed(f"{address}: {reason}") from error


async def open_stream(
    addresses: Sequence[Address],
    within: Seconds,
    connect: Callable[[Address], Awaitable[Stream]] = connect_once,
) -> Stream:
    """Connects to the first address that takes the connection. Each gets an equal part of the time.

    Raises:
        ProbeFailed: none does.
        ProbeImpossible: this host cannot connect to anybody.
    """
    deadline = trio.current_time() + within
    failure = ProbeFailed("there is no address")
    for place, address in enumerate(addresses):
        left = deadline - trio.current_time()
        with trio.move_on_after(left / (len(addresses) - place)):
            try:
                return await connect(address)
            except ProbeFailed as error:
                failure = error
                continue
        failure = ProbeFailed(f"no connection to {address} in time")
    raise failure


async def greet(stream: Stream, greeting: bytes) -> None:
    """Sends what a backend wants to hear before everything else.

    Raises:
        ProbeFailed: it does not take that.
    """
    try:
        await stream.send_all(greeting)
    except trio.BrokenResourceError as error:
        raise ProbeFailed("the connection was reset") from error


async def encrypt(stream: Stream, encryption: Encryption) -> Stream:
    """Shakes hands, as a client. The stream that it gives owns the one that it was given.

    Raises:
        ProbeFailed: the backend does not speak TLS, or its certificate is not right.
    """
    try:
        secret = trio.SSLStream(
            stream, encryption.context, server_hostname=encryption.server_name, https_compatible=True
        )
        await secret.do_handshake()
    except trio.BrokenResourceError as error:
        raise ProbeFailed(f"TLS handshake failed: {_why(error.__cause__)}") from error
    except ValueError as error:  # a name that no certificate can be for
        raise ProbeFailed(f"TLS handshake failed: {error}") from error
    return secret


def why_broken(error: trio.BrokenResourceError) -> str:
    """Why a connection broke that stood: with TLS 1.3 a backend refuses our certificate only then."""
    cause = error.__cause__
    return f"TLS: {_why(cause)}" if isinstance(cause, ssl.SSLError) else "the connection was reset"


def _why(cause: BaseException | None) -> str:
    match cause:
        case ssl.SSLCertVerificationError():
            return f"the certificate is not right: {cause.verify_message}"
        case ssl.SSLEOFError():
            return "the connection was closed"
        case ssl.SSLError():
            return cause.reason or str(cause)
        case OSError() if cause.errno:
            return os.strerror(cause.errno)
        case _:
            return "the connection broke"
