"""Decides what the supervisor does: the life of its children, from the first fork to the last.

Owns every decision on spawning, adopting, dumping, killing, repairing and ending. Owns no process, socket,
clock or table: the supervisor's shell turns what happens into events (`lbproc.core.supervision_events`),
hands each in with the time, and carries out the commands that come back, in their order.

It is long on purpose: whether a step is right depends on all the others, so they stand in one file.

Theory of operation
-------------------
::

    STARTING ──all ready──▶ RUNNING ──stop──▶ DRAINING ──no children──▶ ENDED
        │                      │                 │ drain_timeout, stop at once    ▲
        └──a child cannot boot─┴──stop at once───┴──────────────▶ ENDING ─────────┘
                                                                  no children, or END_WITHIN is over

Start: the controller boots first, because it resolves the host names that workers are born knowing; then the
sockets listen, then all workers boot. A child that exits before it is ready ends the start: something is
wrong that trying again does not mend.

A *place* is where a child belongs: one for each slot, one for the controller. A child in it is::

    BOOTING ──ready──▶ READY ──stop──▶ DRAINING
       └────────────┬─────┴───────────────┘ heartbeat late
                    ▼
                  HUNG ──dump grace over──▶ KILLED          every state ──exited──▶ place empty

A place that is empty while RUNNING is filled again: at once the first time, then after delays that grow,
until a child has been ready for STABLE_AFTER. While its worker is down the sockets of a slot are served by
a ready sibling, the *adopter*, so that nothing waits for the delay. The adopter is told to let go when the
place's new child is ready. While no worker is ready at all the delay is short: then it costs traffic.

A new configuration may have another number of workers. Slots that are new are filled at once. Of those that
are too many the highest are *retired*: new connections are steered to the others, the worker is told to
finish, and finishes what it holds without a limit of time; it stays a child like all others until it leaves.
When it has accepted its queue the slot is closed, the highest first. The queue of one that dies before goes
to a ready sibling, which drains it. Whoever was born with an older configuration and is not yet ready is
replaced, and so is a child that does not follow.

A worker that has served enough is *worn* and is replaced the other way round: its successor is forked first.
When that is ready it takes the place, and the worn one, a *leaver*, lets go of the slot and finishes what it
holds, without a limit of time as well. One worker at a time is replaced so, from the fork of the successor to
the end of the leaver, or until LEAVER_TURN is over: what it holds then are tunnels and streams, which may
last for days. A slot has one leaver at most: for that of its own slot a worn worker waits without a limit.

While DRAINING the slot of a worker that dies before it has accepted its queue goes to a sibling that drains
it as well; without a sibling one more worker is forked, which finds the word to stop in its channel and
accepts this queue alone. That is tried DRAIN_ATTEMPTS times for a slot. Nobody else is replaced. When the
queues of all slots are accepted, the listeners are closed. The controller outlives the workers, so that the
drain can be watched.

Invariants: a slot's own child is never ready while another has adopted the slot; `RepairColumn` comes
exactly once for each child, before its place is filled again; a slot number is not filled again before the
retired slot of that number is closed, if no more workers are asked for while `is_retiring`; after a stop,
`Exit` comes exactly once, and at the latest ``drain_timeout + END_WITHIN`` later, whatever children do; after
`Exit` no command comes.

Longer than other modules on purpose: whatever changes the state of a child stands in this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lbproc.core.supervision_events import (
    AdoptSlot,
    AnnounceReady,
    ChannelLost,
    ChildEvent,
    ChildExited,
    ChildFailedToBoot,
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
    Listen,
    ListenFailed,
    Listening,
    Reconfigured,
    RefuseConnections,
    RepairColumn,
    Report,
    RetireSlots,
    SendLeave,
    SendStop,
    SlotDrained,
    SpawnChild,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.types import Seconds, Slot

STABLE_AFTER: Seconds = 2.0
"""A child that was ready for this long is not part of a crash loop."""

FIRST_DELAY: Seconds = 0.25
LONGEST_DELAY: Seconds = 30.0

LONGEST_OUTAGE: Seconds = 1.0
"""The longest delay of a worker while none is ready. A fork a second is bearable, an outage is not."""

DUMP_GRACE: Seconds = 2.0
"""From the request to dump to the kill. Writing stacks takes milliseconds; a stopped process never does."""

LEAVE_GRACE: Seconds = 5.0
"""From "leave at once" (or the loss of the channel) to the kill."""

END_WITHIN: Seconds = 10.0
"""ENDING lasts no longer, even when the kernel does not give a killed child back."""

DRAIN_ATTEMPTS = 3
"""Workers forked in a drain for one queue that nobody is left to accept."""

SUCCEED_AGAIN_AFTER: Seconds = 30.0
"""A successor that could not start is not tried again for so long: the worn worker still serves."""

LEAVER_TURN: Seconds = 60.0
"""How long the worn workers of other slots wait for one that is being replaced."""

LATE_TICK: Seconds = 5.0
"""Ticks come every second. When one comes this late then we ourselves did not run (the machine was
suspended, or all of us stopped), and nobody's heartbeat says anything until a fresh one could be
written."""


class Phase(Enum):
    """The supervisor's own state."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    ENDING = "ending"
    ENDED = "ended"


