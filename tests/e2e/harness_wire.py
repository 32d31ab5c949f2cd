"""HTTP/1.1 messages as they stand on the wire, for raw clients and recording backends.

Sans-io, and written apart from lbproc's own parser on purpose: a test must not believe what it tests.
Lenient: it reads what it is given and judges nothing; the bytes are kept as they came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

KEPT_BODY_BYTES = 1024 * 1024
"""Bodies are kept up to this size; of larger ones length and SHA-256 remain."""


@dataclass(frozen=True)
class Message:
    """One request or response.

    Args:
        head: as received, with the empty line.
        body: the content without chunk framing; only its start when it is large.
        size: length of the whole content.
        sha256: of the whole content, in hex.
        trailers: the bytes after the last chunk, without the empty line.
    """

    head: bytes
    body: bytes
    size: int
    sha256: str
    trailers: bytes = b""

    @property
    def start_line(self) -> str:
        """The first line."""
        return self.head.partition(b"\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start_line.split()[1])

    @property
    def method(self) -> str:
        """Of a request."""
        return self.start_line.split()[0]

    @property
    def target(self) -> str:
        """Of a request."""
        return self.start_line.split()[1]

    def all(self, name: str) -> list[str]:
        """The values of a header, in order."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The only value of a header, ``None`` without one."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands there {len(values)} times"
        return values[0] if values else None


@dataclass
class _Content:
    """A body on its way in."""

    kept: bytearray = field(default_factory=bytearray)
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, octets: bytes) -> None:
        self.size += len(octets)
        self.digest.update(octets)
        self.kept += octets[: max(KEPT_BODY_BYTES - len(self.kept), 0)]


class Reader:
    """Takes bytes, gives messages.

    Args:
        responses: read responses, whose body may end with the connection; else requests.
    """

    def __init__(self, *, responses: bool) -> None:
        self.buffer = bytearray()
        """Received and not yet part of a message."""
        self.at_eof = False
        self.bodiless = False
        """Set for the response to a HEAD request: it has no body, whatever its head says."""
        self._responses = responses
        self._head: bytes | None = None
        self._content = _Content()
        self._left: int | None = None
        self._chunked = False

    def feed(self, octets: bytes) -> None:
        """Takes what was received; no bytes mean that the other side has ended."""
        self.buffer += octets
        self.at_eof = self.at_eof or not octets

    @property
    def is_between_messages(self) -> bool:
        """Nothing of a next message is here."""
        return self._head is None and not self.buffer

    @property
    def partial(self) -> bytes:
        """What is here of a message that is not complete, for assertions on truncation."""
        return (self._head or b"") + bytes(self._content.kept) + bytes(self.buffer)

    def next_message(self) -> Message | None:
        """The next message, ``None`` while it is not complete."""
        if self._head is None and not self._read_head():
            return None
        trailers = self._read_chunks() if self._chunked else self._read_length()
        if trailers is None:
            return None
        assert self._head is not None
        content = self._content
        message = Message(self._head, bytes(content.kept), content.size, content.digest.hexdigest(), trailers)
        self._head = None
        return message

    def _read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[: end + 4])
        del self.buffer[: end + 4]
        message = Message(head, b"", 0, "")
        self._head, self._content = head, _Content()
        self._chunked = any("chunked" in value.lower() for value in message.all("transfer-encoding"))
        lengths = message.all("content-length")
        # None: not known; of a chunked body, that the next size line comes first.
        self._left = int(lengths[0]) if lengths else None if self._responses or self._chunked else 0
        if self._responses and (self.bodiless or message.status < 200 or message.status in {204, 304}):
            self._left, self._chunked = 0, False
        return True

    def _read_length(self) -> bytes | None:
        taken = bytes(self.buffer if self._left is None else self.buffer[: self._left])
        del self.buffer[: len(taken)]
        self._content.add(taken)
        if self._left is None:
            return b"" if self.at_eof else None
        self._left -= len(taken)
        return None if self._left else b""

    def _read_chunks(self) -> bytes | None:
        while True:
            if self._left is None:
                end = self.buffer.find(b"\r\n")
                if end < 0:
                    return None
                self._left = int(bytes(self.buffer[:end]).partition(b";")[0], 16)
                del self.buffer[: end + 2]
            if self._left == 0:
                return self._read_trailers()
            if len(self.buffer) < self._left + 2:
                return None
            self._content.add(bytes(self.buffer[: self._left]))
            del self.buffer[: self._left + 2]
            self._left = None

    def _read_trailers(self) -> bytes | None:
        if self.buffer.startswith(b"\r\n"):
            del self.buffer[:2]
            return b""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        trailers = bytes(self.buffer[:end])
        del self.buffer[: end + 4]
        return trailers
