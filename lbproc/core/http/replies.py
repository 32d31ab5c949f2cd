"""The answers that lbproc gives itself: errors, with their cause for people and programs.

Owns their form: status line, ``Proxy-Status`` (RFC 9209), ``Retry-After`` and a short body, JSON for clients
that prefer it. Does not choose the status. Invariant: a reply holds no byte that a peer sent, except ids that
were checked before, and where a redirect leads.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from lbproc.core.http.rejected import Rejected

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    499: "Client Closed Request",
}
_MEDIA_RANGE = re.compile(r"[ \t]*([^;, \t]+)([^,]*)")
_QUALITY = re.compile(r";[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|\Z)")
_MAX_ACCEPT = 1024
_HTTPS = 443
_NOT_IN_STRINGS = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of lbproc's own.

    Attributes:
        status: 400 to 599, or 308.
        cause: the error type of RFC 9209 section 2.3; "" for a redirect, which is none.
        detail: what happened, in our words.
        retry_after: seconds after which trying again makes sense, or None.
        location: of a redirect; its host and its path have passed the grammar of a request.
    """

    status: int
    cause: str
    detail: str
    retry_after: int | None = None
    location: bytes | None = None

    @classmethod
    def from_rejected(cls, rejected: Rejected) -> Reply:
        """The answer to a message that was refused."""
        return cls(rejected.status, rejected.cause, rejected.detail)


def redirect_to_https(hostname: str, port: int, target: bytes) -> Reply:
    """The answer that leads to the same place by HTTPS, with the same method (RFC 9110 section 15.4.9).

    Args:
        hostname: an IPv6 literal in its brackets; not empty.
        port: where HTTPS is served.
        target: of the request, in origin-form or ``*``.
    """
    authority = hostname if port == _HTTPS else f"{hostname}:{port}"
    path = b"" if target == b"*" else target
    location = b"https://%b%b" % (authority.encode("ascii"), path)
    return Reply(308, "", "this is served by HTTPS", location=location)


def render_reply(reply: Reply, *, accept: bytes, close: bool, head_only: bool, request_id: str) -> bytes:
    """Writes a whole response.

    Args:
        reply: what to say.
        accept: the client's ``Accept``, b"" when unknown.
        close: the connection ends after it.
        head_only: the request was HEAD, so the body stays away (its length is still told).
        request_id: checked or made by us; b"" is left out.
    """
    reason = _REASONS.get(reply.status, "Error")
    if prefers_json(accept) and reply.location is None:
        media_type = "application/json"
        error = {
            "status": reply.status,
            "cause": reply.cause,
            "detail": reply.detail,
            "request_id": request_id,
        }
        body = json.dumps({"error": error}).encode("ascii") + b"\n"
    else:
        media_type = "text/plain; charset=utf-8"
        identified = f"request id: {request_id}\n" if request_id else ""
        body = f"{reply.status} {reason}: {reply.detail}\n{identified}".encode()
    head = (
        f"HTTP/1.1 {reply.status} {reason}\r\n"
        f"Content-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
    )
    if reply.location is None:
        head += f"Proxy-Status: lbproc; error={reply.cause}; details={_string(reply.detail)}\r\n"
    else:
        head += f"Location: {reply.location.decode('ascii')}\r\n"
    if request_id:
        head += f"X-Request-Id: {request_id}\r\n"
    if reply.retry_after is not None:
        head += f"Retry-After: {reply.retry_after}\r\n"
    if close:
        head += "Connection: close\r\n"
    return head.encode("ascii") + b"\r\n" + (b"" if head_only else body)


def prefers_json(accept: bytes) -> bool:
    """Whether JSON is named in ``Accept`` and no text is liked better (RFC 9110 section 12.5.1).

    ``*/*`` alone is what command line tools send: a person reads the answer.
    """
    as_json = as_text = 0.0
    for found in _MEDIA_RANGE.finditer(accept[:_MAX_ACCEPT].decode("latin-1").lower()):
        media_range = found[1]
        quality = _QUALITY.search(found[2])
        liking = float(quality[1]) if quality else 1.0
        if media_range == "application/json" or media_range.endswith("+json"):
            as_json = max(as_json, liking)
        elif media_range.startswith("text/"):
            as_text = max(as_text, liking)
    return as_json > 0 and as_json >= as_text


def _string(text: str) -> str:
    """A string of RFC 8941 section 3.3.3: printable ASCII in quotes."""
    plain = _NOT_IN_STRINGS.sub("?", text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
