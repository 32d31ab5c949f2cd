"""What is left when everybody is gone: nothing. And every client that behaved has its answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.proxy.machine.account import require
from tests.proxy.machine.books import judge_books

if TYPE_CHECKING:
    from tests.proxy.machine.client_view import ClientView
    from tests.proxy.machine.world import MachineRig, World


def audit(world: World) -> None:
    """Looks for tasks, sockets, places and deadlines that are left, then into the books."""
    rig, clients = world.rig, world.clients
    require(not any(client.is_served for client in clients), "a task that is left")
    require(all(client.tap.is_closed for client in clients), "a client connection that is left open")
    require(len(rig.view.ledger) == 0, "places that are left taken")
    require(not any(rig.in_flights()), "requests left in flight")
    for tap in world.taps():
        require(not tap.source.is_parked, "somebody parked on a connection")
    rig.deadlines.sweep(math.inf)
    require(rig.deadlines.watched == 0, "deadlines that are left watched", rig.deadlines.watched)
    _judge_idle(rig, world.account.now)
    judge_books(rig, [client.view for client in clients])
    if world.script.ending in {"cooperate", "idle"}:
        for client in clients:
            _judge_answers(client.view)


def _judge_idle(rig: MachineRig, now: float) -> None:
    """Backend connections that are open now are idle, quiet, and gone when they are old."""
    rig.runtime.close_aged(now)
    for conn in rig.conns:
        if not conn.tap.is_closed:
            require(conn.tap.is_quiet(), "an idle connection on which something came")
            require(conn.view.is_between, "an open connection that is not idle", conn.view.address)
            require(conn.tap.source.reflex is None, "an idle connection with a reflex")
    rig.runtime.close_aged(now + 3600)
    left = [conn.view.address for conn in rig.conns if not conn.tap.is_closed]
    require(not left, "backend connections that are left open", left)


def _judge_answers(view: ClientView) -> None:
    """A client that did not end its connection itself has an answer to each request, or was told why not."""
    complete = sum(final.is_complete for final in view.finals)
    if complete == len(view.requests) or view.client_ended:
        return
    last = view.finals[-1] if view.finals else None
    told = last is not None and (last.closes or view.in_tunnel or not last.is_complete)
    if view.account.orderly:
        whole = last is not None and (last.is_complete or view.in_tunnel)
        require(told and whole, "unanswered", view.finals)
    if not told and not view.tail:  # a client that does not read is given up within a head
        require(not view.has_begun(len(view.finals)), "a request without an answer", view.finals)
