"""The life of the children, as conversations of events and commands."""

from __future__ import annotations

import pytest

from lbproc.core import supervision as sut
from lbproc.core.supervision import NO_CHILD, Phase, PlaceState, describe_exit, restart_delay
from lbproc.core.supervision_events import (
    AdoptSlot,
    AnnounceReady,
    ChannelLost,
    ChildExited,
    ChildFailedToBoot,
    ChildId,
    ChildReady,
    CloseListeners,
    DisownSlot,
    DumpChild,
    Exit,
    KillChild,
    Listen,
    ListenFailed,
    RepairColumn,
    SendStop,
    SlotDrained,
    SpawnChild,
    SpawnFailed,
    Started,
    Ticked,
)
from lbproc.types import Slot
from tests.core.conversation import CONTROLLER, NEXT, S0, S1, S2, STOP, W0, W1, W2, Conversation


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


def test_the_delay_is_short_while_nobody_serves() -> None:
    say = Conversation(workers=1).start()
    say(ChildExited(W0, 70))
    for number in range(2, 12):
        say(ChildExited(ChildId(number), 70))
        spawned = say.after(sut.LONGEST_OUTAGE)
        assert spawned == [SpawnChild(ChildId(number + 1), S0)]


def test_a_long_delay_ends_soon_after_the_last_sibling_that_serves() -> None:
    say = Conversation(workers=2).start()
    say(ChildExited(W0, 70))
    number = 3
    while say.state(0).child is not None or say.machine.next_wakeup() - say.now < 16:
        say(ChildExited(ChildId(number), 70))
        if say.machine.next_wakeup() - say.now < 16:
            say.after(say.machine.next_wakeup() - say.now)
            number += 1
    say(ChildExited(W1, -9))
    assert SpawnChild(ChildId(number + 2), S0) in say.after(sut.LONGEST_OUTAGE)


def test_an_address_that_another_program_took_ends_the_start_before_workers_are_spawned() -> None:
    say = Conversation(workers=1)
    say.listened = ListenFailed("the address is in use")
    say(Started())
    assert say(ChildReady(CONTROLLER)) == [Listen(), CloseListeners(), SendStop(CONTROLLER, at_once=True)]
    assert say(say.listened) == []
    assert say(ChildExited(CONTROLLER, 0)) == [
        RepairColumn(CONTROLLER),
        Exit(1, "the address is in use"),
    ]


def test_what_came_of_listening_too_late_has_no_effect() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    assert say(say.listened) == []


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


def test_delays_grow_and_are_bounded() -> None:
    delays = [restart_delay(failures) for failures in range(200)]
    assert delays[:4] == [0.0, 0.0, 0.25, 0.5]
    assert delays == sorted(delays)
    assert delays[-1] == sut.LONGEST_DELAY


def test_exits_read_well() -> None:
    assert describe_exit(3) == "exited with status 3"
    assert describe_exit(-9) == "was ended by signal 9"


def test_a_child_that_cannot_be_talked_to_any_more_is_not_counted_on() -> None:
    say = Conversation().start()
    assert say.machine.is_complete
    say(ChannelLost(W1))
    assert not say.machine.is_complete
    say(ChildExited(W1, -9))
    assert not say.machine.is_complete
    say(ChildReady(NEXT))
    assert say.machine.is_complete
