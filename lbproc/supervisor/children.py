"""The child processes: forking, talking, killing, reaping, and cleaning up after them.

Acts and decides nothing: what happens to a child becomes an event for the state machine. What a child says
is not trusted: nonsense, or not reading, costs it its channel.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lbproc.boot import ControllerBoot, InheritedListener, WorkerBoot
from lbproc.core.control.messages import Adopt, Lend, Message
from lbproc.core.supervision_events import ChannelLost, ChildExited, ChildId, Event, SpawnFailed
from lbproc.core.tls.certificate import load_reader
from lbproc.errors import CapacityError, ControlError, StartError
from lbproc.net.channel import SupervisorChannel, open_pair
from lbproc.shm.views import RepairReport, Role, SupervisorView
from lbproc.supervisor.belongings import Belongings, Entries
from lbproc.supervisor.child import fork_child
from lbproc.supervisor.tickets import shared_now
from lbproc.telemetry.log import ErrorLog
from lbproc.types import Column, Seconds, Slot

_SOCKETS_AT_ONCE = 200
"""Sockets in one message; the kernel's bound is 253."""


@dataclass(slots=True)
class Process:
    """One child that is not yet buried.

    Args:
        name: as the state machine calls it.
        slot: None for the controller.
        column: its part of the table.
        channel: to talk to it.
        pid: 0 until the fork is done.
        is_reachable: the channel is open.
    """

    name: ChildId
    slot: Slot | None
    column: Column
    channel: SupervisorChannel
    pid: int = 0
    is_reachable: bool = True


