"""Goes through every interleaving of processes that are written as generators, each state once.

A process pauses before every access to shared memory. A state is the memory and what each process knows:
where it stands, and its local values. A process may also be killed at any pause, if the scenario says so,
which lets others start (a repair). States are reached by playing their actions again from the start, because
generators cannot be copied; so everything must be deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import FrameType
from typing import Any

from lbproc.shm.table import Table

Process = Generator[None, None, Any]
PLAIN = (int, str, bool, tuple, type(None))


@dataclass
class Scenario:
    """What runs against each other.

    Attributes:
        prepare: sets the zeroed table up; not part of what is interleaved.
        processes: make them by name.
        mortal: those that may be killed.
        after_death: processes that begin when the named one has been killed.
    """

    prepare: Callable[[Table], None]
    processes: dict[str, Callable[[Table], Process]]
    mortal: Sequence[str] = ()
    after_death: dict[str, Callable[[Table], Process]] = field(default_factory=dict)
    start: memoryview = field(init=False)

    def begin(self, table: Table) -> None:
        table.cells[:] = memoryview(bytes(len(table.cells) * 8)).cast("Q")
        self.prepare(table)
        self.start = memoryview(bytes(table.cells)).cast("Q")


class World:
    """The state that a sequence of actions leads to."""

    def __init__(self, table: Table, scenario: Scenario, actions: Sequence[tuple[str, str]]) -> None:
        table.cells[:] = scenario.start
        self.table = table
        self.scenario = scenario
        self.running: dict[str, Process] = {name: make(table) for name, make in scenario.processes.items()}
        self.results: dict[str, Any] = {}
        self.dead: set[str] = set()
        self.is_spent = False
        for action in actions:
            self.act(action)

    def act(self, action: tuple[str, str]) -> None:
        verb, name = action
        if verb == "kill":
            del self.running[name]
            self.dead.add(name)
            if name in self.scenario.after_death:
                self.running[f"after {name}"] = self.scenario.after_death[name](self.table)
            return
        try:
            next(self.running[name])
        except StopIteration as end:
            self.results[name] = end.value
            del self.running[name]

    def actions(self) -> Iterator[tuple[str, str]]:
        for name in self.running:
            yield "step", name
            if name in self.scenario.mortal:
                yield "kill", name

    def finish(self) -> None:
        """Runs everything that is left to its end, one after the other."""
        self.is_spent = True
        while self.running:
            self.act(("step", next(iter(self.running))))

    def key(self) -> Hashable:
        places = tuple((name, *_frames(process)) for name, process in sorted(self.running.items()))
        return _changing(self.table), places, tuple(sorted(self.dead))


def _changing(table: Table) -> bytes:
    """All the memory that these processes change, in a table that is small."""
    layout = table.layout
    digest = blake2b(table.cells[layout.rows.base : layout.rows.end], digest_size=16)
    for section in (layout.keys, layout.flows, layout.listeners):
        digest.update(table.cells[section.base : section.end])
    for column in range(layout.columns.blocks):
        start = layout.columns.at(column, "intent")
        digest.update(table.cells[start : start + layout.columns.offsets["notes"] + layout.columns.blocks])
        start = layout.columns.at(column, "ledger")
        digest.update(table.cells[start : start + layout.capacities.ledger])
    return digest.digest()


def _frames(process: Process) -> Iterator[Hashable]:
    inner: Any = process
    while inner is not None:
        frame: FrameType = inner.gi_frame
        plain = tuple(
            (k, tuple(v) if isinstance(v, list) else v)
            for k, v in frame.f_locals.items()
            if isinstance(v, (*PLAIN, list))
        )
        yield frame.f_code.co_name, frame.f_lasti, plain
        inner = inner.gi_yieldfrom


def explore(table: Table, scenario: Scenario, check: Callable[[World], None]) -> int:
    """Calls ``check`` once with every reachable state; gives the number of states.

    A check that changes the world runs it to its end.
    """
    scenario.begin(table)
    seen: set[Hashable] = set()
    paths: list[tuple[tuple[str, str], ...]] = [()]
    while paths:
        path = paths.pop()
        world = World(table, scenario, path)
        while (key := world.key()) not in seen:
            seen.add(key)
            actions = list(world.actions())
            check(world)
            if world.is_spent:
                paths.extend((*path, action) for action in actions)
                break
            if not actions:
                break
            paths.extend((*path, action) for action in actions[1:])
            path = (*path, actions[0])
            world.act(actions[0])
    return len(seen)
