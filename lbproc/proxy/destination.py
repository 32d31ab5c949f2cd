"""Where something goes: the pool that a route leads to, and how the log says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.telemetry.entry import render_routed

if TYPE_CHECKING:
    from lbproc.proxy.balancer import Balancer


class Destination:
    """Where a route leads.

    Attributes:
        balancer: of the pool; None: nowhere.
        routed: the log members that say so.
    """

    __slots__ = ("balancer", "routed")

    def __init__(self, route: str | None, balancer: Balancer | None) -> None:
        self.balancer = balancer
        self.routed = render_routed(route, None if balancer is None else balancer.name)
