"""What the head of a response that a client gets has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proxy.machine.account import require
from tests.proxy.machine.messages import HOP_BY_HOP

if TYPE_CHECKING:
    from tests.proxy.machine.account import Arrival, Head
    from tests.proxy.machine.answers import SentAnswer
    from tests.proxy.machine.client_view import ClientView


def check_interim(status: int, head: Head, arrival: Arrival, answer: SentAnswer) -> None:
    """An interim response is passed on, once."""
    require(not arrival.request.spec.http10, "an interim response to an HTTP/1.0 client", head.raw)
    planned = answer.interims[arrival.interims_seen : arrival.interims_seen + 1]
    require(planned == [status], "an interim response that no backend sent", head.raw)
    require([name for name, _ in head.fields] == [b"X-Serial", b"Link"], "another interim", head.raw)


def check_passed_on(status: int, head: Head, arrival: Arrival, answer: SentAnswer) -> None:
    """A final response says what its backend said, and no earlier."""
    require(status == answer.spec.status, "another status", head.raw, answer.spec)
    require(answer.head_end > 0, "an answer that should have been refused", head.raw, answer.spec)
    require(arrival.answer_sent() >= answer.head_end, "an answer before it was sent", head.raw)
    all_seen = arrival.interims_seen == len(answer.interims)
    require(arrival.request.spec.http10 or all_seen, "lost interim responses", head.raw)
    kept = head.without(HOP_BY_HOP)
    require(kept == answer.kept, "fields that are not the backend's", kept, answer.kept)
    allowed = {b"", b"close", b"keep-alive", b"upgrade"}
    require(_options(head) <= allowed, "hop-by-hop options passed on", head.raw)


def check_framing(head: Head, answer: SentAnswer, *, until_fin: bool) -> None:
    """The length of the body is said in one way, which is the right one."""
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    said = [b"%d" % answer.spec.size]
    if not answer.has_body:
        require(lengths in ([], said) and not codings, "framing of a body that is not there", head.raw)
    elif until_fin:
        require(not lengths and not codings, "framing of a body without", head.raw)
    elif answer.is_chunked:
        require(not lengths and codings == [b"chunked"], "framing that is not chunked", head.raw)
    else:
        require(lengths == said and not codings, "another length", head.raw)


def says_close(head: Head, *, http10: bool) -> bool:
    options = _options(head)
    return b"close" in options or (http10 and b"keep-alive" not in options)


def _options(head: Head) -> set[bytes]:
    return {token.strip().lower() for token in b",".join(head.values(b"connection")).split(b",")}


def check_own(status: int, head: Head, view: ClientView, index: int) -> None:
    """An answer of the proxy's own names its cause, and there is one."""
    proxied = head.values(b"proxy-status")
    by_us = len(proxied) == 1 and proxied[0].startswith(b"lbproc; error=")
    require(by_us, "an answer of nobody", head.raw)
    request = view.requests[index]
    refusals = request.refusals
    if not view.has_head(index) or request.is_malformed:
        others = {408}
    else:
        others = {408, 502, 503, 504} if request.goes_on else set()
    require(status in refusals | others, "an answer without a cause", head.raw, request.spec)
    if view.account.orderly:
        require(status in refusals, "an error though nobody misbehaved", head.raw, request.spec)
    lengths = head.values(b"content-length")
    require(len(lengths) == 1 and not head.values(b"transfer-encoding"), "our own framing", head.raw)
