"""The weights that one worker picks by: the operator's, and less for backends that start slowly.

A thin shell around ``core.slow_start``: reads when each backend began and makes new candidates when a weight
has changed. Nothing of it runs for a request, and next to nothing for a pool without ``slow_start``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lbproc.core.slow_start import FULL, effective_weights, level

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Row, Seconds

_SECOND = 1_000_000_000


class Weighing:
    """The members of one pool as policies see them.

    Args:
        slow_start: how long a backend takes to get to its weight; 0: no time.
        context: the worker's.

    Attributes:
        members: with the weights of the last `weigh`.
        is_starting: somebody has less than its weight, so that weights change as time goes on.
    """

    __slots__ = ("_context", "_given", "_rows", "_slow_start", "is_starting", "members")

    def __init__(self, slow_start: Seconds, context: WorkerContext) -> None:
        self._slow_start = round(slow_start * _SECOND)
        self._context = context
        self._given: tuple[Candidate, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self.members: tuple[Candidate, ...] = ()
        self.is_starting = False

    def follow(self, given: tuple[Candidate, ...], rows: tuple[Row, ...]) -> None:
        """Takes over other members.

        Args:
            given: with the weights that the operator gave them.
            rows: where they are in the table.
        """
        self._given = self.members = given
        self._rows = rows
        self.weigh()

    def weigh(self) -> bool:
        """Works out the weights anew. Returns whether ``members`` are others now."""
        if not self._slow_start:
            return False
        view, now = self._context.view, self._context.stamp()
        levels = [level(view.started_at(row), self._slow_start, now) for row in self._rows]
        self.is_starting = any(twentieths < FULL for twentieths in levels)
        weights = effective_weights([member.weight for member in self._given], levels)
        if all(member.weight == weight for member, weight in zip(self.members, weights, strict=True)):
            return False
        self.members = tuple(
            [
                member if member.weight == weight else replace(member, weight=weight)
                for member, weight in zip(self._given, weights, strict=True)
            ]
        )
        return True
