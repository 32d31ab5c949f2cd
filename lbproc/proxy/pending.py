"""A request on its way to an answer: what an exchange and its attempts share.

Holds values and how far they have come; moves nothing and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbproc.core.http.exchange import Fault, Progress
    from lbproc.core.http.forwarding import Forwarding
    from lbproc.core.http.head import RequestHead
    from lbproc.core.http.replies import Reply
    from lbproc.proxy.record import Record


class ExchangeFailed(Exception):  # noqa: N818  what happened to the exchange, never an error of this program
    """The exchange cannot go on; carries the fault, and the exact reply where one is known."""

    def __init__(self, fault: Fault, reply: Reply | None = None) -> None:
        super().__init__(fault.name)
        self.fault = fault
        self.reply = reply or fault.reply()


class PendingRequest:
    """A request until it is answered: what stays the same over all attempts, and how far they have come.

    Attributes:
        head: as the client sent it.
        forwarding: what the backend is told of the client.
        progress: what decisions depend on.
        record: filled in as things happen.
        early: bytes of the body that came with the head; whatever comes later is gone once it was relayed.
        head_bytes: the size of the head.
        wants_continue: the client waits for a 100 before it sends the body.
    """

    __slots__ = ("early", "forwarding", "head", "head_bytes", "progress", "record", "wants_continue")

    def __init__(
        self, head: RequestHead, forwarding: Forwarding, progress: Progress, record: Record, early: bytes
    ) -> None:
        self.head = head
        self.forwarding = forwarding
        self.progress = progress
        self.record = record
        self.early = early
        self.head_bytes = record.bytes_in
        self.wants_continue = head.expects_continue and not early
