"""The messages between supervisor and children, and between the command line and the supervisor.

Owns what can be said; how it is put into bytes is the codec's part, how bytes and descriptors travel is the
channel's. Every message is a frozen dataclass of plain values, so a message that exists is valid: the codec
checks each field of what it reads against the annotation here.

Some messages travel with descriptors. ``descriptor_count`` of a message says how many; they stand in the
order that the message names, and arrive no later than the message itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Adopt:
    """To a worker: serve the listening sockets and the inbox of a slot without a worker, until `Disown`.

    A worker that is draining serves what is queued on them, closes them and answers `Drained` with that slot.
    The sockets of one slot may come in several messages when they are many.

    Args:
        slot: the slot whose sockets come along.
        listeners: (listener name, address text) of each descriptor, in the order of the descriptors.
        inbox: the last descriptor, after those of the listeners, is the end of the slot's inbox to read from.
    """

    slot: int
    listeners: tuple[tuple[str, str], ...]
    inbox: bool = False


@dataclass(frozen=True, slots=True)
class Disown:
    """To a worker: the slot has its own worker again; stop serving its sockets and close them."""

    slot: int


@dataclass(frozen=True, slots=True)
class Stop:
    """To a child: finish and leave.

    Not ``now``: accept what is queued, close the listening sockets, send `Drained`, finish the requests that
    began, exit with 0. ``now``: close everything and exit at once; may follow a first `Stop`.
    """

    now: bool


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """To a child: open the log files anew, they were moved away."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a child: it has built everything and does its work from now on."""


@dataclass(frozen=True, slots=True)
class FailedToBoot:
    """From a child: it cannot work, and why; it exits next.

    Args:
        reason: for the person who started lbproc; one or more lines.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """From the controller: what the host names among the backend addresses stand for now.

    Args:
        addresses: ``name:port`` as configured → ``address:port`` of each result, best first. Names that
            could not be resolved are left out; what was known of them stays.
    """

    addresses: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Drained:
    """From a worker that was told to stop: this slot's queues are accepted, its sockets closed here.

    The connections that it holds go on.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """From the command line: describe yourself. The reply's body is the status object."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """From the command line: stop.

    Args:
        now: cut everything instead of draining.
        wait: reply when all children are gone, right before the supervisor exits, instead of at once.
    """

    now: bool
    wait: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """To the command line: the answer to one request.

    Args:
        ok: whether the request was carried out.
        body: plain values as in JSON; when not ``ok``, a text that says why not.
    """

    ok: bool
    body: object


ChildBound = Adopt | Disown | Stop | ReopenLogs
SupervisorBound = Ready | FailedToBoot | Resolved | Drained
CommandLineRequest = StatusRequest | StopRequest
Message = ChildBound | SupervisorBound | CommandLineRequest | Reply

MESSAGES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Adopt, Disown, Stop, ReopenLogs,
        Ready, FailedToBoot, Resolved, Drained,
        StatusRequest, StopRequest, Reply,
    )
}  # fmt: skip
"""Every message by the name it has on the wire."""


def descriptor_count(message: Message) -> int:
    """How many descriptors travel with this message."""
    return len(message.listeners) + message.inbox if isinstance(message, Adopt) else 0
