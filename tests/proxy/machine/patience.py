"""That the proxy keeps its timeouts: nothing is given up too soon, and nothing is waited for much longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.proxy.machine.account import require
from tests.proxy.machine.setting import (
    ADDRESSES,
    BODY,
    CONNECT,
    HEADER,
    IDLE,
    READ,
    RESPONSE,
    STEP,
    TUNNEL,
    WRITE,
)  # fmt: skip

if TYPE_CHECKING:
    from tests.proxy.machine.client_view import ClientView

UNANSWERED = (1 + len(ADDRESSES)) * CONNECT + RESPONSE
"""The longest that a whole request waits while nothing moves: after a stale connection for one backend after
another that cannot be reached, then for one that does not answer."""


def check_timeout(view: ClientView, status: int, index: int) -> None:
    """A client was told that somebody was too slow."""
    attempts = view.attempts.get(index)
    if status == 504 and (attempts is None or view.account.has_refused):
        since, span = view.received_whole_head_at(index), CONNECT
    elif status == 504:
        assert attempts is not None
        since, span = attempts[-1].conn.asked_at, RESPONSE
    elif view.has_head(index) and not view.requests[index].is_malformed:
        since, span = view.received_at, BODY
    else:
        since, span = view.began_at(index), HEADER
    waited = view.account.now - since
    require(waited >= span, "a timeout before its time", status, waited)


def check_idle_end(view: ClientView) -> None:
    """A connection on which nothing was under way has been ended."""
    account = view.account
    if account.leaving or account.stopped or view.client_ended:
        return
    since, span = (view.moved_at, IDLE) if view.finals else (view.opened_at, HEADER)
    require(account.now - since >= span, "an idle connection that ends too soon", account.now - since)


def check_progress(view: ClientView) -> None:
    """Something is under way, or may come: it has moved lately, or it would have been given up."""
    index = len(view.finals)
    moved_at = max(view.opened_at, view.moved_at, view.received_at)
    if view.in_tunnel or view.current is not None:
        arrival = view.finals[-1].arrival
        if arrival is not None:
            moved_at = max(moved_at, arrival.conn.moved_at)
        span = TUNNEL if view.in_tunnel else max(READ, WRITE)
    elif view.has_head(index):
        span = UNANSWERED
        moved_at = max([moved_at, *(arrival.conn.moved_at for arrival in view.attempts.get(index, ()))])
    else:
        span = HEADER if view.has_begun(index) else IDLE
    waited = view.account.now - moved_at
    require(waited <= span + STEP, "something that is waited for too long", waited, view.finals)
