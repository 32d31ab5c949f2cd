"""The two ends of the socket pair between the supervisor and a child.

Owns how control messages and descriptors travel. Does not own what they mean.

`SupervisorChannel` is synchronous and never waits: what does not fit is kept, up to a bound, and a child
that does not read is a lost child. It accepts no descriptors: a child has none that the supervisor wants,
so whatever arrives is discarded by the kernel. `ChildChannel` is for trio.

Descriptors are sent with the first bytes of their message. Linux gives them out with the read that returns
the first of those bytes, so when a message is whole its descriptors are here, and in the order of the
messages.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence

import trio

from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import Message, SupervisorBound, descriptor_count
from lbproc.errors import ControlError

MAX_DESCRIPTORS = 253
"""Linux takes no more in one message (SCM_MAX_FD, net/scm.h)."""

MAX_UNSENT_BYTES = 1024 * 1024
"""What the supervisor keeps for a child that does not read. A healthy one never has this much waiting."""

_READ_BYTES = 64 * 1024
_MAX_FROM_CHILD_BYTES = 4 * 1024 * 1024
"""The longest message of a child: the addresses of all host names."""


def open_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair: the supervisor's end, which never blocks, and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    ours.setblocking(False)
    return ours, theirs


class SupervisorChannel:
    """The supervisor's end of the channel to one child.

    Every method raises `ControlError` when the child cannot be talked to any more: it closed its end, wrote
    nonsense, or does not read. The channel is of no use after that; the caller closes it.

    Args:
        end: this process's end of the pair, non-blocking; belongs to the channel from now on.
    """

    __slots__ = ("_decoder", "_unsent", "_unsent_bytes", "socket")

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._decoder = Decoder(_MAX_FROM_CHILD_BYTES)
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._unsent_bytes = 0

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` should be called when the socket is writable."""
        return bool(self._unsent)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Sends, or keeps for `flush` what does not fit now.

        Args:
            message: what to say.
            descriptors: as many as the message names. They must stay open until they are sent.
        """
        if len(descriptors) != descriptor_count(message) or len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"{type(message).__name__} with {len(descriptors)} descriptors")
        octets = encode(message)
        if self._unsent_bytes + len(octets) > MAX_UNSENT_BYTES:
            raise ControlError(f"the child does not read: {self._unsent_bytes} bytes are waiting for it")
        self.flush()
        if not self._unsent and (sent := self._send_some(octets, descriptors)):
            octets, descriptors = octets[sent:], ()
        if octets:
            # Ours to close: the listener may be closed before the child reads again.
            self._unsent.append((octets, _copies(descriptors)))
            self._unsent_bytes += len(octets)

    def flush(self) -> None:
        """Sends what was kept, as far as it fits."""
        while self._unsent:
            octets, descriptors = self._unsent[0]
            sent = self._send_some(octets, descriptors)
            if not sent:
                return
            close_all(descriptors)
            self._unsent_bytes -= sent
            if sent == len(octets):
                self._unsent.popleft()
            else:
                self._unsent[0] = (octets[sent:], ())

    def _send_some(self, octets: bytes, descriptors: Sequence[int]) -> int:
        """Sends what fits; 0 when nothing does at the moment, and then no descriptor is sent either."""
        try:
            if not descriptors:
                return self.socket.send(octets, socket.MSG_NOSIGNAL)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            return self.socket.sendmsg([octets], [rights], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ControlError(f"the channel to the child broke: {error.strerror}") from None

    def receive(self) -> list[Message]:
        """What the child has said since the last call; empty when there is no whole message yet."""
        try:
            octets = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ControlError(f"the channel to the child broke: {error.strerror}") from None
        if not octets:
            raise ControlError("the child closed its channel")
        self._decoder.feed(octets)
        messages = []
        while (message := self._decoder.next_message()) is not None:
            messages.append(message)
        return messages

    def close(self) -> None:
        """Closes this end; the child reads end of file. Idempotent."""
        for _, descriptors in self._unsent:
            close_all(descriptors)
        self._unsent.clear()
        self._unsent_bytes = 0
        self.socket.close()


class ChildChannel:
    """A child's end of the channel to the supervisor, for trio.

    Args:
        end: as given at birth; belongs to the channel from now on.
    """

    __slots__ = ("_decoder", "_descriptors", "_send_turn", "_socket")

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(end)
        self._decoder = Decoder()
        self._descriptors: deque[int] = deque()
        self._send_turn = trio.Lock()

    async def send(self, message: SupervisorBound) -> None:
        """Sends the whole message.

        Several tasks may send. Cancelled halfway, the channel is broken: only cancel when leaving.

        Raises:
            ControlError: the supervisor is gone.
        """
        octets = memoryview(encode(message))
        async with self._send_turn:
            try:
                while octets:
                    octets = octets[await self._socket.send(octets) :]
            except OSError as error:
                raise ControlError(f"the supervisor is gone: {error.strerror}") from None

    async def receive(self) -> tuple[Message, tuple[int, ...]] | None:
        """The next message with the descriptors that came along; None when the supervisor is gone.

        There are no descriptors, although the message names some, when this process has no room for them.

        They belong to the caller; `as_sockets` makes sockets of those that are. One task receives.
        """
        while (message := self._decoder.next_message()) is None:
            try:
                octets, ancillary, _, _ = await self._socket.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                return None
            if not octets:
                return None
            self._descriptors.extend(_descriptors_in(ancillary))
            self._decoder.feed(octets)
        return message, self._take_descriptors(descriptor_count(message))

    def _take_descriptors(self, count: int) -> tuple[int, ...]:
        """The descriptors of one message, or none of them when one is missing.

        The kernel drops descriptors for which this process has no room (MSG_CTRUNC). A read that carries
        descriptors holds no byte of a later message, so what is here belongs to this one.
        """
        if len(self._descriptors) < count:
            close_all(self._descriptors)
            self._descriptors.clear()
            return ()
        return tuple(self._descriptors.popleft() for _ in range(count))

    def close(self) -> None:
        """Closes this end and every descriptor that nobody took. Idempotent."""
        close_all(self._descriptors)
        self._descriptors.clear()
        self._socket.close()


def as_sockets(descriptors: Sequence[int]) -> tuple[socket.socket, ...]:
    """Received descriptors as sockets, non-blocking."""
    sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    for received in sockets:
        received.setblocking(False)
    return sockets


def close_all(descriptors: Sequence[int] | deque[int]) -> None:
    """Closes descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)


def send_last_words(end: socket.socket, message: SupervisorBound) -> None:
    """Sends one message from a child that has no event loop, right before it exits. Failing is silent."""
    with contextlib.suppress(OSError):
        end.settimeout(1.0)
        end.sendall(encode(message))


def _copies(descriptors: Sequence[int]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))  # noqa: PERF401  those before a failure must be known
    except OSError as error:
        close_all(copies)
        raise ControlError(
            f"no descriptor is left for what the child does not read: {error.strerror}"
        ) from None
    return tuple(copies)


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return found.tolist()
