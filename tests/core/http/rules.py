"""What the proxy promises to refuse, written a second time and as plainly as possible.

Says of a head that was taken what rule it breaks. Shares nothing with the code under test: bytes are looked
at one by one, with neither patterns nor tables of lines.
"""

from __future__ import annotations

_TOKEN_BYTES = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HOST_BYTES = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~[]:")
_KEPT_FROM_CONNECTION = {
    b"content-length", b"transfer-encoding", b"host", b"forwarded", b"authorization", b"proxy-authorization",
    b"cookie", b"via", b"x-real-ip", b"x-request-id", b"traceparent", b"tracestate",
}  # fmt: skip


def broken_by_request(raw: bytes) -> str | None:
    """The rule that this request head breaks, or None."""
    if (wrong := _broken_lines(raw) or _broken_request_line(raw)) is not None:
        return wrong
    http10 = raw.partition(b"\r\n")[0].endswith(b"0")
    fields = _fields(raw)
    return (
        _broken_host([value for name, value in fields if name == b"host"], http10=http10)
        or _broken_names(fields)
        or _broken_framing(fields, http10=http10)
        or _broken_connection(fields)
    )


def _broken_request_line(raw: bytes) -> str | None:
    words = raw.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or words[2] not in {b"HTTP/1.0", b"HTTP/1.1"}:
        return "request line"
    method, target = words[:2]
    if not method or not set(method) <= _TOKEN_BYTES or method.upper() == b"CONNECT":
        return "method"
    if any(byte <= 0x20 or byte >= 0x7F or byte == 0x23 for byte in target) or not target:
        return "target"
    return None


def _broken_host(hosts: list[bytes], *, http10: bool) -> str | None:
    if len(hosts) > 1 or not (hosts or http10):
        return "number of hosts"
    return "host" if any(not host or not set(host) <= _HOST_BYTES for host in hosts) else None


def _broken_names(fields: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in fields:
        if name == b"expect" and value.lower() != b"100-continue":
            return "expectation"
        if b"_" in name and name.replace(b"_", b"-") in {b"content-length", b"transfer-encoding"}:
            return "underscored framing"
    return None


def _fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    cut = [line.split(b":", 1) for line in raw[:-4].split(b"\r\n")[1:]]
    return [(name.lower(), value.strip(b" \t")) for name, value in cut]


def broken_by_response(raw: bytes) -> str | None:
    """The rule that this response head breaks, or None."""
    if (wrong := _broken_lines(raw)) is not None:
        return wrong
    version, status, after = raw[:9], raw[9:12], raw[12:13]
    if version not in {b"HTTP/1.0 ", b"HTTP/1.1 "} or after not in {b"\r", b" "}:
        return "status line"
    if len(status) != 3 or not status.isdigit() or not 100 <= int(status) <= 599:
        return "status"
    fields = _fields(raw)
    return _broken_framing(fields, http10=version == b"HTTP/1.0 ") or _broken_connection(fields)


def _broken_lines(raw: bytes) -> str | None:
    if raw.find(b"\r\n\r\n") != len(raw) - 4:
        return "end of the head"
    for at, byte in enumerate(raw):
        before, after = raw[at - 1 : at], raw[at + 1 : at + 2]
        if (byte == 0x0D and after != b"\n") or (byte == 0x0A and before != b"\r"):
            return "bare CR or LF"
        if byte == 0x7F or (byte < 0x20 and byte not in b"\r\n\t"):
            return "control byte"
    for line in raw[:-4].split(b"\r\n")[1:]:
        name, colon, _ = line.partition(b":")
        if not colon or not name or not set(name) <= _TOKEN_BYTES:
            return "name"  # a folded line and white space before the colon are such too
    return None


def _broken_framing(fields: list[tuple[bytes, bytes]], *, http10: bool) -> str | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        return "more than one framing field"
    if any(not value or not set(value) <= set(b"0123456789") or len(value) > 18 for value in lengths):
        return "length"
    if any(value.lower() != b"chunked" or http10 for value in codings):
        return "coding"
    return None


def _broken_connection(fields: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in fields:
        if name != b"connection":
            continue
        for option in value.lower().split(b","):
            word = option.strip(b" \t")
            if not set(word) <= _TOKEN_BYTES:
                return "list of connection options"
            twin = word.replace(b"_", b"-")
            if twin in _KEPT_FROM_CONNECTION or twin.startswith(b"x-forwarded-"):
                return "connection names what it must not remove"
    return None