class ChildState(Enum):
    """The state of a child; the value is what `status` shows."""

    BOOTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    HUNG = "hung"
    KILLED = "killed"


NO_CHILD = "down"
"""What `status` shows of a place that waits for its next child."""

RETIRED = "retired"
"""What `status` shows of a worker that finishes because there are fewer slots now."""


@dataclass(slots=True)
class _Child:
    name: ChildId
    place: _Place
    state: ChildState
    spawned_at: Seconds
    ready_at: Seconds = math.inf
    kill_at: Seconds = math.inf
    refusal: str = ""
    is_outdated: bool = False
    is_worn: bool = False
    replaced_at: Seconds = math.inf  # a leaver since

    @property
    def is_reachable(self) -> bool:
        """Whether it works, or drains, and can be talked to."""
        return self.state in {ChildState.READY, ChildState.DRAINING} and self.kill_at == math.inf

    def must_leave_by(self, at: Seconds) -> None:
        """Else it is killed, once."""
        if self.state is not ChildState.KILLED:
            self.kill_at = min(self.kill_at, at)


@dataclass(slots=True)
class _Place:
    slot: Slot | None
    child: ChildId | None = None
    adopter: ChildId | None = None
    successor: ChildId | None = None  # boots while the worn child serves
    is_orphaned: bool = False
    is_drained: bool = False
    is_retired: bool = False
    is_closed: bool = False
    drain_attempts: int = 0
    failures: int = 0
    spawns: int = 0
    respawn_at: Seconds = math.inf


@dataclass(frozen=True, slots=True)
class PlaceState:
    """A place as `status` shows it.

    Args:
        slot: None for the controller.
        child: who is in it.
        state: a value of `ChildState`, `NO_CHILD` or `RETIRED`.
        restarts: how often a child was spawned after the first one.
    """

    slot: Slot | None
    child: ChildId | None
    state: str
    restarts: int


def restart_delay(failures: int) -> Seconds:
    """How long a place stays empty after that many failures in a row: 0, then 0.25 s doubling to 30 s."""
    if failures <= 1:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 2, 30))


def describe_exit(status: int) -> str:
    """An exit as a person says it; negative: ended by that signal."""
    return f"exited with status {status}" if status >= 0 else f"was ended by signal {-status}"


