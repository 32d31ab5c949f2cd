"""Workers that have served enough, as conversations of events and commands."""

from __future__ import annotations

from collections.abc import Sequence

from lbproc.core import supervision as sut
from lbproc.core.supervision import Phase
from lbproc.core.supervision_events import (
    AdoptSlot,
    ChildExited,
    ChildFailedToBoot,
    ChildId,
    ChildReady,
    ChildWorn,
    CloseListeners,
    DisownSlot,
    DumpChild,
    Exit,
    KillChild,
    Reconfigured,
    RefuseConnections,
    RepairColumn,
    RetireSlots,
    SendLeave,
    SendStop,
    SlotDrained,
    SpawnChild,
    SpawnFailed,
    Ticked,
)
from tests.core.conversation import CONTROLLER, NEXT, S0, S1, S2, STOP, STOP_AT_ONCE, W0, W1, W2, Conversation

AFTER_NEXT = ChildId(5)


def states(say: Conversation) -> Sequence[tuple[int | None, ChildId | None, str]]:
    return [(place.slot, place.child, place.state) for place in say.machine.places()][1:]


def test_the_successor_is_ready_before_the_worn_worker_leaves() -> None:
    say = Conversation().start()
    assert say(ChildWorn(W1)) == [SpawnChild(NEXT, S1)]
    assert states(say)[1] == (1, W1, "ready")
    assert say(ChildReady(NEXT)) == [SendLeave(W1)]
    assert [report.event for report in say.reports if report.child == W1][-1] == "worker_replaced"
    assert states(say) == [(0, W0, "ready"), (1, NEXT, "ready"), (2, W2, "ready"), (1, W1, "retired")]
    assert say(SlotDrained(W1, S1)) == []
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1)]
    assert states(say) == [(0, W0, "ready"), (1, NEXT, "ready"), (2, W2, "ready")]
    assert say.state(1).restarts == 0
    assert say(STOP) == [
        RefuseConnections(),
        SendStop(W0, at_once=False),
        SendStop(W2, at_once=False),
        SendStop(NEXT, at_once=False),
    ]


def test_one_worker_is_replaced_at_a_time() -> None:
    say = Conversation().start()
    assert say(ChildWorn(W0)) == [SpawnChild(NEXT, S0)]
    assert say(ChildWorn(W1)) == []
    assert say(ChildReady(NEXT)) == [SendLeave(W0)]
    assert say.after(sut.LEAVER_TURN - 1) == []
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), SpawnChild(AFTER_NEXT, S1)]


def test_a_leaver_that_lasts_holds_up_the_others_for_a_while_only() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    say(ChildWorn(W1))
    assert say(ChildReady(NEXT)) == [SendLeave(W0)]
    assert say.after(sut.LEAVER_TURN) == [SpawnChild(AFTER_NEXT, S1)]
    assert say(ChildReady(AFTER_NEXT)) == [SendLeave(W1)]
    assert states(say)[3:] == [(0, W0, "retired"), (1, W1, "retired")]
    say(ChildWorn(W2))
    assert say.after(sut.LEAVER_TURN - 1) == [], "the second leaver has its turn as well"
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1), SpawnChild(ChildId(6), S2)]


def test_a_slot_has_one_leaver_at_most() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    say(ChildReady(NEXT))
    assert say(ChildWorn(NEXT)) == []
    assert say.after(10 * sut.LEAVER_TURN) == []
    assert say(ChildWorn(W1)) == [SpawnChild(AFTER_NEXT, S1)], "the next in line has another slot"
    assert say(ChildReady(AFTER_NEXT)) == [SendLeave(W1)]
    assert say(ChildExited(W1, 0)) == [RepairColumn(W1)]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), SpawnChild(ChildId(6), S0)]


def test_a_stop_ends_all_leavers() -> None:
    say = Conversation(workers=2).start()
    say(ChildWorn(W0))
    say(ChildReady(ChildId(3)))
    say.after(sut.LEAVER_TURN)
    say(ChildWorn(W1))
    say(ChildReady(ChildId(4)))
    assert say(STOP)[1:] == [SendStop(child, at_once=False) for child in (W0, W1, ChildId(3), ChildId(4))]


def test_a_leaver_that_dies_or_hangs_costs_nobody_anything() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    say(ChildReady(NEXT))
    commands = []
    for _ in range(32):
        say.now += 1.0
        commands += say(Ticked(dict.fromkeys((CONTROLLER, W1, W2, NEXT), say.now)))
    assert commands == [DumpChild(W0)]
    assert say(ChildExited(W0, -6)) == [RepairColumn(W0)]
    assert states(say)[0] == (0, NEXT, "ready")


def test_a_successor_that_cannot_boot_leaves_the_worn_worker_where_it_is() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    assert say(ChildFailedToBoot(NEXT, "no room")) == []
    assert say(ChildExited(NEXT, 1)) == [RepairColumn(NEXT)]
    assert ("worker_failed_to_boot", (("reason", "no room"),)) in [(r.event, r.fields) for r in say.reports]
    assert states(say)[0] == (0, W0, "ready")
    assert say.after(sut.SUCCEED_AGAIN_AFTER - 1) == []
    assert say.after(2.0) == [SpawnChild(AFTER_NEXT, S0)]
    assert say(SpawnFailed(AFTER_NEXT, "no memory")) == [RepairColumn(AFTER_NEXT)]
    assert ("worker_failed_to_boot", (("reason", "fork failed: no memory"),)) in [
        (r.event, r.fields) for r in say.reports
    ]


