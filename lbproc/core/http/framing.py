"""Where a message body ends (RFC 9112 section 6), decided from the fields as they were sent.

Owns the decision for requests and responses. Does not read bodies (``body``). Invariant: no repair. Whatever
two hops could read in two ways is refused: both framing fields, repeated ones, lists, signs, codings other
than one ``chunked``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from lbproc.core.http.rejected import Rejected, bad_request, bad_response
from lbproc.core.http.value import value

MAX_LENGTH_DIGITS = 18
"""Ten to the 18th fits a signed 64-bit integer, whatever the next hop is written in."""


class FramingKind(Enum):
    """The four ways in which a body ends."""

    NO_BODY = "no_body"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


@value
class Framing:
    """How a body ends. ``length`` counts bytes and means something for ``LENGTH`` only.

    Of the kinds without a length there are only the three constants below, so ``framing is CHUNKED`` tells.
    """

    kind: FramingKind
    length: int = 0


LENGTH = FramingKind.LENGTH
"""The member under a name of its own: Python 3.11 looks a member up through a descriptor each time."""

NO_BODY = Framing(FramingKind.NO_BODY)
CHUNKED = Framing(FramingKind.CHUNKED)
UNTIL_CLOSE = Framing(FramingKind.UNTIL_CLOSE)


def request_framing(lengths: Sequence[bytes], codings: Sequence[bytes], *, http10: bool) -> Framing:
    """Decides how the body of a request ends (RFC 9112 section 6.3).

    Args:
        lengths: the values of all ``Content-Length`` fields, stripped.
        codings: the values of all ``Transfer-Encoding`` fields, stripped.
        http10: the request line says HTTP/1.0.

    Raises:
        Rejected: 400, or 501 for a coding that is not ``chunked``.
    """
    if codings:
        _check_codings(lengths, codings, http10=http10, refuse=bad_request)
        if codings[0].lower() != b"chunked":
            raise Rejected(501, "http_request_error", "the only transfer coding served here is chunked")
        return CHUNKED
    if lengths:
        return Framing(LENGTH, _length(lengths, bad_request))
    return NO_BODY


def response_framing(
    lengths: Sequence[bytes], codings: Sequence[bytes], *, http10: bool, status: int, request_method: bytes
) -> Framing:
    """Decides how the body of a response ends (RFC 9112 section 6.3).

    The fields are checked even where the status or HEAD says that no body follows: a peer that sends both
    framing fields is not to be believed about anything.

    Raises:
        Rejected: 502.
    """
    framing = UNTIL_CLOSE
    if codings:
        _check_codings(lengths, codings, http10=http10, refuse=bad_response)
        if codings[0].lower() != b"chunked":
            raise bad_response("the response has a transfer coding other than chunked")
        framing = CHUNKED
    elif lengths:
        framing = Framing(LENGTH, _length(lengths, bad_response))
    if request_method == b"HEAD" or status < 200 or status in {204, 304}:
        return NO_BODY
    return framing


def _check_codings(
    lengths: Sequence[bytes], codings: Sequence[bytes], *, http10: bool, refuse: Callable[[str], Rejected]
) -> None:
    if lengths:
        raise refuse("Content-Length and Transfer-Encoding together")
    if http10:
        raise refuse("Transfer-Encoding in an HTTP/1.0 message")
    if len(codings) > 1:
        raise refuse("more than one Transfer-Encoding field")
    if not codings[0]:
        raise refuse("an empty Transfer-Encoding")


def _length(lengths: Sequence[bytes], refuse: Callable[[str], Rejected]) -> int:
    if len(lengths) > 1:
        raise refuse("more than one Content-Length field")
    digits = lengths[0]
    if not digits.isdigit():  # of bytes: ASCII digits only, at least one
        raise refuse("Content-Length is not a number of digits only")
    if len(digits) > MAX_LENGTH_DIGITS:
        raise refuse(f"Content-Length has more than {MAX_LENGTH_DIGITS} digits")
    return int(digits)
