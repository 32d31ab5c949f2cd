"""Answers as backends send them in the machine, and what a proxy has to make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.proxy.machine.messages import HOP_BY_HOP
from tests.proxy.machine.wire import broken_chunks, chunks, lines, options, payload

if TYPE_CHECKING:
    from tests.proxy.machine.messages import Answer, Fields
    from tests.proxy.machine.requests import SentRequest

EXCESS = b"HTTP/1.1 200 OK\r\nX-Serial: 99999\r\nContent-Length: 6\r\n\r\nEXCESS"
"""What nobody asked for: no client may ever see a byte of it."""


@dataclass(slots=True, repr=False)
class SentAnswer:
    """An answer as its backend sends it, and what the client has to receive.

    Attributes:
        raw: all the backend sends.
        interims: the statuses of the interim responses before it.
        head_end: where the final head ends in ``raw``; 0 if there is none that may go on.
        body: what may go on of the body, as it is sent.
        data: its payload, for a client that takes no chunks.
        is_whole: the body is a complete one.
        by_close: the end of the connection ends it.
        is_kept: the backend says in the head that the connection goes on.
        reusable: and nothing speaks against it; a reset comes as a surprise, a little later.
        excess_at: where in ``raw`` something begins that belongs to nobody; 0 if nothing does.
    """

    spec: Answer
    raw: bytes
    interims: list[int]
    head_end: int
    kept: Fields
    body: bytes
    data: bytes
    has_body: bool
    is_whole: bool
    is_chunked: bool
    by_close: bool
    is_kept: bool
    reusable: bool
    excess_at: int

    def forgo_excess(self) -> None:
        """The proxy was quicker: the next request is there, and what came now would be its answer."""
        self.raw = self.raw[: self.excess_at]
        self.excess_at = 0
        self.reusable = True


def render_answer(spec: Answer, serial: int, request: SentRequest) -> SentAnswer:
    """Writes the answer to a request's attempt, which the serial names."""
    switches = spec.status == 101
    has_body = not (switches or spec.status in {204, 304} or request.spec.method == b"HEAD")
    http10 = spec.http10 and not switches
    framing = "length" if http10 and spec.framing == "chunked" else spec.framing
    is_chunked, by_close = framing == "chunked", has_body and framing == "close"
    spoil = _effect(spec, chunked=has_body and is_chunked, by_close=by_close)

    tokens, fields = _fields(spec, serial, framing)
    if spoil == "both":
        fields += [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]
    interim = b"HTTP/1.1 %d Wait\r\nX-Serial: %d\r\nLink: </a>\r\n\r\n"
    interims = b"".join(interim % (status, serial) for status in spec.interims)
    head = b"HTTP/1.%d %d Fine\r\n%b" % (not http10, spec.status, lines(tuple(fields)))
    head += b"No colon\r\n\r\n" if spoil == "malformed" else b"\r\n"
    may_go_on = spoil not in {"malformed", "both"} and (request.may_switch or not switches)
    head_end = len(interims) + len(head) if may_go_on else 0

    data = payload(b"s%d;" % serial, spec.size) if has_body else b""
    body = data
    if has_body and is_chunked:
        body = broken_chunks(data, b"-1") if spoil == "bad-chunk" else chunks(data)
    raw = whole = interims + head + body
    if spoil == "excess":
        raw += EXCESS
    elif spoil == "truncated":
        raw = raw[: max(0, len(raw) - spec.cut)]
    elif spoil == "empty":
        raw = b""
    elif switches and head_end:
        raw += payload(b"t%d;" % serial, spec.tunnel)

    lowered = {token.lower() for token in tokens}
    is_kept = (b"keep-alive" in lowered if http10 else b"close" not in lowered) and not (by_close or switches)
    return SentAnswer(
        spec=spec,
        raw=raw,
        interims=list(spec.interims),
        head_end=head_end,
        kept=tuple(pair for pair in fields if pair[0].lower() not in HOP_BY_HOP | lowered),
        body=body,
        data=data,
        has_body=has_body,
        is_whole=may_go_on and spoil in {"", "excess"},
        is_chunked=is_chunked,
        by_close=by_close,
        is_kept=is_kept,
        reusable=is_kept and may_go_on and not spoil and spec.end in {"keep", "reset"},
        excess_at=len(whole) if spoil == "excess" else 0,
    )


def _effect(spec: Answer, *, chunked: bool, by_close: bool) -> str:
    """What spoils an answer in fact: not everything can be done to each."""
    match spec.spoil:
        case "bad-chunk" if not chunked:
            return ""
        case "excess" if by_close or spec.status == 101:
            return ""
        case "truncated" if by_close and spec.end != "reset":  # nobody could tell it from a whole one
            return ""
        case spoil:
            return spoil


def _fields(spec: Answer, serial: int, framing: str) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """The tokens of ``Connection``, and all fields."""
    tokens = options(spec.connection, spec.headers)
    fields = [(b"X-Serial", b"%d" % serial), *spec.headers]
    if spec.status == 101:
        tokens.append(b"upgrade")
        fields.append((b"Upgrade", b"websocket"))
    if tokens:
        fields.append((b"Connection", b", ".join(tokens)))
    if spec.status not in {101, 204}:
        if framing == "length":
            fields.append((b"Content-Length", b"%d" % spec.size))
        elif framing == "chunked":
            fields.append((b"Transfer-Encoding", b"chunked"))
    return tokens, fields
