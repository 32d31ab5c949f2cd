"""The grammar of message heads, on the raw bytes (RFC 9112 sections 2 to 5).

Owns the patterns. One compiled pattern judges a whole head; only when it does not match does the slower
search for the reason begin, so an ordinary head costs two passes in C. Does not know what fields mean
(``head``).

Invariants: whatever passes has only CRLF line ends, no folded line, no white space before a colon, no control
byte except HTAB in values, and only token bytes in names. Nothing is backtracked into, so time is linear in
the head. Repeated groups are atomic ones, (?>...): Python 3.11 before 3.11.5 matches possessive ones wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lbproc.core.http.rejected import Rejected, bad_request, bad_response

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""RFC 9110 section 5.6.2."""

VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
"""A field value with the white space around it. No controls, no DEL."""

FIELD_LINE = TOKEN + rb":" + VALUE + rb"\r\n"

_TARGET = rb"[\x21\x22\x24-\x7e]++"
"""Visible ASCII without ``#``: a fragment is never sent (RFC 9112 section 3.2)."""

_REQUEST = re.compile(
    rb"(" + TOKEN + rb") (" + _TARGET + rb") HTTP/1\.([01])\r\n(?>(?:" + FIELD_LINE + rb")*)\r\n"
)
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + VALUE + rb"))?\r\n(?>(?:" + FIELD_LINE + rb")*)\r\n"
)
_FIELDS = re.compile(rb"\n([^:\r]++):[ \t]*+([^\r]*+)")
_STRAY = re.compile(rb"(?<!\r)\n|\r[^\n]|\x00")
_VERSION = re.compile(rb"[^ ]++ [^ ]++ HTTP/([0-9]++(?:\.[0-9]++)?)\Z")
_METHOD = re.compile(TOKEN + rb" ")
_NAME = re.compile(TOKEN + rb"\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Fields = list[tuple[bytes, bytes]]
"""Name as sent and value without the white space around it, in the order sent."""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a request head may be, and what becomes of odd names.

    Attributes:
        max_size: bytes of a head, start line and last empty line included.
        max_count: header fields in a head.
        underscore: "drop", "forward" or "reject" fields whose name has an underscore.
    """

    max_size: int = 32_768
    max_count: int = 100
    underscore: str = "drop"


def stray_byte(head: bytes | bytearray, start: int, stop: int) -> str | None:
    """Says which byte in ``head[start:stop]`` can never become part of a good head, or None.

    A CR at the very end may still be followed by its LF, so it is not judged yet.
    """
    found = _STRAY.search(head, start, stop)
    if found is None:
        return None
    match head[found.start()]:
        case 0x0A:
            return "a line that ends in LF without CR"
        case 0x0D:
            return "a CR without LF"
        case _:
            return "a NUL byte"


def match_request(raw: bytes) -> re.Match[bytes]:
    """Judges a request head: groups are method, target and the minor version digit.

    Raises:
        Rejected: 400, or 505 for a version other than 1.0 and 1.1.
    """
    found = _REQUEST.fullmatch(raw)
    if found is None:
        raise _reason(raw, bad_request, _bad_request_line)
    return found


def match_response(raw: bytes) -> re.Match[bytes]:
    """Judges a response head: groups are the minor version digit, the status and the reason (or None).

    Raises:
        Rejected: 502.
    """
    found = _RESPONSE.fullmatch(raw)
    if found is None:
        raise _reason(raw, bad_response, _bad_status_line)
    return found


def split_fields(raw: bytes) -> Fields:
    """Cuts a head that has passed into its fields."""
    fields: Fields = _FIELDS.findall(raw)
    if b" \r" in raw or b"\t\r" in raw:
        return [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def _reason(
    raw: bytes, refuse: Callable[[str], Rejected], bad_start: Callable[[bytes], Rejected | None]
) -> Rejected:
    """Finds what is wrong with a head that has not passed. Bytes that hide lines are named first."""
    stray = stray_byte(raw, 0, len(raw))
    if stray is not None:
        return refuse(stray)
    start, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    rejected = bad_start(start)
    if rejected is not None:
        return rejected
    for line in lines:
        wrong = _bad_field_line(line)
        if wrong is not None:
            return refuse(wrong)
    return refuse("the head does not end where it should")


def _bad_request_line(line: bytes) -> Rejected | None:
    if not line:
        return bad_request("an empty line where a request line should be")
    version = _VERSION.match(line)
    if version is not None and version[1] not in {b"1.0", b"1.1"}:
        return Rejected(505, "http_request_error", "the HTTP version is not 1.0 or 1.1")
    if _METHOD.match(line) is None:
        return bad_request("the method is not a token followed by one space")
    if version is None:
        return bad_request("the request line is not method, target and version with one space between")
    if re.compile(_METHOD.pattern + _TARGET + b" ").match(line) is None:
        return bad_request("the target has a fragment, a control byte or a byte outside ASCII")
    return None


def _bad_status_line(line: bytes) -> Rejected | None:
    if re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: " + VALUE + rb")?\Z").match(line) is None:
        return bad_response(
            "the status line is not HTTP/1.0 or HTTP/1.1, a status of 100 to 599 and a reason"
        )
    return None


def _bad_field_line(line: bytes) -> str | None:
    name, colon, value = line.partition(b":")
    if line[:1] in {b" ", b"\t"}:
        return "a folded header line"
    if not colon:
        return "a header line without a colon"
    if _NAME.match(name) is None:
        return _bad_name(name)
    return "a control byte in a header value" if _CONTROL.search(value) else None


def _bad_name(name: bytes) -> str:
    if not name:
        return "an empty header name"
    if name.endswith((b" ", b"\t")):
        return "white space between a header name and its colon"
    return "a header name with a byte that names cannot have"