class Supervision:
    """The state machine.

    Args:
        workers: how many slots there are, at least 1.
        heartbeat_timeout: how old a child's heartbeat may be.
        drain_timeout: how long a drain may last.
    """

    __slots__ = (
        "_children",
        "_commands",
        "_deadline",
        "_drain_timeout",
        "_end",
        "_heartbeat_timeout",
        "_is_open",
        "_judged_from",
        "_last_tick_at",
        "_next_child",
        "_places",
        "_retired",
        "_succeed_at",
        "_workers",
        "phase",
    )

    def __init__(self, workers: int, heartbeat_timeout: Seconds, drain_timeout: Seconds) -> None:
        self.phase = Phase.STARTING
        self._workers = tuple(_Place(Slot(slot)) for slot in range(workers))
        self._places = (_Place(None), *self._workers)
        self._retired: tuple[_Place, ...] = ()  # until the slot is closed and its worker has left
        self._children: dict[ChildId, _Child] = {}
        self._succeed_at: Seconds = -math.inf  # not before
        self._next_child = 0
        self._heartbeat_timeout = heartbeat_timeout
        self._drain_timeout = drain_timeout
        self._deadline = math.inf  # of the phase
        self._end = Exit(0)
        self._is_open = True  # our ends of the listeners
        self._judged_from = -math.inf
        self._last_tick_at = math.inf
        self._commands: list[Command] = []

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Takes one event; returns what is to be done, in order.

        Events of children that are gone, and what children say too late, have no effect.

        Args:
            event: what happened.
            now: monotonic time.
        """
        if self.phase is Phase.ENDED:
            return []
        match event:
            case Started() | Listening() | ListenFailed():
                if self.phase is Phase.STARTING:
                    self._on_start(event, now)
            case Reconfigured(workers, heartbeat_timeout, drain_timeout):
                self._heartbeat_timeout = heartbeat_timeout
                self._drain_timeout = drain_timeout
                if self.phase is Phase.RUNNING:
                    self._on_reconfigured(workers, now)
            case StopRequested(at_once, reason):
                self._on_stop(at_once, reason, now)
            case Ticked(heartbeats):
                self._on_tick(heartbeats, now)
            case _:
                if child := self._children.get(event.child):
                    self._on_child(child, event, now)
        self._settle(now)
        commands, self._commands = self._commands, []
        return commands

    def next_wakeup(self) -> Seconds:
        """When a `Ticked` is due apart from the regular ones; infinite when nothing waits."""
        waits = [self._deadline]
        waits += [child.kill_at for child in self._children.values()]
        waits += [place.respawn_at for place in self._places]
        return min(waits)

    def places(self) -> tuple[PlaceState, ...]:
        """The controller's place, those of the slots in order, then the workers that are retired."""
        leaving = tuple(place for place in self._retired if place.child is not None)
        return tuple(
            PlaceState(place.slot, place.child, self._state_of(place), max(0, place.spawns - 1))
            for place in (*self._places, *leaving)
        )

    def reachable(self) -> dict[ChildId, Slot | None]:
        """Who works or drains and can be talked to, each with its slot."""
        return {child.name: child.place.slot for child in self._children.values() if child.is_reachable}

    def is_draining(self, child: ChildId) -> bool:
        """Whether the child finishes."""
        return self._children[child].state is ChildState.DRAINING

    @property
    def is_complete(self) -> bool:
        """Whether every place has a child that is ready, and none of them is about to be gone."""
        return all(place.child is not None and self._is_well(place.child) for place in self._places)

    @property
    def is_retiring(self) -> bool:
        """Whether a retired slot is not yet closed."""
        return not all(place.is_closed for place in self._retired)

    def adopted(self) -> dict[Slot, ChildId]:
        """The slots that siblings serve, and who."""
        return {
            place.slot: place.adopter
            for place in self._workers
            if place.slot is not None and place.adopter is not None
        }

    # What happened, one method for each kind of event

    def _on_start(self, event: Started | Listening | ListenFailed, now: Seconds) -> None:
        match event:
            case Started():
                self._spawn(self._places[0], now)
            case Listening():
                for worker in self._workers:
                    self._spawn(worker, now)
            case _:
                self._leave(now, Exit(1, event.reason))

    def _on_child(self, child: _Child, event: ChildEvent, now: Seconds) -> None:
        match event:
            case ChildReady():
                if child.state is ChildState.BOOTING:
                    self._on_ready(child, now)
            case ChildFailedToBoot(_, reason):
                child.refusal = reason
                child.must_leave_by(now + LEAVE_GRACE)
            case ChannelLost():
                child.must_leave_by(now + LEAVE_GRACE)
            case ChildStraggled():
                if child.is_reachable:
                    self._report("worker_straggled", child)
                    self._abandon(child, now)
            case ChildWorn():
                child.is_worn = True
            case SlotDrained(_, slot):
                self._on_drained(child, slot)
            case ChildExited(_, status):
                self._on_gone(child, describe_exit(status), status == 0, now)
            case _:
                child.refusal = f"fork failed: {event.reason}"
                self._on_gone(child, child.refusal, False, now)

    def _on_ready(self, child: _Child, now: Seconds) -> None:
        if child.place.successor == child.name:
            if child.is_outdated or child.place.is_retired:
                return  # it is about to be killed
            self._succeed(child, now)
        child.state = ChildState.READY
        child.ready_at = now
        place = child.place
        place.is_orphaned = False
        self._report("worker_ready", child)
        if place.slot is None:
            if self.phase is Phase.STARTING and not self._workers[0].spawns:
                self._do(Listen())
            return
        if place.adopter is not None:
            self._do(DisownSlot(place.slot, place.adopter))
            self._report("slot_returned", None, slot=place.slot, by=self._slot_of(place.adopter))
            place.adopter = None

    def _on_gone(self, child: _Child, description: str, is_clean: bool, now: Seconds) -> None:
        del self._children[child.name]
        place = child.place
        if place.successor == child.name:
            self._on_successor_gone(child, description, now)
            return
        place.child, place.successor = place.successor, None
        adopted = self._release_adopted(child)
        if self.phase in {Phase.STARTING, Phase.RUNNING} and not place.is_retired:
            place.is_orphaned = True
            self._lose(child, description, now)
        else:
            # One that left in good order has accepted its own queue, whether or not its message got through.
            # What it was given to adopt it may never have seen.
            place.is_drained = place.is_drained or is_clean
            for other in (place, *adopted):
                other.is_orphaned = True
            self._report("worker_stopped" if is_clean else "worker_exited", child, status=description)
        self._do(RepairColumn(child.name))

    def _on_successor_gone(self, child: _Child, description: str, now: Seconds) -> None:
        """Who was to be succeeded goes on; nothing else has changed."""
        child.place.successor = None
        if not child.is_outdated:
            self._succeed_at = now + SUCCEED_AGAIN_AFTER
            reason = child.refusal or f"{_title(child.place)} {description} before it was ready"
            self._report("worker_failed_to_boot", child, reason=reason)
        self._do(RepairColumn(child.name))

    def _release_adopted(self, child: _Child) -> list[_Place]:
        places = [place for place in (*self._workers, *self._retired) if place.adopter == child.name]
        for place in places:
            place.adopter = None
        return places

    def _lose(self, child: _Child, description: str, now: Seconds) -> None:
        """A child is gone that should not be: end the start, or plan its replacement."""
        place = child.place
        if child.is_outdated:
            place.respawn_at = now
            return
        was_ready = child.ready_at < math.inf
        if not was_ready:
            reason = child.refusal or f"{_title(place)} {description} before it was ready"
            self._report("worker_failed_to_boot", child, reason=reason)
            if self.phase is Phase.STARTING:
                self._leave(now, Exit(1, reason))
                return
        if now - child.ready_at >= STABLE_AFTER:
            place.failures = 0
        place.failures += 1
        delay = restart_delay(place.failures)
        if place.slot is not None and not self._is_serving():
            delay = min(delay, LONGEST_OUTAGE)
        if place.child is None:  # else its successor boots already
            place.respawn_at = now + delay
        if was_ready:
            self._report("worker_exited", child, status=description, restart_in=delay)

    def _on_drained(self, child: _Child, slot: Slot) -> None:
        places = (*self._workers, *self._retired) if self.phase is Phase.DRAINING else self._retired
        for place in places:
            # Either one's word is enough: they read from one queue, and nothing is added to it any more.
            if place.slot == slot and child.name in {place.child, place.adopter}:
                place.is_drained = True
                if place.adopter == child.name and place.is_retired:
                    place.adopter = None

    def _on_reconfigured(self, workers: int, now: Seconds) -> None:
        for child in self._children.values():
            if child.state is ChildState.BOOTING:
                child.is_outdated = True
                child.must_leave_by(now)
        for place in self._places:  # a new chance for those that could not start
            place.failures = 0
            if place.child is None:
                place.respawn_at = now
        kept, extra = self._workers[:workers], self._workers[workers:]
        new = tuple(_Place(Slot(slot), respawn_at=now) for slot in range(len(kept), workers))
        self._workers = kept + new
        self._places = (self._places[0], *self._workers)
        if extra:
            self._do(RetireSlots(Slot(workers)))
        for place in reversed(extra):
            self._retire(place)

    def _retire(self, place: _Place) -> None:
        place.is_retired = True
        place.respawn_at = math.inf
        self._retired += (place,)
        child = None if place.child is None else self._children[place.child]
        if child is None or child.state is not ChildState.READY:
            place.is_orphaned = True
            if place.slot is not None and place.adopter is not None:
                self._do(DrainSlot(place.slot, place.adopter))
            return
        for other in self._release_adopted(child):
            assert other.slot is not None
            self._do(DisownSlot(other.slot, child.name))
        child.state = ChildState.DRAINING
        self._report("worker_retired", child)
        self._do(SendStop(child.name, at_once=False, retires=True))

    def _on_stop(self, at_once: bool, reason: str, now: Seconds) -> None:
        if self.phase is Phase.ENDING or (self.phase is Phase.DRAINING and not at_once):
            return
        self._report("stopping", reason=reason, drain_timeout=0 if at_once else self._drain_timeout)
        if at_once:
            self._leave(now, Exit(0))
            return
        self.phase = Phase.DRAINING
        self._deadline = now + self._drain_timeout
        self._do(RefuseConnections())
        for place in self._places:
            place.respawn_at = math.inf
        self._part_successors()
        for child in self._workers_alive():
            if child.state in {ChildState.BOOTING, ChildState.READY}:
                child.state = ChildState.DRAINING
                child.place.is_orphaned = False
            self._do(SendStop(child.name, at_once=False))

    def _on_tick(self, heartbeats: Mapping[ChildId, Seconds], now: Seconds) -> None:
        if now - self._last_tick_at > LATE_TICK:
            self._judged_from = now
        self._last_tick_at = now
        for child in list(self._children.values()):
            if child.state not in {ChildState.HUNG, ChildState.KILLED}:
                seen_at = max(child.spawned_at, self._judged_from, heartbeats.get(child.name, -math.inf))
                if now - seen_at > self._heartbeat_timeout:
                    self._give_up(child, now - seen_at, now)
            if now >= child.kill_at:
                child.kill_at = math.inf
                child.state = ChildState.KILLED
                self._do(KillChild(child.name))
        if now >= self._deadline:
            self._on_deadline(now)

    def _on_deadline(self, now: Seconds) -> None:
        if self.phase is Phase.DRAINING:
            self._report("drain_timed_out", workers=len(self._workers_alive()))
            self._leave(now, Exit(0))
        else:
            self._finish()

    # What is done about it

    def _settle(self, now: Seconds) -> None:
        """Brings about what follows from the state, whatever event led to it."""
        if self.phase in {Phase.STARTING, Phase.RUNNING}:
            self._fill_places(now)
            self._clear_retired()
            self._succeed_worn(now)
        if self.phase is Phase.STARTING and self.is_complete:
            self.phase = Phase.RUNNING
            self._do(AnnounceReady())
        if self.phase is Phase.DRAINING:
            self._drain(now)
        if self.phase is Phase.ENDING and not self._children:
            self._finish()

    def _fill_places(self, now: Seconds) -> None:
        for place in self._workers:
            if place.is_orphaned and place.adopter is None:
                self._adopt(place, ChildState.READY)
        if not self._is_serving():
            for place in self._workers:
                if place.respawn_at < math.inf:
                    place.respawn_at = min(place.respawn_at, now + LONGEST_OUTAGE)
        for place in self._places:
            if place.child is None and now >= place.respawn_at:
                self._spawn(place, now)

    def _clear_retired(self) -> None:
        """Has the queues of retired slots accepted, and closes these slots, the highest first."""
        for place in self._retired:
            if place.is_orphaned and place.adopter is None and not place.is_drained:
                self._adopt(place, ChildState.READY)
        open_places = [place for place in self._retired if not place.is_closed]
        for place in sorted(open_places, key=lambda place: place.slot or 0, reverse=True):
            if not place.is_drained:
                break
            place.is_closed = True
            assert place.slot is not None
            self._do(CloseSlot(place.slot))
        self._retired = tuple(
            place for place in self._retired if not place.is_closed or place.child is not None
        )

    def _succeed_worn(self, now: Seconds) -> None:
        """Forks the successor of a worn worker, if it is somebody's turn."""
        leavers = [child for child in self._children.values() if child.replaced_at < math.inf]
        is_busy = any(now < child.replaced_at + LEAVER_TURN for child in leavers) or any(
            place.successor is not None for place in self._workers
        )
        if is_busy or self.phase is not Phase.RUNNING or now < self._succeed_at:
            return
        left = {child.place.slot for child in leavers}
        for place in self._workers:
            child = None if place.child is None else self._children[place.child]
            if child is not None and child.is_worn and child.is_reachable and place.slot not in left:
                place.successor = self._add_child(place, now).name
                return

    def _succeed(self, successor: _Child, now: Seconds) -> None:
        """The successor takes the place. Who was in it finishes, unless it is beyond that."""
        place = successor.place
        assert place.child is not None
        child = self._children[place.child]
        place.child, place.successor = successor.name, None
        child.replaced_at = now
        for other in self._release_adopted(child):
            assert other.slot is not None
            self._do(DisownSlot(other.slot, child.name))
        self._move_out(child)
        if child.state is ChildState.READY:
            child.state = ChildState.DRAINING
            self._report("worker_replaced", child)
            self._do(SendLeave(child.name))

    def _part_successors(self) -> None:
        """In a stop nobody is succeeded any more: those that were to succeed leave like all others."""
        for place in (*self._workers, *self._retired):
            if place.successor is not None:
                successor = self._children[place.successor]
                place.successor = None
                self._move_out(successor)

    def _move_out(self, child: _Child) -> None:
        """Gives a child that only finishes a place of its own, for whose slot nothing is left to do."""
        child.place = _Place(child.place.slot, child.name, is_drained=True, is_retired=True, is_closed=True)
        self._retired += (child.place,)

    def _drain(self, now: Seconds) -> None:
        places = (*self._workers, *self._retired)
        for place in places:
            if place.is_orphaned and place.adopter is None and not place.is_drained:
                self._drain_orphan(place, now)
        if all(place.is_drained for place in places):
            self._close_listeners()
        if not self._workers_alive():
            self._leave(now, Exit(0))

    def _drain_orphan(self, place: _Place, now: Seconds) -> None:
        """Finds somebody to accept a queue that has lost its worker: a sibling, or one more worker."""
        if self._adopt(place, ChildState.DRAINING) or place.child is not None:
            return
        if place.drain_attempts == DRAIN_ATTEMPTS:
            place.is_drained = True  # given up
            return
        place.drain_attempts += 1
        child = self._spawn(place, now)
        child.state = ChildState.DRAINING
        place.is_orphaned = False
        self._do(SendStop(child.name, at_once=False))

    def _adopt(self, place: _Place, state: ChildState) -> bool:
        """Gives a slot to the sibling in this state that adopted fewest; False when there is none."""
        able = [child for child in self._workers_alive() if child.state is state and child.place is not place]
        if not able or place.slot is None:
            return False
        everywhere = (*self._workers, *self._retired)
        adopter = min(able, key=lambda child: sum(other.adopter == child.name for other in everywhere))
        place.adopter = adopter.name
        self._do(AdoptSlot(place.slot, adopter.name))
        if place.is_retired and state is ChildState.READY:
            self._do(DrainSlot(place.slot, adopter.name))
        self._report("slot_adopted", None, slot=place.slot, by=self._slot_of(adopter.name))
        return True

    def _spawn(self, place: _Place, now: Seconds) -> _Child:
        child = self._add_child(place, now)
        place.child = child.name
        place.spawns += 1
        place.respawn_at = math.inf
        return child

    def _add_child(self, place: _Place, now: Seconds) -> _Child:
        name = ChildId(self._next_child)
        self._next_child += 1
        child = self._children[name] = _Child(name, place, ChildState.BOOTING, spawned_at=now)
        self._do(SpawnChild(name, place.slot))
        return child

    def _give_up(self, child: _Child, age: Seconds, now: Seconds) -> None:
        """The child does not beat any more."""
        self._report("worker_hung", child, seconds=round(age, 1))
        self._abandon(child, now)

    def _abandon(self, child: _Child, now: Seconds) -> None:
        """The child is of no use any more: dump it, hand its slots over, kill it."""
        child.state = ChildState.HUNG
        child.must_leave_by(now + DUMP_GRACE)
        own = (child.place,) if child.place.successor != child.name else ()
        for place in (*own, *self._release_adopted(child)):
            place.is_orphaned = True
        self._do(DumpChild(child.name))

    def _leave(self, now: Seconds, end: Exit) -> None:
        """Everybody leaves at once; those who do not are killed."""
        self.phase = Phase.ENDING
        self._end = end
        self._deadline = now + END_WITHIN
        for place in self._places:
            place.respawn_at = math.inf
        self._close_listeners()
        self._part_successors()
        for child in self._children.values():
            child.must_leave_by(now + LEAVE_GRACE)
            self._do(SendStop(child.name, at_once=True))

    def _close_listeners(self) -> None:
        if self._is_open:
            self._is_open = False
            self._do(CloseListeners())

    def _finish(self) -> None:
        self.phase = Phase.ENDED
        self._deadline = math.inf
        self._do(self._end)

    # Small questions

    def _state_of(self, place: _Place) -> str:
        if place.child is None:
            return NO_CHILD
        state = self._children[place.child].state
        return RETIRED if place.is_retired and state is ChildState.DRAINING else state.value

    def _is_well(self, name: ChildId) -> bool:
        child = self._children[name]
        return child.state is ChildState.READY and child.is_reachable

    def _workers_alive(self) -> list[_Child]:
        return [child for child in self._children.values() if child.place.slot is not None]

    def _is_serving(self) -> bool:
        return any(child.state is ChildState.READY for child in self._workers_alive())

    def _slot_of(self, name: ChildId) -> int:
        slot = self._children[name].place.slot
        assert slot is not None
        return slot

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _report(self, event: str, child: _Child | None = None, **fields: str | int | float) -> None:
        if child is not None and child.place.slot is None:
            event = event.replace("worker_", "controller_")
        self._do(Report(event, None if child is None else child.name, tuple(fields.items())))


def _title(place: _Place) -> str:
    return "the controller" if place.slot is None else f"worker {place.slot}"
