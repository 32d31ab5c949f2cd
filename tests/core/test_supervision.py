"""The life of the children, as conversations of events and commands, and as random histories."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.core import supervision as sut
from lbproc.core.supervision import NO_CHILD, Phase, PlaceState, Supervision, describe_exit, restart_delay
from lbproc.core.supervision_events import (
    AdoptSlot,
    AnnounceReady,
    ChannelLost,
    ChildExited,
    ChildFailedToBoot,
    ChildId,
    ChildReady,
    CloseListeners,
    Command,
    DisownSlot,
    DumpChild,
    Event,
    Exit,
    KillChild,
    Listen,
    RefuseConnections,
    RepairColumn,
    Report,
    SendStop,
    SlotDrained,
    SpawnChild,
    SpawnFailed,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.telemetry.events import Event as LogEvent
from lbproc.types import Slot

CONTROLLER, W0, W1, W2 = (ChildId(number) for number in range(4))
NEXT = ChildId(4)
S0, S1, S2 = (Slot(number) for number in range(3))
STOP = StopRequested(at_once=False, reason="SIGTERM")
STOP_AT_ONCE = StopRequested(at_once=True, reason="SIGQUIT")


class Conversation:
    """A machine with a clock; gives the commands without the reports."""

    def __init__(
        self, workers: int = 3, heartbeat_timeout: float = 30.0, drain_timeout: float = 600.0
    ) -> None:
        self.machine = Supervision(workers, heartbeat_timeout, drain_timeout)
        self.now = 1000.0
        self.reports: list[Report] = []
        self.workers = workers

    def __call__(self, event: Event) -> list[Command]:
        commands = self.machine.handle(event, self.now)
        self.reports += [command for command in commands if isinstance(command, Report)]
        return [command for command in commands if not isinstance(command, Report)]

    def start(self) -> Conversation:
        """Everybody is ready."""
        self(Started())
        for number in range(self.workers + 1):
            self(ChildReady(ChildId(number)))
        assert self.machine.phase is Phase.RUNNING
        return self

    def after(self, seconds: float, event: Event | None = None) -> list[Command]:
        """Time passes, in ticks of a second in which every child beats."""
        end = self.now + seconds
        commands = []
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            commands += self(Ticked(self.beats()))
        return commands + (self(event) if event else [])

    def beats(self) -> dict[ChildId, float]:
        return {ChildId(number): self.now for number in range(1000)}

    def state(self, slot: int | None) -> PlaceState:
        return next(place for place in self.machine.places() if place.slot == slot)


def test_the_controller_boots_first_then_all_workers() -> None:
    say = Conversation()
    assert say(Started()) == [SpawnChild(CONTROLLER, None)]
    assert say(ChildReady(CONTROLLER)) == [
        Listen(),
        SpawnChild(W0, S0),
        SpawnChild(W1, S1),
        SpawnChild(W2, S2),
    ]
    assert say(ChildReady(W1)) == []
    assert say(ChildReady(W0)) == []
    assert say(ChildReady(W2)) == [AnnounceReady()]
    assert say.machine.phase is Phase.RUNNING


def test_a_worker_that_cannot_boot_ends_the_start_with_its_reason() -> None:
    say = Conversation()
    say(Started())
    say(ChildReady(CONTROLLER))
    say(ChildReady(W0))
    assert say(ChildFailedToBoot(W1, "no room for the log")) == []
    assert say(ChildExited(W1, 1)) == [
        CloseListeners(),
        SendStop(CONTROLLER, at_once=True),
        SendStop(W0, at_once=True),
        SendStop(W2, at_once=True),
        RepairColumn(W1),
    ]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0)]
    assert say(ChildExited(CONTROLLER, 0)) == [RepairColumn(CONTROLLER)]
    assert say(ChildExited(W2, 0)) == [RepairColumn(W2), Exit(1, "no room for the log")]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-9, "the controller was ended by signal 9 before it was ready"),
        (70, "the controller exited with status 70 before it was ready"),
    ],
)
def test_a_child_that_dies_before_it_is_ready_ends_the_start(status: int, reason: str) -> None:
    say = Conversation()
    say(Started())
    assert say(ChildExited(CONTROLLER, status)) == [
        CloseListeners(),
        RepairColumn(CONTROLLER),
        Exit(1, reason),
    ]


def test_a_failed_fork_ends_the_start() -> None:
    say = Conversation(workers=1)
    say(Started())
    say(ChildReady(CONTROLLER))
    assert say(SpawnFailed(W0, "no memory")) == [
        CloseListeners(),
        SendStop(CONTROLLER, at_once=True),
        RepairColumn(W0),
    ]
    assert say(ChildExited(CONTROLLER, 0)) == [
        RepairColumn(CONTROLLER),
        Exit(1, "fork failed: no memory"),
    ]


def test_a_child_that_dies_during_the_start_after_it_was_ready_is_replaced() -> None:
    say = Conversation(workers=2)
    say(Started())
    say(ChildReady(CONTROLLER))
    say(ChildReady(W0))
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0), SpawnChild(W2, S0)]
    assert say(ChildReady(W1)) == [AdoptSlot(S0, W1)]
    assert say(ChildReady(W2)) == [DisownSlot(S0, W1), AnnounceReady()]


def test_the_controller_of_a_start_under_way_may_come_back_without_spawning_workers_again() -> None:
    say = Conversation(workers=1)
    say(Started())
    say(ChildReady(CONTROLLER))
    assert say(ChildExited(CONTROLLER, -9)) == [RepairColumn(CONTROLLER), SpawnChild(W1, None)]
    assert say(ChildReady(W1)) == []
    assert say(ChildReady(W0)) == [AnnounceReady()]


def test_a_crash_is_repaired_then_adopted_and_replaced_at_once() -> None:
    say = Conversation().start()
    assert say(ChildExited(W1, -9)) == [RepairColumn(W1), AdoptSlot(S1, W0), SpawnChild(NEXT, S1)]
    assert say.state(1) == PlaceState(S1, NEXT, "starting", 1)
    assert say(ChildReady(NEXT)) == [DisownSlot(S1, W0)]
    assert say.state(1) == PlaceState(S1, NEXT, "ready", 1)


def test_orphaned_slots_are_spread_over_the_siblings() -> None:
    say = Conversation().start()
    say(ChildExited(W0, -9))
    assert AdoptSlot(S1, W2) in say(ChildExited(W1, -9))
    assert {place.state for place in say.machine.places()} == {"ready", "starting"}


def test_slots_of_an_adopter_that_dies_go_to_another() -> None:
    say = Conversation().start()
    say(ChildExited(W1, -9))
    commands = say(ChildExited(W0, -9))
    assert commands == [RepairColumn(W0), AdoptSlot(S0, W2), AdoptSlot(S1, W2), SpawnChild(ChildId(5), S0)]


def test_a_lone_worker_has_nobody_to_adopt_its_slot() -> None:
    say = Conversation(workers=1).start()
    assert say(ChildExited(W0, -11)) == [RepairColumn(W0), SpawnChild(ChildId(2), S0)]


def test_a_crash_loop_backs_off_with_growing_delay_while_a_sibling_serves() -> None:
    say = Conversation(workers=2).start()
    child, delays = W0, []
    for _ in range(10):
        say(ChildExited(child, 70))
        crashed_at = say.now
        place = say.state(0)
        if place.child is None:
            assert place.state == NO_CHILD
            spawn: list[SpawnChild] = []
            while not spawn:
                say.now = say.machine.next_wakeup()
                spawn = [c for c in say(Ticked(say.beats())) if isinstance(c, SpawnChild)]
            child = spawn[0].child
        else:
            child = place.child
        delays.append(say.now - crashed_at)
    assert delays == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert say.state(0).restarts == 10


def test_a_child_that_was_ready_for_a_while_starts_again_without_delay() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W0, -9))
    say(ChildReady(ChildId(3)))
    say.after(sut.STABLE_AFTER)
    assert SpawnChild(ChildId(4), S0) in say(ChildExited(ChildId(3), -9))


def test_a_replacement_that_cannot_boot_is_tried_again_later() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W0, -9))
    say(ChildFailedToBoot(ChildId(3), "no"))
    assert say(ChildExited(ChildId(3), 1)) == [RepairColumn(ChildId(3))]
    assert say.after(1.0) == [SpawnChild(ChildId(4), S0)]
    assert [report.event for report in say.reports if report.event == "worker_failed_to_boot"]


def test_a_child_that_said_it_cannot_boot_and_stays_is_killed() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W0, -9))
    say(ChildFailedToBoot(ChildId(3), "no"))
    assert say.after(sut.LEAVE_GRACE) == [KillChild(ChildId(3))]


def test_a_child_that_lost_its_channel_is_killed_if_it_stays() -> None:
    say = Conversation().start()
    assert say(ChannelLost(W2)) == []
    assert say.after(sut.LEAVE_GRACE - 1) == []
    assert say.after(1) == [KillChild(W2)]
    assert say.state(2).state == "killed"
    assert say.after(60) == []


def test_a_hung_worker_is_dumped_adopted_killed_and_replaced() -> None:
    say = Conversation(heartbeat_timeout=5.0).start()
    stale = say.now
    commands = []
    for _ in range(6):
        say.now += 1
        commands += say(Ticked(say.beats() | {W1: stale}))
    assert commands == [DumpChild(W1), AdoptSlot(S1, W0)]
    assert say.state(1).state == "hung"
    assert say.after(sut.DUMP_GRACE) == [KillChild(W1)]
    assert say(ChildExited(W1, -9)) == [RepairColumn(W1), SpawnChild(NEXT, S1)]
    assert say(ChildReady(NEXT)) == [DisownSlot(S1, W0)]


def test_slots_that_a_hung_worker_adopted_go_to_another() -> None:
    say = Conversation(heartbeat_timeout=5.0).start()
    say(ChildExited(W1, -9))
    stale = say.now
    commands = []
    for _ in range(6):
        say.now += 1
        commands += say(Ticked(say.beats() | {W0: stale}))
    assert commands == [DumpChild(W0), AdoptSlot(S0, W2), AdoptSlot(S1, W2)]


def test_a_child_without_a_heartbeat_has_the_same_time_to_boot() -> None:
    say = Conversation(workers=1, heartbeat_timeout=5.0)
    say(Started())
    commands = []
    for _ in range(6):
        say.now += 1
        commands += say(Ticked({}))
    assert commands == [DumpChild(CONTROLLER)]


def test_nobody_is_late_after_the_supervisor_itself_did_not_run() -> None:
    say = Conversation(heartbeat_timeout=30.0).start()
    say.after(3)
    beats = say.beats()
    say.now += 3600
    assert say(Ticked(beats)) == []
    say.now += 1
    assert say(Ticked(say.beats())) == []


def test_the_controller_is_replaced_while_traffic_goes_on() -> None:
    say = Conversation().start()
    assert say(ChildExited(CONTROLLER, 70)) == [RepairColumn(CONTROLLER), SpawnChild(NEXT, None)]
    assert say(ChildReady(NEXT)) == []
    assert [report.event for report in say.reports[-2:]] == ["controller_exited", "controller_ready"]


def test_stop_drains_workers_then_stops_the_controller_then_exits() -> None:
    say = Conversation(workers=2).start()
    assert say(STOP) == [RefuseConnections(), SendStop(W0, at_once=False), SendStop(W1, at_once=False)]
    assert say.state(0).state == "draining"
    assert say(SlotDrained(W0, S0)) == []
    assert say(SlotDrained(W1, S1)) == [CloseListeners()]
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1)]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), SendStop(CONTROLLER, at_once=True)]
    assert say(ChildExited(CONTROLLER, 0)) == [RepairColumn(CONTROLLER), Exit(0)]
    assert say.machine.phase is Phase.ENDED
    assert say(STOP) == []
    assert say.machine.next_wakeup() == math.inf


def test_a_second_gentle_stop_changes_nothing() -> None:
    say = Conversation().start()
    say(STOP)
    say.after(10)
    deadline = say.machine.next_wakeup()
    assert say(STOP) == []
    assert say.machine.next_wakeup() == deadline


def test_stop_at_once_ends_a_drain() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    assert say(STOP_AT_ONCE) == [
        CloseListeners(),
        SendStop(CONTROLLER, at_once=True),
        SendStop(W0, at_once=True),
    ]
    assert say(STOP_AT_ONCE) == []
    assert say(STOP) == []


def test_a_drain_that_takes_too_long_is_cut_and_still_a_success() -> None:
    say = Conversation(workers=1, drain_timeout=20.0).start()
    say(STOP)
    commands = say.after(20.0)
    assert commands == [CloseListeners(), SendStop(CONTROLLER, at_once=True), SendStop(W0, at_once=True)]
    assert "drain_timed_out" in [report.event for report in say.reports]
    assert say.after(sut.LEAVE_GRACE) == [KillChild(CONTROLLER), KillChild(W0)]
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0)]
    assert say(ChildExited(CONTROLLER, -9)) == [RepairColumn(CONTROLLER), Exit(0)]


def test_the_end_comes_even_when_the_kernel_does_not_give_a_child_back() -> None:
    say = Conversation(workers=1).start()
    say(STOP_AT_ONCE)
    assert say.after(sut.END_WITHIN) == [KillChild(CONTROLLER), KillChild(W0), Exit(0)]


def test_stop_before_any_worker_was_spawned() -> None:
    say = Conversation()
    say(Started())
    assert say(STOP) == [RefuseConnections(), CloseListeners(), SendStop(CONTROLLER, at_once=True)]
    assert say(ChildExited(CONTROLLER, 0)) == [RepairColumn(CONTROLLER), Exit(0)]


def test_stop_of_a_worker_that_is_still_booting() -> None:
    say = Conversation(workers=1)
    say(Started())
    say(ChildReady(CONTROLLER))
    assert say(STOP) == [RefuseConnections(), SendStop(W0, at_once=False)]
    assert say(ChildReady(W0)) == []
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), CloseListeners(), SendStop(CONTROLLER, at_once=True)]


def test_stop_cancels_a_planned_replacement_and_its_slot_is_drained_by_the_adopter() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W0, -9))
    say(ChildExited(ChildId(3), 70))
    assert say.state(0).child is None
    assert say(STOP) == [RefuseConnections(), SendStop(W1, at_once=False)]
    assert say.after(60) == []
    assert say(SlotDrained(W1, S1)) == []
    assert say(SlotDrained(W1, S0)) == [CloseListeners()]


def test_a_worker_that_crashes_in_the_drain_leaves_its_queue_to_a_sibling() -> None:
    say = Conversation(workers=2).start()
    say(STOP)
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0), AdoptSlot(S0, W1)]
    say(SlotDrained(W1, S1))
    assert say(SlotDrained(W1, S0)) == [CloseListeners()]


def test_a_worker_that_crashes_after_it_drained_leaves_nothing() -> None:
    say = Conversation(workers=2).start()
    say(STOP)
    say(SlotDrained(W0, S0))
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0)]


def test_an_adopter_that_leaves_in_good_order_has_drained_what_it_adopted() -> None:
    say = Conversation(workers=2).start()
    say(STOP)
    say(ChildExited(W0, -9))
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1), CloseListeners(), SendStop(CONTROLLER, at_once=True)]


def test_a_queue_that_nobody_is_left_to_accept_does_not_hold_up_the_end() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    assert say(ChildExited(W0, -9)) == [
        RepairColumn(W0),
        CloseListeners(),
        SendStop(CONTROLLER, at_once=True),
    ]


def test_a_worker_that_hangs_in_the_drain_is_killed_and_not_replaced() -> None:
    say = Conversation(workers=2, heartbeat_timeout=5.0).start()
    say(STOP)
    stale = say.now
    commands = []
    for _ in range(8):
        say.now += 1
        commands += say(Ticked(say.beats() | {W0: stale}))
    assert commands == [DumpChild(W0), AdoptSlot(S0, W1), KillChild(W0)]
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0)]
    assert say(SlotDrained(W1, S0)) == []
    assert say(SlotDrained(W1, S1)) == [CloseListeners()]


def test_a_worker_that_hung_before_the_stop_is_killed_in_the_drain() -> None:
    say = Conversation(workers=2, heartbeat_timeout=5.0).start()
    stale = say.now
    for _ in range(6):
        say.now += 1
        say(Ticked(say.beats() | {W0: stale}))
    assert say(STOP) == [RefuseConnections(), SendStop(W0, at_once=False), SendStop(W1, at_once=False)]
    assert say.after(sut.DUMP_GRACE) == [KillChild(W0)]
    assert say(STOP_AT_ONCE)[-1] == SendStop(W1, at_once=True)
    assert say.after(sut.LEAVE_GRACE - 1) == []


def test_nonsense_from_children_has_no_effect() -> None:
    say = Conversation().start()
    for event in (
        ChildReady(W0),
        ChildReady(ChildId(99)),
        ChildExited(ChildId(99), 0),
        SlotDrained(W0, S0),
        ChannelLost(ChildId(99)),
    ):
        assert say(event) == []
    say(STOP)
    for event in (SlotDrained(W0, S1), SlotDrained(W0, Slot(-1)), SlotDrained(W0, Slot(77))):
        assert say(event) == []
    assert say(SlotDrained(W1, S1)) == []
    assert say(SlotDrained(W2, S2)) == []


def test_a_controller_that_dies_in_the_drain_is_not_replaced() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    assert say(ChildExited(CONTROLLER, -9)) == [RepairColumn(CONTROLLER)]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), CloseListeners(), Exit(0)]


def test_delays_grow_and_are_bounded() -> None:
    delays = [restart_delay(failures) for failures in range(200)]
    assert delays[:4] == [0.0, 0.0, 0.25, 0.5]
    assert delays == sorted(delays)
    assert delays[-1] == sut.LONGEST_DELAY


def test_exits_read_well() -> None:
    assert describe_exit(3) == "exited with status 3"
    assert describe_exit(-9) == "was ended by signal 9"


@dataclass
class _World:
    """Children as the commands and the events so far have left them."""

    alive: dict[ChildId, Slot | None] = field(default_factory=dict)
    ready: set[ChildId] = field(default_factory=set)
    repaired: Counter[ChildId] = field(default_factory=Counter)
    exited: set[ChildId] = field(default_factory=set)
    adopters: dict[Slot, ChildId] = field(default_factory=dict)
    killed: set[ChildId] = field(default_factory=set)
    ends: int = 0

    def see(self, command: Command) -> None:
        assert self.ends == 0, "nothing comes after the end"
        match command:
            case SpawnChild(child, slot):
                assert slot not in self.alive.values(), "a place has one child"
                assert self.exited == set(self.repaired), "repair comes before the next spawn"
                self.alive[child] = slot
            case RepairColumn(child):
                assert child in self.exited
                self.repaired[child] += 1
                assert self.repaired[child] == 1
            case AdoptSlot(slot, by):
                assert self.alive.get(by) not in {None, slot}
                self.adopters[slot] = by
            case DisownSlot(slot, by):
                assert self.adopters.pop(slot) == by
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
        for child in self.ready & set(self.alive):
            slot = self.alive[child]
            assert slot is None or self.adopters.get(slot) not in self.alive, "one acceptor a slot"


CHOICES = st.lists(
    st.tuples(
        st.sampled_from(["ready", "exit", "kill", "refuse", "lose", "fail", "drained", "tick", "late"]),
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
    }
    return events[kind]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workers=st.integers(1, 3), choices=CHOICES, at_once=st.booleans())
def test_random_histories_keep_the_invariants_and_a_stop_always_ends(
    workers: int, choices: list[tuple[str, int, float]], at_once: bool
) -> None:
    machine = Supervision(workers, heartbeat_timeout=5.0, drain_timeout=30.0)
    world = _World()
    now = 0.0

    def handle(event: Event) -> None:
        if world.ends:
            assert machine.handle(event, now) == []
            return
        if isinstance(event, ChildExited | SpawnFailed):
            world.alive.pop(event.child, None)
            world.exited.add(event.child)
        if (
            isinstance(event, ChildReady)
            and event.child in world.alive
            and machine.phase
            in {
                Phase.STARTING,
                Phase.RUNNING,
            }
        ):
            place = next(place for place in machine.places() if place.child == event.child)
            if place.state == "starting":
                world.ready.add(event.child)
        for command in machine.handle(event, now):
            world.see(command)
        world.check()
        assert not isinstance(event, Ticked) or machine.next_wakeup() > now, "the loop would spin"

    handle(Started())
    for kind, index, wait in choices:
        now += wait
        children = sorted(world.alive)
        if children:
            handle(_event(kind, children[index % len(children)], world, now))
    handle(StopRequested(at_once, "SIGTERM"))
    stopped_at = now
    while not world.ends:
        now += 1.0
        handle(Ticked(dict.fromkeys(world.alive, now)))
        assert now - stopped_at <= 30.0 + sut.END_WITHIN + 1
    assert world.ends == 1
    assert world.exited == set(world.repaired)
    assert machine.handle(STOP_AT_ONCE, now) == []
