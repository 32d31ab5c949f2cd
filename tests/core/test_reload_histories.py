"""Reloads as random histories: whatever happens, one answer, and all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

LONGEST = (
    sut.LOAD_WITHIN + sut.BIND_WITHIN + sut.ALL_PREPARE_WITHIN + sut.FOLLOW_WITHIN + sut.CLOSE_WITHIN + 1.0
)


@dataclass
class _World:
    """What the commands so far have led to."""

    generation: int = 1
    waiting: set[Ticket | None] = field(default_factory=set)
    is_loaded: bool = False
    is_bound: bool = False
    has_committed: bool = False
    to_close: bool = False
    prepared_for: dict[ChildId, int] = field(default_factory=dict)
    knows: dict[ChildId, int] = field(default_factory=dict)
    members: dict[ChildId, Member] = field(default_factory=dict)
    replies: list[Event] = field(default_factory=list)
    dry: bool = False

    def see(self, command: Command, can_bind: bool, can_commit: bool) -> None:
        match command:
            case Load():
                assert (self.is_loaded, self.is_bound, self.to_close) == (False, False, False)
                self.is_loaded = True
                self.has_committed = False
            case Bind():
                assert (self.is_loaded, self.is_bound, self.has_committed) == (True, False, False)
                assert not self.dry
                self.is_bound = can_bind
                self.replies.append(Bound() if can_bind else BindFailed("in use", may_pass=True))
            case Commit(generation):
                assert (self.is_bound, self.has_committed) == (True, False)
                self._commit(generation, can_commit)
            case CloseRemoved():
                assert self.to_close
                self.to_close = False
            case Undo():
                assert (self.is_loaded, self.has_committed) == (True, False)
                self.is_loaded = self.is_bound = False
            case Answer(ticket, outcome):
                self._answer(ticket, outcome)
            case _:
                self._see_child(command)

    def _see_child(self, command: AskToPrepare | TellToFollow | TellToAbandon | ReplaceChild) -> None:
        match command:
            case AskToPrepare(child, generation):
                assert self.is_bound
                assert generation > self.generation
                assert self.prepared_for.get(child, 0) < generation, "asked once for a generation"
                self.prepared_for[child] = generation
            case TellToFollow(child, generation):
                assert (self.has_committed, self.generation) == (True, generation)
                assert self.prepared_for[child] == generation
            case TellToAbandon(_, generation):
                assert not self.has_committed
                assert generation > self.generation
            case ReplaceChild(child):
                assert self.has_committed
                assert not self.members[child].drains, "that would cut what it holds"
                self.members.pop(child)

    def _commit(self, generation: int, can_commit: bool) -> None:
        if not can_commit:
            self.replies.append(CommitFailed("in use"))
            return
        self.generation = generation
        self.has_committed, self.is_loaded, self.is_bound = True, False, False
        self.to_close = generation % 2 == 0
        self.replies.append(Committed(closes=self.to_close))

    def _answer(self, ticket: Ticket | None, outcome: Outcome) -> None:
        if ticket is not None:
            self.waiting.remove(ticket)
        if outcome is Outcome.DONE:
            assert self.has_committed
        assert not self.to_close


KINDS = (
    "request", "hangup", "load", "invalid", "prepare", "refuse", "follow", "relinquish", "join", "leave",
    "drain", "time", "stop",
)  # fmt: skip
CHOICES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.floats(0.0, 6.0), st.booleans(), st.booleans()),
    max_size=80,
)


class _History:
    """The machine in its world; one method for each kind of thing that may happen."""

    def __init__(self) -> None:
        self.machine = Reload(generation=1)
        self.world = _World()
        self.now = 0.0
        self.tickets = 0
        self.can_bind = self.can_commit = True
        for child in range(3):
            self.add(child, is_worker=child > 0)
        self.tell_members(is_complete=True)
        self.handle(ServiceOpened())

    def add(self, child: int, *, is_worker: bool) -> None:
        self.world.members[ChildId(child)] = Member(ChildId(child), f"child {child}", is_worker)

    def tell_members(self, is_complete: bool) -> None:
        self.handle(MembersChanged(tuple(self.world.members.values()), is_complete))

    def handle(self, event: Event) -> None:
        replies = self.world.replies
        replies.insert(0, event)
        while replies:
            for command in self.machine.handle(replies.pop(0), self.now):
                self.world.dry = self.machine._is_dry
                self.world.see(command, self.can_bind, self.can_commit)
        assert self.machine.generation == self.world.generation

    def live(self, kind: str, index: int, yes: bool) -> None:
        children = sorted(self.world.members) or [ChildId(99)]
        child = children[index % len(children)]
        attempt = self.world.prepared_for.get(child, self.world.generation)
        events: dict[str, Event] = {
            "hangup": HangupReceived(),
            "invalid": LoadFailed("bad"),
            "prepare": ChildPrepared(child, attempt),
            "refuse": ChildRefused(child, attempt, "no"),
            "follow": ChildFollowed(child, attempt),
            "relinquish": ChildRelinquished(child, attempt),
        }
        if kind in events:
            self.handle(events[kind])
        elif kind == "request":
            self.tickets += 1
            self.world.waiting.add(Ticket(self.tickets))
            self.handle(ReloadRequested(Ticket(self.tickets), "f", dry_run=yes))
        elif kind == "load" and self.machine.stage is Stage.LOADING:
            self.handle(Loaded(index))
        elif kind == "join":
            self.add(max([*children, *self.world.prepared_for]) + 1, is_worker=index > 0)
            self.tell_members(yes)
        elif kind == "leave":
            self.world.members.pop(child, None)
            self.tell_members(yes)
        elif kind == "drain" and child in self.world.members:
            self.world.members[child] = replace(self.world.members[child], drains=True)
            self.tell_members(yes)
        elif kind == "stop" and index == 0:
            self.handle(ServiceStopping())
        else:
            self.handle(TimePassed())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(choices=CHOICES)
def test_every_request_is_answered_once_and_every_reload_is_committed_or_undone(
    choices: list[tuple[str, int, float, bool, bool]],
) -> None:
    history = _History()
    machine, world = history.machine, history.world
    for kind, index, wait, yes, also in choices:
        history.now += wait
        history.can_bind, history.can_commit = yes or also, yes
        history.live(kind, index, yes)
        assert machine.stage is Stage.IDLE or machine.next_wakeup() < history.now + LONGEST
    end = history.now + 2 * LONGEST  # a hangup may have been remembered
    history.can_bind = False
    while machine.stage is not Stage.IDLE:
        assert history.now <= end, "it never ends"
        history.now = max(history.now, machine.next_wakeup())
        history.handle(TimePassed())
        assert machine.next_wakeup() > history.now, "the loop would spin"
    assert not world.waiting
    assert (world.is_loaded, world.is_bound, world.to_close) == (False, False, False)
