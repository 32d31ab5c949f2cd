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
        listeners: (key, listener name, address text) of each descriptor, in the order of the descriptors. A
            bound address keeps its key as long as it is open, and no other ever has it.
        inbox: the last descriptor, after those of the listeners, is the end of the slot's inbox to read from.
    """

    slot: int
    listeners: tuple[tuple[int, str, str], ...]
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

    Args:
        now: as said.
        retires: only this worker is to finish, because there are fewer slots now: what it holds it keeps
            without a limit of time, until another `Stop` comes. Else all is cut after ``drain_timeout``.
    """

    now: bool
    retires: bool = False


@dataclass(frozen=True, slots=True)
class DrainSlot:
    """To a worker that adopted a slot which is retired: accept what is queued there, close, say `Drained`."""

    slot: int


@dataclass(frozen=True, slots=True)
class Lend:
    """To a worker: sockets of new addresses, for `Follow` of that generation. Comes before `Prepare`.

    Those of one slot may come in several messages when they are many.

    Args:
        generation: that they belong to.
        slot: the slot whose sockets come along.
        listeners: (key, listener name, address text) of each descriptor, in the order of the descriptors.
    """

    generation: int
    slot: int
    listeners: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """To a child: build everything for a new configuration beside what is there; say `Prepared` or `Refused`.

    The descriptors are the sealed memory file with the configuration, then the inboxes to send to of slots
    that are new, then the new access log, then the new error log.

    Args:
        generation: of the configuration.
        slots: how many workers there will be.
        names: (key, listener name) of every bound address that there will be.
        outboxes: the slots that are new, in the order of the descriptors.
        access_log: the access log goes elsewhere, and its descriptor comes along.
        error_log: likewise.
    """

    generation: int
    slots: int
    names: tuple[tuple[int, str], ...]
    outboxes: tuple[int, ...]
    access_log: bool
    error_log: bool


@dataclass(frozen=True, slots=True)
class Follow:
    """To a child: the generation is in force. Move now, serve what was lent, say `Following`.

    A worker accepts what is queued on addresses whose key was in no name of `Prepare`, closes them, and says
    `Relinquished`; at once when there are none.
    """

    generation: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """To a child: forget what was prepared for that generation, and close what came along."""

    generation: int


@dataclass(frozen=True, slots=True)
class Leave:
    """To a worker: its slot has another worker now. Leave all that is queued to it, finish, exit with 0.

    What the worker holds it serves, without a limit of time until a `Stop` comes; a connection ends with its
    next response, or when it was idle too long.
    """


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
class Worn:
    """From a worker: it has served as many requests as one worker is to serve. It goes on until `Leave`."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """From a child: everything for that generation is built."""

    generation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """From a child: it cannot follow that generation, and why. What came along is closed.

    Args:
        generation: that it was to prepare.
        reason: for the person who asked for the reload.
    """

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Following:
    """From a child: new requests are served by that generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Relinquished:
    """From a worker that follows: what was queued on addresses that went is accepted, they are closed."""

    generation: int


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
class ReloadRequest:
    """From the command line: load the configuration anew. The reply comes when that is done or refused.

    Args:
        file: what to load, an absolute path; empty: what lbproc was started with.
        dry_run: only say what would change.
    """

    file: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """From the command line: put a backend into an admin state, and perhaps wait until that has come true.

    Who waits is answered when nothing is in flight to it any more, or, for ``ready``, when it takes requests,
    and gets `Progress` until then.

    Args:
        pool: its pool.
        backend: its name, or its address if no backend has that name.
        state: ``ready``, ``drain`` or ``maintenance``.
        wait: reply when it has come true, instead of at once.
        timeout: the longest wait in seconds; 0: as long as it takes.
    """

    pool: str
    backend: str
    state: str
    wait: bool
    timeout: float


@dataclass(frozen=True, slots=True)
class WeightRequest:
    """From the command line: give a backend another weight.

    Args:
        pool: its pool.
        backend: its name, or its address if no backend has that name.
        weight: the new one; None: the configured one again.
    """

    pool: str
    backend: str
    weight: int | None


@dataclass(frozen=True, slots=True)
class BackendAddRequest:
    """From the command line: there is one more backend.

    Args:
        pool: the pool it belongs to.
        backend: keys and values as in the table of a backend in the configuration.
    """

    pool: str
    backend: dict[str, object]


@dataclass(frozen=True, slots=True)
class BackendRemoveRequest:
    """From the command line: a backend gets nothing more and is no backend any more.

    Who waits gets `Progress` until then.

    Args:
        pool: its pool.
        backend: its name, or its address if no backend has that name.
        wait: reply when nothing is in flight to it any more, instead of at once.
        timeout: the longest wait in seconds; 0: as long as it takes.
    """

    pool: str
    backend: str
    wait: bool
    timeout: float


@dataclass(frozen=True, slots=True)
class Progress:
    """To the command line: how far its request is. More of these may follow, and one `Reply` at the end.

    Args:
        body: plain values as in JSON.
    """

    body: object


@dataclass(frozen=True, slots=True)
class Reply:
    """To the command line: the answer to one request.

    Args:
        ok: whether the request was carried out.
        body: plain values as in JSON; when not ``ok``, a text that says why not.
    """

    ok: bool
    body: object


ChildBound = Adopt | Disown | Stop | Leave | DrainSlot | Lend | Prepare | Follow | Abandon | ReopenLogs
SupervisorBound = (
    Ready | FailedToBoot | Resolved | Drained | Worn | Prepared | Refused | Following | Relinquished
)
SteeringRequest = AdminRequest | WeightRequest | BackendAddRequest | BackendRemoveRequest
CommandLineRequest = StatusRequest | StopRequest | ReloadRequest | SteeringRequest
Message = ChildBound | SupervisorBound | CommandLineRequest | Progress | Reply

MESSAGES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Adopt, Disown, Stop, Leave, DrainSlot, Lend, Prepare, Follow, Abandon, ReopenLogs,
        Ready, FailedToBoot, Resolved, Drained, Worn, Prepared, Refused, Following, Relinquished,
        StatusRequest, StopRequest, ReloadRequest,
        AdminRequest, WeightRequest, BackendAddRequest, BackendRemoveRequest, Progress, Reply,
    )
}  # fmt: skip
"""Every message by the name it has on the wire."""


def descriptor_count(message: Message) -> int:
    """How many descriptors travel with this message."""
    match message:
        case Adopt():
            return len(message.listeners) + message.inbox
        case Lend():
            return len(message.listeners)
        case Prepare():
            return 1 + len(message.outboxes) + message.access_log + message.error_log
        case _:
            return 0
