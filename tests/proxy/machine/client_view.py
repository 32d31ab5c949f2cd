"""What may be seen on a client's connection, judged byte by byte as the proxy sends it.

Everything is compared with what was really sent on the other side. Nothing is known of how the proxy works,
but for two rules that hold for any proxy which keeps order: a request reaches a backend when all earlier ones
of its client are answered, and an answer belongs to the first request that has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.proxy.machine import heads
from tests.proxy.machine.account import END, Final, Head, require
from tests.proxy.machine.patience import check_idle_end, check_timeout
from tests.proxy.machine.setting import LINGER, TUNNEL

if TYPE_CHECKING:
    from tests.proxy.machine.account import Account, Arrival
    from tests.proxy.machine.answers import SentAnswer
    from tests.proxy.machine.messages import Exchange
    from tests.proxy.machine.requests import SentRequest

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([ -~]*)\Z")


class ClientView:
    """Judges what the proxy sends to one client.

    Attributes:
        stream: all the client would send.
        client_sent: how much of it the client has sent.
        client_ended: how the client has ended its connection: ``half``, ``close``, ``reset``.
        proxy_received: how much of it the proxy has read.
        proxy_ended: how the proxy has ended the connection: ``fin``, ``reset``.
        finals: the responses, in order; all but the last are complete.
        current: the one that is not complete.
        attempts: by the request's index, the heads that reached backends.
        interim_bytes: of interim responses since the last final one.
        tail: bytes of a head that is not whole yet.
    """

    def __init__(
        self, account: Account, ip: bytes, exchanges: tuple[Exchange, ...], requests: list[SentRequest]
    ) -> None:
        self.account = account
        self.ip = ip
        self.exchanges = exchanges
        self.requests = requests
        self.stream = b""
        self._starts: list[int] = []
        self.body_starts: list[int] = []
        self.ends: list[int] = []
        for request in requests:
            self._starts.append(len(self.stream))
            self.body_starts.append(len(self.stream) + len(request.head))
            self.stream += request.head + request.body
            self.ends.append(len(self.stream))
        self.client_sent = 0
        self.client_ended = ""
        self.proxy_received = 0
        self.proxy_ended = ""
        self.finals: list[Final] = []
        self.current: Final | None = None
        self.attempts: dict[int, list[Arrival]] = {}
        self.in_tunnel = False
        self.tunnel_seen = 0
        self.interim_bytes = 0
        self.tail = 0
        self.opened_at = self.moved_at = self._ended_at = 0.0
        self._receipts: list[tuple[int, float]] = [(0, 0.0)]
        self._buffer = bytearray()
        self._expected = b""
        self._until_fin = False

    # What the proxy has received ----------------------------------------------------------------------------

    def receive(self, count: int) -> None:
        self.proxy_received += count
        self._receipts.append((self.proxy_received, self.account.now))

    def has_begun(self, index: int) -> bool:
        """Whether the proxy has received anything of a request; the empty line before it is nothing."""
        if index == len(self.requests):
            return False
        received = self.proxy_received - self._starts[index]
        return received > 0 and not (received == 2 and self.requests[index].spec.empty_line)

    def has_head(self, index: int) -> bool:
        return index < len(self.requests) and self.proxy_received >= self.body_starts[index]

    def has_all(self, index: int) -> bool:
        return self.proxy_received >= self.ends[index]

    @property
    def received_at(self) -> float:
        return self._receipts[-1][1]

    def began_at(self, index: int) -> float:
        return self._received_at(self._starts[index] + 1)

    def received_whole_head_at(self, index: int) -> float:
        return self._received_at(self.body_starts[index])

    def _received_at(self, place: int) -> float:
        return next(at for received, at in self._receipts if received >= place)

    # What it sends ------------------------------------------------------------------------------------------

    @property
    def is_answering(self) -> bool:
        """A final response has begun and is not complete, or no other may follow."""
        return self.current is not None or self.in_tunnel

    @property
    def client_left(self) -> bool:
        """The client has closed or reset its connection: what becomes of it is nobody's business."""
        return self.client_ended in {"close", "reset"}

    def feed(self, sent: bytes) -> None:
        require(not self._is_over(), "bytes after the last response", sent)
        self._buffer += sent
        self.moved_at = self.account.now
        while self._buffer:
            if self.in_tunnel:
                self._tunnel()
            elif self.current is not None:
                self._body()
            else:
                end = self._buffer.find(END) + 4
                if end < 4:
                    break
                head = Head(bytes(self._buffer[:end]))
                del self._buffer[:end]
                self._head(head)
        self.tail = len(self._buffer)

    def _is_over(self) -> bool:
        return bool(self.finals) and self.finals[-1].closes and not self.is_answering

    def _head(self, head: Head) -> None:
        line = _STATUS_LINE.match(head.start)
        require(line, "not a status line", head.raw)
        assert line is not None
        require(not self._is_over(), "a response after the last one", head.raw)
        status, index = int(line[1]), len(self.finals)
        require(index < len(self.requests), "an answer to no request", head.raw)
        require(self.has_begun(index), "an answer before the request has begun", head.raw)
        serials = head.values(b"x-serial")
        if not serials:
            self._own(status, head, index)
            return
        require(len(serials) == 1 and int(serials[0]) < len(self.account.arrivals), "no answer", head.raw)
        arrival = self.account.arrivals[int(serials[0])]
        require(arrival.client is self, "the answer to another client", head.raw)
        require(arrival.index == index, "the answer to another request", head.raw)
        require(self.attempts[index][-1] is arrival, "the answer to an attempt that was given up", head.raw)
        require(arrival.answer is not None, "an answer that no backend gave", head.raw)
        assert arrival.answer is not None
        if status < 200 and status != 101:
            heads.check_interim(status, head, arrival, arrival.answer)
            arrival.interims_seen += 1
            self.interim_bytes += len(head.raw)
        else:
            self._passed_on(status, head, arrival, arrival.answer)

    def _passed_on(self, status: int, head: Head, arrival: Arrival, answer: SentAnswer) -> None:
        heads.check_passed_on(status, head, arrival, answer)
        dechunked = answer.has_body and answer.is_chunked and arrival.request.spec.http10
        until_fin = answer.has_body and (answer.by_close or dechunked)
        heads.check_framing(head, answer, until_fin=until_fin)
        closes = heads.says_close(head, http10=arrival.request.spec.http10)
        if status == 101:
            self._begin(Final(status, len(head.raw), arrival, closes, self.interim_bytes))
            self.in_tunnel = True
            return
        may_go_on = arrival.request.keep_alive and not until_fin and self.has_all(arrival.index)
        must_close = not may_go_on or arrival.was_answered_in_drain()
        require(closes or not must_close, "a last response that does not say so", head.raw)
        self._expected = answer.data if dechunked else answer.body
        self._until_fin = until_fin
        self._begin(Final(status, len(head.raw), arrival, closes, self.interim_bytes))
        self._finish_body()

    def _own(self, status: int, head: Head, index: int) -> None:
        heads.check_own(status, head, self, index)
        if status in {408, 504}:
            check_timeout(self, status, index)
        request = self.requests[index]
        closes = head.values(b"connection") == [b"close"]
        may_go_on = request.keep_alive and not request.is_malformed and self.has_all(index)
        require(closes or may_go_on, "a last answer that does not say so", head.raw)
        has_body = request.spec.method != b"HEAD" or not self.has_head(index) or request.is_malformed
        self._expected = bytes(int(head.values(b"content-length")[0])) if has_body else b""
        self._until_fin = False
        self._begin(Final(status, len(head.raw), None, closes, self.interim_bytes))
        self._finish_body()

    def _begin(self, final: Final) -> None:
        self.finals.append(final)
        self.current = final
        self.interim_bytes = 0

    def _body(self) -> None:
        final = self.current
        assert final is not None
        seen = final.body_bytes
        piece = bytes(self._buffer[: len(self._expected) - seen])
        require(piece, "bytes after the end of a response", bytes(self._buffer))
        del self._buffer[: len(piece)]
        final.body_bytes += len(piece)
        if final.arrival is not None:
            expected = self._expected[seen : seen + len(piece)]
            require(piece == expected, "a body that the backend did not send", piece, expected)
            answer = final.arrival.answer
            assert answer is not None
            if self._expected is answer.body:
                sent = final.arrival.answer_sent() - answer.head_end
                require(final.body_bytes <= sent, "more of a body than the backend has sent")
        self._finish_body()

    def _finish_body(self) -> None:
        """Completes a response that shows its own end."""
        final = self.current
        assert final is not None
        if not self._until_fin and final.body_bytes == len(self._expected):
            self._complete(final)

    def _complete(self, final: Final) -> None:
        arrival = final.arrival
        if arrival is not None:
            assert arrival.answer is not None
            answer, sent = arrival.answer, arrival.answer_sent()
            require(answer.is_whole, "a broken answer that looks complete", answer.spec)
            require(sent >= answer.head_end + len(answer.body), "an answer that ends before it was sent")
        final.is_complete = True
        self.current = None

    def _tunnel(self) -> None:
        arrival = self.finals[-1].arrival
        assert arrival is not None
        assert arrival.answer is not None
        tunnel = arrival.answer.raw[arrival.answer.head_end : arrival.answer_sent()]
        expected = tunnel[self.tunnel_seen :]
        sent = bytes(self._buffer)
        require(expected.startswith(sent), "tunnel bytes that the backend did not send", sent)
        self.tunnel_seen += len(sent)
        self._buffer.clear()

    # How it ends --------------------------------------------------------------------------------------------

    def end(self, how: str) -> None:
        """The proxy ended the stream: ``fin`` or ``reset``."""
        ended_before, self.proxy_ended = self.proxy_ended, how
        has_lingered = ended_before and self.account.now - self._ended_at >= LINGER
        self._ended_at = self.account.now
        if self.client_left or (self.account.stopped and how == "reset"):
            return
        if how == "reset":
            harmless = self.is_answering or self.tail or has_lingered or self.client_ended
            require(harmless, "a reset that may destroy answers", self.finals)
        elif self.in_tunnel:
            self._end_tunnel()
        elif self.current is not None:
            self._end_by_fin(self.current)
        elif not (self._is_over() or self.tail or self.has_begun(len(self.finals))):
            check_idle_end(self)

    def _end_tunnel(self) -> None:
        """A tunnel ends as its backend ended it, with all its bytes, unless nothing has moved for long."""
        arrival = self.finals[-1].arrival
        assert arrival is not None
        assert arrival.answer is not None
        if self.account.stopped or self.account.now - max(self.moved_at, arrival.conn.moved_at) >= TUNNEL:
            return
        require(arrival.conn.backend_ended_cleanly, "a tunnel whose broken end looks clean")
        sent = arrival.answer_sent() - arrival.answer.head_end
        require(self.tunnel_seen == sent, "a tunnel that ends before its last byte", self.tunnel_seen, sent)

    def _end_by_fin(self, final: Final) -> None:
        """The end of the connection ends a response that is made so; any other would look complete."""
        if final.arrival is None:
            return  # an answer of the proxy's own to a client that does not take it
        answer = final.arrival.answer
        assert answer is not None
        require(self._until_fin, "a broken answer that was not cut", answer.spec, self.finals)
        if answer.by_close:
            cleanly = final.arrival.conn.backend_ended_cleanly
            require(cleanly, "an answer that ends where the backend has not ended it")
            sent = final.arrival.answer_sent() - answer.head_end
            require(final.body_bytes == sent, "a truncated answer that looks complete", answer.spec)
            final.is_complete = True
            self.current = None
        else:
            missing = len(self._expected) - final.body_bytes
            require(not missing, "a truncated answer that looks complete", answer.spec)
            self._complete(final)
