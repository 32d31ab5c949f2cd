"""Several workers on shared totals, one step at a time, in every order there is.

A step is what the table does in one: read one total, or take a place by compare-and-swap, or give one back.
Choosing happens with the last read, as it touches nothing shared. Whatever a policy draws at random is tried
at several values. Ends are shared by all orders that lead to them, so small cases are explored exhaustively.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from lbproc.core.pick import NoBackend, choose
from lbproc.core.policies.policy import PickContext
from tests.core.policies.examples import ChosenRandom, rebuilt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lbproc.core.pool import PoolState

FRACTIONS = (0.0, 0.34, 0.67, 0.99)


class Worker(NamedTuple):
    """What one worker knows: arrivals to come, totals read so far, the choice made, places held."""

    arrivals: int
    seen: tuple[int, ...] = ()
    choice: tuple[int, int] | None = None
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """The shared totals, the shared ticket, and the workers."""

    totals: tuple[int, ...]
    workers: tuple[Worker, ...]
    ticket: int = 0
    refused: int = 0


@dataclass(slots=True)
class Interleaving:
    """All that can happen to some workers that pick from one pool.

    Attributes:
        releases: workers also give back what they hold, at any time.
    """

    name: str
    state: PoolState
    releases: bool = False
    random: ChosenRandom = field(default_factory=ChosenRandom)

    def explore(self, first: World, check: Callable[[World], None]) -> set[World]:
        """Check every world that can be reached; return those in which nothing is left to do."""
        ends = set()
        known = {first}
        ahead = [first]
        while ahead:
            world = ahead.pop()
            check(world)
            is_end = True
            for following in self.steps(world):
                is_end = False
                if following not in known:
                    known.add(following)
                    ahead.append(following)
            if is_end:
                ends.add(world)
        return ends

    def steps(self, world: World) -> Iterator[World]:
        """What can happen next."""
        for number in range(len(world.workers)):
            yield from self.steps_of(world, number)

    def steps_of(self, world: World, number: int) -> Iterator[World]:
        """What this worker can do next."""
        worker = world.workers[number]
        if self.releases:
            for place, index in enumerate(worker.held):
                left = worker.held[:place] + worker.held[place + 1 :]
                yield moved(world, number, worker._replace(held=left), index, -1)
        if worker.choice is not None:
            index, at_most = worker.choice
            if world.totals[index] > at_most:
                yield moved(world, number, worker._replace(seen=(), choice=None))
            else:
                held = tuple(sorted((*worker.held, index)))
                yield moved(world, number, Worker(worker.arrivals - 1, held=held), index, +1)
        elif worker.arrivals:
            seen = (*worker.seen, world.totals[self.state.eligible[len(worker.seen)].index])
            if len(seen) < len(self.state.eligible):
                yield moved(world, number, worker._replace(seen=seen))
            else:
                yield from self._choices(world, number, seen)

    def _choices(self, world: World, number: int, seen: tuple[int, ...]) -> Iterator[World]:
        worker = world.workers[number]
        for fraction in FRACTIONS:
            self.random.fraction = fraction
            ticket = count(world.ticket)
            made = PickContext(self.random)
            made.begin(b"key", ticket.__next__)
            choice = choose(self.state, rebuilt(self.name, self.state.members), list(seen), made)
            after = replace(world, ticket=next(ticket))
            if isinstance(choice, NoBackend):
                gone = Worker(worker.arrivals - 1, held=worker.held)
                yield moved(replace(after, refused=after.refused + 1), number, gone)
            else:
                candidate, at_most = choice
                yield moved(after, number, worker._replace(seen=seen, choice=(candidate.index, at_most)))


def moved(world: World, number: int, worker: Worker, index: int = 0, change: int = 0) -> World:
    """The world after one worker has moved on and changed one total."""
    workers = (*world.workers[:number], worker, *world.workers[number + 1 :])
    totals = (*world.totals[:index], world.totals[index] + change, *world.totals[index + 1 :])
    # Workers that know the same are the same: their order does not matter.
    return replace(world, totals=totals, workers=tuple(sorted(workers, key=repr)))
