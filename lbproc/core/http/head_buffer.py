"""Collects the bytes of one head after another from a connection.

Owns the bytes that were received and not yet taken. Does not read heads (``head``): it only finds where one
ends, and refuses early what can never become one, so that a peer cannot hold a connection and memory with it.

A read that is one head and begins as heads do takes 0.3 µs to feed and to take, 0.8 with a body behind it (23
November 2026, Python 3.11, two shared x86-64 cores).

Invariants: however the bytes are cut into reads, the outcome is the same. No more than one read beyond the
limit is held.
"""

from __future__ import annotations

from lbproc.core.http.rejected import Rejected, bad_request, bad_response
from lbproc.core.http.strict import stray_byte

_TLS_HANDSHAKE = 0x16
_RESPONSE_START = b"HTTP/1."
_MAX_RESPONSE_HEAD = 65_536


class HeadBuffer:
    """The received bytes of one side of a connection, given out head by head.

    Args:
        max_size: bytes of a head, start line and last empty line included.
        is_response: the bytes come from a backend: every refusal is then a 502, and a head begins at once.

    Attributes:
        max_size: may change between two heads.
    """

    __slots__ = ("_buffer", "_is_response", "_looked_at", "_skipped_line", "_start", "max_size")

    def __init__(self, max_size: int, *, is_response: bool = False) -> None:
        self.max_size = max_size
        self._is_response = is_response
        self._buffer: bytes | bytearray = b""
        self._start = 0  # where the next head begins in the buffer
        self._looked_at = 0  # up to here nothing stray was found and no head ends
        self._skipped_line = False

    @classmethod
    def for_responses(cls, max_size: int = _MAX_RESPONSE_HEAD) -> HeadBuffer:
        """The buffer for what a backend sends."""
        return cls(max_size, is_response=True)

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return len(self._buffer) - self._start

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a next head has been received."""
        return self._start == len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Appends what was received."""
        if self._start == len(self._buffer):
            self._buffer = data  # the ordinary case: one read, one head, no copy
            self._start = self._looked_at = 0
            return
        if not isinstance(self._buffer, bytearray) or self._start:
            self._buffer = bytearray(self._buffer[self._start :])
            self._looked_at = max(0, self._looked_at - self._start)
            self._start = 0
        self._buffer += data

    def next_head(self) -> bytes | None:
        """Takes the next whole head with its last empty line; None while it is not whole.

        Raises:
            Rejected: 400 for what cannot become a head, 414 when the request line alone is too long, else
                431. For a response always 502.
        """
        buffer, start = self._buffer, self._start
        if self._is_response:
            begins = buffer.startswith(_RESPONSE_START, start)
        else:
            begins = buffer[start : start + 1].isupper()  # a method; other tokens are looked at more closely
        if not begins:
            if not self._may_begin():
                return None
            start = self._start
        stop = start + self.max_size
        again = self._looked_at - 3
        end = buffer.find(b"\r\n\r\n", again if again > start else start, stop)  # noqa: FURB136 - max() is a call
        if end < 0:
            self._check_unfinished(stop)
            return None
        end += 4
        self._skipped_line = False
        self._start = self._looked_at = end
        if start or end != len(buffer):
            buffer = buffer[start:end]
        return buffer if type(buffer) is bytes else bytes(buffer)

    def skip_head(self) -> None:
        """Says that a head passed by this buffer, which was empty: an empty line may come before the next."""
        self._skipped_line = False

    def take_rest(self) -> bytes:
        """Takes everything that is left: the begin of a body, or a next request."""
        rest = b"" if self._start == len(self._buffer) else bytes(self._buffer[self._start :])
        self._buffer = b""
        self._start = self._looked_at = 0
        self._skipped_line = False
        return rest

    def _skip_one_empty_line(self) -> bool:
        """Steps over one CRLF before a request line (RFC 9112 section 2.2). False: too early to tell."""
        if self._skipped_line or not self._buffer.startswith(b"\r", self._start):
            return True
        if self.size == 1:
            return False
        if self._buffer.startswith(b"\r\n", self._start):
            self._skipped_line = True
            self._start += 2
        return True

    def _may_begin(self) -> bool:
        """Looks at bytes that do not begin like an ordinary head. False: too early to tell."""
        if not self._is_response and not self._skip_one_empty_line():
            return False
        if self.is_empty:
            return False
        buffer, start = self._buffer, self._start
        if self._is_response:
            seen = min(self.size, len(_RESPONSE_START))
            if not buffer.startswith(_RESPONSE_START[:seen], start):
                raise bad_response("the backend does not speak HTTP/1")
        elif buffer[start] == _TLS_HANDSHAKE:
            raise bad_request("TLS on a port that serves plain HTTP")
        elif buffer.startswith(b"\r\n", start):
            raise bad_request("an empty line where a request line should be")
        return True

    def _check_unfinished(self, stop: int) -> None:
        buffer = self._buffer
        stray = stray_byte(buffer, max(self._start, self._looked_at - 1), stop)
        if stray is not None:
            raise bad_response(stray) if self._is_response else bad_request(stray)
        if len(buffer) < stop:
            self._looked_at = len(buffer)
            return
        if self._is_response:
            raise Rejected(502, "http_response_header_section_size", "the response head is too large")
        if buffer.find(b"\r\n", self._start, stop) < 0:
            raise Rejected(414, "http_request_error", "the request line is too long")
        raise Rejected(431, "http_request_error", "the request head is too large")
