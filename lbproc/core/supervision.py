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

While DRAINING the slot of a worker that dies before it has accepted its queue goes to a sibling that drains
it as well; without a sibling one more worker is forked, which finds the word to stop in its channel and
accepts this queue alone. That is tried DRAIN_ATTEMPTS times for a slot. Nobody else is replaced. When the
queues of all slots are accepted, the listeners are closed. The controller outlives the workers, so that the
drain can be watched.

Invariants: a slot's own child is never ready while another has adopted the slot; `RepairColumn` comes
exactly once for each child, before its place is filled again; after a stop, `Exit` comes exactly once, and
at the latest ``drain_timeout + END_WITHIN`` later, whatever children do; after `Exit` no command comes.

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
    CloseListeners,
    Command,
    DisownSlot,
    DumpChild,
    Event,
    Exit,
    KillChild,
    Listen,
    ListenFailed,
    Listening,
    RefuseConnections,
    RepairColumn,
    Report,
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


@dataclass(slots=True)
class _Child:
    name: ChildId
    place: _Place
    state: ChildState
    spawned_at: Seconds
    ready_at: Seconds = math.inf
    kill_at: Seconds = math.inf
    refusal: str = ""

    def must_leave_by(self, at: Seconds) -> None:
        """Else it is killed, once."""
        if self.state is not ChildState.KILLED:
            self.kill_at = min(self.kill_at, at)


@dataclass(slots=True)
class _Place:
    slot: Slot | None
    child: ChildId | None = None
    adopter: ChildId | None = None
    is_orphaned: bool = False
    is_drained: bool = False
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
        state: a value of `ChildState`, or `NO_CHILD`.
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
        "_workers",
        "phase",
    )

    def __init__(self, workers: int, heartbeat_timeout: Seconds, drain_timeout: Seconds) -> None:
        self.phase = Phase.STARTING
        self._workers = tuple(_Place(Slot(slot)) for slot in range(workers))
        self._places = (_Place(None), *self._workers)
        self._children: dict[ChildId, _Child] = {}
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
        """The controller's place, then those of the slots in order."""
        return tuple(
            PlaceState(
                place.slot,
                place.child,
                NO_CHILD if place.child is None else self._children[place.child].state.value,
                max(0, place.spawns - 1),
            )
            for place in self._places
        )

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
            case SlotDrained(_, slot):
                self._on_drained(child, slot)
            case ChildExited(_, status):
                self._on_gone(child, describe_exit(status), status == 0, now)
            case _:
                child.refusal = f"fork failed: {event.reason}"
                self._on_gone(child, child.refusal, False, now)

    def _on_ready(self, child: _Child, now: Seconds) -> None:
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
        place.child = None
        adopted = self._release_adopted(child)
        if self.phase in {Phase.STARTING, Phase.RUNNING}:
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

    def _release_adopted(self, child: _Child) -> list[_Place]:
        places = [place for place in self._workers if place.adopter == child.name]
        for place in places:
            place.adopter = None
        return places

    def _lose(self, child: _Child, description: str, now: Seconds) -> None:
        """A child is gone that should not be: end the start, or plan its replacement."""
        place = child.place
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
        place.respawn_at = now + delay
        if was_ready:
            self._report("worker_exited", child, status=description, restart_in=delay)

    def _on_drained(self, child: _Child, slot: Slot) -> None:
        if self.phase is not Phase.DRAINING or not 0 <= slot < len(self._workers):
            return
        place = self._workers[slot]
        # Either one's word is enough: they read from one queue, and nothing is added to it any more.
        if child.name in {place.child, place.adopter}:
            place.is_drained = True

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
        if self.phase is Phase.STARTING and all(
            place.child is not None and self._children[place.child].state is ChildState.READY
            for place in self._places
        ):
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

    def _drain(self, now: Seconds) -> None:
        for place in self._workers:
            if place.is_orphaned and place.adopter is None and not place.is_drained:
                self._drain_orphan(place, now)
        if all(place.is_drained for place in self._workers):
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
        adopter = min(able, key=lambda child: sum(other.adopter == child.name for other in self._workers))
        place.adopter = adopter.name
        self._do(AdoptSlot(place.slot, adopter.name))
        self._report("slot_adopted", None, slot=place.slot, by=self._slot_of(adopter.name))
        return True

    def _spawn(self, place: _Place, now: Seconds) -> _Child:
        name = ChildId(self._next_child)
        self._next_child += 1
        child = self._children[name] = _Child(name, place, ChildState.BOOTING, spawned_at=now)
        place.child = name
        place.spawns += 1
        place.respawn_at = math.inf
        self._do(SpawnChild(name, place.slot))
        return child

    def _give_up(self, child: _Child, age: Seconds, now: Seconds) -> None:
        """The child does not beat any more: dump it, hand its slots over, kill it."""
        child.state = ChildState.HUNG
        child.must_leave_by(now + DUMP_GRACE)
        for place in (child.place, *self._release_adopted(child)):
            place.is_orphaned = True
        self._report("worker_hung", child, seconds=round(age, 1))
        self._do(DumpChild(child.name))

    def _leave(self, now: Seconds, end: Exit) -> None:
        """Everybody leaves at once; those who do not are killed."""
        self.phase = Phase.ENDING
        self._end = end
        self._deadline = now + END_WITHIN
        for place in self._places:
            place.respawn_at = math.inf
        self._close_listeners()
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
