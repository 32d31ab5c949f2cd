"""What a probe says to a backend, and what answer is a good one: an HTTP request, or a few bytes.

Owns the conversations. They run over any stream, know no time (the probe has one deadline for all of it) and
read no more than they must: the head of an answer and the first bytes of its body.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import h11
import trio
from trio.abc import Stream

from lbproc.config.health import StatusRange
from lbproc.health.wire import ProbeFailed, why_broken

LOOKED_AT = 16 * 1024
"""Bytes of an answer in which a text is looked for; as many as the head of an HTTP answer may have."""

_MOST_READ = 4 * LOOKED_AT
"""Bytes that are read at all, interim answers and framing among them."""

_CHUNK = 16 * 1024


@dataclass(frozen=True, slots=True)
class HttpQuestion:
    """A request, and the answer that is wanted.

    Attributes:
        method: in upper case.
        target: path and query.
        headers: all fields, Host among them. They may hold secrets, so they show in no ``repr``.
        statuses: of a good answer.
        body: stands in the first bytes of a good answer; empty: whatever the body is.
        is_secret: whether one of the fields is a secret. What breaks HTTP is then not quoted, because it may
            be an echo of what was sent.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    statuses: tuple[StatusRange, ...]
    body: bytes
    is_secret: bool = False

    async def ask(self, stream: Stream) -> None:
        """Asks.

        Raises:
            ProbeFailed: the answer is not a good one, or none.
        """
        try:
            await self._ask(stream)
        except h11.RemoteProtocolError as error:
            why = "" if self.is_secret else f": {error}"
            raise ProbeFailed(f"the answer breaks HTTP{why}") from error
        except trio.BrokenResourceError as error:
            raise ProbeFailed(why_broken(error)) from error

    async def _ask(self, stream: Stream) -> None:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LOOKED_AT)
        request = h11.Request(method=self.method, target=self.target, headers=list(self.headers))
        octets = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        await stream.send_all(octets)
        reading = _Reading(connection, stream)
        status = await reading.status()
        if not any(status in wanted for wanted in self.statuses):
            raise ProbeFailed(f"status {status}")
        if self.body and not await reading.has(self.body):
            raise ProbeFailed(f"status {status}, but the body lacks the expected text")


class _Reading:
    """One answer, read event by event."""

    def __init__(self, connection: h11.Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._left = _MOST_READ

    async def status(self) -> int:
        """The status of the answer; interim answers are passed over."""
        while not isinstance(event := await self._next_event(in_head=True), h11.Response):
            pass
        return event.status_code

    async def has(self, text: bytes) -> bool:
        """Whether a text stands in the first bytes of the body; ends as soon as it does."""
        seen = bytearray()
        while len(seen) < LOOKED_AT:
            event = await self._next_event(in_head=False)
            if not isinstance(event, h11.Data):
                return False
            seen += event.data
            if text in seen[:LOOKED_AT]:
                return True
        return False

    async def _next_event(self, *, in_head: bool) -> object:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            if self._left <= 0:
                raise ProbeFailed("the answer is too long to be judged")
            octets = await self._stream.receive_some(min(_CHUNK, self._left))
            if not octets and in_head:
                raise ProbeFailed("the connection was closed before the answer")
            self._left -= len(octets)
            self._connection.receive_data(bytes(octets))
        return event


@dataclass(frozen=True, slots=True)
class ByteQuestion:
    """Some bytes, and the text that is wanted in what comes back. With neither: that the connection stands.

    Attributes:
        send: what is said first; empty: nothing.
        expect: stands in the first bytes of a good answer; empty: nothing is read.
    """

    send: bytes
    expect: bytes

    async def ask(self, stream: Stream) -> None:
        """Asks.

        Raises:
            ProbeFailed: the answer is not a good one, or none.
        """
        try:
            if self.send:
                await stream.send_all(self.send)
            if self.expect:
                await self._read(stream)
        except trio.BrokenResourceError as error:
            raise ProbeFailed(why_broken(error)) from error

    async def _read(self, stream: Stream) -> None:
        seen = bytearray()
        while self.expect not in seen:
            if len(seen) >= LOOKED_AT:
                raise ProbeFailed("the answer lacks the expected text")
            octets = await stream.receive_some(LOOKED_AT - len(seen))
            if not octets:
                raise ProbeFailed(
                    "the connection was closed before the expected text"
                    if seen
                    else "the connection was closed before the answer"
                )
            seen += octets


@dataclass(frozen=True, slots=True)
class DatagramQuestion:
    """One datagram, and what is wanted in the one that comes back.

    Attributes:
        send: the datagram; it may be empty.
        expect: stands in a good answer; empty: any answer is good, and so is silence, because only the host
            of a backend that is gone says something: that nobody listens there.
        patience: how long silence is listened to where it is good.
    """

    send: bytes
    expect: bytes
    patience: float

    async def ask(self, stream: Stream) -> None:
        """Asks.

        Raises:
            ProbeFailed: nobody listens, or the answer is not a good one.
        """
        await stream.send_all(self.send)
        if self.expect:
            while self.expect not in await stream.receive_some(LOOKED_AT):
                continue  # an answer to an earlier question, or to nobody's: the deadline holds
            return
        with trio.move_on_after(self.patience):
            await stream.receive_some(LOOKED_AT)


Question = HttpQuestion | ByteQuestion | DatagramQuestion
