"""What happens during a reload, and what is done about it: the vocabulary of `lbproc.core.reload`.

Events are past, commands imperative. All are plain values, so that a test can write down a history and
compare. Children are named as in `lbproc.core.supervision_events`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from lbproc.core.supervision_events import ChildId

Ticket = NewType("Ticket", int)
"""Names one request of the command line, and whoever waits for its answer."""


class Outcome(Enum):
    """How a request ended."""

    DONE = "done"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Member:
    """A child that can be talked to: it is ready, or it drains.

    Args:
        child: which.
        title: as messages name it: ``worker 2``, ``the controller``.
        is_worker: or the controller.
        drains: it is finishing, and may be gone at any moment; so it is asked, and not depended on.
    """

    child: ChildId
    title: str
    is_worker: bool
    drains: bool = False


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """The command line wants a reload, or to know what one would change.

    Args:
        ticket: for the answer.
        file: what to load; empty: what the service was started with.
        dry_run: load and compare only.
    """

    ticket: Ticket
    file: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class HangupReceived:
    """SIGHUP: a reload that nobody waits for."""


@dataclass(frozen=True, slots=True)
class ServiceOpened:
    """All children are ready for the first time."""


@dataclass(frozen=True, slots=True)
class ServiceStopping:
    """A stop has begun."""


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """These are the members now.

    Args:
        members: all of them.
        is_complete: every place has a child that is ready.
    """

    members: tuple[Member, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The file is valid, and what differs can be changed in a running service.

    Args:
        changes: how many; 0: it is what is in force already.
    """

    changes: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The file cannot be used, or the process that loaded it died."""

    reason: str


@dataclass(frozen=True, slots=True)
class Bound:
    """`Bind` was carried out: whatever the new configuration needs is open."""


@dataclass(frozen=True, slots=True)
class BindFailed:
    """`Bind` was not carried out, and nothing of it stays open.

    Args:
        reason: why.
        may_pass: something is in the way that may go by itself, such as a listener that is closing.
    """

    reason: str
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class ChildPrepared:
    """The child can follow that generation at once."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class ChildRefused:
    """The child cannot follow that generation, and why."""

    child: ChildId
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChildFollowed:
    """The child serves by that generation."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class ChildRelinquished:
    """The child has accepted what was queued on the addresses that are gone, and closed them."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class Committed:
    """`Commit` was carried out.

    Args:
        closes: addresses went, and stay open until every worker has relinquished them.
    """

    closes: bool


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """`Commit` was not carried out: at the last moment something was in the way."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing else happened."""


Event = (
    ReloadRequested
    | HangupReceived
    | ServiceOpened
    | ServiceStopping
    | MembersChanged
    | Loaded
    | LoadFailed
    | Bound
    | BindFailed
    | ChildPrepared
    | ChildRefused
    | ChildFollowed
    | ChildRelinquished
    | Committed
    | CommitFailed
    | TimePassed
)


@dataclass(frozen=True, slots=True)
class Load:
    """Begin to load and compare, in a process of its own. `Loaded` or `LoadFailed` follows in its time.

    Args:
        ticket: of who waits for it; None: nobody does.
        file: empty: what the service was started with.
        dry_run: nothing but loading and comparing will follow.
    """

    ticket: Ticket | None
    file: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Bind:
    """Open whatever the new configuration needs. The next event is `Bound` or `BindFailed`.

    Args:
        generation: that the configuration will have.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class AskToPrepare:
    """Send the child the new configuration, and what is lent to it."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Put the generation in force. The next event is `Committed` or `CommitFailed`."""

    generation: int


@dataclass(frozen=True, slots=True)
class TellToFollow:
    """Tell the child that the generation is in force."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class TellToAbandon:
    """Tell the child to forget what it was asked to prepare."""

    child: ChildId
    generation: int


@dataclass(frozen=True, slots=True)
class ReplaceChild:
    """The child does not follow: end it, its successor is born in the generation in force."""

    child: ChildId


@dataclass(frozen=True, slots=True)
class CloseRemoved:
    """Close the addresses that went."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Close and forget whatever was loaded and opened; end the process that loads, if there is one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a request.

    Args:
        ticket: of who waits for it; None: nobody does, it goes to the log alone.
        outcome: how it ended.
        reason: of a refusal.
    """

    ticket: Ticket | None
    outcome: Outcome
    reason: str = ""


Command = (
    Load
    | Bind
    | AskToPrepare
    | Commit
    | TellToFollow
    | TellToAbandon
    | ReplaceChild
    | CloseRemoved
    | Undo
    | Answer
)
