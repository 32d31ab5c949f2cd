"""What a child is given at its birth: its place, the table, the configuration and its descriptors.

Written by the supervisor right after fork, read by the worker and the controller. Plain values: everything
that a child does with them is the child's part. Every socket here belongs to the child from then on. So do
the logs, which are open already because the child may have no right to open them.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from lbproc.config.model import Config
from lbproc.net.tls.tickets import SharedTickets
from lbproc.shm.table import Table
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink
from lbproc.types import Address, Column, Slot


@dataclass(frozen=True, slots=True)
class InheritedListener:
    """One listening socket of a worker.

    Args:
        key: of the bound address, for ever its own.
        listener_name: the ``[listeners.NAME]`` that it belongs to.
        address: what it is bound to, with the real port where the configuration says 0.
        socket: bound, listening, non-blocking.
        shared: the same socket is served by every worker, so an accept may come away empty-handed; else it is
            the slot's own.
    """

    key: int
    listener_name: str
    address: Address
    socket: socket.socket
    shared: bool


@dataclass(frozen=True, slots=True)
class WorkerBoot:
    """Everything a worker needs to start.

    Args:
        slot: its place among the listening sockets.
        column: its part of the table.
        table: shared by all processes.
        config: what the operator asked for.
        listeners: its own sockets and the shared ones.
        inbox: where siblings hand connections to this slot; the end to read from.
        outboxes: the ends to send to of the other slots' inboxes.
        channel: to the supervisor; end of file on it means that the supervisor is gone, or has given up on
            this worker.
        supervisor_pid: the process that forked this one.
        error_log: under this worker's name.
        access_log: where its lines go, or None when ``[log] access`` is off.
        generation: of the configuration.
        kept_addresses: of listening sockets that somebody outside of lbproc holds as well: what is queued on
            them outlives all of us.
        removed: addresses that went with the last reload, where something may still be queued.
        former: the configuration before it, if there are any.
        tickets: what the keys of session tickets follow from; None: OpenSSL makes its own.
    """

    slot: Slot
    column: Column
    table: Table
    config: Config
    listeners: tuple[InheritedListener, ...]
    inbox: socket.socket
    outboxes: dict[Slot, socket.socket]
    channel: socket.socket
    supervisor_pid: int
    error_log: ErrorLog
    access_log: Sink | None
    generation: int
    kept_addresses: frozenset[Address] = frozenset()
    removed: tuple[InheritedListener, ...] = ()
    former: Config | None = None
    tickets: SharedTickets | None = None


@dataclass(frozen=True, slots=True)
class ControllerBoot:
    """Everything the controller needs to start.

    Args:
        column: its part of the table.
        table: shared by all processes.
        config: what the operator asked for.
        admin_socket: bound and listening for the admin HTTP server, or None when ``[admin]`` is absent.
        channel: to the supervisor; end of file on it means that the supervisor is gone.
        error_log: under the controller's name.
        generation: of the configuration.
    """

    column: Column
    table: Table
    config: Config
    admin_socket: socket.socket | None
    channel: socket.socket
    error_log: ErrorLog
    generation: int
