"""The end of the children's lives, as conversations of events and commands."""

from __future__ import annotations

import math

from lbproc.core import supervision as sut
from lbproc.core.supervision import Phase
from lbproc.core.supervision_events import (
    AdoptSlot,
    ChildExited,
    ChildId,
    ChildReady,
    CloseListeners,
    DumpChild,
    Exit,
    KillChild,
    RefuseConnections,
    RepairColumn,
    SendStop,
    SlotDrained,
    SpawnChild,
    SpawnFailed,
    Started,
    Ticked,
)
from tests.core.conversation import CONTROLLER, S0, S1, STOP, STOP_AT_ONCE, W0, W1, Conversation


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


def test_an_adopter_that_leaves_without_a_word_on_what_it_adopted_has_not_seen_it() -> None:
    say = Conversation(workers=2).start()
    say(STOP)
    say(ChildExited(W0, -9))
    one_more = ChildId(3)
    assert say(ChildExited(W1, 0)) == [
        RepairColumn(W1),
        SpawnChild(one_more, S0),
        SendStop(one_more, at_once=False),
    ]
    say(SlotDrained(one_more, S0))
    assert say(ChildExited(one_more, 0)) == [RepairColumn(one_more), SendStop(CONTROLLER, at_once=True)]


def test_one_more_worker_accepts_a_queue_that_nobody_is_left_to_accept() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    one_more = ChildId(2)
    assert say(ChildExited(W0, -9)) == [
        RepairColumn(W0),
        SpawnChild(one_more, S0),
        SendStop(one_more, at_once=False),
    ]
    assert say.state(0).state == "draining"
    assert say(ChildReady(one_more)) == []
    assert say(SlotDrained(one_more, S0)) == [CloseListeners()]
    assert say(ChildExited(one_more, 0)) == [RepairColumn(one_more), SendStop(CONTROLLER, at_once=True)]


def test_it_drains_the_other_orphans_as_well() -> None:
    say = Conversation(workers=2, heartbeat_timeout=5.0).start()
    say(STOP)
    stale = say.now
    for _ in range(6):  # both hang, so neither can adopt
        say.now += 1
        say(Ticked(say.beats() | {W0: stale, W1: stale}))
    one_more = ChildId(3)
    assert say(ChildExited(W0, -6)) == [
        RepairColumn(W0),
        SpawnChild(one_more, S0),
        SendStop(one_more, at_once=False),
        AdoptSlot(S1, one_more),
    ]
    assert say(ChildExited(W1, -6)) == [RepairColumn(W1)]


def test_a_queue_that_kills_whoever_accepts_it_does_not_hold_up_the_end() -> None:
    say = Conversation(workers=1).start()
    for child in (W0, ChildId(2), ChildId(3)):
        say(ChildExited(child, -9))  # a crash loop before the stop takes nothing from the attempts
        say.after(sut.LONGEST_OUTAGE)
    say(STOP)
    last = ChildId(4 + sut.DRAIN_ATTEMPTS)
    for number in range(4, last):
        assert SpawnChild(ChildId(number + 1), S0) in say(ChildExited(ChildId(number), -9))
    assert say(ChildExited(last, -9)) == [
        RepairColumn(last),
        CloseListeners(),
        SendStop(CONTROLLER, at_once=True),
    ]


def test_a_fork_that_fails_in_the_drain_is_an_attempt() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    say(ChildExited(W0, -9))
    for number in range(2, 2 + sut.DRAIN_ATTEMPTS - 1):
        assert SpawnChild(ChildId(number + 1), S0) in say(SpawnFailed(ChildId(number), "no memory"))
    assert CloseListeners() in say(SpawnFailed(ChildId(1 + sut.DRAIN_ATTEMPTS), "no memory"))


def test_a_queue_of_a_lone_worker_that_waits_for_its_replacement_is_drained() -> None:
    say = Conversation(workers=1).start()
    say(ChildExited(W0, -9))
    say(ChildExited(ChildId(2), -9))
    assert say.state(0).child is None
    assert say(STOP) == [RefuseConnections(), SpawnChild(ChildId(3), S0), SendStop(ChildId(3), at_once=False)]


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


def test_a_controller_that_dies_in_the_drain_is_not_replaced() -> None:
    say = Conversation(workers=1).start()
    say(STOP)
    assert say(ChildExited(CONTROLLER, -9)) == [RepairColumn(CONTROLLER)]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), CloseListeners(), Exit(0)]
