"""What the supervisor has opened before the first fork, and what its children are to run. Plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lbproc.boot import ControllerBoot, WorkerBoot
from lbproc.config.model import Config
from lbproc.net.control_socket import ControlListener
from lbproc.net.tls.tickets import SharedTickets
from lbproc.shm.table import Table
from lbproc.supervisor.activation import PassedSockets
from lbproc.supervisor.binding import AdminSocket
from lbproc.supervisor.inboxes import Inboxes
from lbproc.supervisor.notify import Notifier
from lbproc.supervisor.pid_file import PidFile
from lbproc.supervisor.rights import Account
from lbproc.supervisor.sockets import ListeningSockets
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink


@dataclass(frozen=True, slots=True)
class Entries:
    """What the children run, each in its own process; the result is the exit status."""

    worker: Callable[[WorkerBoot], int]
    controller: Callable[[ControllerBoot], int]


@dataclass(slots=True)
class Belongings:
    """What the supervisor has opened before the first fork. `Shell` closes it.

    A reload puts another configuration, number of workers and access log in force.

    Args:
        config: in force.
        config_path: where it came from.
        workers: how many.
        table: shared with the children.
        sockets: bound, not yet listening.
        inboxes: of the workers.
        admin_socket: of the controller, or None.
        control: the open control socket.
        account: whom the children run as, or None.
        log: the error log.
        access_log: for the workers, or None when it is off.
        passed: listening sockets that whoever started lbproc has opened for it.
        pid_file: to be written when lbproc is ready, or None.
        notifier: speaks to the service manager.
        former: the configuration before this one, while addresses of it are not closed.
        tickets: what the keys of session tickets follow from; None: every worker has its own.
    """

    config: Config
    config_path: Path
    workers: int
    table: Table
    sockets: ListeningSockets
    inboxes: Inboxes
    admin_socket: AdminSocket | None
    control: ControlListener
    account: Account | None
    log: ErrorLog
    access_log: Sink | None
    passed: PassedSockets = field(default_factory=PassedSockets)
    pid_file: PidFile | None = None
    notifier: Notifier = field(default_factory=Notifier)
    former: Config | None = None
    tickets: SharedTickets | None = None