class Children:
    """All children that live or wait for burial.

    Args:
        belongings: what they inherit.
        view: of the table.
        entries: what they run.
        selector: whose keys carry a function that takes the ready events.
        release: closes, in a child, what is the supervisor's own apart from what this object knows.
        happened: takes the events.
        heard: takes a child's message; raises `ControlError` when it makes no sense.
    """

    __slots__ = (
        "_entries", "_happened", "_heard", "_own", "_processes", "_release", "_selector", "_supervisor_pid",
        "_view",
    )  # fmt: skip

    def __init__(
        self,
        belongings: Belongings,
        view: SupervisorView,
        entries: Entries,
        selector: selectors.BaseSelector,
        *,
        release: Callable[[], None],
        happened: Callable[[Event], None],
        heard: Callable[[Process, Message], None],
    ) -> None:
        self._own = belongings
        self._view = view
        self._entries = entries
        self._selector = selector
        self._release = release
        self._happened = happened
        self._heard = heard
        self._processes: dict[ChildId, Process] = {}
        self._supervisor_pid = os.getpid()

    def get(self, name: ChildId) -> Process | None:
        """The child, unless it is buried or was never forked."""
        return self._processes.get(name)

    def places(self) -> dict[ChildId, tuple[int, Column]]:
        """Process id and column of each."""
        return {process.name: (process.pid, process.column) for process in self._processes.values()}

    def heartbeats(self) -> dict[ChildId, Seconds]:
        """When each child's event loop last turned."""
        return {
            process.name: self._view.heartbeat_at(process.column) / 1e9
            for process in self._processes.values()
        }

    def spawn(self, name: ChildId, slot: Slot | None) -> None:
        """Forks a child. Failing is an event."""
        role = Role.CONTROLLER if slot is None else Role.WORKER
        try:
            ours, theirs = open_pair()
        except OSError as error:  # no descriptor is left
            self._happened(SpawnFailed(name, error.strerror or str(error)))
            return
        try:
            column = self._view.allocate_column(slot, role)
        except CapacityError as error:
            ours.close()
            theirs.close()
            self._happened(SpawnFailed(name, str(error)))
            return
        process = self._processes[name] = Process(name, slot, column, SupervisorChannel(ours))
        log = self._own.log.renamed("controller" if slot is None else f"worker-{slot}")
        if self._own.tickets is not None:
            self._own.tickets.advance(shared_now())
        if slot is not None:
            self._load_libraries()
        try:
            process.pid = fork_child(
                partial(self._main, process, theirs, log, self._view.reader.generation()),
                partial(self._release_in_child, slot),
                theirs,
                self._own.account,
                log,
            )
        except OSError as error:
            process.is_reachable = False
            self._happened(SpawnFailed(name, error.strerror or str(error)))
            return
        finally:
            theirs.close()
        self._view.set_pid(column, process.pid)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._on_channel, process))

    def send(self, name: ChildId, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Says something to a child; never waits. To one that cannot hear it does nothing."""
        process = self._processes.get(name)
        if process is not None and process.is_reachable:
            self._try(process, partial(process.channel.send, message, descriptors))

    def send_to_all(self, message: Message) -> None:
        """Says something to every child."""
        for name in list(self._processes):
            self.send(name, message)

    def send_sockets(self, name: ChildId, slot: Slot) -> None:
        """Gives a worker the sockets and the inbox of another slot."""
        self.send_more_sockets(
            name, slot, self._own.sockets.own_of_slot(slot), self._own.inboxes.of_slot(slot)
        )

    def send_more_sockets(
        self,
        name: ChildId,
        slot: Slot,
        listeners: Sequence[InheritedListener],
        inbox: socket.socket | None = None,
    ) -> None:
        """Gives a worker sockets of another slot.

        Args:
            name: of the worker.
            slot: whose they are.
            listeners: without the shared ones.
            inbox: comes with the first; None if the worker has it.
        """
        for batch in _batches(listeners, at_least=0 if inbox is None else 1):
            sockets = [listener.socket for listener in batch] + ([] if inbox is None else [inbox])
            message = Adopt(slot, _described(batch), inbox=inbox is not None)
            self.send(name, message, tuple(sock.fileno() for sock in sockets))
            inbox = None

    def lend(
        self, name: ChildId, generation: int, slot: Slot, listeners: Sequence[InheritedListener]
    ) -> None:
        """Gives a worker sockets of its own slot that it is to serve with that generation."""
        for batch in _batches(listeners):
            descriptors = tuple(listener.socket.fileno() for listener in batch)
            self.send(name, Lend(generation, slot, _described(batch)), descriptors)

    def kill(self, name: ChildId, number: signal.Signals) -> None:
        """Sends a signal. Until the child is reaped its process id is its own, so it cannot hit another."""
        process = self._processes.get(name)
        if process is not None and process.pid:
            os.kill(process.pid, number)

    def reap(self) -> None:
        """Collects every process that has exited, also those of dead children when this is process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = next((process for process in self._processes.values() if process.pid == pid), None)
            if process is not None:
                self._hear(process)  # its last words
                self._happened(ChildExited(process.name, os.waitstatus_to_exitcode(status)))

    def bury(self, name: ChildId) -> RepairReport | None:
        """Repairs what a child that is gone has left in the table; None when it never was there."""
        process = self._processes.pop(name, None)
        if process is None:
            return None
        self._close_channel(process)
        return self._view.repair(process.column)

    def close(self) -> None:
        """Closes the channels; children that still live see that the supervisor is gone."""
        for process in self._processes.values():
            self._close_channel(process)

    def _main(self, process: Process, channel: socket.socket, log: ErrorLog, generation: int) -> int:
        """In the child: its own main function."""
        own = self._own
        if process.slot is None:
            return self._entries.controller(
                ControllerBoot(
                    process.column,
                    own.table,
                    own.config,
                    None if own.admin_socket is None else own.admin_socket.socket,
                    channel,
                    log,
                    generation,
                )
            )
        listeners = own.sockets.of_slot(process.slot)
        return self._entries.worker(
            WorkerBoot(
                process.slot,
                process.column,
                own.table,
                own.config,
                listeners,
                own.inboxes.of_slot(process.slot),
                own.inboxes.outboxes(process.slot),
                channel,
                self._supervisor_pid,
                log,
                own.access_log,
                generation,
                own.passed.addresses,
                own.sockets.removed_of_slot(process.slot),
                own.former,
                own.tickets,
            )
        )

    def _load_libraries(self) -> None:
        """Imports what a worker needs for these configurations alone: it may have no right to, itself."""
        tables = [
            listener.tls
            for config in (self._own.config, self._own.former)
            if config is not None
            for listener in config.listeners.values()
        ]
        if any(tls is not None and tls.asks_clients for tls in tables):
            with suppress(StartError):  # the worker meets it too, and says why it cannot start
                load_reader()

    def release_in_helper(self) -> None:
        """In a forked process that is no child: closes everything."""
        self._release_in_child(None)
        if self._own.admin_socket is not None:
            self._own.admin_socket.socket.close()

    def _release_in_child(self, slot: Slot | None) -> None:
        """In the child: closes what is the supervisor's or another child's.

        A child that held the supervisor's end of a channel would keep the channel's owner from learning of
        the supervisor's death.
        """
        self._release()
        for process in self._processes.values():
            process.channel.close()
        self._own.sockets.close_in_child(slot)
        self._own.passed.close()
        self._own.inboxes.close_in_child(slot)
        if slot is not None and self._own.admin_socket is not None:
            self._own.admin_socket.socket.close()
        if slot is None and self._own.access_log is not None:
            self._own.access_log.close()

    def _on_channel(self, process: Process, events: int) -> None:
        # What happened in the same round may have cost it the channel.
        if events & selectors.EVENT_WRITE and process.is_reachable:
            self._try(process, process.channel.flush)
        if events & selectors.EVENT_READ:
            self._hear(process)

    def _hear(self, process: Process) -> None:
        if not process.is_reachable:
            return
        try:
            for message in process.channel.receive():
                self._heard(process, message)
        except ControlError:
            self._lose(process)

    def _try(self, process: Process, sending: Callable[[], None]) -> None:
        try:
            sending()
        except ControlError:
            self._lose(process)
            return
        writing = selectors.EVENT_WRITE if process.channel.has_unsent else 0
        self._selector.modify(
            process.channel.socket, selectors.EVENT_READ | writing, partial(self._on_channel, process)
        )

    def _lose(self, process: Process) -> None:
        self._close_channel(process)
        self._happened(ChannelLost(process.name))

    def _close_channel(self, process: Process) -> None:
        if process.is_reachable:
            process.is_reachable = False
            self._selector.unregister(process.channel.socket)
        process.channel.close()


def _batches(
    listeners: Sequence[InheritedListener], at_least: int = 0
) -> Iterator[Sequence[InheritedListener]]:
    """As many as fit into one message; an empty one when there has to be one."""
    for start in range(0, max(len(listeners), at_least), _SOCKETS_AT_ONCE):
        yield listeners[start : start + _SOCKETS_AT_ONCE]


def _described(listeners: Sequence[InheritedListener]) -> tuple[tuple[int, str, str], ...]:
    return tuple((listener.key, listener.listener_name, str(listener.address)) for listener in listeners)
