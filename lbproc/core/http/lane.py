"""The fast lane: ordinary heads without h11.

Owns the grammar of the heads that are ordinary, and what is remembered of lines seen before. Whatever is not
ordinary gets None here and goes the long way (``head``), which names the fault or finds none. So this module
refuses nothing; it only declines.

Invariants: what the lane takes, the long way takes with an equal result, h11 included. The lane leaves to the
long way everything that needs thought: HTTP/1.0, targets that are not a path, interim responses, ``Expect``,
``Upgrade``, lists in ``Connection``, lengths with a leading zero, names with an underscore, lines without
exactly one space behind the colon or with white space at the end, empty values. What is remembered of a line
follows from its bytes alone; nothing of a connection is remembered.

Theory of operation. A head is split at CRLF. Each line is cut at its colon, then all are judged together by
one match of the compiled grammar, over nothing but themselves. A CR or LF that stands alone is in a line that
the grammar does not match. Fields that decide anything are gathered by name; a second one of a name declines
the head. Of a request, lines that were seen before are not cut and judged again.

What is remembered here, and what is not. Only lines whose names stand in ``_OFTEN_REPEATED`` are, because a
header of any other name may carry a secret (``Authorization``, ``Cookie``, ``X-Api-Key``, and names nobody
foresaw): known by itself, it would be answered more quickly whatever stands around it, and so tell a guesser
that somebody else sent the same. This is about single lines: whoever keeps whole heads keeps secrets too,
but gives away nothing for less than the whole head. At most one line of a head is offered to the memo, in
turn, so heads that never repeat pay for one offer and not for each line; lines that do repeat are all known
after a few dozen heads.

Figures in µs for heads that were never seen whole (23 November 2026, Python 3.11, two shared x86-64 cores);
"before" is the long way:

    request              before   lane without memory   lane
    2 lines, wrk             16                   1.7    1.6
    4 lines, curl            21                   2.1    1.7
    16 lines, SDK            46                   5.3    4.0
    17 lines, browser        51                   6.4    4.8
    16 lines, all new        41                   5.0    7.2

    response             before                  lane
    4 lines, Go              20                   2.1
    5 lines, uvicorn         22                   2.2
    8 lines, Node            26                   2.8
    9 lines, nginx           30                   3.1

A memory of the lines of responses gained nothing, so there is none: they are few, and what is long in them
differs. A pattern that takes the whole head and a second one that finds its fields took 8.3 for the browser.
"""

from __future__ import annotations

import re

from lbproc.core.http.framing import CHUNKED, LENGTH, MAX_LENGTH_DIGITS, NO_BODY, UNTIL_CLOSE, Framing
from lbproc.core.http.headers import ACTED_ON_NAMES, NO_TOKENS
from lbproc.core.http.message import RequestHead, ResponseHead
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.target import hostname_of, known_hostname
from lbproc.core.memo import Memo

Field = tuple[bytes, bytes, bytes]
"""Lower-case name, name as sent, value."""

Found = tuple[tuple[Field, ...], dict[bytes, bytes]]
"""All fields in the order sent, and by their names the values of those that are acted on."""

_REQUEST_LINE = re.compile(
    rb"(?!CONNECT )([A-Z]++) ((/[\x21\x22\x24-\x3e\x40-\x7e]*+)(?:\?([\x21\x22\x24-\x7e]*+))?) HTTP/1\.1"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_LINES = re.compile(
    rb"(?>(?:[!#$%&'*+\-.^`|~0-9A-Za-z]++: [\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+(?<![\t ])\r\n)*)"
)
_match_request_line = _REQUEST_LINE.fullmatch
_match_status_line = _STATUS_LINE.fullmatch
_match_lines = _LINES.fullmatch

_DECLINED = frozenset({b"expect", b"upgrade"})

_OFTEN_REPEATED = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"anthropic-beta",
    b"anthropic-version", b"cache-control", b"connection", b"content-type", b"dnt", b"host", b"keep-alive",
    b"origin", b"pragma", b"priority", b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform",
    b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"sec-gpc", b"te",
    b"transfer-encoding", b"upgrade-insecure-requests", b"user-agent", b"x-forwarded-port",
    b"x-forwarded-proto", b"x-requested-with", b"x-stainless-arch", b"x-stainless-async",
    b"x-stainless-lang", b"x-stainless-os", b"x-stainless-package-version", b"x-stainless-retry-count",
    b"x-stainless-runtime", b"x-stainless-runtime-version", b"x-stainless-timeout",
})  # fmt: skip
"""Names of request headers that many heads have in common and that carry no secret."""

