"""A request on its way to an answer: what an exchange and its attempts share.

Holds values and how far they have come; moves nothing and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.exchange import Progress

if TYPE_CHECKING:
    from lbproc.core.http.exchange import Fault
    from lbproc.core.http.replies import Reply
    from lbproc.proxy.plan import Plan
    from lbproc.proxy.record import Record


class ExchangeFailed(Exception):  # noqa: N818  what happened to the exchange, never an error of this program
    """The exchange cannot go on; carries the fault, and the exact reply where one is known."""

    def __init__(self, fault: Fault, reply: Reply | None = None) -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.reply = reply or fault.reply()

    def bare(self) -> ExchangeFailed:
        """Itself without the frames it came through, to be kept by one of them: no cycle of references."""
        self.__traceback__ = self.__context__ = None
        return self


class PendingRequest:
    """A request until it is answered: what stays the same over all attempts, and how far they have come.

    Attributes:
        plan: says what is to be done.
        head: as the client sent it.
        introduction: the end of the head that the backend gets.
        progress: what decisions depend on.
        record: filled in as things happen.
        early: bytes of the body that came with the head; whatever comes later is gone once it was relayed.
        wants_continue: the client waits for a 100 before it sends the body.
    """

    __slots__ = ("early", "head", "introduction", "plan", "progress", "record", "wants_continue")

    def __init__(self, plan: Plan, introduction: bytes, record: Record, early: bytes) -> None:
        self.plan = plan
        self.head = plan.head
        self.introduction = introduction
        self.progress = Progress(idempotent=plan.is_idempotent)
        self.record = record
        self.early = early
        self.wants_continue = plan.head.expects_continue and not early
