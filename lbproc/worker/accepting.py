"""What comes to the slots that a worker serves: out of their listening sockets and their inboxes.

Owns these sockets, with one task for each, and the first decision about a connection: one that was accepted
here stays, unless this worker holds clearly more than its share; then a sibling gets it before anything is
read. What siblings give comes through an inbox, and stays. Does not know what becomes of what stays.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import trio

from lbproc.core.control.messages import descriptor_count
from lbproc.net.accept import Acceptor
from lbproc.net.inbox import Inbox
from lbproc.net.listeners import refuse_new
from lbproc.net.sharing import Sharing
from lbproc.shm.siblings import Siblings
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event
from lbproc.types import Slot

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from lbproc.boot import WorkerBoot
    from lbproc.core.control.messages import Adopt
    from lbproc.errors import ControlError
    from lbproc.net.readiness import Dispatcher
    from lbproc.net.transport import SocketPeer
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Seconds


class Accepting:
    """Takes connections for one worker, for its own slot and for those that it adopts.

    Args:
        boot: what the worker was born with.
        context: what its connections share.
        dispatcher: reports the events of the sockets.
        hold: gets each connection that stays here: the name of its listener, its socket, for which it takes
            responsibility, and the peer's address. It must not wait.
        on_end: told when one socket of a slot has ended, and whether the slot is drained with it.
    """

    __slots__ = (
        "_all_listeners",
        "_context",
        "_dispatcher",
        "_hold",
        "_intakes",
        "_on_end",
        "_sharing",
        "_siblings",
    )

    def __init__(
        self,
        boot: WorkerBoot,
        context: WorkerContext,
        dispatcher: Dispatcher,
        hold: Callable[[str, socket.socket, SocketPeer], None],
        on_end: Callable[[Slot, bool], Awaitable[None]],
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._hold = hold
        self._on_end = on_end
        self._all_listeners = ",".join(boot.config.listeners)
        self._intakes: dict[Slot, list[_Intake]] = {}
        self._siblings = Siblings(boot.table, boot.slot, 1 + len(boot.outboxes))
        self._sharing = Sharing(boot.slot, self._siblings, boot.outboxes)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to take connections from."""
        return not any(self._intakes.values())

    def follow(self, ended: int, held: int, seconds: Seconds) -> None:
        """Learns how long connections live; see `Sharing.follow`."""
        self._sharing.follow(ended, held, seconds)

    # Slots --------------------------------------------------------------------------------------------------

    def begin(
        self,
        nursery: trio.Nursery,
        slot: Slot,
        sockets: list[tuple[str, socket.socket]],
        inbox: socket.socket | None,
    ) -> None:
        """Begins to serve what comes to a slot.

        Args:
            nursery: for the tasks.
            slot: this worker's own, or one that it adopts.
            sockets: listening ones, each with the name of its listener.
            inbox: the receiving end, if the slot has one.
        """
        intakes = [_Intake(sock, self._make_acceptor(name, sock)) for name, sock in sockets]
        if inbox is not None:
            intakes.append(_Intake(inbox, self._make_inbox(slot, inbox)))
        group = self._intakes.setdefault(slot, [])
        for intake in intakes:
            group.append(intake)
            nursery.start_soon(self._take_from, slot, intake)

    def adopt(self, nursery: trio.Nursery, message: Adopt, sockets: tuple[socket.socket, ...]) -> None:
        """Begins to serve a slot whose worker is gone."""
        names = [name for name, _ in message.listeners]
        if len(sockets) < descriptor_count(message):
            # No descriptor is left here: the queue waits for the slot's next worker.
            self._exhausted(self._all_listeners, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return
        inbox = sockets[-1] if message.inbox else None
        self.begin(nursery, Slot(message.slot), list(zip(names, sockets, strict=False)), inbox)

    def disown(self, slot: Slot) -> None:
        """Leaves a slot at once, with all that is queued, to its next worker."""
        for intake in self._intakes.get(slot, []):
            intake.scope.cancel()

    def give_up(self) -> None:
        """Leaves all slots so."""
        for slot in self._intakes:
            self.disown(slot)

    def refuse_new(self) -> None:
        """Keeps new connections away from all slots; what is queued stays."""
        for intake in chain.from_iterable(self._intakes.values()):
            refuse_new(intake.socket)

    def drain(self) -> None:
        """Takes what is queued, and ends with that. The context says already that the worker is draining."""
        for intake in chain.from_iterable(self._intakes.values()):
            intake.taker.stop()

    def look_into_inboxes(self) -> None:
        """Lets what waits be counted anew: a giver may have died between counting and sending."""
        for intake in chain.from_iterable(self._intakes.values()):
            if isinstance(intake.taker, Inbox):
                intake.taker.look()

    async def _take_from(self, slot: Slot, intake: _Intake) -> None:
        """Serves one socket of a slot. With the last one that ends in a drain the slot is drained."""
        group = self._intakes[slot]
        try:
            with intake.scope:
                if self._context.draining:
                    intake.taker.stop()
                await intake.taker.run()
        finally:
            intake.socket.close()
            group.remove(intake)
        await self._on_end(slot, not group and self._context.draining)

    # Connections --------------------------------------------------------------------------------------------

    def _make_acceptor(self, listener_name: str, sock: socket.socket) -> Acceptor:
        return Acceptor(
            sock,
            self._dispatcher,
            self._context.deadlines,
            partial(self._accepted, listener_name),
            on_exhausted=partial(self._exhausted, listener_name),
        )

    def _make_inbox(self, slot: Slot, sock: socket.socket) -> Inbox:
        return Inbox(
            sock,
            self._dispatcher,
            self._context.deadlines,
            partial(self._taken, slot),
            on_empty=partial(self._siblings.clear_waiting, slot),
            on_exhausted=partial(self._exhausted, self._all_listeners),
            on_nonsense=self._misunderstood,
        )

    def _accepted(self, listener_name: str, sock: socket.socket, peer: SocketPeer) -> None:
        """Holds a new connection, or gives it away; runs inside the accept loop and does not wait."""
        context = self._context
        context.view.count(WorkerCounter.ACCEPTED)
        if not context.draining and self._sharing.give_away(listener_name, sock, peer):
            context.view.count(WorkerCounter.HANDED_OVER)
            return
        self._hold(listener_name, sock, peer)

    def _taken(self, slot: Slot, listener_name: str, sock: socket.socket, peer: SocketPeer) -> None:
        """Holds a connection that a sibling gave to a slot, and counted as accepted."""
        self._hold(listener_name, sock, peer)
        self._siblings.remove_waiting(slot)

    def _exhausted(self, listener_name: str, error: OSError) -> None:
        self._context.view.count(WorkerCounter.ACCEPT_PAUSES)
        self._context.log.write(Event.ACCEPT_PAUSED, listener=listener_name, reason=error.strerror)

    def _misunderstood(self, error: ControlError) -> None:
        self._context.view.count(WorkerCounter.DEFECTS)
        self._context.log.write_crash(Event.CONNECTION_CRASHED, error, listener=self._all_listeners)


class _Intake:
    """One listening socket or inbox that connections are taken from, and the way to stop at once."""

    __slots__ = ("scope", "socket", "taker")

    def __init__(self, sock: socket.socket, taker: Acceptor | Inbox) -> None:
        self.socket = sock
        self.taker = taker
        self.scope = trio.CancelScope()
