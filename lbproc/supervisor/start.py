"""Brings the supervisor up: opens everything that it owns, and leaves nothing behind when that fails.

The one place where the parts of the supervisor are put together. The control socket comes first: it tells
at once that the same configuration is running already, where a bind would be tried for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.controller import run_controller
from lbproc.core.control.membership import Membership
from lbproc.errors import LbprocError, StartError
from lbproc.net.control_socket import ControlListener, default_control_socket
from lbproc.net.tls.tickets import SharedTickets
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import SupervisorView
from lbproc.supervisor.activation import PassedSockets
from lbproc.supervisor.belongings import Belongings, Entries
from lbproc.supervisor.binding import Sleep, open_admin_socket
from lbproc.supervisor.following import check_columns, count_workers
from lbproc.supervisor.inboxes import Inboxes
from lbproc.supervisor.notify import Notifier
from lbproc.supervisor.pid_file import PidFile
from lbproc.supervisor.rights import Account, descriptors_needed, find_account, raise_descriptor_limit
from lbproc.supervisor.shell import Shell
from lbproc.supervisor.signals import SignalQueue, StoppedEarlyError
from lbproc.supervisor.sockets import ListeningSockets
from lbproc.supervisor.tickets import prove_tickets, shared_now, tell_of_tickets
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog, open_error_log
from lbproc.telemetry.sink import FileOwner, Sink
from lbproc.types import Address
from lbproc.worker import run_worker

FIRST_GENERATION = 1


def run(
    config: Config,
    config_path: Path,
    *,
    workers: int | None = None,
    entries: Entries | None = None,
    on_ready: Callable[[], None] | None = None,
    warnings: Sequence[object] = (),
) -> int:
    """Runs lbproc in this process until it is stopped; returns the exit status.

    Call it in the main thread of a process that has no other thread.

    Args:
        config: what to run.
        config_path: where it came from; `status` shows it.
        workers: how many, instead of what this configuration and all that are loaded later say.
        entries: what the children run, by default the real worker and controller.
        on_ready: called once, when every child is ready for the first time.
        warnings: what of the configuration should be looked at; they are logged.

    Raises:
        StartError: lbproc cannot start here; says why.
        CapacityError: the configuration does not fit into the table it asks for.
    """
    adapt = partial(_with_workers, workers)
    config = adapt(config)
    notifier = Notifier.take_from(os.environ, os.getpid())
    account = find_account(config.runtime.user)
    owner = None if account is None else FileOwner(account.name, account.uid, account.gid)
    with ExitStack() as undo:
        signals = SignalQueue()
        undo.callback(signals.close)
        log = open_error_log(config.log.error, config.log.level, "supervisor", owner)
        undo.callback(log.close)
        for warning in warnings:
            log.write(Event.CONFIG_WARNING, warning=warning)
        try:
            access_log = None if config.log.access == "off" else Sink(config.log.access, owner)
            if access_log is not None:
                undo.callback(access_log.close)
            belongings = _open(
                config, config_path.absolute(), account, log, access_log, notifier, undo, signals.sleep
            )
            belongings.tickets = SharedTickets(shared_now())
            prove_tickets(belongings.tickets, config)
            tell_of_tickets(belongings.tickets, config, log)
            view = SupervisorView(belongings.table)
            membership = Membership(config, view.ensure_row, view.ensure_pool)
            for name in config.listeners:
                view.ensure_listener(name)
        except LbprocError as error:
            log.write(Event.START_FAILED, reason=error)
            raise
        except StoppedEarlyError:
            log.write(Event.STOPPED, status=0)
            return 0
        view.set_generation(FIRST_GENERATION)
        shell = Shell(
            belongings,
            view,
            membership,
            entries or Entries(run_worker, run_controller),
            signals,
            on_ready or _nothing,
            adapt,
        )
        undo.pop_all()  # the shell closes it all
    end = shell.run()
    if end.reason:
        raise StartError(end.reason)
    return end.status


def _open(
    config: Config,
    config_path: Path,
    account: Account | None,
    log: ErrorLog,
    access_log: Sink | None,
    notifier: Notifier,
    undo: ExitStack,
    sleep: Sleep,
) -> Belongings:
    passed = PassedSockets.take_from(os.environ, os.getpid())
    undo.callback(passed.close)
    passed.require_named(_listened_addresses(config))
    workers = count_workers(config)
    if os.geteuid() == 0 and account is None:
        log.write(Event.RUNNING_AS_ROOT)
    raise_descriptor_limit(descriptors_needed(config, workers) + 2 * len(passed))
    pid_file = None if config.runtime.pid_file is None else PidFile(config.runtime.pid_file, os.getpid())
    control = ControlListener(config.runtime.control_socket or default_control_socket())
    undo.callback(control.close)
    table = Table.create(_capacities(config, workers))
    undo.callback(table.close)
    sockets = ListeningSockets(config, workers, sleep, passed)
    undo.callback(sockets.close)
    inboxes = Inboxes(workers)
    undo.callback(inboxes.close)
    admin_socket = None
    if config.admin is not None:
        admin_socket = open_admin_socket(config.admin.bind, sleep, passed)
        undo.callback(admin_socket.close)
        log.write(Event.ADMIN_LISTENING, address=config.admin.bind)
    for bound in sockets.bound:
        log.write(Event.LISTENING, listener=bound.listener_name, address=bound.address)
    log.write(Event.STARTED, version=__version__, pid=os.getpid(), config=config_path)
    return Belongings(
        config,
        config_path,
        workers,
        table,
        sockets,
        inboxes,
        admin_socket,
        control,
        account,
        log,
        access_log,
        passed,
        pid_file,
        notifier,
    )


def _listened_addresses(config: Config) -> list[Address]:
    """Everything that is listened on for connections."""
    found = [
        address
        for listener in config.listeners.values()
        if listener.protocol != "udp"
        for address in listener.bind
    ]
    return found if config.admin is None else [*found, config.admin.bind]


def _capacities(config: Config, workers: int) -> Capacities:
    runtime = config.runtime
    check_columns(config, workers)
    defaults = Capacities()
    return Capacities(
        columns=runtime.max_columns,
        backends=runtime.max_backends,
        pools=max(defaults.pools, len(config.pools)),
        keys=1 << (runtime.max_keys - 1).bit_length(),
        listeners=max(defaults.listeners, 2 * len(config.listeners)),
        flows=1 << (runtime.max_keys - 1).bit_length(),
    )


def _with_workers(workers: int | None, config: Config) -> Config:
    """A configuration as the command line wants it."""
    if workers is None:
        return config
    runtime = config.runtime.model_copy(update={"workers": workers})
    return config.model_copy(update={"runtime": runtime})


def _nothing() -> None:
    pass
