"""A backend's response head that may go on plainly: kept whole, with the bytes that the client gets.

Owns what makes a response plain. Does not move bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.exchange import keeps_backend
from lbproc.core.http.framing import FramingKind
from lbproc.core.http.head import parse_response_head
from lbproc.core.http.render import render_response
from lbproc.proxy.known import is_memorable

if TYPE_CHECKING:
    from lbproc.core.http.head import ResponseHead
    from lbproc.core.memo import Memo

CHUNKED = -1


class Answer:
    """A final response of a delimited length, to a request that is not HEAD.

    Attributes:
        head: the response's.
        wire: what an HTTP/1.1 client gets on a connection that goes on.
        length: bytes of the body, or ``CHUNKED``.
        keeps_backend: the backend's connection may go on, if nothing comes behind the response.
    """

    __slots__ = ("head", "keeps_backend", "length", "wire")

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self.wire = render_response(head, http10_client=False, close=False, body_dechunked=False)
        self.length = CHUNKED if head.framing.kind is FramingKind.CHUNKED else head.framing.length
        self.keeps_backend = keeps_backend(
            backend_wants=head.keep_alive, request_sent=True, delimited=True, excess=False
        )


def read_answer(raw: bytes, method: bytes, known: Memo[Answer]) -> Answer | None:
    """The answer in one whole response head; None when it needs more than passing on.

    Args:
        raw: the head.
        method: of the request; HEAD is not plain.
        known: the memo, in which it was not.

    Raises:
        Rejected: it cannot be passed on.
    """
    head = parse_response_head(raw, method)
    if head.status < 200 or head.framing.kind is FramingKind.UNTIL_CLOSE:
        return None
    answer = Answer(head)
    if is_memorable(head):
        known.offer(raw, answer)
    return answer
