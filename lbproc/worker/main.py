"""The wiring of a worker, from its birth to its end.

Owns the lifetimes of all parts and the connections that the worker holds, and does what the supervisor says;
decides nothing else. Two nurseries, one in the other::

    services   dispatcher, sweeper of deadlines, pulse (heartbeat and log), the supervisor's messages
      serving  one task for each listening socket, one for the inbox, one for each connection

To finish, acceptors and inbox go on until their queues are empty. When none of them and no connection is
left, or the drain timeout has passed, the inner nursery ends and then the outer one. Until then the worker
can be given the sockets of a sibling that died in the drain. A worker that finishes while lbproc goes on,
because there are fewer slots or because it is worn, has no timeout before lbproc stops too.
"""

from __future__ import annotations

import gc
import math
import os
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

import trio

from lbproc.core.control.messages import (
    Abandon,
    Adopt,
    Disown,
    Drained,
    DrainSlot,
    Follow,
    Leave,
    Lend,
    Prepare,
    Ready,
    ReopenLogs,
    Stop,
    Worn,
)
from lbproc.core.sessions import Stage
from lbproc.errors import ControlError
from lbproc.net.accept import reset
from lbproc.net.channel import ChildChannel, as_sockets
from lbproc.net.connect import open_transport
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.tls.tickets import TicketKeys
from lbproc.net.transport import SocketTransport
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.cutting import cut_what_is_out
from lbproc.proxy.entrance import Places
from lbproc.proxy.runtime import Runtime
from lbproc.shm.views import ProcessState, WorkerCounter, WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Event
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Slot
from lbproc.worker.accepting import Accepting
from lbproc.worker.computing import limit_computing
from lbproc.worker.moving import IDLE_GRACE, Moving
from lbproc.worker.wearing import Wear

