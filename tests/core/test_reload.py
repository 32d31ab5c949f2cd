"""One reload after the other, as conversations of events and commands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lbproc.core import reload as sut
from lbproc.core.reload import Reload, Stage
from lbproc.core.reload_events import (
    Answer,
    AskToPrepare,
    Bind,
    BindFailed,
    Bound,
    ChildFollowed,
    ChildPrepared,
    ChildRefused,
    ChildRelinquished,
    CloseRemoved,
    Command,
    Commit,
    CommitFailed,
    Committed,
    Event,
    HangupReceived,
    Load,
    Loaded,
    LoadFailed,
    Member,
    MembersChanged,
    Outcome,
    ReloadRequested,
    ReplaceChild,
    ServiceOpened,
    ServiceStopping,
    TellToAbandon,
    TellToFollow,
    Ticket,
    TimePassed,
    Undo,
)
from lbproc.core.supervision_events import ChildId

C, W0, W1, W2 = (ChildId(number) for number in range(4))
CONTROLLER = Member(C, "the controller", is_worker=False)
WORKERS = tuple(Member(child, f"worker {child - 1}", is_worker=True) for child in (W0, W1, W2))
FLEET = (CONTROLLER, *WORKERS[:2])
T = Ticket(7)
ASKED = ReloadRequested(T, "new.toml", dry_run=False)


class Conversation:
    """A machine that serves with a controller and two workers, and a clock."""

    def __init__(self, members: tuple[Member, ...] = FLEET) -> None:
        self.machine = Reload(generation=1)
        self.now = 1000.0
        self.members = members
        self(MembersChanged(members, is_complete=True))
        self(ServiceOpened())

    def __call__(self, *events: Event) -> list[Command]:
        """All events; the commands of the last one."""
        commands: list[Command] = []
        for event in events:
            commands = self.machine.handle(event, self.now)
        return commands

    def after(self, seconds: float) -> list[Command]:
        self.now += seconds
        return self(TimePassed())

    def change(self, *members: Member, is_complete: bool = True) -> list[Command]:
        return self(MembersChanged(members, is_complete))

    def prepare(self) -> list[Command]:
        """Up to where all have prepared."""
        return self(ASKED, Loaded(3), Bound(), *(ChildPrepared(member.child, 2) for member in self.members))

    def commit(self, *, closes: bool = False) -> list[Command]:
        self.prepare()
        return self(Committed(closes))


def refused(reason: str, ticket: Ticket | None = T) -> Answer:
    return Answer(ticket, Outcome.REFUSED, reason)


def test_a_reload_goes_through_all_stages_and_is_answered_at_the_end() -> None:
    say = Conversation()
    assert say(ASKED) == [Load(T, "new.toml", dry_run=False)]
    assert say(Loaded(3)) == [Bind(2)]
    assert say(Bound()) == [AskToPrepare(C, 2)]
    assert say(ChildPrepared(C, 2)) == [AskToPrepare(W0, 2), AskToPrepare(W1, 2)]
    assert say(ChildPrepared(W1, 2)) == []
    assert say(ChildPrepared(W0, 2)) == [Commit(2)]
    assert say(Committed(closes=True)) == [TellToFollow(C, 2), TellToFollow(W0, 2), TellToFollow(W1, 2)]
    assert say.machine.generation == 2
    assert say(ChildFollowed(W0, 2), ChildRelinquished(W0, 2), ChildFollowed(C, 2)) == []
    assert say(ChildFollowed(W1, 2)) == []
    assert say.machine.next_wakeup() == say.now + sut.CLOSE_WITHIN
    assert say(ChildRelinquished(W1, 2)) == [CloseRemoved(), Answer(T, Outcome.DONE)]
    assert say.machine.stage is Stage.IDLE
    assert say.machine.next_wakeup() == math.inf


def test_without_addresses_that_go_it_is_done_when_all_follow() -> None:
    say = Conversation()
    say.commit()
    assert say(ChildFollowed(W0, 2), ChildFollowed(C, 2), ChildFollowed(W1, 2)) == [Answer(T, Outcome.DONE)]


def test_a_controller_that_is_down_is_not_waited_for() -> None:
    say = Conversation(members=WORKERS[:2])
    assert say(ASKED, Loaded(1), Bound()) == [AskToPrepare(W0, 2), AskToPrepare(W1, 2)]


def test_without_any_member_it_commits_at_once() -> None:
    say = Conversation(members=())
    assert say(ASKED, Loaded(1), Bound()) == [Commit(2)]
    assert say(Committed(closes=True)) == [CloseRemoved(), Answer(T, Outcome.DONE)]


def test_a_dry_run_loads_and_compares_only() -> None:
    say = Conversation()
    assert say(ReloadRequested(T, "", dry_run=True)) == [Load(T, "", dry_run=True)]
    assert say(Loaded(2)) == [Undo(), Answer(T, Outcome.PLANNED)]
    assert say(ReloadRequested(T, "", dry_run=True), LoadFailed("no")) == [Undo(), refused("no")]
    assert say.machine.last_refusal == ""


def test_what_changes_nothing_is_not_put_to_anybody() -> None:
    say = Conversation()
    assert say(ASKED, Loaded(0)) == [Undo(), Answer(T, Outcome.UNCHANGED)]
    assert say.machine.generation == 1


def test_a_file_that_cannot_be_used_is_refused() -> None:
    say = Conversation()
    assert say(ASKED, LoadFailed("lbproc.toml:3: no")) == [Undo(), refused("lbproc.toml:3: no")]
    assert say.machine.last_refusal == "lbproc.toml:3: no"
    assert say(LoadFailed("again")) == []
    assert say.prepare() == [Commit(2)], "no generation is used up"


def test_a_loader_that_is_silent_is_ended() -> None:
    say = Conversation()
    say(ASKED)
    assert say.machine.next_wakeup() == say.now + sut.LOAD_WITHIN
    assert say.after(29.9) == []
    assert say.after(0.1) == [Undo(), refused("the configuration could not be read in 30 s")]


def test_what_is_in_use_is_tried_again_for_a_while() -> None:
    say = Conversation()
    busy = BindFailed("address in use", may_pass=True)
    assert say(ASKED, Loaded(1)) == [Bind(2)]
    assert say(busy) == []
    assert say.after(sut.BIND_AGAIN_AFTER / 2) == []
    assert say.after(sut.BIND_AGAIN_AFTER) == [Bind(2)]
    assert say(busy) == []
    assert say.after(sut.BIND_WITHIN) == [Bind(2)]
    assert say(busy) == [Undo(), refused("address in use")]


def test_what_cannot_be_bound_at_all_is_refused_at_once() -> None:
    say = Conversation()
    assert say(ASKED, Loaded(1), BindFailed("no such interface")) == [Undo(), refused("no such interface")]


def test_one_refusal_abandons_it_for_all() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W0, 2))
    assert say(ChildRefused(W1, 2, "no memory")) == [
        TellToAbandon(C, 2),
        TellToAbandon(W0, 2),
        TellToAbandon(W1, 2),
        Undo(),
        refused("worker 1: no memory"),
    ]
    assert say.machine.generation == 1


def test_one_that_is_silent_abandons_it_for_all() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound())
    say.now += 9.0
    say(ChildPrepared(C, 2), ChildPrepared(W1, 2))
    assert say.machine.next_wakeup() == say.now + sut.PREPARE_WITHIN
    assert say.after(sut.PREPARE_WITHIN)[-1] == refused(
        "worker 0 did not prepare the new configuration in time"
    )


def test_one_that_dies_of_preparing_abandons_it_for_all() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W1, 2))
    assert say.change(CONTROLLER, WORKERS[1]) == [
        TellToAbandon(C, 2),
        TellToAbandon(W1, 2),
        Undo(),
        refused("worker 0 ended while it prepared the new configuration"),
    ]


def test_one_that_drains_may_end_at_any_time() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound())
    leaving = replace(WORKERS[0], drains=True)
    say(ChildPrepared(C, 2), ChildPrepared(W1, 2))
    say.change(CONTROLLER, leaving, WORKERS[1])
    assert say.change(CONTROLLER, WORKERS[1]) == [Commit(2)]


LEAVING = replace(WORKERS[0], drains=True)


def asked_with_one_that_drains() -> Conversation:
    """Only the worker that drains has not answered."""
    say = Conversation(members=(CONTROLLER, LEAVING, WORKERS[1]))
    assert say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2)) == [AskToPrepare(W0, 2), AskToPrepare(W1, 2)]
    return say


def test_one_that_drains_cannot_refuse() -> None:
    say = asked_with_one_that_drains()
    assert say(ChildRefused(W0, 2, "no descriptor")) == [TellToAbandon(W0, 2)]
    assert say.change(CONTROLLER, LEAVING, WORKERS[1], is_complete=False) == [], "it is asked no more"
    assert say(ChildPrepared(W0, 2), ChildRefused(W0, 2, "again")) == []
    assert say(ChildPrepared(W1, 2)) == [Commit(2)]
    assert say(Committed(closes=True)) == [TellToFollow(C, 2), TellToFollow(W1, 2)], "nor is it replaced"
    say(ChildFollowed(C, 2), ChildFollowed(W1, 2))
    say.change(CONTROLLER, LEAVING, WORKERS[1])
    assert say(ChildRelinquished(W1, 2)) == [CloseRemoved(), Answer(T, Outcome.DONE)]


def test_one_that_drains_refuses_after_all_others_have_prepared() -> None:
    say = asked_with_one_that_drains()
    assert say(ChildPrepared(W1, 2)) == []
    assert say(ChildRefused(W0, 2, "no descriptor")) == [TellToAbandon(W0, 2), Commit(2)]


def test_one_that_drains_and_is_silent_is_waited_for_no_longer_than_others() -> None:
    say = asked_with_one_that_drains()
    say(ChildPrepared(W1, 2))
    assert say.after(sut.PREPARE_WITHIN - 0.1) == []
    assert say.after(0.1) == [TellToAbandon(W0, 2), Commit(2)]
    assert say(Committed(closes=False)) == [TellToFollow(C, 2), TellToFollow(W1, 2)]
    assert say(ChildFollowed(C, 2), ChildFollowed(W0, 2)) == []
    assert say(ChildFollowed(W1, 2)) == [Answer(T, Outcome.DONE)]


def test_one_that_drains_does_not_hide_another_that_is_silent() -> None:
    say = asked_with_one_that_drains()
    assert say.after(sut.PREPARE_WITHIN) == [
        TellToAbandon(W0, 2),
        TellToAbandon(C, 2),
        TellToAbandon(W1, 2),
        Undo(),
        refused("worker 1 did not prepare the new configuration in time"),
    ]
    assert say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 3)) == [AskToPrepare(W0, 3), AskToPrepare(W1, 3)]


def test_one_that_begins_to_drain_while_it_is_silent_is_excused() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W1, 2))
    say.change(CONTROLLER, LEAVING, WORKERS[1], WORKERS[2])
    say(ChildPrepared(W2, 2))
    assert say.after(sut.PREPARE_WITHIN) == [TellToAbandon(W0, 2), Commit(2)]


def test_one_that_refused_before_it_began_to_drain_has_refused() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W1, 2))
    assert say(ChildRefused(W0, 2, "no"))[-1] == refused("worker 0: no")
    assert say.change(CONTROLLER, LEAVING, WORKERS[1]) == []


def test_one_that_is_excused_may_end_at_any_time() -> None:
    say = asked_with_one_that_drains()
    say(ChildRefused(W0, 2, "no descriptor"))
    assert say.change(CONTROLLER, WORKERS[1]) == []
    assert say(ChildPrepared(W1, 2)) == [Commit(2)]


def test_one_that_drains_and_does_not_follow_is_not_replaced() -> None:
    say = asked_with_one_that_drains()
    say(ChildPrepared(W0, 2), ChildPrepared(W1, 2))
    late = replace(WORKERS[2], drains=True)
    say.change(CONTROLLER, LEAVING, WORKERS[1], late)
    say(Committed(closes=True), ChildFollowed(C, 2), ChildFollowed(W1, 2), ChildRelinquished(W1, 2))
    assert say.after(sut.FOLLOW_WITHIN) == [CloseRemoved(), Answer(T, Outcome.DONE)]


def test_one_that_dies_after_preparing_is_followed_by_one_that_is_asked_too() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W1, 2))
    assert say.change(CONTROLLER, WORKERS[0], is_complete=False) == []
    assert say.change(CONTROLLER, WORKERS[0], WORKERS[2]) == [AskToPrepare(W2, 2)]
    assert say(ChildPrepared(W0, 2)) == []
    assert say(ChildPrepared(W2, 2)) == [Commit(2)]


def test_members_that_come_and_go_do_not_keep_it_up_for_ever() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildPrepared(W0, 2), ChildPrepared(W1, 2))
    say = Conversation(members=(WORKERS[0],))
    say(ASKED, Loaded(1), Bound())
    for number in range(100, 110):
        newcomer = Member(ChildId(number), "worker 5", is_worker=True)
        say.change(*say.machine._members.values(), newcomer)
        say.after(2.9)
        say(*(ChildPrepared(child, 2) for child in list(say.machine._asked) if child != number))
        assert say.machine.stage is Stage.PREPARING
        if number < 109:
            say(ChildPrepared(ChildId(number - 1), 2))
    assert say.after(1.0)[-1] == refused("worker 5 did not prepare the new configuration in time")


def test_the_answers_of_an_abandoned_attempt_do_not_count_for_the_next() -> None:
    say = Conversation()
    say(ASKED, Loaded(1), Bound(), ChildPrepared(C, 2), ChildRefused(W1, 2, "no"))
    assert say(ASKED, Loaded(1), Bound()) == [AskToPrepare(C, 3)]
    assert say(ChildPrepared(C, 2)) == []
    assert say(ChildPrepared(C, 3), ChildPrepared(W0, 3), ChildPrepared(W1, 3)) == [Commit(3)]
    assert say.machine.last_refusal == "worker 1: no"
    say(Committed(closes=False))
    say(*(ChildFollowed(child, 3) for child in (C, W0, W1)))
    assert say.machine.generation == 3
    assert say.machine.last_refusal == ""


def test_a_commit_that_fails_is_a_refusal() -> None:
    say = Conversation()
    say.prepare()
    assert say(CommitFailed("another program listens")) == [
        TellToAbandon(C, 2),
        TellToAbandon(W0, 2),
        TellToAbandon(W1, 2),
        Undo(),
        refused("another program listens"),
    ]


def test_nothing_is_decided_between_the_commit_and_what_came_of_it() -> None:
    say = Conversation()
    say.prepare()
    assert say(ChildRefused(W0, 2, "too late"), ServiceStopping()) == []
    assert say.change(CONTROLLER, *WORKERS) == []
    assert say.after(1000.0) == []
    assert say(Committed(closes=False)) == [
        TellToFollow(C, 2),
        TellToFollow(W0, 2),
        TellToFollow(W1, 2),
        ReplaceChild(W2),  # it came at the last moment
    ]


def test_one_that_does_not_follow_is_replaced() -> None:
    say = Conversation()
    say.commit()
    say(ChildFollowed(C, 2), ChildFollowed(W1, 2))
    assert say.after(sut.FOLLOW_WITHIN) == [ReplaceChild(W0), Answer(T, Outcome.DONE)]


def test_one_that_dies_between_commit_and_following_is_not_waited_for() -> None:
    say = Conversation()
    say.commit()
    say(ChildFollowed(C, 2), ChildFollowed(W1, 2))
    assert say.change(CONTROLLER, WORKERS[1], is_complete=False) == [], "its successor is"
    assert say.change(CONTROLLER, WORKERS[1], WORKERS[2]) == [Answer(T, Outcome.DONE)]


@pytest.mark.parametrize("is_complete", [True, False])
def test_addresses_are_closed_and_the_end_is_told_also_when_somebody_takes_too_long(
    is_complete: bool,
) -> None:
    say = Conversation()
    say.commit(closes=True)
    say(*(ChildFollowed(child, 2) for child in (C, W0, W1)), ChildRelinquished(W0, 2))
    say.change(*FLEET, is_complete=is_complete)
    assert say.after(sut.CLOSE_WITHIN - 0.1) == []
    assert say.after(0.1) == [CloseRemoved(), Answer(T, Outcome.DONE)]


def test_a_second_request_is_refused_clearly() -> None:
    say = Conversation()
    say(ASKED)
    second = Ticket(8)
    assert say(ReloadRequested(second, "", dry_run=True)) == [
        refused("another reload is under way; try again when it is done", second)
    ]
    assert say.machine.stage is Stage.LOADING


def test_of_the_hangups_during_a_reload_one_is_remembered() -> None:
    say = Conversation()
    assert say(HangupReceived()) == [Load(None, "", dry_run=False)]
    assert say(HangupReceived(), HangupReceived()) == []
    assert say(Loaded(0)) == [Undo(), Answer(None, Outcome.UNCHANGED), Load(None, "", dry_run=False)]
    assert say(Loaded(0)) == [Undo(), Answer(None, Outcome.UNCHANGED)]


def test_before_the_service_is_open_a_request_is_refused_and_a_hangup_remembered() -> None:
    machine = Reload(generation=1)
    starting = "lbproc is still starting; try again when it is ready"
    assert machine.handle(ASKED, 0.0) == [refused(starting)]
    assert machine.handle(HangupReceived(), 0.0) == []
    assert machine.handle(ServiceOpened(), 1.0) == [Load(None, "", dry_run=False)]


@pytest.mark.parametrize("events", [(), (Loaded(1),), (Loaded(1), Bound(), ChildPrepared(C, 2))])
def test_a_stop_before_the_commit_undoes_it(events: tuple[Event, ...]) -> None:
    say = Conversation()
    say(ASKED, *events)
    assert say(ServiceStopping())[-2:] == [Undo(), refused("lbproc is stopping")]
    assert say(HangupReceived()) == []
    assert say(ASKED) == [refused("lbproc is stopping")]


def test_a_stop_after_the_commit_lets_it_come_to_its_end() -> None:
    say = Conversation()
    say.commit(closes=True)
    assert say(ServiceStopping()) == []
    say(ChildFollowed(C, 2), ChildFollowed(W0, 2), ChildRelinquished(W0, 2))
    assert say.change(CONTROLLER, is_complete=False) == [CloseRemoved(), Answer(T, Outcome.DONE)]


def test_what_strangers_say_and_what_comes_at_the_wrong_time_has_no_effect() -> None:
    say = Conversation()
    late: list[Event] = [
        Loaded(1),
        LoadFailed("no"),
        Bound(),
        BindFailed("no"),
        Committed(closes=True),
        CommitFailed("no"),
        ChildPrepared(ChildId(99), 2),
        ChildFollowed(W0, 2),
    ]
    for event in late:
        assert say(event) == []
    assert say.machine.stage is Stage.IDLE
    say(ASKED, Loaded(1), Bound())
    assert say(ChildPrepared(ChildId(99), 2), ChildFollowed(C, 9)) == []
