"""Bodies: how many of the received bytes still belong to a message (RFC 9112 sections 6 and 7).

Owns the five ways in which a body ends behind one interface, which the relay drives. Does not hold payload.
Invariants: bytes after the end come back as excess and are never counted; after an exception a body is not
used again.
"""

from __future__ import annotations

from typing import Protocol

from lbproc.core.http.chunked import AnyBytes, ChunkScanner
from lbproc.core.http.framing import Framing, FramingKind
from lbproc.core.http.rejected import Rejected


class Body(Protocol):
    """What a relay needs to know of a body that passes through it.

    Attributes:
        complete: the last byte was seen.
        lines: lines of framing read, each of which costs what many bytes of payload do.
    """

    complete: bool

    @property
    def lines(self) -> int:
        """See above."""

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Splits received bytes into what is to be relayed and the excess after the end of the body.

        ``data`` itself is returned, not a copy, when all of it belongs to the body, and a part of a view is a
        view. The excess is always a copy, and no body keeps a view after the call.

        Raises:
            Rejected: 400 for broken framing, 413 for too much; of a response, it is up to the caller to say
                502 or cut.
        """

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Says that the peer has closed. True: the body is complete; False: it was cut short.

        Args:
            is_truncated: somebody else may have closed in the peer's place.
        """


class NoBody:
    """Complete from the start."""

    lines = 0
    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = True

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Everything is excess."""
        return data[:0], bytes(data)

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Nothing is missing."""
        return True


class LengthBody:
    """A body of ``length`` bytes."""

    lines = 0
    __slots__ = ("_missing", "complete")

    def __init__(self, length: int) -> None:
        self._missing = length
        self.complete = length == 0

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Takes up to what is missing."""
        missing = self._missing
        if len(data) < missing:
            self._missing = missing - len(data)
            return data, b""
        self._missing = 0
        self.complete = True
        if len(data) == missing:
            return data, b""
        return data[:missing], bytes(data[missing:])

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Cut short unless complete."""
        return self.complete


class ChunkedBody:
    """A chunked body that is relayed with its framing as it came.

    Args:
        max_payload: bytes of payload after which it is refused with 413; None for no limit.
    """

    __slots__ = ("_scanner", "complete")

    def __init__(self, max_payload: int | None) -> None:
        self._scanner = ChunkScanner(max_payload)
        self.complete = False

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Takes up to the last byte of the trailers."""
        end = self._scanner.scan(data)
        self.complete = self._scanner.done
        if end == len(data):
            return data, b""
        return data[:end], bytes(data[end:])

    @property
    def lines(self) -> int:
        """Size lines read so far."""
        return self._scanner.lines

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Cut short unless complete."""
        return self.complete


class DechunkedBody:
    """A chunked body of which only the payload is relayed, for HTTP/1.0 clients. Trailers are dropped."""

    __slots__ = ("_scanner", "complete")

    def __init__(self) -> None:
        self._scanner = ChunkScanner(None)
        self.complete = False

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Takes up to the last byte of the trailers, relays the payload in it."""
        payload: list[AnyBytes] = []
        end = self._scanner.scan(data, payload)
        self.complete = self._scanner.done
        return type(data)(b"".join(payload)), bytes(data[end:])

    @property
    def lines(self) -> int:
        """Size lines read so far."""
        return self._scanner.lines

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Cut short unless complete."""
        return self.complete


class UntilCloseBody:
    """A response body that ends when the backend closes."""

    lines = 0
    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """Takes everything."""
        return data, b""

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """This is how it ends, if it is the backend that ends it (RFC 9112 section 9.8)."""
        self.complete = not is_truncated
        return self.complete


def make_request_body(framing: Framing, max_body_size: int) -> Body:
    """The body of a request with this framing.

    Raises:
        Rejected: 413 when its length is already known to be too large.
    """
    if framing.kind is FramingKind.CHUNKED:
        return ChunkedBody(max_body_size)
    if framing.length > max_body_size:
        raise Rejected(413, "http_request_error", "the body is too large")
    if framing.kind is FramingKind.LENGTH:
        return LengthBody(framing.length)
    return NoBody()  # a request never ends by closing


def make_response_body(framing: Framing, dechunk: bool) -> Body:
    """The body of a response with this framing; ``dechunk`` for clients that speak HTTP/1.0."""
    if framing.kind is FramingKind.LENGTH:
        return LengthBody(framing.length)
    if framing.kind is FramingKind.CHUNKED:
        return DechunkedBody() if dechunk else ChunkedBody(None)
    return UntilCloseBody() if framing.kind is FramingKind.UNTIL_CLOSE else NoBody()
