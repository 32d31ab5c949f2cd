"""The events that the error log can tell, each with its level, its meaning and its fields.

Owns the names, which operators search for and alert on: a name never changes its meaning. Does not write
anything. ``python -m lbproc.telemetry.events`` writes docs/events.md from this list.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from pathlib import Path


class Level(IntEnum):
    """How much an event matters. ERROR: somebody should look. WARNING: lbproc coped; good to know."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


class Event(Enum):
    """One kind of event: its level, what it means, its fields."""

    level: Level
    meaning: str
    fields: tuple[str, ...]
    text: str

    def __init__(self, level: Level, meaning: str, *fields: str) -> None:
        self.level = level
        self.meaning = meaning
        self.fields = fields
        self.text = self._name_.lower()

    # Supervisor
    STARTED = (
        Level.INFO,
        "lbproc listens on all its addresses and forks its children.",
        "version",
        "pid",
        "config",
    )
    READY = Level.INFO, "Every worker serves.", "workers"
    RUNNING_AS_ROOT = (
        Level.WARNING,
        "Started as root without `user` in `[runtime]`: workers keep all rights of root.",
    )
    LISTENING = Level.INFO, "An address is bound.", "listener", "address"
    WORKER_STARTED = Level.INFO, "A worker was forked into a slot.", "slot", "pid"
    WORKER_READY = Level.INFO, "A worker serves.", "slot", "pid"
    WORKER_EXITED = (
        Level.ERROR,
        "A worker died without being told to. What it held is taken back and a new one is started.",
        "slot",
        "pid",
        "status",
        "restart_in",
    )
    WORKER_REPLACED = (
        Level.INFO,
        "A worker has served `max_requests`. Its successor serves its slot; it finishes what it holds.",
        "slot",
        "pid",
    )
    PID_FILE_FAILED = Level.ERROR, "The pid file could not be written. lbproc serves without it.", "reason"
    WORKER_STOPPED = Level.INFO, "A worker finished as it was told to.", "slot", "pid", "status"
    WORKER_HUNG = (
        Level.ERROR,
        "A worker's event loop stopped beating. Its stacks are dumped to standard error and it is killed.",
        "slot",
        "pid",
        "seconds",
    )
    WORKER_STRAGGLED = (
        Level.ERROR,
        "A worker did not follow a new configuration in time. Its stacks are dumped and it is replaced.",
        "slot",
        "pid",
    )
    WORKER_RETIRED = (
        Level.INFO,
        "There are fewer workers now: this one accepts its queue, and finishes what it holds.",
        "slot",
        "pid",
    )
    WORKER_FAILED_TO_BOOT = Level.ERROR, "A worker could not start.", "slot", "pid", "reason"
    SLOT_ADOPTED = (
        Level.WARNING,
        "A sibling accepts the connections of a slot whose worker has died, until there is a new one.",
        "slot",
        "by",
    )
    SLOT_RETURNED = Level.INFO, "A slot is served by its own worker again.", "slot", "by"
    CONTROLLER_STARTED = Level.INFO, "The controller was forked.", "pid"
    CONTROLLER_READY = Level.INFO, "The controller does its work.", "pid"
    CONTROLLER_EXITED = (
        Level.ERROR,
        "The controller died. Traffic goes on; a new one is started.",
        "pid",
        "status",
        "restart_in",
    )
    CONTROLLER_STOPPED = Level.INFO, "The controller finished as it was told to.", "pid", "status"
    CONTROLLER_HUNG = (
        Level.ERROR,
        "The controller's event loop stopped beating. Its stacks are dumped and it is killed.",
        "pid",
        "seconds",
    )
    CONTROLLER_STRAGGLED = (
        Level.ERROR,
        "The controller did not follow a new configuration in time. Its stacks are dumped, it is replaced.",
        "pid",
    )
    CONTROLLER_FAILED_TO_BOOT = Level.ERROR, "The controller could not start.", "pid", "reason"
    TICKETS_NOT_SHARED = (
        Level.WARNING,
        "Sessions of TLS are resumed only by the worker that began them, because workers cannot share the "
        "keys of tickets here. Clients make more full handshakes; nothing else is different.",
        "reason",
    )
    COLUMN_REPAIRED = (
        Level.INFO,
        "What a dead process had taken from shared counts was given back.",
        "column",
        "released",
    )
    MEMBERSHIP_PUBLISHED = (
        Level.INFO,
        "The backends or their resolved addresses changed.",
        "epoch",
        "backends",
    )
    BACKEND_STATE = (
        Level.INFO,
        "An operator put a backend into another admin state.",
        "pool",
        "backend",
        "state",
        "was",
    )
    BACKEND_WEIGHT = (
        Level.INFO,
        "An operator gave a backend another weight.",
        "pool",
        "backend",
        "weight",
        "was",
    )
    BACKEND_ADDED = Level.INFO, "An operator added a backend.", "pool", "backend", "address", "weight"
    BACKEND_REMOVED = Level.INFO, "An operator removed a backend.", "pool", "backend", "address"
    RELOADING = Level.INFO, "A configuration is loaded, to be put in force.", "config"
    CONFIG_CHANGED = Level.INFO, "One of the changes that a reload put in force.", "change"
    RELOADED = (
        Level.INFO,
        "A configuration was put in force in all processes; with 0 changes it was in force already.",
        "generation",
        "config",
        "changes",
    )
    RELOAD_REFUSED = (
        Level.ERROR,
        "A configuration was not put in force; everything is as it was before.",
        "reason",
    )
    CONFIG_WARNING = (
        Level.WARNING,
        "Something in a configuration that is in force should be looked at, as `lbproc check` says it.",
        "warning",
    )
    CERTIFICATES_CHANGED = (
        Level.INFO,
        "Files of a listener with `watch = true` have changed; they are taken as by a reload, which follows.",
        "files",
    )
    CERTIFICATE_EXPIRES = (
        Level.WARNING,
        "A certificate expires within 14 days. Once a day.",
        "key",
        "names",
        "not_after",
        "days",
    )
    CERTIFICATE_EXPIRED = (
        Level.ERROR,
        "A certificate has expired: peers that verify it are turned away. Once a day.",
        "key",
        "names",
        "not_after",
    )
    LOGS_REOPENED = Level.INFO, "SIGUSR1: log files were opened again."
    LOG_REOPEN_FAILED = (
        Level.ERROR,
        "A log file could not be opened again; this process goes on with the old one.",
        "path",
        "reason",
    )
    CONTROL_REQUEST_REFUSED = Level.WARNING, "A message on the control socket made no sense.", "reason"
    STOPPING = Level.INFO, "lbproc accepts no new connections and drains.", "reason", "drain_timeout"
    DRAIN_TIMED_OUT = (
        Level.WARNING,
        "The drain took longer than `drain_timeout`; what was left was cut.",
        "workers",
    )
    STOPPED = Level.INFO, "All children have left.", "status"
    START_FAILED = Level.ERROR, "lbproc could not start.", "reason"
    # Workers
    SUPERVISOR_LOST = (
        Level.ERROR,
        "The supervisor is gone, or has given up on this process, which finishes and leaves.",
    )
    ACCEPT_PAUSED = (
        Level.ERROR,
        "A connection could not be accepted, for lack of descriptors, memory or ports. Tried again shortly.",
        "listener",
        "reason",
    )
    CONNECTION_REFUSED = (
        Level.WARNING,
        "A connection was refused by a limit (`reason`, `limit`), and reset, or a datagram was dropped. At "
        "most once a second for each listener and reason; `refused` says how many there were.",
        "listener",
        "reason",
        "limit",
        "client_ip",
        "refused",
    )
    LIMIT_NOT_COUNTED = (
        Level.WARNING,
        "More keys are limited than `max_keys` in `[runtime]`: a limit could not be counted for a "
        "connection, which was let in, as `when_full` says. Likewise; `admitted` says how many there were.",
        "listener",
        "limit",
        "admitted",
    )
    ACCESS_LOG_DROPPED = (
        Level.WARNING,
        "Lines of the access log were lost: the disk is full, or its reader is too slow.",
        "lines",
        "reason",
    )
    CONNECTION_CRASHED = (
        Level.ERROR,
        "A defect of lbproc ended one client connection; please report it.",
        "listener",
        "traceback",
    )
    RELOAD_CRASHED = (
        Level.ERROR,
        "A defect of lbproc kept a worker or the controller from another configuration; please report it. "
        "Until it was in force that refuses the reload, and after that the process is replaced.",
        "generation",
        "traceback",
    )
    BACKEND_UNREACHABLE = (
        Level.WARNING,
        "A connection to a backend was refused or timed out, or its TLS handshake failed. "
        "Another backend is tried.",
        "pool",
        "backend",
        "reason",
    )
    BACKEND_MISBEHAVED = (
        Level.WARNING,
        "A backend broke the protocol, reset the connection or was too slow.",
        "pool",
        "backend",
        "cause",
        "reason",
    )
    CONNECTIONS_CUT = (
        Level.WARNING,
        'Backends of pools with `on_down = "cut"` went down or into maintenance: requests and tunnels that'
        " this worker had under way there were ended.",
        "backends",
        "connections",
    )
    BACKEND_EJECTED = (
        Level.WARNING,
        "A backend failed so many real requests in a row that it gets none for a while. `errors`: failures in"
        " a row, over all workers; `cause`: of the last; `ejections`: in a row, with this one.",
        "pool",
        "backend",
        "errors",
        "cause",
        "ejections",
        "seconds",
    )
    EJECTION_WITHHELD = (
        Level.WARNING,
        "A backend would have been ejected, but `max_ejected` of its pool are already.",
        "pool",
        "backend",
        "errors",
        "cause",
    )
    BACKEND_RETURNED = Level.INFO, "An ejection is over.", "pool", "backend"
    POOL_PANIC = (
        Level.ERROR,
        "Fewer backends of a pool are available than `panic_threshold`: all that the operator allows get"
        " requests, whatever checks think of them.",
        "pool",
        "threshold",
    )
    POOL_CALM = Level.INFO, "The panic of a pool is over: checks and ejections count again.", "pool"
    POOL_EXHAUSTED = (
        Level.WARNING,
        "A request got 503: no backend of the pool is eligible, or all are at `max_connections`.",
        "pool",
        "cause",
    )
    CAPACITY_REACHED = Level.ERROR, "The shared table has no room for what was asked.", "reason"
    REQUEST_REJECTED = (
        Level.DEBUG,
        "A request was refused as malformed, or because its head did not arrive in time.",
        "listener",
        "client_ip",
        "status",
        "reason",
    )
    TLS_FAILED = (
        Level.DEBUG,
        "A client's handshake failed, what came was not TLS, or nothing is there for the name it asked for.",
        "listener",
        "client_ip",
        "server_name",
        "reason",
    )
    PROXY_HEADER_REJECTED = (
        Level.WARNING,
        "A connection was closed because no good PROXY header came first, or its sender is not trusted. At "
        "most once a second for each listener and worker; `refused` says how many there were.",
        "listener",
        "peer_ip",
        "reason",
        "refused",
    )
    # Controller
    NAME_RESOLVED = Level.INFO, "The addresses of a host name changed.", "name", "addresses"
    NAME_RESOLUTION_FAILED = (
        Level.WARNING,
        "A host name could not be resolved; its last addresses stay in use.",
        "name",
        "reason",
    )
    BACKEND_UP = (
        Level.INFO,
        "Checks found a backend up. It takes traffic from now on, unless somebody else objects.",
        "pool",
        "backend",
        "was",
        "seconds",
        "reason",
    )
    BACKEND_DOWN = (
        Level.WARNING,
        "Checks found a backend down. It gets no request until they find it up again.",
        "pool",
        "backend",
        "was",
        "seconds",
        "reason",
    )
    BACKEND_ALIVE = Level.INFO, "The process of a backend answers on `liveness_path`.", "pool", "backend"
    BACKEND_DEAD = (
        Level.WARNING,
        "The process of a backend does not answer on `liveness_path`. This has no effect on traffic.",
        "pool",
        "backend",
        "reason",
    )
    HEALTH_CHECK_FAILED = (
        Level.DEBUG,
        "One check failed; `fall` of them in a row take the backend down.",
        "pool",
        "backend",
        "check",
        "reason",
    )
    HEALTH_CHECK_IMPOSSIBLE = (
        Level.WARNING,
        "A check could not be made, which says nothing about the backend: its name is not resolved, or "
        "descriptors or ports ran out here.",
        "pool",
        "backend",
        "check",
        "reason",
    )
    ADMIN_LISTENING = Level.INFO, "The admin listener is bound.", "address"
    ADMIN_REQUEST_REFUSED = (
        Level.WARNING,
        "A request to the admin listener was refused: malformed, too long, or without the token.",
        "client_ip",
        "status",
    )
    # Any process
    CRASHED = Level.ERROR, "A defect of lbproc ended this process; please report it.", "traceback"


