"""What h11 reads in a head, and whether it is what we read.

Owns the comparison. h11 is the authority on meaning: a head that it refuses, or reads differently in any
part, does not go on. The raw bytes have passed ``strict`` before, because h11 mends some things silently.

Invariant: framing needs no comparison of its own. It follows from the fields and the status, and those are
compared whole.
"""

from __future__ import annotations

import h11

from lbproc.core.http.rejected import bad_request, bad_response
from lbproc.core.http.strict import Fields

# h11 takes an interim response only when a request was sent, and a 101 only when an upgrade was proposed.
_PROPOSAL = h11.Request(
    method=b"GET",
    target=b"/",
    headers=[(b"Host", b"h11"), (b"Upgrade", b"any"), (b"Connection", b"upgrade")],
)


def confirm_request(raw: bytes, method: bytes, target: bytes, minor: bytes, fields: Fields) -> None:
    """Makes sure that h11 reads the same request head.

    Raises:
        Rejected: 400 when it refuses the head or reads anything differently.
    """
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(raw)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise bad_request("the head is not valid HTTP/1.1") from None
    if (
        type(event) is not h11.Request
        or event.method != method
        or event.target != target
        or event.http_version != b"1." + minor
        or not _same_fields(event.headers.raw_items(), fields)
    ):
        raise bad_request("the head can be read in two ways")


def confirm_response(raw: bytes, status: int, minor: bytes, fields: Fields) -> None:
    """Makes sure that h11 reads the same response head.

    Raises:
        Rejected: 502 when it refuses the head or reads anything differently.
    """
    connection = h11.Connection(h11.CLIENT)
    try:
        if status < 200:
            connection.send(_PROPOSAL)
            connection.send(h11.EndOfMessage())
        connection.receive_data(raw)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise bad_response("the response head is not valid HTTP/1.1") from None
    if (
        not isinstance(event, h11.Response | h11.InformationalResponse)
        or event.status_code != status
        or event.http_version != b"1." + minor
        or not _same_fields(event.headers.raw_items(), fields)
    ):
        raise bad_response("the response head can be read in two ways")


def _same_fields(theirs: Fields, ours: Fields) -> bool:
    """Compares field by field; h11 writes the one transfer coding it knows in lower case."""
    return theirs == ours or theirs == [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in ours
    ]
