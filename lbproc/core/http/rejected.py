"""The one exception of the HTTP core: a message that must not go on.

Owns the status, the cause and the words for it. Does not write the reply (``replies``) and does not know
whether bytes were already sent. Invariant: ``detail`` is always our own text, never bytes of a peer, so it is
safe in replies and logs.
"""

from __future__ import annotations


class Rejected(Exception):  # noqa: N818 - an outcome that hostile bytes cause all day, not a defect of ours
    """A message is refused; the connection it came on closes after the answer.

    Attributes:
        status: what the client is told.
        cause: the error type of RFC 9209 section 2.3 for ``Proxy-Status``.
        detail: what is wrong, in our words.
    """

    def __init__(self, status: int, cause: str, detail: str) -> None:
        super().__init__(status, cause, detail)
        self.status = status
        self.cause = cause
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.status} {self.cause}: {self.detail}"


def bad_request(detail: str) -> Rejected:
    """400: a request that breaks the grammar or could be read in two ways."""
    return Rejected(400, "http_request_error", detail)


def bad_response(detail: str) -> Rejected:
    """502: a response that breaks the grammar or could be read in two ways."""
    return Rejected(502, "http_protocol_error", detail)
