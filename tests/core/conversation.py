"""Talking to the supervision machine: events in, commands out, and a clock in between."""

from __future__ import annotations

from lbproc.core.supervision import Phase, PlaceState, Supervision
from lbproc.core.supervision_events import (
    ChildId,
    ChildReady,
    Command,
    Event,
    Listen,
    Listening,
    Report,
    Started,
    StopRequested,
    Ticked,
)
from lbproc.types import Slot

CONTROLLER, W0, W1, W2 = (ChildId(number) for number in range(4))
NEXT = ChildId(4)
S0, S1, S2 = (Slot(number) for number in range(3))
STOP = StopRequested(at_once=False, reason="SIGTERM")
STOP_AT_ONCE = StopRequested(at_once=True, reason="SIGQUIT")


class Conversation:
    """A machine with a clock; gives the commands without the reports.

    When it is to listen it hears at once what came of it: ``listened``.
    """

    def __init__(
        self, workers: int = 3, heartbeat_timeout: float = 30.0, drain_timeout: float = 600.0
    ) -> None:
        self.machine = Supervision(workers, heartbeat_timeout, drain_timeout)
        self.now = 1000.0
        self.reports: list[Report] = []
        self.workers = workers
        self.listened: Event = Listening()

    def __call__(self, event: Event) -> list[Command]:
        commands = self.machine.handle(event, self.now)
        self.reports += [command for command in commands if isinstance(command, Report)]
        said = [command for command in commands if not isinstance(command, Report)]
        return said + (self(self.listened) if Listen() in said else [])

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
