"""Clients and backends of the machine, each at the far end of a connection whose near end is tapped.

Peers never wait: they do what is possible and leave the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.net.transport import ConnectionLost
from tests.proxy.machine.answers import EXCESS, render_answer
from tests.proxy.machine.messages import Answer

if TYPE_CHECKING:
    from lbproc.net.memory import MemoryTransport
    from tests.proxy.machine.account import Arrival
    from tests.proxy.machine.backend_view import BackendView
    from tests.proxy.machine.client_view import ClientView
    from tests.proxy.machine.tap import Tap


class Peer:
    """Either kind of peer.

    Attributes:
        tap: the proxy's end of the connection.
        end: the peer's.
        read: how many bytes it has read.
        ended: how it has ended its sending: ``half``, ``close``, ``reset``; ``lost``: the proxy has.
    """

    def __init__(self, tap: Tap, end: MemoryTransport) -> None:
        self.tap = tap
        self.end = end
        self.read = 0
        self.ended = ""

    @property
    def is_there(self) -> bool:
        return not self.end.is_closed

    def take(self, amount: int) -> int:
        """Reads. Returns how much."""
        taken = 0
        while taken < amount and self.is_there:
            try:
                data = self.end.recv(amount - taken)
            except ConnectionLost:
                self.ended = self.ended or "lost"
                break
            if not data:
                break
            taken += len(data)
        self.read += taken
        return taken

    def give(self, data: bytes) -> int:
        """Sends. Returns how much."""
        if not data or not self.is_there or self.ended:
            return 0
        try:
            return self.end.send(data)
        except ConnectionLost:
            self.ended = "lost"
            return 0

    def finish(self, how: str) -> str:
        """Ends the connection: ``half``, ``close`` or ``reset``. Returns what came of it, or ""."""
        if not self.is_there or (how == "half" and self.ended):
            return ""
        if how == "close" and self.end._inbox:
            how = "reset"  # which the kernel makes of it, because of what was not read
        self.ended = how
        if how == "half":
            self.end.shutdown_write()
        elif how == "close":
            self.end.close()
        else:
            self.end.abort()
        return how


class Client(Peer):
    """A client. It sends one request after another, as far ahead as it is made to."""

    def __init__(self, tap: Tap, end: MemoryTransport, view: ClientView) -> None:
        super().__init__(tap, end)
        self.view = view
        self.is_served = True
        """The proxy's task is there."""

    def send_on(self, amount: int, *, polite: bool) -> int:
        """Sends what is next; when polite no request before the one before it is answered."""
        view = self.view
        if polite and not view.in_tunnel:
            index = min(len(view.finals) - (view.current is not None), len(view.ends) - 1)
            amount = min(amount, view.ends[index] - view.client_sent)
        return self.send(max(0, amount))

    def send(self, amount: int) -> int:
        view = self.view
        sent = self.give(view.stream[view.client_sent : view.client_sent + amount])
        view.client_sent += sent
        return sent

    def finish(self, how: str) -> str:
        ended = super().finish(how)
        self.view.client_ended = ended or self.view.client_ended
        return ended


class Conn(Peer):
    """A connection that the proxy has opened to a backend, and the server at its far end."""

    def __init__(self, tap: Tap, end: MemoryTransport, view: BackendView) -> None:
        super().__init__(tap, end)
        self.view = view
        self._answered = 0
        self._ending = ""
        """How the connection ends after the answer under way; ``keep``: nothing follows any more."""

    def think(self) -> bool:
        """Answers what has been read. Returns whether there was anything to answer."""
        arrivals = self.view.arrivals
        if self._ending or self._answered == len(arrivals):
            return False
        arrival = arrivals[self._answered]
        spec = _planned(arrival)
        needed = arrival.head_end if spec.early else arrival.end
        if needed is None or self.read < needed:
            return False
        arrival.answer = render_answer(spec, arrival.serial, arrival.request)
        arrival.answer_at = self.view.backend_sent
        self._answered += 1
        if spec.end != "keep" or spec.spoil == "empty":
            self._ending = spec.end
        return True

    @property
    def unsent(self) -> bytes:
        """What is still to come of the answer under way."""
        if not self._answered or self.ended:
            return b""
        last = self.view.arrivals[self._answered - 1]
        assert last.answer is not None
        return last.answer.raw[self.view.backend_sent - last.answer_at :]

    def send(self, amount: int) -> int:
        """Goes on with the answer, and ends the connection after it. Returns 0 if nothing could be done."""
        sent = self.give(self.unsent[: max(0, amount)])
        self.view.backend_sent += sent
        has_time = not (sent and self._ending == "reset")  # a reset destroys what was not read before
        if not self.unsent and self._ending not in {"", "keep"} and has_time:
            self.finish(self._ending)
            return 1
        return sent

    def blurt(self) -> None:
        """Says something where nobody has asked."""
        if self.view.is_between and not self.ended and (sent := self.give(EXCESS)):
            self._ending = "keep"
            self.view.backend_blurted = True
            self.view.backend_sent += sent

    def finish(self, how: str) -> str:
        self._ending = "keep"
        ended = super().finish(how)
        self.view.backend_ended = ended or self.view.backend_ended
        self.view.backend_ended_cleanly |= ended in {"half", "close"}
        return ended


def _planned(arrival: Arrival) -> Answer:
    """What is answered to this attempt at a request."""
    answers = arrival.client.exchanges[arrival.index].answers
    attempt = arrival.client.attempts[arrival.index].index(arrival)
    return answers[min(attempt, len(answers) - 1)]