def render_page() -> str:
    """The text of docs/events.md."""
    rows = "\n".join(
        f"| `{event.text}` | {event.level.name.lower()} | {event.meaning} "
        f"| {', '.join(f'`{field}`' for field in event.fields) or 'none'} |"
        for event in Event
    )
    return f"""# Events of the error log

Each event is one line of at most 4095 bytes:

```
TIME LEVEL PROCESS EVENT key=value ...
2026-07-01T12:30:00.125Z warning supervisor slot_adopted slot=1 by=0
```

`TIME` is UTC. `LEVEL` is `debug`, `info`, `warning` or `error`. `PROCESS` is `supervisor`, `worker-N` (N is
the slot) or `controller`. A value with spaces, quotes or control characters is a JSON string; tracebacks are
such values too. Where the lines go is `[log] error` (`stderr` or a path), which of them is `[log] level`;
SIGUSR1 opens a file again.

An event that happens more than 20 times in a second in one process is written 20 times; the next line of it
says how many were left out (`suppressed=N`). A line that cannot be written at once is dropped: no process
ever waits for its log. Names and fields are stable. Secrets never appear.

This page is generated by `python -m lbproc.telemetry.events`.

| event | level | meaning | fields |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "events.md"
    page.write_text(render_page(), encoding="utf-8")
