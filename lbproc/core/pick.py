"""One pick: the eligible backends and their loads in, a backend and the condition of taking a place out.

Pure. The shell that owns the table repeats: read the loads of ``state.eligible``, choose, take the place only
if the total is still at most what the choice says, and on failure again. The repetition ends, because a take
fails only when another one has succeeded in between.

    context.begin(key, ticket, again=bool(tried))
    state = state.without(tried)
    while True:
        loads = table.loads(words of state.eligible)
        choice = choose(state, policy, loads, context)
        if isinstance(choice, NoBackend):
            return choice
        candidate, at_most = choice
        if table.take(row of candidate, at_most) >= 0:
            return candidate

Why this is exact: as long as requests only arrive, totals only grow, so whoever had more than the chosen one
when it was read has more when the place is taken; and the place is taken only if the chosen one has not
grown.

Invariant: ``at_most`` is below the cap of the backend, so a cap is never exceeded, whatever the policy.
"""

from __future__ import annotations

from enum import Enum
from operator import ge
from typing import TYPE_CHECKING, TypeAlias

from lbproc.core.pool import NO_CAP

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate, PickContext, Policy
    from lbproc.core.pool import PoolState

Choice: TypeAlias = "tuple[Candidate, int]"
"""The backend, and the highest total at which a place on it may be taken. Made per request, hence plain."""

UNLIMITED = NO_CAP - 1
"""The highest total at which a place may be taken where there is no cap."""


class NoBackend(Enum):
    """Why there is no choice."""

    NONE_ELIGIBLE = "no backend is available"
    ALL_FULL = "all backends are at max_connections"


def choose(state: PoolState, policy: Policy, loads: list[int], context: PickContext) -> Choice | NoBackend:
    """Pick a backend for the request of the context.

    Args:
        state: what may be picked, without what the request has tried already.
        policy: rebuilt with the members of ``state``.
        loads: requests in flight to each of ``state.eligible``, over all workers.
        context: begun for this request.
    """
    candidates = state.eligible
    if not candidates:
        return NoBackend.NONE_ELIGIBLE
    caps = state.caps
    if caps is None:
        position = policy.pick(candidates, loads, context)
        return candidates[position], loads[position] if policy.exact else UNLIMITED
    if any(map(ge, loads, caps)):
        free = tuple([position for position, load in enumerate(loads) if load < caps[position]])
        if not free:
            return NoBackend.ALL_FULL
        candidates = state.part(free)
        loads = [loads[position] for position in free]
        caps = tuple([caps[position] for position in free])
    position = policy.pick(candidates, loads, context)
    return candidates[position], loads[position] if policy.exact else caps[position] - 1
