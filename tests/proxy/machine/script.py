"""What is drawn for one run of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.proxy.machine.messages import Brief

if TYPE_CHECKING:
    from tests.proxy.machine.messages import Exchange


@dataclass(frozen=True, slots=True, repr=False)
class Action(Brief):
    """One thing that happens.

    Attributes:
        kind: what; the names in ``actions.ACTIONS``.
        who: which of those that it can happen to, counted round.
        amount: of bytes, or of whatever the kind counts.
        at_once: the next action comes before the proxy has noticed this one.
    """

    kind: str
    who: int = 0
    amount: int = 1 << 20
    at_once: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Script(Brief):
    """Everything that is drawn for one run.

    Attributes:
        clients: what each of them sends on its one connection.
        actions: what happens, in order.
        ending: how it ends: ``cooperate`` (everybody finishes what has begun, and parts), ``idle`` (and
            stays), ``vanish`` (nobody does anything any more), ``leave`` (the clients close), ``reset`` (they
            reset), ``stop`` (the worker is cancelled).
        backends: how many there are at first.
        cap: ``max_connections`` of each.
        capacities: bytes in flight: from and to clients, from and to backends.
        fragment: the most bytes that one read of the proxy gets.
        pace: how much clients send and read, and backends read and send, in a round of ``flow``.
        polite: in ``flow`` and ``midway`` clients do not send ahead.
        orderly: nobody misbehaves.
    """

    clients: tuple[tuple[Exchange, ...], ...] = ()
    actions: tuple[Action, ...] = ()
    ending: str = "cooperate"
    backends: int = 1
    cap: int | None = None
    capacities: tuple[int, int, int, int] = (65536, 65536, 65536, 65536)
    fragment: int = 1 << 20
    pace: tuple[int, int, int, int] = (1 << 20, 1 << 20, 1 << 20, 1 << 20)
    polite: bool = False
    orderly: bool = False
