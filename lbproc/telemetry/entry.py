"""One line of the access log: a JSON object of one request.

Owns the keys, their order and their encoding. Does not write anything. Invariants: whatever bytes a client
sent, the result is one line of ASCII that any JSON parser takes, ends in a newline and is shorter than 4096
bytes; a longer one has its texts cut, the target first of all, and carries ``"truncated":true``.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _quote

from lbproc.telemetry.sink import PIPE_LIMIT

# Room of each text in a line that has to be cut, in encoded bytes with quotes. What remains is the target's.
_ROOM = {
    "client_ip": 64,
    "listener": 192,
    "route": 192,
    "pool": 192,
    "backend": 192,
    "method": 64,
    "host": 512,
    "version": 16,
    "cause": 96,
    "request_id": 256,
    "tls": 64,
}


def _text(text: str | None) -> str:
    return "null" if text is None else _quote(text)


def _wire(octets: bytes | None) -> str:
    # Latin-1 gives every byte a character, so a hostile byte can neither fail here nor yield a lone
    # surrogate.
    return "null" if octets is None else _quote(octets.decode("latin-1"))


def _milliseconds(span: float) -> str:
    return f"{span:.3f}"


def render_caller(client_ip: str | None, listener: str | None) -> str:
    """The members that follow from the connection.

    Args:
        client_ip: the client as believed after trusted proxies; ``None`` on a Unix socket.
        listener: the listener's name.
    """
    return f'"client_ip":{_text(client_ip)},"listener":{_text(listener)}'


def render_routed(route: str | None, pool: str | None) -> str:
    """The members that follow from the route.

    Args:
        route: the route's name, ``None`` for the listener's own pool.
        pool: the pool's name.
    """
    return f'"route":{_text(route)},"pool":{_text(pool)}'


def render_backend(name: str | None) -> str:
    """The member for the backend that answered, or was tried last."""
    return f'"backend":{_text(name)}'


def render_asked(method: bytes | None, host: bytes | None, target: bytes | None, version: str | None) -> str:
    """The members that follow from the request's head.

    Args:
        method: as sent.
        host: the Host header as sent.
        target: the request target as sent.
        version: ``"1.1"`` or ``"1.0"``.
    """
    return (
        f'"method":{_wire(method)},"host":{_wire(host)},"target":{_wire(target)},"version":{_text(version)}'
    )


NOT_ROUTED = render_routed(None, None)
NO_BACKEND = render_backend(None)
NOT_UNDERSTOOD = render_asked(None, None, None, None)


def render_entry(
    *,
    time: str,
    caller: str,
    routed: str,
    backend: str,
    asked: str,
    status: int | None,
    cause: str | None,
    bytes_in: int,
    bytes_out: int,
    queue_ms: float | None,
    connect_ms: float | None,
    first_byte_ms: float | None,
    total_ms: float,
    retries: int,
    request_id: str | None,
    tls: str | None,
) -> bytes:
    """The line of one request, with its newline. ``None`` becomes ``null``: not known, or it did not happen.

    What repeats from request to request comes rendered, so that it can be kept.

    Args:
        time: when the request ended, from ``UtcClock.stamp``.
        caller: from `render_caller`.
        routed: from `render_routed`.
        backend: from `render_backend`.
        asked: from `render_asked`.
        status: what the client got; 499 when it left before the head of a response.
        cause: the RFC 9209 error type of a reply that lbproc made or of a response it cut, or a word of ours.
        bytes_in: request bytes from the client, head and body.
        bytes_out: response bytes to the client, head and body.
        queue_ms: time spent waiting for a place.
        connect_ms: time to connect to the backend, ``None`` on a reused connection.
        first_byte_ms: from the end of the request's head to the first byte of the response.
        total_ms: from the first byte of the request to the last of the response.
        retries: further attempts: on another backend, or on a fresh connection where an idle one was stale.
        request_id: the X-Request-Id sent to the backend.
        tls: the TLS version.
    """
    line = (
        f'{{"time":"{time}",{caller},{routed},{backend},{asked}'
        f',"status":{"null" if status is None else status}'
        f',"cause":{"null" if cause is None else _quote(cause)},"bytes_in":{bytes_in},"bytes_out":{bytes_out}'
        f',"queue_ms":{"null" if queue_ms is None else _milliseconds(queue_ms)}'
        f',"connect_ms":{"null" if connect_ms is None else _milliseconds(connect_ms)}'
        f',"first_byte_ms":{"null" if first_byte_ms is None else _milliseconds(first_byte_ms)}'
        f',"total_ms":{total_ms:.3f},"retries":{retries}'
        f',"request_id":{"null" if request_id is None else _quote(request_id)}'
        f',"tls":{"null" if tls is None else _quote(tls)}}}\n'
    )
    if len(line) > PIPE_LIMIT:
        line = _shortened(line)
    return line.encode("ascii")


def render_plain_entry(
    *,
    time: str,
    caller: str,
    routed: str,
    backend: str,
    asked: str,
    status: int,
    bytes_in: int,
    bytes_out: int,
    first_byte_ms: float,
    total_ms: float,
    request_id: str,
) -> bytes:
    """The line of a request that a backend answered over an idle connection at the first try.

    Most lines are such. This spares them 1 µs of the 2 that `render_entry` takes (2026), which says what the
    arguments are. Here ``request_id`` has to need no escapes in JSON, as the ids that go on need none.
    """
    line = (
        f'{{"time":"{time}",{caller},{routed},{backend},{asked},"status":{status},"cause":null'
        f',"bytes_in":{bytes_in},"bytes_out":{bytes_out},"queue_ms":null,"connect_ms":null'
        f',"first_byte_ms":{first_byte_ms:.3f},"total_ms":{total_ms:.3f},"retries":0'
        f',"request_id":"{request_id}","tls":null}}\n'
    )
    if len(line) > PIPE_LIMIT:
        line = _shortened(line)
    return line.encode("ascii")


def _shortened(line: str) -> str:
    """The same object with its texts cut until it fits."""
    members = json.loads(line)
    target = members["target"]
    members["truncated"] = True
    members["target"] = None
    for name, room in _ROOM.items():
        members[name] = _cut(members[name], room)
    room = PIPE_LIMIT - len(_dump(members)) + len("null")
    members["target"] = _cut(target, room)
    return _dump(members)


def _dump(members: dict[str, object]) -> str:
    return json.dumps(members, separators=(",", ":")) + "\n"


def _cut(text: str | None, room: int) -> str | None:
    """The longest start of ``text`` that as a JSON string takes at most ``room`` characters, with quotes."""
    if text is None or len(_quote(text)) <= room:
        return text
    kept = text[: room - 2]
    while (excess := len(_quote(kept)) - room) > 0:
        kept = kept[: len(kept) - (excess + 11) // 12]  # no character takes more than 12: an escaped pair
    return kept
