"""The wiring of a worker, from its birth to its end.

Owns the lifetimes of all parts and the connections that the worker holds, and does what the supervisor says;
decides nothing else. Two nurseries, one in the other::

    services   dispatcher, sweeper of deadlines, pulse (heartbeat and log), the supervisor's messages
      serving  one task for each listening socket, one for the inbox, one for each connection

To finish, acceptors and inbox go on until their queues are empty. When none of them and no connection is
left, or the drain timeout has passed, the inner nursery ends and then the outer one. Until then the worker
can be given the sockets of a sibling that died in the drain.
"""

from __future__ import annotations

import gc
import os
from random import Random
from typing import TYPE_CHECKING

import trio

from lbproc.core.control.messages import Adopt, Disown, Drained, Ready, ReopenLogs, Stop
from lbproc.errors import ControlError
from lbproc.net.channel import ChildChannel
from lbproc.net.connect import open_transport
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.transport import SocketTransport
from lbproc.proxy.connection import ClientConnection
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.runtime import Runtime
from lbproc.shm.views import ProcessState, WorkerCounter, WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Event
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Slot
from lbproc.worker.accepting import Accepting
from lbproc.worker.computing import limit_computing

if TYPE_CHECKING:
    import socket

    from lbproc.boot import WorkerBoot
    from lbproc.core.control.messages import SupervisorBound
    from lbproc.net.transport import SocketPeer, Transport
    from lbproc.types import Address, Seconds

PULSE: Seconds = 0.1
"""Between two flushes of the access log."""

GC_THRESHOLDS = (2000, 10, 1000)
"""When the collector of cycles runs: as good as never over everything.

Connections leave no cycles, so there is nothing to find, but with Python's own (700, 10, 10) the collector
looked through all that 10 000 connections hold seven times while they came: 2 s of 2.8, and up to 1.3 s in
one pause. With these the longest pause was 0.1 s (two busy shared cores, November 2026).
"""

PULSES_PER_BEAT = 10
"""A heartbeat, and a look for aged backend connections, once a second."""

SUPERVISOR_GONE_WITHIN: Seconds = 1.0
"""From the end of its channels to the end of its process a supervisor takes no longer, or it is not dying."""

IDLE_GRACE: Seconds = 1.0
"""How long a keep-alive connection without a request is kept when the worker finishes.

A client may have sent its next request just before it could know; within this time the request is answered.
"""


