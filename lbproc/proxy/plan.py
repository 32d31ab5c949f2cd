"""What follows from a request's head and the configuration alone, worked out once for heads that repeat.

Owns the memo of whole heads of one listener. Nothing in a plan depends on the connection or the moment:
neither the peer, nor ids, nor the backend. Whom a listener trusts makes two kinds of peers, whose forwarding
headers go on or do not; each kind has a planner of its own. So has each kind of TLS: which hosts may be asked
for on a connection depends on which certificate its client was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.http.exchange import IDEMPOTENT, keeps_client
from lbproc.core.http.framing import CHUNKED
from lbproc.core.http.head import parse_request_head
from lbproc.core.http.render import render_origin, render_request_start
from lbproc.core.memo import Memo
from lbproc.proxy.cautious import CautiousExchange
from lbproc.proxy.known import KNOWN_HEAD_SIZE, KNOWN_HEADS, is_memorable
from lbproc.proxy.plain import PlainExchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.core.http.head import RequestHead
    from lbproc.proxy.balancer import Balancer
    from lbproc.proxy.http_listener import Directions

MAX_PLAIN_BODY = 8192
"""Bytes of a request's body that reflexes send with its head, when they have come with it."""


class Audience:
    """Peers that came alike, as far as plans for their requests depend on it.

    Args:
        scheme: how they speak: ``http`` or ``https``.
        serves: says of a host whether it may be asked for on their connections; None: any may.
    """

    __slots__ = ("scheme", "serves")

    def __init__(self, scheme: str, serves: Callable[[str], bool] | None = None) -> None:
        self.scheme = scheme
        self.serves = serves


IN_CLEAR = Audience("http")


class Plan:
    """What is to be done with a request.

    Attributes:
        head: the request's.
        size: bytes of the head as it came.
        balancer: the pool that serves it; None: no route matches.
        refusal: what is answered where there is no pool.
        start: the beginning of the head that the backend gets, up to the forwarding headers.
        origin: of an untrusted peer's forwarding headers the part that follows from the head.
        keeps_client: the connection may go on after a response that is delimited.
        is_idempotent: it may be sent twice.
        plain: makes the exchange that serves it plainly.
        is_plain: it may be served by reflexes: a small body or none, nothing to negotiate.
        body_length: bytes of a plain request's body.
        routed: the log members that follow from the route.
        asked: the log members that follow from the head.
    """

    __slots__ = (
        "asked",
        "balancer",
        "body_length",
        "head",
        "is_idempotent",
        "is_plain",
        "keeps_client",
        "origin",
        "plain",
        "refusal",
        "routed",
        "size",
        "start",
    )

    def __init__(
        self,
        head: RequestHead,
        size: int,
        directions: Directions,
        audience: Audience = IN_CLEAR,
        *,
        trusted: bool,
    ) -> None:
        self.head = head
        self.size = size
        destination, self.refusal = directions.settle(head, audience)
        self.balancer: Balancer | None = destination.balancer
        self.routed = destination.routed
        self.start = render_request_start(head, trusted=trusted)
        self.origin = b"" if trusted else render_origin(head, audience.scheme)
        has_retries = self.balancer is not None and self.balancer.retries is not None
        self.plain: type[PlainExchange] = CautiousExchange if has_retries else PlainExchange
        self.is_idempotent = head.method in IDEMPOTENT
        self.keeps_client = keeps_client(
            client_wants=head.keep_alive, request_sent=True, delimited=True, draining=False
        )
        framing = head.framing
        self.body_length = framing.length
        self.is_plain = (
            self.balancer is not None
            and framing is not CHUNKED
            and framing.length <= directions.max_plain_body
            and head.method != b"HEAD"  # whose answers have a head like others and no body
            and head.upgrade is None
            and not head.expects_continue
            and not head.http10
        )
        self.asked = directions.log_format.asked(head)


class Planner:
    """Makes the plans of one listener for one kind of peer.

    Args:
        directions: the listener's limits and routes.
        audience: how these peers came.
        trusted: they are trusted proxies.

    Attributes:
        find: the plan of a head that was seen before, or None.
        scheme: how these peers speak.
    """

    __slots__ = ("_audience", "_directions", "_memo", "_trusted", "find", "scheme")

    def __init__(self, directions: Directions, audience: Audience = IN_CLEAR, *, trusted: bool) -> None:
        self._directions = directions
        self._audience = audience
        self.scheme = audience.scheme
        self._trusted = trusted
        self._memo: Memo[Plan] = Memo(KNOWN_HEADS, KNOWN_HEAD_SIZE)
        self.find: Callable[[bytes], Plan | None] = self._memo.get

    def plan(self, raw: bytes) -> Plan:
        """The plan of one whole head.

        Raises:
            Rejected: it cannot be forwarded.
        """
        plan = self.find(raw)
        if plan is None:
            head = parse_request_head(raw, self._directions.head_limits)
            plan = Plan(head, len(raw), self._directions, self._audience, trusted=self._trusted)
            if is_memorable(head):
                self._memo.offer(raw, plan)
        return plan

    def plan_again(self, plan: Plan) -> Plan:
        """The plan of a head that another planner has read."""
        return Plan(plan.head, plan.size, self._directions, self._audience, trusted=self._trusted)

    def forget(self) -> None:
        """Forgets all heads, for good: new ones are planned one by one."""
        self._memo.close()
