"""Requests as clients send them in the machine, and what a proxy has to make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.proxy.machine.messages import FORWARDED, HOP_BY_HOP, MALFORMED
from tests.proxy.machine.setting import MAX_BODY
from tests.proxy.machine.wire import broken_chunks, chunks, lines, options, payload

if TYPE_CHECKING:
    from tests.proxy.machine.messages import Fields, Request


@dataclass(frozen=True, slots=True, repr=False)
class SentRequest:
    """A request as its client sends it, and what a backend has to receive.

    Attributes:
        refusals: the statuses it is refused with; empty if it is not.
        kept: the fields that go on, in order, Host first.
    """

    spec: Request
    head: bytes
    body: bytes
    target: bytes
    refusals: frozenset[int]
    kept: Fields
    keep_alive: bool

    @property
    def is_whole(self) -> bool:
        """Whether it may reach a backend complete."""
        return not self.refusals

    @property
    def goes_on(self) -> bool:
        """Whether it may reach a backend, though perhaps not complete."""
        return self.is_whole or (self.spec.spoil in {"bad-chunk", "over-limit"} and not self.spec.unrouted)

    @property
    def is_malformed(self) -> bool:
        return self.spec.spoil in MALFORMED

    @property
    def may_switch(self) -> bool:
        """Whether it asks for another protocol, which an HTTP/1.0 client cannot."""
        return self.spec.upgrades and not self.spec.http10


def render_request(spec: Request, client: int, index: int) -> SentRequest:
    """Writes a request of a client."""
    target = (b"/none" if spec.unrouted else b"/a") + (b"/%d-%d?x" % (client, index) if spec.unique else b"")
    body = _body(spec, b"c%d.%d;" % (client, index))
    tokens = options(spec.connection, spec.headers)
    fields = [(b"Host", b"example.com"), *spec.headers]
    if spec.upgrades:
        tokens.append(b"Upgrade")
        fields.append((b"Upgrade", b"websocket"))
    if tokens:
        fields.append((b"Connection", b", ".join(tokens)))
    if spec.expects:
        fields.append((b"Expect", b"100-continue"))
    if spec.framing == "length":
        fields.append((b"Content-Length", b"%d" % (10**9 if spec.spoil == "too-long" else len(body))))
    elif spec.framing == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
    head = b"%b %b HTTP/1.%d\r\n" % (spec.method, target, not spec.http10) + lines(tuple(fields))
    if spec.spoil in MALFORMED:
        head += MALFORMED[spec.spoil][0]
    lowered = {token.lower() for token in tokens}
    dropped = HOP_BY_HOP | FORWARDED | lowered | {b"expect"}
    return SentRequest(
        spec=spec,
        head=(b"\r\n" if spec.empty_line else b"") + head + b"\r\n",
        body=body,
        target=target,
        refusals=_refusals(spec),
        kept=tuple(pair for pair in fields if pair[0].lower() not in dropped),
        keep_alive=b"keep-alive" in lowered if spec.http10 else b"close" not in lowered,
    )


def _body(spec: Request, mark: bytes) -> bytes:
    data = payload(mark, spec.size)
    if spec.framing != "chunked":
        return data if spec.framing == "length" else b""
    if spec.spoil == "bad-chunk":
        return broken_chunks(data, b"5 ")
    if spec.spoil == "over-limit":
        return b"%x\r\n%b\r\n0\r\n\r\n" % (MAX_BODY + 1, payload(mark, MAX_BODY + 1))
    return chunks(data)


def _refusals(spec: Request) -> frozenset[int]:
    if spec.spoil in MALFORMED:
        return frozenset(MALFORMED[spec.spoil][1])
    if spec.spoil == "too-long":
        return frozenset({413})
    if spec.unrouted:
        return frozenset({404})
    statuses = {"bad-chunk": {400}, "over-limit": {413}}
    return frozenset(statuses.get(spec.spoil, ()))