def run_worker(boot: WorkerBoot) -> int:
    """Runs a worker in this process, which was just forked, to its end.

    Returns:
        The exit status.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    return trio.run(Worker(boot).main)


class Worker:
    """The wiring of one worker process."""

    def __init__(self, boot: WorkerBoot) -> None:
        self._boot = boot
        self._view = WorkerView(boot.table, boot.column)
        self._log = boot.error_log
        self._access_log = AccessLog(boot.access_log or "off")
        self._deadlines = Deadlines()
        self._dispatcher = Dispatcher()
        self._context = WorkerContext(
            view=self._view,
            deadlines=self._deadlines,
            connect=self._connect,
            access_log=self._access_log,
            log=self._log,
            wall_clock=UtcClock(),
            random=Random(),  # noqa: S311  balancing, not secrets; seeded by the kernel after fork
        )
        self._runtime = Runtime(boot.config, self._context)
        self._connections: set[ClientConnection] = set()
        self._ended = 0
        """Connections since the last beat."""
        self._accepting = Accepting(boot, self._context, self._dispatcher, self._hold, self._end_accepting)
        self._is_stopping = False
        self._left = trio.Event()
        self._drain_scope = trio.CancelScope()

    async def main(self) -> int:
        """Serves until told to finish, or until the supervisor is gone."""
        self._channel = ChildChannel(self._boot.channel)
        self._context.now = trio.lowlevel.current_clock().current_time
        try:
            async with trio.open_nursery() as self._services:
                self._services.start_soon(self._dispatcher.run)
                self._services.start_soon(self._deadlines.run)
                self._services.start_soon(self._pulse)
                with self._drain_scope:
                    async with trio.open_nursery() as self._serving:
                        own = [(item.listener_name, item.socket) for item in self._boot.listeners]
                        self._accepting.begin(self._serving, self._boot.slot, own, self._boot.inbox)
                        self._services.start_soon(self._follow_supervisor)
                        self._view.follow(self._view.generation())
                        self._view.set_state(ProcessState.READY)
                        await self._tell(Ready())
                        await self._left.wait()
                self._left.set()
                self._services.cancel_scope.cancel()
        finally:
            limit_computing(None)
            self._runtime.retire()
            self._dispatcher.close()
            self._view.count(WorkerCounter.LOG_DROPPED, self._access_log.close())
            self._channel.close()
        return 0

    # Connections --------------------------------------------------------------------------------------------

    def _hold(self, listener_name: str, sock: socket.socket, peer: SocketPeer) -> None:
        transport = SocketTransport(sock, self._dispatcher, peer)
        connection = ClientConnection(transport, self._runtime.listeners[listener_name], self._context)
        self._connections.add(connection)
        self._view.count(WorkerCounter.CONNECTIONS)
        self._serving.start_soon(self._serve, connection)

    async def _serve(self, connection: ClientConnection) -> None:
        """Serves one connection.

        The one broad catch: a defect met by one client must not take the others along.
        """
        try:
            await connection.serve()
        except Exception as error:
            self._view.count(WorkerCounter.DEFECTS)
            self._log.write_crash(Event.CONNECTION_CRASHED, error, listener=connection.listener.name)
        finally:
            self._connections.discard(connection)
            self._ended += 1
            self._view.count(WorkerCounter.CONNECTIONS, -1)
            self._leave_if_done()

    async def _end_accepting(self, slot: Slot, is_drained: bool) -> None:
        if is_drained:
            await self._tell(Drained(slot))
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._is_stopping and not self._connections and self._accepting.is_over:
            self._left.set()

    async def _connect(self, address: Address, deadline: float) -> Transport:
        return await open_transport(address, self._dispatcher, self._deadlines, deadline)

    # The supervisor -----------------------------------------------------------------------------------------

    async def _follow_supervisor(self) -> None:
        """Does what the supervisor says. When it is gone, or does not want to talk, this worker finishes."""
        while True:
            received = await self._channel.receive()
            if received is None:
                await self._lose_supervisor()
                return
            message, sockets = received
            match message:
                case Adopt():
                    self._adopt(message, sockets)
                case Disown(slot=slot):
                    self._accepting.disown(Slot(slot))
                case Stop(now=True):
                    self._stop()
                    self._drain_scope.cancel()
                case Stop():
                    self._stop()
                case ReopenLogs():
                    self._access_log.reopen()
                    self._log.reopen()
                case _:
                    raise AssertionError(f"{type(message).__name__} is not for workers")

    def _adopt(self, message: Adopt, sockets: tuple[socket.socket, ...]) -> None:
        if self._left.is_set():  # this process is all but gone; the supervisor finds another sibling
            for sock in sockets:
                sock.close()
            return
        self._accepting.adopt(self._serving, message, sockets)

    async def _lose_supervisor(self) -> None:
        """Finishes without being told to.

        When the supervisor died, what is queued is served, and nobody else is there to keep new connections
        away. A supervisor that lives has given up on this worker and is about to replace it. Then queues and
        inbox are left to the successor as they are: to shut them would shut them for the successor as well.
        """
        if self._is_stopping:
            return
        self._log.write(Event.SUPERVISOR_LOST)
        if await self._outlasts(SUPERVISOR_GONE_WITHIN):
            self._accepting.give_up()
        else:
            self._accepting.refuse_new()
        self._stop()

    async def _outlasts(self, patience: Seconds) -> bool:
        """Whether the supervisor still lives then. One that dies closes its channels a moment before."""
        deadline = trio.current_time() + patience
        while os.getppid() == self._boot.supervisor_pid:
            if trio.current_time() > deadline:
                return True
            await trio.sleep(0.01)
        return False

    async def _tell(self, message: SupervisorBound) -> None:
        try:
            await self._channel.send(message)
        except ControlError:
            await self._lose_supervisor()

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = self._context.draining = True
        self._view.set_state(ProcessState.DRAINING)
        self._drain_scope.deadline = trio.current_time() + self._boot.config.runtime.drain_timeout
        self._accepting.drain()
        self._services.start_soon(self._end_idle)

    async def _end_idle(self) -> None:
        """Ends connections without a request, once a client that had just sent one has had its answer."""
        await trio.sleep(IDLE_GRACE)
        self._context.leaving = True
        for connection in self._connections:
            connection.nudge_idle()

    # Housekeeping -------------------------------------------------------------------------------------------

    async def _pulse(self) -> None:
        """Shows that this loop turns, and does what is due now and then."""
        view = self._view
        stuck_after = 2 * self._boot.config.runtime.heartbeat_timeout
        beats_in = 0
        while True:
            if beats_in == 0:
                beats_in = PULSES_PER_BEAT
                view.beat()
                self._accepting.look_into_inboxes()
                limit_computing(stuck_after)
                self._accepting.follow(self._ended, len(self._connections), PULSES_PER_BEAT * PULSE)
                self._ended = 0
                self._runtime.follow_membership()
                self._runtime.close_aged(trio.current_time())
            beats_in -= 1
            lost = self._access_log.flush()
            if lost:
                view.count(WorkerCounter.LOG_DROPPED, lost)
                self._log.write(Event.ACCESS_LOG_DROPPED, lines=lost, reason=self._access_log.trouble)
            if trouble := self._access_log.reopen_trouble():
                path = self._boot.config.log.access
                self._log.write(Event.LOG_REOPEN_FAILED, path=path, reason=trouble)
            await trio.sleep(PULSE)