_ZERO = 0x30
_MAX_LINE = 256
"""Bytes of the longest line that is remembered: the User-Agent and Accept of browsers are shorter."""

_MAX_LOOKED_UP = 32
"""Lines of a head that has its lines looked up. Browsers send 20 or less, attackers as many as they may."""

_PERSISTENCE = {
    b"keep-alive": (frozenset({b"keep-alive"}), True),
    b"Keep-Alive": (frozenset({b"keep-alive"}), True),
    b"close": (frozenset({b"close"}), False),
    b"Close": (frozenset({b"close"}), False),
}
"""The values of ``Connection`` that are ordinary: its tokens, and whether the connection goes on."""
_PERSISTS = (NO_TOKENS, True)


class RequestLane:
    """Reads ordinary request heads."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = KnownLines()

    def read(self, raw: bytes, max_count: int) -> RequestHead | None:
        """The head that these bytes are, or None when they have to go the long way.

        Args:
            raw: the bytes as received.
            max_count: header fields in a head; more are not ordinary.
        """
        lines = raw.split(b"\r\n")
        start = _match_request_line(lines[0])
        if start is None or lines.pop() or lines.pop() or len(lines) > max_count + 1:
            return None
        del lines[0]
        found = self._lines.read(lines)
        if found is None:
            return None
        fields, acted_on = found
        host = acted_on.get(b"host")
        if host is None:
            return None
        hostname = known_hostname(host) or _hostname(host)
        if hostname is None:
            return None
        persistence = _persistence(acted_on)
        framing = _framing(acted_on, NO_BODY)
        if persistence is None or framing is None:
            return None
        tokens, keeps = persistence
        method, target, path, query = start.groups(b"")
        return RequestHead(
            method, target, False, fields, framing, host, hostname, path, query, keeps, False, None, tokens
        )  # fmt: skip


class ResponseLane:
    """Reads ordinary response heads."""

    __slots__ = ("_known_start", "_offer_start")

    def __init__(self) -> None:
        memo: Memo[tuple[int, bytes]] = Memo(64, 64)
        self._known_start, self._offer_start = memo.get, memo.offer

    def read(self, raw: bytes, request_method: bytes) -> ResponseHead | None:
        """The head that these bytes are, or None when they have to go the long way.

        Args:
            raw: the bytes as received.
            request_method: of the request it answers: the response to HEAD has no body.
        """
        lines = raw.split(b"\r\n")
        start = self._known_start(lines[0]) or self._read_start(lines[0])
        if start is None or lines.pop() or lines.pop():
            return None
        del lines[0]
        found = _read_lines(lines)
        if found is None:
            return None
        fields, acted_on = found
        persistence = _persistence(acted_on)
        framing = _framing(acted_on, UNTIL_CLOSE)
        if persistence is None or framing is None:
            return None
        status, reason = start
        if request_method == b"HEAD" or status in {204, 304}:
            framing = NO_BODY
        tokens, keeps = persistence
        keeps = keeps and framing is not UNTIL_CLOSE
        return ResponseHead(status, reason, False, fields, framing, keeps, None, tokens)

    def _read_start(self, line: bytes) -> tuple[int, bytes] | None:
        found = _match_status_line(line)
        if found is None:
            return None
        start = (int(found[1]), found[2] or b"")
        self._offer_start(line, start)
        return start


class KnownLines:
    """Reads the header lines of ordinary requests, and remembers some of them.

    Bounded: 1 024 lines of 256 bytes at most, and 256 of those that are acted on; less than 2 MB in all.
    """

    __slots__ = ("_acted_on", "_known", "_known_acted_on", "_others", "_turn")

    def __init__(self) -> None:
        # Fields that are acted on have a memo of their own, so that what the first one knows needs no look.
        self._others: Memo[Field] = Memo(1024, _MAX_LINE)
        self._acted_on: Memo[Field] = Memo(256, _MAX_LINE)
        self._known = self._others.get
        self._known_acted_on = self._acted_on.get
        self._turn = 0

    def __len__(self) -> int:
        return len(self._others) + len(self._acted_on)

    def read(self, lines: list[bytes]) -> Found | None:  # noqa: C901 - one loop; calls would cost what it saves
        """Does what `_read_lines` does, with less work for lines that were seen before."""
        if len(lines) > _MAX_LOOKED_UP:
            return _read_lines(lines)
        fields: list[Field] = list(map(self._known, lines))  # type: ignore[arg-type] # the gaps are filled below
        acted_on: dict[bytes, bytes] = {}
        unknown: list[bytes] = []
        repeated: list[int] = []
        for place, field in enumerate(fields):
            if field is not None:
                continue
            line = lines[place]
            known = self._known_acted_on(line)
            if known is None:
                unknown.append(line)
                name, _, value = line.partition(b": ")
                lower = name.lower()
                known = (lower, name, value)
                if lower in _OFTEN_REPEATED:
                    repeated.append(place)
            fields[place] = known
            lower = known[0]
            if lower in ACTED_ON_NAMES:
                if lower in acted_on:
                    return None
                acted_on[lower] = known[2]
        if unknown:
            if not _are_ordinary(unknown):
                return None
            if repeated:
                self._remember(lines, fields, repeated)
        return tuple(fields), acted_on

    def _remember(self, lines: list[bytes], fields: list[Field], repeated: list[int]) -> None:
        """Offers one of the lines; a line that others always come before has its turn all the same."""
        self._turn += 1
        place = repeated[self._turn % len(repeated)]
        field = fields[place]
        memo = self._acted_on if field[0] in ACTED_ON_NAMES else self._others
        memo.offer(lines[place], field)


def _read_lines(lines: list[bytes]) -> Found | None:
    """Reads header lines of which each is ordinary and none that is acted on comes twice."""
    fields = []
    acted_on: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        lower = name.lower()
        fields.append((lower, name, value))
        if lower in ACTED_ON_NAMES:
            if lower in acted_on:
                return None
            acted_on[lower] = value
    return (tuple(fields), acted_on) if _are_ordinary(lines) else None


def _are_ordinary(lines: list[bytes]) -> bool:
    """Judges all lines in one match. Each gets its CRLF back, the last one too: no line may be empty."""
    return _match_lines(b"\r\n".join([*lines, b""])) is not None


def _persistence(acted_on: dict[bytes, bytes]) -> tuple[frozenset[bytes], bool] | None:
    """What ``Connection`` says, if it is ordinary and nothing else is asked for."""
    if not _DECLINED.isdisjoint(acted_on):
        return None
    value = acted_on.get(b"connection")
    return _PERSISTS if value is None else _PERSISTENCE.get(value)


def _framing(acted_on: dict[bytes, bytes], without: Framing) -> Framing | None:
    """Where the body ends, if that is said in the ordinary way; ``without`` is for no field that says it."""
    length = acted_on.get(b"content-length")
    coding = acted_on.get(b"transfer-encoding")
    if coding is not None:
        return CHUNKED if coding == b"chunked" and length is None else None
    if length is None:
        return without
    # Of bytes, isdigit takes ASCII digits only.
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or (length[0] == _ZERO and len(length) > 1):
        return None
    return Framing(LENGTH, int(length))


def _hostname(host: bytes) -> str | None:
    try:
        return hostname_of(host)
    except Rejected:
        return None
