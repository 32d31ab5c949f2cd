"""What may be seen on the proxy's connections to backends, judged byte by byte as the proxy sends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.proxy.machine.account import END, Arrival, Head, require
from tests.proxy.machine.messages import FORWARDED, HOP_BY_HOP, IDEMPOTENT
from tests.proxy.machine.setting import TUNNEL

if TYPE_CHECKING:
    from tests.proxy.machine.account import Account
    from tests.proxy.machine.requests import SentRequest

_REQUEST_LINE = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1\Z")
_REQUEST_ID = re.compile(rb"[0-9a-f]{32}\Z")
_TRACE = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01\Z")
_NOT_KEPT = FORWARDED | HOP_BY_HOP | {b"via", b"expect"}


class BackendView:
    """Judges what the proxy sends on one connection to a backend.

    Attributes:
        arrivals: the requests that came on it, in order; all but the last are complete.
        backend_sent: how much the backend has sent.
        backend_ended: how the backend has ended the connection: ``half``, ``close``, ``reset``.
        backend_ended_cleanly: at first, at least: no reset.
        backend_blurted: it has said something where nobody asked.
        backend_sent_before_drain: ``backend_sent`` when the worker began to drain.
        proxy_received: how much of it the proxy has read.
        proxy_ended: how the proxy has ended the connection: ``fin``, ``reset``.
        moved_at: when the proxy read or sent something last.
        asked_at: when it sent something last.
    """

    def __init__(self, account: Account, address: str) -> None:
        self.account = account
        self.address = address
        self.arrivals: list[Arrival] = []
        self.backend_sent = 0
        self.backend_ended = ""
        self.backend_ended_cleanly = False
        self.backend_blurted = False
        self.backend_sent_before_drain = 0
        self.proxy_received = 0
        self.proxy_ended = ""
        self.moved_at = self.asked_at = account.now
        self._seen = 0
        self._buffer = bytearray()
        self._tunnel_seen = 0

    @property
    def is_between(self) -> bool:
        """All that was asked was answered, and nothing is being asked."""
        if self._buffer or not self.arrivals:
            return False
        last = self.arrivals[-1]
        return (
            last.is_complete
            and last.answer is not None
            and last.answer.reusable
            and last.answer_sent() == len(last.answer.raw)
        )

    def receive(self, count: int) -> None:
        self.proxy_received += count
        self.moved_at = self.account.now

    def feed(self, sent: bytes) -> None:
        if not self._buffer and self._is_at_boundary() and not self._is_tunnel():
            self._check_reuse(sent)
        self._seen += len(sent)
        self._buffer += sent
        self.moved_at = self.asked_at = self.account.now
        while self._buffer:
            if self._is_tunnel():
                self._tunnel()
            elif self._is_at_boundary():
                end = self._buffer.find(END) + 4
                if end < 4:
                    return
                head = Head(bytes(self._buffer[:end]))
                del self._buffer[:end]
                self._arrive(head)
            else:
                self._body()

    def end(self, how: str) -> None:
        """The proxy ended the connection: ``fin`` or ``reset``."""
        self.proxy_ended = how
        if how == "fin" and self._is_tunnel() and not (self.backend_ended or self.account.stopped):
            self._end_tunnel(self.arrivals[-1])

    def _end_tunnel(self, arrival: Arrival) -> None:
        """A tunnel ends as its client ended it, with all its bytes, unless nothing has moved for long."""
        client = arrival.client
        if not client.in_tunnel or self.account.now - self.moved_at >= TUNNEL:
            return
        require(client.client_ended, "a tunnel that ends though nobody has ended it")
        require(client.client_ended != "reset", "a tunnel whose reset end looks clean")
        sent = client.client_sent - client.ends[arrival.index]
        require(self._tunnel_seen == sent, "a tunnel that ends before its last byte", self._tunnel_seen, sent)

    def _is_at_boundary(self) -> bool:
        return not self.arrivals or self.arrivals[-1].is_complete

    def _is_tunnel(self) -> bool:
        if not self.arrivals or not self.arrivals[-1].is_complete:
            return False
        last = self.arrivals[-1]
        answer = last.answer
        return answer is not None and answer.spec.status == 101 and 0 < answer.head_end <= last.answer_sent()

    def _check_reuse(self, sent: bytes) -> None:
        """A request begins on the connection."""
        require(not self.backend_ended, "a request on a connection that the backend has ended", sent)
        require(not self.backend_blurted, "a request on a connection with unasked bytes", sent)
        if not self.arrivals:
            return
        last = self.arrivals[-1]
        answer = last.answer
        require(answer is not None, "a request on a connection that waits for an answer", sent)
        assert answer is not None
        if last.answer_sent() == answer.excess_at > 0 and answer.is_kept:
            answer.forgo_excess()
        require(answer.reusable, "a request on a connection that cannot be used again", sent, answer.spec)
        require(last.answer_sent() == len(answer.raw), "a request before the answer is complete", sent)
        require(self.proxy_received == self.backend_sent, "a request before the answer is read", sent)

    def _arrive(self, head: Head) -> None:
        line = _REQUEST_LINE.match(head.start)
        require(line, "not a request line", head.start)
        assert line is not None
        ips = head.values(b"x-forwarded-for")
        require(len(ips) == 1 and ips[0] in self.account.clients, "a request of nobody", head.raw)
        client = self.account.clients[ips[0]]
        require(not client.is_answering, "a request before the one before it is answered", head.raw)
        index = len(client.finals)
        require(index < len(client.requests), "a request that nobody sent", head.raw)
        request = client.requests[index]
        require(client.has_head(index), "a request ahead of its time", head.raw)
        require(request.goes_on, "a refused request at a backend", head.raw)
        asked = (request.spec.method, request.target)
        require(line.groups() == asked, "another request", head.raw, request.head)
        _check_fields(head, request)
        arrival = Arrival(
            serial=len(self.account.arrivals),
            conn=self,
            client=client,
            index=index,
            request=request,
            request_id=head.values(b"x-request-id")[0],
            head_end=self._seen - len(self._buffer),
            received_before=self.proxy_received,
        )
        self._check_repetition(arrival)
        self.account.arrivals.append(arrival)
        self.arrivals.append(arrival)
        client.attempts.setdefault(index, []).append(arrival)

    def _check_repetition(self, arrival: Arrival) -> None:
        before = arrival.client.attempts.get(arrival.index)
        if before is None:
            known = {other.request_id for other in self.account.arrivals}
            require(arrival.request_id not in known, "a request id that was used before", arrival.request_id)
            return
        request, last = arrival.request, before[-1]
        require(request.spec.method in IDEMPOTENT, "a request sent twice that may not be", request.head)
        require(last.request_id == arrival.request_id, "another id for the same request")
        require(len(last.conn.arrivals) > 1, "a retry after a fresh connection failed", request.head)
        require(last.conn.proxy_received == last.received_before, "a retry after the backend answered")
        require(last.conn.proxy_ended, "a retry while the first try is under way")

    def _body(self) -> None:
        arrival = self.arrivals[-1]
        seen, body = arrival.body_seen, arrival.request.body
        require(seen < len(body), "bytes after a request", bytes(self._buffer), arrival.request.head)
        piece = bytes(self._buffer[: len(body) - seen])
        require(body[seen : seen + len(piece)] == piece, "a body that its client did not send", piece, body)
        arrival.body_seen += len(piece)
        sent = arrival.client.proxy_received - arrival.client.body_starts[arrival.index]
        require(arrival.body_seen <= sent, "more of a body than the client has sent")
        del self._buffer[: len(piece)]

    def _tunnel(self) -> None:
        arrival = self.arrivals[-1]
        client = arrival.client
        begin = client.ends[arrival.index] + self._tunnel_seen
        sent = bytes(self._buffer)
        expected = client.stream[begin : client.proxy_received]
        require(expected.startswith(sent), "tunnel bytes that the client did not send", sent)
        self._tunnel_seen += len(sent)
        self._buffer.clear()


def _check_fields(head: Head, request: SentRequest) -> None:
    """The client's fields go on, without those of its connection; the proxy's say who asks."""
    spec, raw = request.spec, head.raw
    kept = head.without(_NOT_KEPT)
    require(kept == request.kept, "fields that are not the client's", kept, request.kept)
    require(_REQUEST_ID.match(b",".join(head.values(b"x-request-id"))), "no request id of ours", raw)
    require(_TRACE.match(b",".join(head.values(b"traceparent"))), "no trace of ours", raw)
    waits = spec.framing == "chunked" or (spec.framing == "length" and spec.size > 0)
    expected = {
        b"x-forwarded-host": [b"example.com"],
        b"x-forwarded-proto": [b"http"],
        b"via": [b"1.0 lbproc" if spec.http10 else b"1.1 lbproc"],
        b"content-length": [b"%d" % spec.size] * (spec.framing == "length"),
        b"transfer-encoding": [b"chunked"] * (spec.framing == "chunked"),
        b"expect": [b"100-continue"] * (spec.expects and waits and not spec.http10),
        b"upgrade": [b"websocket"] * request.may_switch,
        b"connection": [b"upgrade"] * request.may_switch,
    }
    for name, said in expected.items():
        require(head.values(name) == said, "a field that says something else", name, raw)
