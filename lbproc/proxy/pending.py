"""A request on its way to an answer: what an exchange and its attempts share.

Holds values and how far they have come; moves nothing and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.exchange import Progress
from lbproc.core.http.framing import FramingKind

if TYPE_CHECKING:
    from lbproc.core.http.body import Body
    from lbproc.core.http.chunked import AnyBytes
    from lbproc.core.http.exchange import Fault
    from lbproc.core.http.replies import Reply
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.record import Record
    from lbproc.types import Seconds


class ExchangeFailed(Exception):  # noqa: N818  what happened to the exchange, never an error of this program
    """The exchange cannot go on; carries the fault, and the exact reply and reason where these are known."""

    def __init__(self, fault: Fault, reply: Reply | None = None, reason: str = "") -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.reply = reply or fault.reply()
        self.reason = reason or self.reply.detail
        """For the log, and nobody else."""

    def bare(self) -> ExchangeFailed:
        """Itself without the frames it came through, to be kept by one of them: no cycle of references."""
        self.__traceback__ = self.__context__ = None
        return self


class AnswerDeclined(Exception):  # noqa: N818  what the failover has decided
    """The backend has answered, and the request goes to another one instead."""


class KeptBody:
    """A request body that goes through, of which a beginning is kept to be sent again.

    Args:
        body: knows the end.
        most: bytes that are kept; of a longer body nothing is.

    Attributes:
        kept: what went through so far; None when that was too much.
        excess: bytes that came behind the end.
    """

    __slots__ = ("_body", "_most", "complete", "excess", "kept")

    def __init__(self, body: Body, most: int) -> None:
        self._body = body
        self._most = most
        self.complete = body.complete
        self.excess = b""
        self.kept: bytearray | None = bytearray()

    @property
    def lines(self) -> int:
        """Lines of framing read so far."""
        return self._body.lines

    def take(self, data: AnyBytes) -> tuple[AnyBytes, bytes]:
        """What is to be relayed, and the excess."""
        relayed, self.excess = self._body.take(data)
        self.complete = self._body.complete
        if self.kept is not None:
            if len(self.kept) + len(relayed) <= self._most:
                self.kept += relayed
            else:
                self.kept = None
        return relayed, self.excess

    def at_eof(self, *, is_truncated: bool = False) -> bool:
        """Whether the body may end here."""
        return self._body.at_eof(is_truncated=is_truncated)


class PendingRequest:
    """A request until it is answered: what stays the same over all attempts, and how far they have come.

    Attributes:
        plan: says what is to be done.
        head: as the client sent it.
        introduction: the end of the head that the backend gets.
        progress: what decisions depend on.
        record: filled in as things happen.
        early: bytes of the body that came with the head; whatever comes later is gone once it was relayed,
            unless it is kept.
        wants_continue: the client waits for a 100 before it sends the body.
        continued: this is not the first try, and the client does not wait for one any more.
        keeps: bytes of a body that are kept to be sent again; 0: none.
        kept: the body of the attempt under way, if it is kept.
        per_try: seconds that one try may take to the head of its response; None for no limit of its own.
        tried_since: when the try under way began.
    """

    __slots__ = (
        "continued",
        "early",
        "head",
        "introduction",
        "keeps",
        "kept",
        "per_try",
        "plan",
        "progress",
        "record",
        "tried_since",
        "wants_continue",
    )

    def __init__(self, plan: Plan, introduction: bytes, record: Record, early: bytes) -> None:
        self.plan = plan
        self.head = plan.head
        self.introduction = introduction
        self.progress = Progress(idempotent=plan.is_idempotent)
        self.record = record
        self.early = early
        self.wants_continue = plan.head.expects_continue and not early
        self.continued = False
        self.keeps = 0
        self.kept: KeptBody | None = None
        self.per_try: Seconds | None = None
        self.tried_since = 0.0

    def is_at_hand(self, most: int) -> bool:
        """Whether all that was taken of the request is here to be sent again, and no more than ``most``."""
        if self.kept is not None:
            return self.kept.kept is not None
        if self.head.framing.kind is FramingKind.NO_BODY:
            return True
        return not self.progress.body_consumed and len(self.early) <= most

    def forget(self) -> None:
        """Lets go of what was kept: its answer is passed on now."""
        if self.kept is not None:
            self.kept.kept = None

    def rewind(self) -> None:
        """Makes it ready for another attempt from its beginning; it is at hand."""
        if self.kept is not None:
            assert self.kept.kept is not None
            self.early = bytes(self.kept.kept)
            if not self.progress.request_sent:  # else the client's connection has it back
                self.early += self.kept.excess
            self.kept = None
        self.continued = not self.wants_continue
        self.progress.rewind()
        record = self.record
        record.responded_at = record.connected_at = 0.0
