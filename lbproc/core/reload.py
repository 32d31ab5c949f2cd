"""Decides how a reload goes: from the request to the answer, one at a time.

Owns every decision on loading, binding, preparing, committing, giving up and closing. Owns no process,
socket, clock or file: the supervisor's shell turns what happens into events (`lbproc.core.reload_events`),
hands each in with the time, and carries out the commands that come back, in their order.

Theory of operation
-------------------
::

    IDLE ──request──▶ LOADING ──▶ BINDING ──▶ PREPARING ──▶ COMMITTING ──▶ FOLLOWING ──▶ CLOSING
      ▲                  │           │            │             │                            │
      ├───────refused────┴───────────┴────────────┴─────────────┘                            │
      └──────────────────────────────────done────────────────────────────────────────────────┘

Everything up to the commit can be undone, and whatever goes wrong there undoes all of it: the answer is a
refusal with one reason. Loading happens in a process of its own. An address that is in use is tried again
for a while, because a listener of ours may be closing there, or a predecessor.

The controller prepares first: it resolves host names that are new, so that the membership is complete when
the workers build on it. A *member* is a child that is ready, or drains. Every member is asked; one that
comes while others prepare is asked too. A place that is empty is not waited for: who is born after the
commit is born in the new generation, and who was born before and was never ready is replaced by
Supervision. A member that leaves before it has answered refuses with that: it may have died of what it
was asked to prepare.

A member that drains leaves anyway, and refuses nothing: if it ends, says no or says nothing in time it is
*excused*, which means asked no more. It goes on by the configuration that it has until it has finished
what it holds, and is never replaced, because that would cut what it holds.

The commit is one step of the shell, which either puts everything in force or fails and changes nothing.
After it nothing is refused any more. A member that does not follow in time is replaced, or excused if it
drains. When all follow,
every worker has relinquished the addresses that are gone, and workers that are new serve (or the time for it
is over), these addresses are closed and the request is answered.

A second request meanwhile is refused; of the hangups meanwhile, and of those before the service is open, one
is remembered. A stop refuses what is not yet committed, and lets the rest come to its end.

A generation that members were asked to prepare is never asked for again, so that no late answer is taken for
another's.

Invariants: each request is answered exactly once; between a `Load` and its answer there is exactly one of
`Undo` and a `Commit` that was carried out, and not both (a dry run, and what changes nothing, is undone);
`Bind` is undone or committed; whatever members do, an answer comes in the sum of all limits; who drains is
not replaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

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
from lbproc.types import Seconds

LOAD_WITHIN: Seconds = 30.0
BIND_WITHIN: Seconds = 5.0
BIND_AGAIN_AFTER: Seconds = 0.1

PREPARE_WITHIN: Seconds = 10.0
"""From asking a member to its answer."""

ALL_PREPARE_WITHIN: Seconds = 30.0
"""However many members come and go meanwhile."""

FOLLOW_WITHIN: Seconds = 5.0

CLOSE_WITHIN: Seconds = 5.0
"""For what is queued on addresses that are gone, and for workers that are new to serve."""


class Stage(Enum):
    """How far the reload under way is; the value is what `status` shows."""

    IDLE = "idle"
    LOADING = "loading"
    BINDING = "binding"
    PREPARING = "preparing"
    COMMITTING = "committing"
    FOLLOWING = "following"
    CLOSING = "closing"


@dataclass(slots=True)
class _Asked:
    """What became of asking one member."""

    member: Member
    answer_by: Seconds
    is_prepared: bool = False
    follows: bool = False
    has_relinquished: bool = False


class Reload:
    """The state machine.

    Args:
        generation: in force at the start.
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_bind_at",
        "_closes",
        "_commands",
        "_deadline",
        "_excused",
        "_hangup_waits",
        "_is_complete",
        "_is_dry",
        "_is_open",
        "_is_stopping",
        "_members",
        "_ticket",
        "generation",
        "last_refusal",
        "stage",
    )

    def __init__(self, generation: int) -> None:
        self.stage = Stage.IDLE
        self.generation = generation
        """In force."""
        self.last_refusal = ""
        """Why the last reload was refused; empty when it was not. Dry runs do not count."""
        self._attempt = generation  # the highest that any member was asked to prepare
        self._members: dict[ChildId, Member] = {}
        self._is_complete = False
        self._asked: dict[ChildId, _Asked] = {}
        self._excused: set[ChildId] = set()
        self._ticket: Ticket | None = None
        self._is_dry = False
        self._closes = False
        self._is_open = False
        self._is_stopping = False
        self._hangup_waits = False
        self._deadline = math.inf  # of the stage
        self._bind_at = math.inf
        self._commands: list[Command] = []

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Takes one event; returns what is to be done, in order.

        What comes too late, or from somebody who was not asked, has no effect.

        Args:
            event: what happened.
            now: monotonic time.
        """
        match event:
            case ReloadRequested() | HangupReceived() | ServiceOpened() | ServiceStopping():
                self._on_wish(event, now)
            case MembersChanged(members, is_complete):
                self._is_complete = is_complete
                self._on_members(members)
            case ChildPrepared() | ChildRefused() | ChildFollowed() | ChildRelinquished():
                self._on_member_said(event)
            case TimePassed():
                self._on_time(now)
            case _:
                self._on_done(event, now)
        self._settle(now)
        commands, self._commands = self._commands, []
        return commands

    @property
    def can_begin(self) -> bool:
        """Whether a request would be taken now."""
        return not self._obstacle()

    def next_wakeup(self) -> Seconds:
        """When a `TimePassed` is due; infinite when nothing waits."""
        waits = [self._deadline, self._bind_at]
        if self.stage is Stage.PREPARING:
            waits += [asked.answer_by for asked in self._asked.values() if not asked.is_prepared]
        return min(waits)

    # What happened, one method for each kind of event

    def _on_wish(
        self, event: ReloadRequested | HangupReceived | ServiceOpened | ServiceStopping, now: Seconds
    ) -> None:
        match event:
            case ReloadRequested(ticket, file, dry_run):
                if obstacle := self._obstacle():
                    self._do(Answer(ticket, Outcome.REFUSED, obstacle))
                else:
                    self._begin(ticket, file, dry_run, now)
            case HangupReceived():
                self._hangup_waits = not self._is_stopping
            case ServiceOpened():
                self._is_open = True
            case _:
                self._is_stopping = True
                self._hangup_waits = False
                if self.stage in {Stage.LOADING, Stage.BINDING, Stage.PREPARING}:
                    self._refuse("lbproc is stopping")

    def _on_members(self, members: tuple[Member, ...]) -> None:
        self._members = {member.child: member for member in members}
        for child, member in self._members.items():
            if child in self._asked:
                self._asked[child].member = member
        for child in [child for child in self._asked if child not in self._members]:
            gone = self._asked.pop(child)
            if self.stage is Stage.PREPARING and not gone.is_prepared and not gone.member.drains:
                self._refuse(f"{gone.member.title} ended while it prepared the new configuration")

    def _on_member_said(
        self, event: ChildPrepared | ChildRefused | ChildFollowed | ChildRelinquished
    ) -> None:
        asked = self._asked.get(event.child)
        if asked is None or event.generation != self._attempt:
            return
        match event:
            case ChildPrepared():
                asked.is_prepared = True
            case ChildRefused(_, _, reason):
                if self.stage is Stage.PREPARING:
                    self._lack(asked, f"{asked.member.title}: {reason}")
            case ChildFollowed():
                asked.follows = True
            case _:
                asked.has_relinquished = True

    def _on_done(
        self, event: Loaded | LoadFailed | Bound | BindFailed | Committed | CommitFailed, now: Seconds
    ) -> None:
        match event:
            case Loaded(changes) if self.stage is Stage.LOADING:
                self._on_loaded(changes, now)
            case LoadFailed(reason) if self.stage is Stage.LOADING:
                self._refuse(reason)
            case Bound() if self.stage is Stage.BINDING:
                self._bind_at = math.inf
                self._attempt += 1
                self._enter(Stage.PREPARING, now + ALL_PREPARE_WITHIN)
            case BindFailed(reason, may_pass) if self.stage is Stage.BINDING:
                if may_pass and now < self._deadline:
                    self._bind_at = min(now + BIND_AGAIN_AFTER, self._deadline)
                else:
                    self._refuse(reason)
            case Committed(closes) if self.stage is Stage.COMMITTING:
                self._on_committed(closes, now)
            case CommitFailed(reason) if self.stage is Stage.COMMITTING:
                self._refuse(reason)
            case _:
                pass

    def _on_loaded(self, changes: int, now: Seconds) -> None:
        if self._is_dry or not changes:
            self._do(Undo())
            self._finish(Outcome.PLANNED if self._is_dry else Outcome.UNCHANGED)
            return
        self._enter(Stage.BINDING, now + BIND_WITHIN)
        self._bind_at = now

    def _on_committed(self, closes: bool, now: Seconds) -> None:
        self.generation = self._attempt
        self._closes = closes
        for child in self._asked:
            self._do(TellToFollow(child, self.generation))
        for child, member in self._members.items():
            # It came at the last moment, and knows the old generation alone.
            if child not in self._asked and not member.drains:
                self._do(ReplaceChild(child))
        self._enter(Stage.FOLLOWING, now + FOLLOW_WITHIN)

    def _on_time(self, now: Seconds) -> None:
        match self.stage:
            case Stage.LOADING if now >= self._deadline:
                self._refuse(f"the configuration could not be read in {LOAD_WITHIN:g} s")
            case Stage.PREPARING:
                self._give_up_on_the_silent(now)
            case Stage.FOLLOWING if now >= self._deadline:
                for asked in [asked for asked in self._asked.values() if not asked.follows]:
                    del self._asked[asked.member.child]
                    if not asked.member.drains:
                        self._do(ReplaceChild(asked.member.child))
            case Stage.CLOSING if now >= self._deadline:
                self._close()
            case _:
                pass

    # What is done about it

    def _settle(self, now: Seconds) -> None:
        """Brings about what follows from the state, whatever event led to it."""
        if self.stage is Stage.BINDING and now >= self._bind_at:
            self._bind_at = math.inf
            self._do(Bind(self._attempt + 1))
        if self.stage is Stage.PREPARING:
            self._prepare(now)
        if self.stage is Stage.FOLLOWING and all(asked.follows for asked in self._asked.values()):
            self._enter(Stage.CLOSING, now + CLOSE_WITHIN)
        if self.stage is Stage.CLOSING and not self._awaits_closing():
            self._close()
        if self._hangup_waits and not self._obstacle():
            self._hangup_waits = False
            self._begin(None, "", False, now)

    def _obstacle(self) -> str:
        """Why nothing can begin now; empty: it can."""
        if self._is_stopping:
            return "lbproc is stopping"
        if not self._is_open:
            return "lbproc is still starting; try again when it is ready"
        if self.stage is not Stage.IDLE:
            return "another reload is under way; try again when it is done"
        return ""

    def _begin(self, ticket: Ticket | None, file: str, dry_run: bool, now: Seconds) -> None:
        self._ticket = ticket
        self._is_dry = dry_run
        self._enter(Stage.LOADING, now + LOAD_WITHIN)
        self._do(Load(ticket, file, dry_run))

    def _prepare(self, now: Seconds) -> None:
        """Asks whoever is to be asked; commits when everybody has answered."""
        for is_worker in (False, True):  # workers build on the names that the controller resolves
            members = [
                member
                for member in self._members.values()
                if member.is_worker is is_worker and member.child not in self._excused
            ]
            for member in members:
                if member.child not in self._asked:
                    self._asked[member.child] = _Asked(member, now + PREPARE_WITHIN)
                    self._do(AskToPrepare(member.child, self._attempt))
            if not all(self._asked[member.child].is_prepared for member in members):
                return
        self._enter(Stage.COMMITTING, math.inf)  # the next event says what came of it
        self._do(Commit(self._attempt))

    def _give_up_on_the_silent(self, now: Seconds) -> None:
        for asked in list(self._asked.values()):
            if not asked.is_prepared and now >= min(asked.answer_by, self._deadline):
                self._lack(asked, f"{asked.member.title} did not prepare the new configuration in time")
            if self.stage is not Stage.PREPARING:
                return

    def _lack(self, asked: _Asked, reason: str) -> None:
        """A member will not be prepared: that refuses the reload, unless it is about to leave."""
        child = asked.member.child
        if not asked.member.drains:
            self._refuse(reason)
            return
        del self._asked[child]
        self._excused.add(child)
        self._do(TellToAbandon(child, self._attempt))

    def _awaits_closing(self) -> bool:
        """Whether somebody still accepts from what is to be closed, or a new worker does not yet serve."""
        if not self._is_complete and not self._is_stopping:
            return True
        return self._closes and any(
            asked.member.is_worker and not asked.has_relinquished for asked in self._asked.values()
        )

    def _close(self) -> None:
        if self._closes:
            self._do(CloseRemoved())
        self._finish(Outcome.DONE)

    def _refuse(self, reason: str) -> None:
        """Everything stays, or becomes again, as it was."""
        for child in self._asked:
            self._do(TellToAbandon(child, self._attempt))
        self._do(Undo())
        self._finish(Outcome.REFUSED, reason)

    def _finish(self, outcome: Outcome, reason: str = "") -> None:
        if not self._is_dry:
            self.last_refusal = reason
        self._asked.clear()
        self._excused.clear()
        self._bind_at = math.inf
        self._enter(Stage.IDLE, math.inf)
        self._do(Answer(self._ticket, outcome, reason))
        self._ticket = None

    def _enter(self, stage: Stage, deadline: Seconds) -> None:
        self.stage = stage
        self._deadline = deadline

    def _do(self, command: Command) -> None:
        self._commands.append(command)