if TYPE_CHECKING:
    import socket

    from lbproc.boot import WorkerBoot
    from lbproc.core.control.messages import Message, SupervisorBound
    from lbproc.net.transport import SocketPeer, Transport
    from lbproc.proxy.client import Client
    from lbproc.proxy.listener import StreamListener
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
        self._deadlines = Deadlines()
        self._dispatcher = Dispatcher()
        self._context = WorkerContext(
            view=self._view,
            deadlines=self._deadlines,
            connect=self._connect,
            access_log=AccessLog(boot.access_log or "off"),
            log=self._log,
            wall_clock=UtcClock(),
            random=Random(),  # noqa: S311  balancing, not secrets; seeded by the kernel after fork
        )
        self._tickets = None if boot.tickets is None else TicketKeys(boot.tickets)
        if self._tickets is not None:
            self._context.enroll_tickets = self._tickets.enroll
        Runtime.begin(boot.config, self._context, boot.generation)
        self._connections: set[Client] = set()
        self._places: dict[Client, Places] = {}
        """What connections hold at the limits of their listeners, where there are any."""
        self._ended = 0
        """Connections since the last beat."""
        self._accepting = Accepting(boot, self._context, self._dispatcher, self._hold, self._end_accepting)
        self._moving = Moving(self._context, self._accepting, self._connections, self._tell, self._count_all)
        self._context.move = self._moving.move
        self._wear = Wear(self._view, self._context.random)
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
                        self._moving.begin(self._services, self._serving)
                        own = [(item.key, item.socket) for item in self._boot.listeners]
                        self._accepting.begin(self._serving, self._boot.slot, own, self._boot.inbox)
                        if self._boot.removed and self._boot.former is not None:
                            self._accepting.finish(
                                self._serving, self._boot.slot, self._boot.removed, self._boot.former
                            )
                        self._services.start_soon(self._follow_supervisor)
                        self._view.follow(self._boot.generation)
                        self._view.set_state(ProcessState.READY)
                        await self._tell(Ready())
                        await self._left.wait()
                self._left.set()
                self._services.cancel_scope.cancel()
        finally:
            limit_computing(None)
            self._view.count(WorkerCounter.LOG_DROPPED, self._moving.close())
            self._accepting.close()
            self._context.runtime.retire()
            self._dispatcher.close()
            self._view.count(WorkerCounter.LOG_DROPPED, self._context.access_log.close())
            self._channel.close()
        return 0

    # Connections --------------------------------------------------------------------------------------------

    def _hold(self, listener: StreamListener, sock: socket.socket, peer: SocketPeer) -> None:
        places = None
        if listener.entrance is not None and listener.generation != self._context.generation():
            self._context.move()  # the numbers in force count from now on
            listener = listener.lineage.current or listener
        if listener.entrance is not None:
            places = listener.entrance.enter(peer[0] if isinstance(peer, tuple) else "")
            if places is None:
                reset(sock)
                return
        try:
            connection = listener.open(SocketTransport(sock, self._dispatcher, peer), self._context)
        except BaseException:
            if places is not None:
                places.release()
            raise
        if places is not None:
            self._places[connection] = places
        self._connections.add(connection)
        self._view.count(WorkerCounter.CONNECTIONS)
        self._serving.start_soon(self._serve, connection)

    def _count_all(self) -> None:
        """Counts connections at limits that have come with a new configuration."""
        if not any(listener.entrance for listener in self._context.runtime.listeners.values()):
            return
        for connection in self._connections:
            listener = connection.lineage.current
            if listener is not None and listener.entrance is not None:
                places = self._places.get(connection)
                if places is None:
                    places = self._places[connection] = Places(self._view.release)
                listener.entrance.complete(places, connection.transport.peer_ip)

    async def _serve(self, connection: Client) -> None:
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
            if self._places and (places := self._places.pop(connection, None)) is not None:
                places.release()
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
            await self._do(*received)

    async def _do(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Adopt():
                self._adopt(message, as_sockets(descriptors))
            case Disown(slot=slot):
                self._accepting.disown(Slot(slot))
            case DrainSlot(slot=slot):
                if not self._accepting.retire(Slot(slot)):
                    await self._tell(Drained(slot))
            case Lend() | Prepare() | Follow() | Abandon():
                self._moving.hear(message, descriptors)
            case Stop(now=True):
                self._stop()
                self._drain_scope.cancel()
            case Stop(retires=retires):
                self._stop(is_limited=not retires, alone=retires)
                self._services.start_soon(self._end_idle)
            case Leave():
                self._accepting.give_up()
                self._stop(is_limited=False)
            case ReopenLogs():
                self._context.access_log.reopen()
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
            self._limit_drain()  # nobody is left who could tell a retired worker to stop
            return
        self._log.write(Event.SUPERVISOR_LOST)
        if await self._outlasts(SUPERVISOR_GONE_WITHIN):
            self._accepting.give_up()
        else:
            self._accepting.refuse_new()
        self._stop()
        self._services.start_soon(self._end_idle)

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

    def _stop(self, *, is_limited: bool = True, alone: bool = False) -> None:
        """Finishes; may be said again with a limit to a worker that was to finish without one.

        Args:
            is_limited: within the drain timeout.
            alone: lbproc goes on, and siblings serve what is theirs too.
        """
        if is_limited:
            self._limit_drain()
        if self._is_stopping:
            if is_limited:
                self._accepting.hurry()
            return
        self._is_stopping = self._context.draining = True
        self._view.set_state(ProcessState.DRAINING)
        self._accepting.drain(alone=alone, stage=Stage.STOPPING if is_limited else Stage.RETIRED)

    def _limit_drain(self) -> None:
        """Cuts what is left after the drain timeout, which begins once."""
        if self._drain_scope.deadline == math.inf:
            patience = self._context.runtime.config.runtime.drain_timeout
            self._drain_scope.deadline = trio.current_time() + patience

    async def _end_idle(self) -> None:
        """Ends connections without a request, once a client that had just sent one has had its answer."""
        await trio.sleep(IDLE_GRACE)
        self._context.leaving = True
        for connection in self._connections:
            connection.nudge_idle()

    # Housekeeping -------------------------------------------------------------------------------------------

    async def _pulse(self) -> None:
        """Shows that this loop turns, and does what is due now and then."""
        view, context = self._view, self._context
        beats_in = 0
        while True:
            if beats_in == 0:
                beats_in = PULSES_PER_BEAT
                view.beat()
                self._accepting.look_into_inboxes()
                limit_computing(2 * context.runtime.config.runtime.heartbeat_timeout)
                self._accepting.follow(self._ended, len(self._connections), PULSES_PER_BEAT * PULSE)
                self._ended = 0
                self._moving.look()
                context.runtime.follow_membership()
                context.runtime.close_aged(trio.current_time())
                if self._tickets is not None:
                    self._tickets.look(context.stamp() / 1e9)
            beats_in -= 1
            self._context.runtime.look()
            cut_what_is_out(context.runtime, chain(self._connections, self._accepting.sessions()), self._log)
            access_log = context.access_log
            lost = access_log.flush() + self._moving.count_lost_lines()
            if lost:
                view.count(WorkerCounter.LOG_DROPPED, lost)
                self._log.write(Event.ACCESS_LOG_DROPPED, lines=lost, reason=access_log.trouble)
            if self._wear.is_reached(self._context.runtime.config.runtime.max_requests):
                await self._tell(Worn())
            if trouble := access_log.reopen_trouble():
                path = context.runtime.config.log.access
                self._log.write(Event.LOG_REOPEN_FAILED, path=path, reason=trouble)
            await trio.sleep(PULSE)
