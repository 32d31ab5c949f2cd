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


def _wire(octets: bytes | None) -> str:
    # Latin-1 gives every byte a character, so a hostile byte can neither fail here nor yield a lone
    # surrogate.
    return "null" if octets is None else _quote(octets.decode("latin-1"))


def _milliseconds(span: float | None) -> str:
    return "null" if span is None else f"{span:.3f}"


def render_entry(
    *,
    time: str,
    client_ip: str | None,
    listener: str | None,
    route: str | None,
    pool: str | None,
    backend: str | None,
    method: bytes | None,
    host: bytes | None,
    target: bytes | None,
    version: str | None,
    status: int,
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

    Args:
        time: when the request ended, from ``UtcClock.stamp``.
        client_ip: the client as believed after trusted proxies; ``None`` on a Unix socket.
        listener: the listener's name.
        route: the route's name, ``None`` for the listener's own pool.
        pool: the pool's name.
        backend: the name of the backend that answered, or was tried last.
        method: as sent.
        host: the Host header as sent.
        target: the request target as sent.
        version: ``"1.1"`` or ``"1.0"``.
        status: what the client got; 499 when it left before the head of a response.
        cause: the RFC 9209 error type of a reply that lbproc made or of a response it cut.
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
    # Runs for every request. Measured 2026-11: 2.9 µs with its stamp; json.dumps of a ready dict 4.9 µs.
    line = (
        f'{{"time":"{time}","client_ip":{"null" if client_ip is None else _quote(client_ip)}'
        f',"listener":{"null" if listener is None else _quote(listener)}'
        f',"route":{"null" if route is None else _quote(route)}'
        f',"pool":{"null" if pool is None else _quote(pool)}'
        f',"backend":{"null" if backend is None else _quote(backend)}'
        f',"method":{_wire(method)},"host":{_wire(host)},"target":{_wire(target)}'
        f',"version":{"null" if version is None else _quote(version)},"status":{status}'
        f',"cause":{"null" if cause is None else _quote(cause)},"bytes_in":{bytes_in},"bytes_out":{bytes_out}'
        f',"queue_ms":{_milliseconds(queue_ms)},"connect_ms":{_milliseconds(connect_ms)}'
        f',"first_byte_ms":{_milliseconds(first_byte_ms)},"total_ms":{total_ms:.3f},"retries":{retries}'
        f',"request_id":{"null" if request_id is None else _quote(request_id)}'
        f',"tls":{"null" if tls is None else _quote(tls)}}}\n'
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
