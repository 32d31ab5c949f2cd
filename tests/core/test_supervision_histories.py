"""The life of the children, as random histories."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.core import supervision as sut
from lbproc.core.supervision import Phase, Supervision
from lbproc.core.supervision_events import (
    AdoptSlot,
    ChannelLost,
    ChildExited,
    ChildFailedToBoot,
    ChildId,
    ChildReady,
    ChildWorn,
    Command,
    DisownSlot,
    DumpChild,
    Event,
    Exit,
    KillChild,
    Listen,
    Listening,
    RepairColumn,
    Report,
    SendLeave,
    SlotDrained,
    SpawnChild,
    SpawnFailed,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.telemetry.events import Event as LogEvent
from lbproc.types import Slot
from tests.core.conversation import STOP_AT_ONCE


@dataclass
class _World:
    """Children as the commands and the events so far have left them."""

    alive: dict[ChildId, Slot | None] = field(default_factory=dict)
    ready: set[ChildId] = field(default_factory=set)
    repaired: Counter[ChildId] = field(default_factory=Counter)
    exited: set[ChildId] = field(default_factory=set)
    adopters: dict[Slot, ChildId] = field(default_factory=dict)
    killed: set[ChildId] = field(default_factory=set)
    worn: set[ChildId] = field(default_factory=set)
    leaving: dict[Slot | None, ChildId] = field(default_factory=dict)
    ends: int = 0

    def hear(self, event: Event, machine: Supervision) -> None:
        if isinstance(event, ChildExited | SpawnFailed):
            self.alive.pop(event.child, None)
            self.ready.discard(event.child)
            self.exited.add(event.child)
        is_early = machine.phase in {Phase.STARTING, Phase.RUNNING}
        if isinstance(event, ChildReady) and event.child in self.alive and is_early:
            place = next((place for place in machine.places() if place.child == event.child), None)
            if place is None or place.state == "starting":  # None: a successor, which has no place yet
                self.ready.add(event.child)
        if isinstance(event, ChildWorn):
            self.worn.add(event.child)

    def see(self, command: Command) -> None:
        assert self.ends == 0, "nothing comes after the end"
        match command:
            case SpawnChild(child, slot):
                leaver = self.leaving.get(slot)
                others = {other for other, place in self.alive.items() if place == slot} - {leaver}
                assert others <= self.worn, "a place has one child, and its successor if it is worn"
                assert not others or leaver not in self.alive, "a slot has one leaver at most"
                assert len(others) <= 1
                assert self.exited == set(self.repaired), "repair comes before the next spawn"
                self.alive[child] = slot
            case RepairColumn(child):
                assert child in self.exited
                self.repaired[child] += 1
                assert self.repaired[child] == 1
            case AdoptSlot(slot, by):
                # Of two in one slot the successor may drain what the other has left.
                assert self.alive.get(by) is not None
                assert self.alive[by] != slot or self.worn
                self.adopters[slot] = by
            case DisownSlot(slot, by):
                assert self.adopters.pop(slot) == by
            case SendLeave(child):
                assert self.leaving.get(self.alive[child]) not in self.alive
                assert any(self.alive[other] == self.alive[child] for other in self.ready - {child})
                self.ready.discard(child)
                self.leaving[self.alive[child]] = child
            case DumpChild(child):
                self.ready.discard(child)  # it hangs: its slots are served by others from now on
                self.adopters = {slot: by for slot, by in self.adopters.items() if by != child}
            case KillChild(child):
                assert child not in self.killed
                self.killed.add(child)
            case Report(event, about, named):
                by_shell = {"slot", "pid"} if about is not None else set()
                assert {name for name, _ in named} <= set(LogEvent[event.upper()].fields) - by_shell
            case Exit():
                self.ends += 1
            case _:
                pass

    def check(self) -> None:
        for child in self.ready:
            slot = self.alive[child]
            assert slot is None or self.adopters.get(slot) not in self.alive, "one acceptor a slot"


CHOICES = st.lists(
    st.tuples(
        st.sampled_from(
            ["ready", "exit", "kill", "refuse", "lose", "fail", "drained", "tick", "late", "worn"]
        ),
        st.integers(0, 5),
        st.floats(0.0, 12.0),
    ),
    max_size=60,
)


def _event(kind: str, child: ChildId, world: _World, now: float) -> Event:
    events: dict[str, Event] = {
        "ready": ChildReady(child),
        "refuse": ChildFailedToBoot(child, "no"),
        "lose": ChannelLost(child),
        "drained": SlotDrained(child, Slot(child % 3)),
        "exit": ChildExited(child, 0),
        "kill": ChildExited(child, -9),
        "fail": SpawnFailed(child, "no"),
        "tick": Ticked(dict.fromkeys(world.alive, now)),
        "late": Ticked({}),
        "worn": ChildWorn(child),
    }
    return events[kind]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    is_running=st.booleans(),
    workers=st.integers(1, 3),
    choices=CHOICES,
    at_once=st.booleans(),
    in_the_drain=CHOICES,
)
def test_random_histories_keep_the_invariants_and_a_stop_always_ends(
    is_running: bool,
    workers: int,
    choices: list[tuple[str, int, float]],
    at_once: bool,
    in_the_drain: list[tuple[str, int, float]],
) -> None:
    machine = Supervision(workers, heartbeat_timeout=5.0, drain_timeout=30.0)
    world = _World()
    now = 0.0

    def handle(event: Event) -> None:
        if world.ends:
            assert machine.handle(event, now) == []
            return
        world.hear(event, machine)
        commands = machine.handle(event, now)
        for command in commands:
            world.see(command)
        if Listen() in commands:
            handle(Listening())
        world.check()
        assert not isinstance(event, Ticked) or machine.next_wakeup() > now, "the loop would spin"

    def live(choices: list[tuple[str, int, float]]) -> None:
        nonlocal now
        for kind, index, wait in choices:
            now += wait
            if children := sorted(world.alive):
                handle(_event(kind, children[index % len(children)], world, now))

    handle(Started())
    while is_running and machine.phase is Phase.STARTING:
        handle(ChildReady(next(child for child in sorted(world.alive) if child not in world.ready)))
    live(choices)
    handle(StopRequested(at_once, "SIGTERM"))
    stopped_at = now
    live([(kind, index, wait / 50) for kind, index, wait in in_the_drain])
    while not world.ends:
        now += 1.0
        handle(Ticked(dict.fromkeys(world.alive, now)))
        assert now - stopped_at <= 30.0 + sut.END_WITHIN + 1
    assert world.ends == 1
    assert world.exited == set(world.repaired)
    assert machine.handle(STOP_AT_ONCE, now) == []
