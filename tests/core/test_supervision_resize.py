"""Another number of workers, and children of an older configuration: conversations and random histories."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.core import supervision as sut
from lbproc.core.supervision import NO_CHILD, RETIRED, Supervision
from lbproc.core.supervision_events import (
    AdoptSlot,
    ChannelLost,
    ChildExited,
    ChildId,
    ChildReady,
    ChildStraggled,
    ChildWorn,
    CloseListeners,
    CloseSlot,
    Command,
    DisownSlot,
    DrainSlot,
    DumpChild,
    Event,
    Exit,
    KillChild,
    Listening,
    Reconfigured,
    RepairColumn,
    RetireSlots,
    SendStop,
    SlotDrained,
    SpawnChild,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.types import Slot
from tests.core.conversation import CONTROLLER, NEXT, S0, S1, S2, STOP, W0, W1, W2, Conversation


def workers(number: int) -> Reconfigured:
    return Reconfigured(number, heartbeat_timeout=30.0, drain_timeout=600.0)


def retired(child: ChildId) -> SendStop:
    return SendStop(child, at_once=False, retires=True)


def test_more_workers_are_spawned_at_once() -> None:
    say = Conversation(workers=1).start()
    assert say(workers(3)) == [SpawnChild(ChildId(2), S1), SpawnChild(ChildId(3), S2)]
    assert not say.machine.is_complete
    say(ChildReady(ChildId(2)))
    assert say(ChildReady(ChildId(3))) == []
    assert say.machine.is_complete
    assert [place.slot for place in say.machine.places()] == [None, 0, 1, 2]


def test_the_highest_workers_retire_and_their_slots_are_closed_from_the_highest() -> None:
    say = Conversation().start()
    assert say(workers(1)) == [RetireSlots(S1), retired(W2), retired(W1)]
    assert say.machine.is_retiring
    assert say.machine.is_complete
    assert say(SlotDrained(W1, S1)) == []
    assert say(SlotDrained(W2, S2)) == [CloseSlot(S2), CloseSlot(S1)]
    assert not say.machine.is_retiring
    assert [(place.slot, place.state) for place in say.machine.places()][1:] == [
        (0, "ready"),
        (2, RETIRED),
        (1, RETIRED),
    ]
    assert say.machine.reachable() == {CONTROLLER: None, W0: S0, W1: S1, W2: S2}
    assert [child for child in say.machine.reachable() if say.machine.is_draining(child)] == [W1, W2]
    assert say.after(3600.0) == [], "without a limit of time"
    assert say(ChildExited(W2, 0)) == [RepairColumn(W2)]
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1)]
    assert len(say.machine.places()) == 2


def test_one_that_left_in_good_order_has_accepted_its_queue() -> None:
    say = Conversation().start()
    say(workers(2))
    assert say(ChildExited(W2, 0)) == [RepairColumn(W2), CloseSlot(S2)]


def test_the_queue_of_one_that_dies_goes_to_a_ready_sibling() -> None:
    say = Conversation().start()
    say(workers(2))
    assert say(ChildExited(W2, -9)) == [RepairColumn(W2), AdoptSlot(S2, W0), DrainSlot(S2, W0)]
    assert say(SlotDrained(W0, S2)) == [CloseSlot(S2)]
    assert say.after(60.0) == [], "nobody is spawned for it"


def test_the_queue_goes_on_to_another_when_the_sibling_dies_too() -> None:
    say = Conversation().start()
    say(workers(2))
    say(ChildExited(W2, -9))
    commands = say(ChildExited(W0, -9))
    assert AdoptSlot(S2, W1) in commands
    assert DrainSlot(S2, W1) in commands
    assert say(SlotDrained(W0, S2)) == []
    assert say(SlotDrained(W1, S2)) == [CloseSlot(S2)]


def test_a_slot_without_a_worker_retires_with_its_adopter() -> None:
    say = Conversation().start()
    say.after(10.0, ChildExited(W2, -9))
    say(ChildExited(NEXT, -9))
    assert say.state(2).state == NO_CHILD
    assert say(workers(2)) == [RetireSlots(S2), DrainSlot(S2, W0)]
    assert say(SlotDrained(W0, S2)) == [CloseSlot(S2)]
    assert say.after(60.0) == []


def test_what_a_retiring_worker_had_adopted_goes_to_one_that_stays() -> None:
    say = Conversation(workers=2).start()
    say.after(10.0, ChildExited(W0, -9))
    say(ChildExited(ChildId(3), -9))
    assert say.machine.adopted() == {S0: W1}
    commands = say(workers(1))
    assert commands[:3] == [RetireSlots(S1), DisownSlot(S0, W1), retired(W1)]
    assert [command for command in commands[3:] if isinstance(command, SpawnChild)] == [
        SpawnChild(ChildId(4), S0)
    ], "a new configuration is a new chance"


def test_a_retired_worker_may_outlive_the_next_one_in_its_slot() -> None:
    say = Conversation(workers=2).start()
    say(workers(1))
    say(SlotDrained(W1, S1))
    assert say(workers(2)) == [SpawnChild(ChildId(3), S1)]
    say(ChildReady(ChildId(3)))
    assert [(place.slot, place.state) for place in say.machine.places()][1:] == [
        (0, "ready"),
        (1, "ready"),
        (1, RETIRED),
    ]
    assert say(ChildExited(W1, -9)) == [RepairColumn(W1)]
    assert say.state(1).child == ChildId(3)


def test_a_stop_reaches_retired_workers_too_and_waits_for_their_queues() -> None:
    say = Conversation(workers=2).start()
    say(workers(1))
    commands = say(STOP)
    assert commands[-2:] == [SendStop(W0, at_once=False), SendStop(W1, at_once=False)], "now with a limit"
    assert say(SlotDrained(W0, S0)) == []
    assert say(SlotDrained(W1, S1)) == [CloseListeners()]
    say(ChildExited(W0, 0))
    commands = say(ChildExited(W1, 0))
    assert SendStop(CONTROLLER, at_once=True) in commands


def test_a_queue_that_was_retired_is_drained_in_a_stop() -> None:
    say = Conversation(workers=2).start()
    say(workers(1))
    say(STOP)
    assert say(ChildExited(W1, -9)) == [RepairColumn(W1), AdoptSlot(S1, W0)]


def test_whoever_was_not_yet_ready_is_replaced() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W1, -9))
    booting = ChildId(3)
    say(workers(2))
    assert say.machine.next_wakeup() <= say.now
    assert KillChild(booting) in say.after(0.1)
    assert say(ChildReady(booting)) == [], "too late"
    assert say(ChildExited(booting, -9)) == [RepairColumn(booting), SpawnChild(ChildId(4), S1)]
    assert not [report for report in say.reports if report.event == "worker_failed_to_boot"]


def test_one_that_does_not_follow_is_dumped_and_replaced() -> None:
    say = Conversation(workers=2).start()
    assert say(ChildStraggled(W1)) == [DumpChild(W1), AdoptSlot(S1, W0)]
    assert say.reports[-2].event == "worker_straggled"
    assert W1 not in say.machine.reachable()
    assert say(ChildStraggled(W1)) == []
    assert say(ChildExited(W1, -6)) == [RepairColumn(W1), SpawnChild(ChildId(3), S1)]
    assert say(ChildStraggled(CONTROLLER)) == [DumpChild(CONTROLLER)]
    assert say.reports[-1].event == "controller_straggled"


def test_time_limits_change() -> None:
    say = Conversation(workers=1, heartbeat_timeout=30.0).start()
    say(Reconfigured(1, heartbeat_timeout=3.0, drain_timeout=7.0))
    say.now += 4.0
    assert DumpChild(W0) in say(Ticked({}))
    say = Conversation(workers=1).start()
    say(Reconfigured(1, heartbeat_timeout=30.0, drain_timeout=7.0))
    say(STOP)
    assert say.machine.next_wakeup() == say.now + 7.0


def test_in_a_stop_only_time_limits_change() -> None:
    say = Conversation(workers=2).start()
    say(STOP)
    assert say(workers(1)) == []
    assert len(say.machine.places()) == 3


def test_one_without_a_channel_cannot_be_reached() -> None:
    say = Conversation(workers=2).start()
    say(ChannelLost(W1))
    assert say.machine.reachable() == {CONTROLLER: None, W0: S0}


@dataclass
class _World:
    """Which slots are open, and which children live."""

    size: int
    open: set[int] = field(default_factory=set)
    alive: dict[ChildId, Slot | None] = field(default_factory=dict)
    told: dict[ChildId, set[int]] = field(default_factory=dict)
    killed: set[ChildId] = field(default_factory=set)
    ends: int = 0
    retiring: set[int] = field(default_factory=set)

    def see(self, command: Command) -> None:
        assert not self.ends
        match command:
            case SpawnChild(child, slot):
                assert slot is None or slot in self.open
                self.alive[child] = slot
            case SendStop(child) if (slot := self.alive[child]) is not None:
                self.told.setdefault(child, set()).add(slot)
            case RetireSlots(first):
                self.retiring |= {slot for slot in self.open if slot >= first}
            case AdoptSlot(slot, by):
                assert slot in self.open
                assert by in self.alive
            case DrainSlot(slot, by):
                assert slot in self.retiring
                self.told.setdefault(by, set()).add(slot)
            case CloseSlot(slot):
                assert slot == max(self.open), "the highest first"
                assert slot in self.retiring
                self.open.remove(slot)
                self.retiring.remove(slot)
            case KillChild(child):
                self.killed.add(child)
            case Exit():
                self.ends += 1
            case _:
                pass


CHOICES = st.lists(
    st.tuples(
        st.sampled_from(["ready", "exit", "kill", "drained", "straggle", "lose", "tick", "worn", "resize"]),
        st.integers(0, 9),
        st.floats(0.0, 4.0),
    ),
    max_size=80,
)


class _History:
    """The machine in its world."""

    def __init__(self, size: int) -> None:
        self.machine = Supervision(size, heartbeat_timeout=10.0, drain_timeout=20.0)
        self.world = _World(size, set(range(size)))
        self.now = 0.0
        for event in (Started(), ChildReady(CONTROLLER), Listening()):
            self.handle(event)
        for child in list(self.world.alive):
            self.handle(ChildReady(child))

    def handle(self, event: Event) -> None:
        if isinstance(event, ChildExited):
            self.world.alive.pop(event.child, None)
        for command in self.machine.handle(event, self.now):
            self.world.see(command)

    def live(self, kind: str, index: int) -> None:
        children = sorted(self.world.alive) or [ChildId(99)]
        child = children[index % len(children)]
        events: dict[str, Event] = {
            "ready": ChildReady(child),
            "exit": ChildExited(child, 0),
            "kill": ChildExited(child, -9),
            "straggle": ChildStraggled(child),
            "lose": ChannelLost(child),
            "worn": ChildWorn(child),
            "tick": Ticked(dict.fromkeys(self.world.alive, self.now)),
        }
        if kind == "resize":
            self.resize(1 + index % 4)
        elif kind == "drained":
            self.drain(child, index)
        else:
            self.handle(events[kind])

    def resize(self, wanted: int) -> None:
        if wanted > self.world.size and self.machine.is_retiring:
            return  # the shell waits for that
        self.world.size = wanted
        self.world.open |= set(range(wanted))
        self.handle(Reconfigured(wanted, 10.0, 20.0))

    def drain(self, child: ChildId, index: int) -> None:
        if told := sorted(self.world.told.get(child, ())):
            self.handle(SlotDrained(child, Slot(told[index % len(told)])))

    def behave(self) -> None:
        """A second in which everybody does what he should."""
        self.now += 1.0
        for child in list(self.world.alive):
            self.handle(ChildReady(child))
            for index in range(4):
                self.drain(child, index)
        self.handle(Ticked(dict.fromkeys(self.world.alive, self.now)))
        for child in [child for child in self.world.alive if child in self.world.killed]:
            self.handle(ChildExited(child, -9))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=st.integers(1, 4), choices=CHOICES, at_once=st.booleans())
def test_slots_are_closed_once_drained_and_everybody_leaves_in_the_end(
    size: int, choices: list[tuple[str, int, float]], at_once: bool
) -> None:
    history = _History(size)
    for kind, index, wait in choices:
        history.now += wait
        history.live(kind, index)
    for _ in range(100):
        history.behave()
    assert history.machine.is_complete
    assert not history.machine.is_retiring
    assert history.world.open == set(range(history.world.size))
    history.handle(StopRequested(at_once, "SIGTERM"))
    for _ in range(round(20.0 + sut.END_WITHIN) + 1):
        history.now += 1.0
        history.handle(Ticked(dict.fromkeys(history.world.alive, history.now)))
    assert history.world.ends == 1
