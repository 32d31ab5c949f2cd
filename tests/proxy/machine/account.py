"""What the judges of the machine share: requests that arrived, responses, and what has happened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.proxy.machine.answers import SentAnswer
    from tests.proxy.machine.backend_view import BackendView
    from tests.proxy.machine.client_view import ClientView
    from tests.proxy.machine.requests import SentRequest

END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"): ([!-~](?:[ \t!-~]*[!-~])?)?\Z")


class Violation(AssertionError):  # noqa: N818  what the proxy did
    """The proxy did something that it must never do."""


def require(condition: object, words: str, *details: object) -> None:
    """Raises `Violation` unless the condition holds."""
    if not condition:
        raise Violation(": ".join([words, *map(repr, details)]))


class Head:
    """A head that the proxy sent, read as strictly as can be."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.start, *lines = raw[:-4].split(b"\r\n")
        self.fields: list[tuple[bytes, bytes]] = []
        for line in lines:
            found = _FIELD.match(line)
            if found is None:
                raise Violation(f"a header line that is none: {line!r} in {raw!r}")
            self.fields.append((found[1], found[2] or b""))

    def values(self, name: bytes) -> list[bytes]:
        return [value for other, value in self.fields if other.lower() == name]

    def without(self, names: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        return tuple(pair for pair in self.fields if pair[0].lower() not in names)


@dataclass(slots=True, eq=False, repr=False)
class Arrival:
    """A request whose head has reached a backend."""

    serial: int
    conn: BackendView
    client: ClientView
    index: int
    request: SentRequest
    request_id: bytes
    head_end: int
    received_before: int
    body_seen: int = 0
    answer: SentAnswer | None = None
    answer_at: int = 0
    interims_seen: int = 0

    @property
    def is_complete(self) -> bool:
        return self.request.is_whole and self.body_seen == len(self.request.body)

    @property
    def end(self) -> int | None:
        """Where the request ends in what its backend connection is sent."""
        return self.head_end + self.body_seen if self.is_complete else None

    def answer_sent(self) -> int:
        """How many bytes of its answer the backend has sent."""
        return 0 if self.answer is None else max(0, self.conn.backend_sent - self.answer_at)

    def was_answered_in_drain(self) -> bool:
        """Whether the worker was to finish when the backend sent the last byte of its answer's head."""
        if self.answer is None or not self.conn.account.draining:
            return False
        return self.answer_at + self.answer.head_end > self.conn.backend_sent_before_drain


@dataclass(slots=True, eq=False)
class Final:
    """A final response that a client was sent.

    Attributes:
        closes: it is said to be the last.
        after: bytes of interim responses before it.
    """

    status: int
    head_bytes: int
    arrival: Arrival | None = field(repr=False)
    closes: bool
    after: int
    body_bytes: int = 0
    is_complete: bool = False


@dataclass(slots=True)
class Account:
    """What all views share: the requests that arrived anywhere, and what the world has done so far.

    Attributes:
        orderly: nobody misbehaves, so nothing but the planned answers may come.
        draining: the worker is to finish.
        leaving: and ends connections without a request.
        stopped: the worker was cancelled.
        has_refused: a backend could not be reached at some time.
    """

    orderly: bool
    now: float = 0.0
    draining: bool = False
    leaving: bool = False
    stopped: bool = False
    has_refused: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    clients: dict[bytes, ClientView] = field(default_factory=dict)
