"""What happens to the supervisor, and what it does about it: the vocabulary of `lbproc.core.supervision`.

Events are past, commands imperative. All are plain values, so that a test can write down a history and
compare. A child is named by a number that is never used twice; process ids are the shell's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from lbproc.types import Seconds, Slot

ChildId = NewType("ChildId", int)
"""Names one child for ever, also after it is gone."""


@dataclass(frozen=True, slots=True)
class Started:
    """The sockets are bound and the table exists. First and once."""


@dataclass(frozen=True, slots=True)
class Listening:
    """`Listen` was carried out."""


@dataclass(frozen=True, slots=True)
class ListenFailed:
    """Another program took an address between our bind and our `Listen`."""

    reason: str


@dataclass(frozen=True, slots=True)
class ChildReady:
    """The child said that it does its work now."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class ChildFailedToBoot:
    """The child said that it cannot work; it will exit."""

    child: ChildId
    reason: str


@dataclass(frozen=True, slots=True)
class ChildExited:
    """The child was reaped. Comes once for every child that was spawned.

    Args:
        child: which.
        status: 0 to 255 as it exited, or the negative number of the signal that ended it.
    """

    child: ChildId
    status: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The child could not be forked. It counts as one that exited."""

    child: ChildId
    reason: str


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """The child cannot be talked to any more: it closed the channel, wrote nonsense, or does not read."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class SlotDrained:
    """The child accepted all that was queued on the slot's sockets and in its inbox, and closed them."""

    child: ChildId
    slot: Slot


@dataclass(frozen=True, slots=True)
class ChildWorn:
    """The worker has served as many requests as one is to; it goes on until it is replaced."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class ChildStraggled:
    """The child does not follow the configuration that was put in force."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Another configuration is in force. Whoever is spawned from now on is born with it.

    Sockets and inboxes of slots that are new are there, and listen.

    Args:
        workers: how many slots there are.
        heartbeat_timeout: how old a child's heartbeat may be.
        drain_timeout: how long a drain may last.
    """

    workers: int
    heartbeat_timeout: Seconds
    drain_timeout: Seconds


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants an end.

    Args:
        at_once: without draining.
        reason: who: the name of a signal or of a command.
    """

    at_once: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed.

    Args:
        heartbeats: when each child last wrote its heartbeat, on the clock of ``now``. Children that have not
            yet written one may be absent.
    """

    heartbeats: Mapping[ChildId, Seconds]


ChildEvent = (
    ChildReady
    | ChildFailedToBoot
    | ChildExited
    | SpawnFailed
    | ChannelLost
    | ChildStraggled
    | ChildWorn
    | SlotDrained
)
Event = Started | Listening | ListenFailed | Reconfigured | StopRequested | Ticked | ChildEvent


@dataclass(frozen=True, slots=True)
class Listen:
    """Let connections come: `listen` on every bound socket, in the order of the slots.

    The next event is `Listening` or `ListenFailed`.
    """


@dataclass(frozen=True, slots=True)
class SpawnChild:
    """Fork. ``slot`` is None for the controller."""

    child: ChildId
    slot: Slot | None


@dataclass(frozen=True, slots=True)
class SendStop:
    """Tell the child to finish (or, ``at_once``, to leave).

    ``retires``: only this worker finishes, and has all the time that it needs until it is told again.
    """

    child: ChildId
    at_once: bool
    retires: bool = False


@dataclass(frozen=True, slots=True)
class SendLeave:
    """Tell the worker that its slot has another one: let go of the slot at once, finish, leave."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class DumpChild:
    """Make the child write the stacks of its threads to standard error and die, if it still can."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class KillChild:
    """End the child in the way that cannot be refused."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class AdoptSlot:
    """Send the slot's own sockets and its inbox to another worker, which serves them besides its own."""

    slot: Slot
    by: ChildId


@dataclass(frozen=True, slots=True)
class DisownSlot:
    """The slot has its own worker again; the other one closes its copies of the sockets."""

    slot: Slot
    by: ChildId


@dataclass(frozen=True, slots=True)
class DrainSlot:
    """Tell the adopter of a slot that is retired to accept what is queued there, and no more."""

    slot: Slot
    by: ChildId


@dataclass(frozen=True, slots=True)
class RepairColumn:
    """Take back what the child held in the table, and free its column. Once for every child that is gone."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class RefuseConnections:
    """Drop new connections before they are queued, and refuse hand-overs; what is queued stays."""


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """Close the supervisor's ends of listening sockets and inboxes: clients are refused, not ignored."""


@dataclass(frozen=True, slots=True)
class RetireSlots:
    """Steer new connections to the slots below ``first``, and refuse hand-overs to the others."""

    first: Slot


@dataclass(frozen=True, slots=True)
class CloseSlot:
    """Close the supervisor's ends of the sockets and the inbox of a retired slot. The highest come first."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class AnnounceReady:
    """The first time that every child is ready."""


@dataclass(frozen=True, slots=True)
class Report:
    """Write to the error log.

    Args:
        event: the name of the event in the error log.
        child: whom it concerns, or None; the shell adds its slot and process id.
        fields: what else belongs to it.
    """

    event: str
    child: ChildId | None = None
    fields: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    """The end. ``reason`` tells why the start failed; empty after an ordinary stop."""

    status: int
    reason: str = ""


ChildCommand = (
    SpawnChild
    | SendStop
    | SendLeave
    | DumpChild
    | KillChild
    | AdoptSlot
    | DisownSlot
    | DrainSlot
    | RepairColumn
)
ListenerCommand = Listen | RefuseConnections | CloseListeners | RetireSlots | CloseSlot
Command = ChildCommand | ListenerCommand | AnnounceReady | Report | Exit