def test_a_worn_worker_that_dies_has_its_successor_already() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0), AdoptSlot(S0, W1)]
    assert say.machine.next_wakeup() > say.now + 1e6
    assert states(say)[0] == (0, NEXT, "starting")
    assert say(ChildReady(NEXT)) == [DisownSlot(S0, W1)]
    assert say.after(100.0) == []


def test_a_worn_worker_that_hangs_is_killed_while_its_successor_takes_the_place() -> None:
    say = Conversation(heartbeat_timeout=5.0).start()
    say(ChildWorn(W0))
    alive = (CONTROLLER, W1, W2, NEXT)
    commands = []
    for _ in range(6):
        say.now += 1.0
        commands += say(Ticked(dict.fromkeys(alive, say.now)))
    assert commands == [DumpChild(W0), AdoptSlot(S0, W1)]
    assert say(ChildReady(NEXT)) == [DisownSlot(S0, W1)]
    assert "worker_replaced" not in [report.event for report in say.reports]
    say.now += sut.DUMP_GRACE
    assert say(Ticked(dict.fromkeys(alive, say.now))) == [KillChild(W0)]
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0)]
    assert states(say) == [(0, NEXT, "ready"), (1, W1, "ready"), (2, W2, "ready")]


def test_a_successor_that_hangs_is_killed_and_its_slot_is_not_adopted() -> None:
    say = Conversation(heartbeat_timeout=5.0).start()
    say(ChildWorn(W0))
    commands = []
    for _ in range(9):
        say.now += 1.0
        commands += say(Ticked(dict.fromkeys((CONTROLLER, W0, W1, W2), say.now)))
    assert commands == [DumpChild(NEXT), KillChild(NEXT)]
    assert say(ChildExited(NEXT, -9)) == [RepairColumn(NEXT)]
    assert states(say)[0] == (0, W0, "ready")


def test_what_a_worn_worker_has_adopted_goes_to_another() -> None:
    say = Conversation(workers=2).start()
    # W2 is a controller's number no more: two workers are children 1 and 2.
    assert say(ChildExited(W0, -9)) == [RepairColumn(W0), AdoptSlot(S0, W1), SpawnChild(ChildId(3), S0)]
    assert say(ChildWorn(W1)) == [SpawnChild(ChildId(4), S1)]
    assert say(ChildReady(ChildId(4))) == [DisownSlot(S0, W1), SendLeave(W1), AdoptSlot(S0, ChildId(4))]
    assert say(ChildReady(ChildId(3))) == [DisownSlot(S0, ChildId(4))]


def test_a_stop_ends_successor_and_leaver_with_all_others() -> None:
    say = Conversation(workers=1).start()
    say(ChildWorn(W0))
    successor = ChildId(2)
    assert say(STOP) == [
        RefuseConnections(),
        SendStop(W0, at_once=False),
        SendStop(successor, at_once=False),
    ]
    assert say(ChildReady(successor)) == []
    assert say(SlotDrained(successor, S0)) == []
    assert say(SlotDrained(W0, S0)) == [CloseListeners()]
    assert say(ChildExited(successor, 0)) == [RepairColumn(successor)]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0), SendStop(CONTROLLER, at_once=True)]
    assert say.machine.phase is Phase.ENDING


def test_a_stop_at_once_replaces_nobody_any_more() -> None:
    say = Conversation(workers=1).start()
    say(ChildWorn(W0))
    successor = ChildId(2)
    say(STOP_AT_ONCE)
    assert say(ChildReady(successor)) == []
    assert say(ChildExited(successor, 0)) == [RepairColumn(successor)]
    assert [report.event for report in say.reports][-2:] == ["worker_ready", "worker_stopped"]
    assert say(ChildExited(W0, 0)) == [RepairColumn(W0)]
    assert say(ChildExited(CONTROLLER, 0)) == [RepairColumn(CONTROLLER), Exit(0)]


def test_a_reload_replaces_a_successor_that_was_born_before_it() -> None:
    say = Conversation().start()
    say(ChildWorn(W0))
    assert say(Reconfigured(3, 30.0, 600.0)) == []
    assert say(ChildReady(NEXT)) == []  # it knows the old configuration, and is about to be killed
    assert states(say)[0] == (0, W0, "ready")
    assert say.after(1.0) == [KillChild(NEXT)]
    assert say(ChildExited(NEXT, -9)) == [RepairColumn(NEXT), SpawnChild(AFTER_NEXT, S0)]
    assert "worker_failed_to_boot" not in [report.event for report in say.reports]


def test_a_reload_that_retires_the_slot_of_a_worn_worker_needs_no_successor() -> None:
    say = Conversation().start()
    say(ChildWorn(W2))
    assert say(Reconfigured(2, 30.0, 600.0)) == [
        RetireSlots(S2),
        SendStop(W2, at_once=False, retires=True),
    ]
    assert say(ChildReady(NEXT)) == []
    assert say(ChildExited(NEXT, -9)) == [RepairColumn(NEXT)]
    say(SlotDrained(W2, S2))
    assert say(ChildExited(W2, 0)) == [RepairColumn(W2)]
    assert states(say) == [(0, W0, "ready"), (1, W1, "ready")]


def test_who_is_not_ready_or_no_worker_is_not_replaced() -> None:
    say = Conversation().start()
    assert say(ChildWorn(ChildId(99))) == []
    say(STOP)
    assert say(ChildWorn(W0)) == []
