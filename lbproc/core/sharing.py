"""Decides whether a worker keeps a connection that it has just accepted, or which sibling gets it.

The kernel spreads connections over the workers by hash. That is even when they are many. When they are few
and long, some worker has twice the load of another and stays so. A worker that holds clearly more than its
share gives the next one to the sibling that has fewest.

"Clearly more" is a sixteenth and one and a half connections above the share. With thousands of connections
the hash strays by two or three percent, and next to nothing is handed over; two short connections that meet
on one worker are no reason either.

What is under way to a sibling counts as its load (``waiting``), or everybody would choose the same one.
Whoever is given a connection keeps it, so none is handed over twice.

Why loads that are read one after the other while the siblings go on are good enough. A worker decides on one
connection at a time, so of what is decided at most one from each sibling is not yet seen. Take 64 connections
on 4 workers. As long as connections only come, the sum that a worker sees is at most the one at the end, and
one more for each sibling that is just taking from its inbox. If k siblings have chosen the worker and it
does not see that yet, it keeps up to ((64 - k + 3 - k) / 4) * 17/16 + 3/2 connections and will have k
more: 19, 19, 20, 20 for k from 0 to 3, never above 1.25 times the mean of 16.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproc.types import Slot, SlotLoad

MAX_WAITING = 64
"""A sibling that has left so many in its inbox gets no more: it may be stuck."""


_SHORTEST_LIFE = 1 / 20
"""Seconds. What lives shorter is even again before it matters who serves it; to give it away costs 10 µs."""


_OFTEN = 500
"""Connections a second. What ends less often costs half a percent of a processor at most to share, and says
little: a worker that held nothing for a moment would take the few that ended before for short ones."""


def are_short(ended: int, held: int, seconds: float) -> bool:
    """Whether connections come and go so quickly, and so often, that sharing them is for nothing.

    Their mean life is what is held divided by the rate at which it ends (Little's law).

    Args:
        ended: connections that ended lately.
        held: connections that are open.
        seconds: how long "lately" is.
    """
    return ended > _OFTEN * seconds and held * seconds < ended * _SHORTEST_LIFE


def may_keep(own: int, total: int, workers: int) -> bool:
    """Whether a worker may keep one more connection without a look at the others.

    Args:
        own: connections it has.
        total: connections of all workers, its own among them.
        workers: how many there are.
    """
    # own + 1 <= share * 17/16 + 3/2, where share is (total + 1) / workers
    return 16 * workers * (own + 1) <= 17 * (total + 1) + 24 * workers


def choose_slot(own: Slot, loads: Sequence[SlotLoad]) -> Slot | None:
    """Who gets the connection that was just accepted.

    Args:
        own: the slot of the worker that accepted it.
        loads: of the workers that can take connections now, the own one among them; each slot once.

    Returns:
        A sibling, or None: the worker keeps it.
    """
    held = next(load.open + load.waiting for load in loads if load.slot == own)
    if may_keep(held, sum(load.open + load.waiting for load in loads), len(loads)):
        return None
    able = [load for load in loads if load.slot != own and load.waiting < MAX_WAITING]
    if not able:
        return None
    # Of equals the next in a circle: siblings that choose at the same time begin at different places.
    slots = 1 + max(load.slot for load in loads)
    least = min(able, key=lambda load: (load.open + load.waiting, (load.slot - own) % slots))
    return least.slot if least.open + least.waiting < held else None
