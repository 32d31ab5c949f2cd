"""What comes to the slots that a worker serves: out of their listening sockets and their inboxes.

Owns these sockets, with one task for each, and the first decision about a connection: one that was accepted
here stays, unless this worker holds clearly more than its share; then a sibling gets it before anything is
read. What siblings give comes through an inbox, and stays. Does not know what becomes of what stays.

Which listener a connection belongs to follows from the *key* of the address that it came to. A reload changes
which listener that is, adds addresses, and takes some away: what is queued there is accepted first. A sibling
may be later, and give what it has accepted at an address that is gone here. That is served by the listener
which the address had, which is remembered for a while.

A socket for datagrams has no queue of clients but sessions, which end when they are silent
(``core.sessions``). One that another worker receives at now, or that gets nothing new any more, is served
until its sessions have ended: their answers leave from there.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from itertools import chain
from socket import AF_UNIX, SOCK_DGRAM
from typing import TYPE_CHECKING, NamedTuple

import trio

from lbproc.core.control.messages import descriptor_count
from lbproc.core.sessions import Stage
from lbproc.errors import ControlError
from lbproc.net.accept import Acceptor
from lbproc.net.inbox import Inbox
from lbproc.net.listeners import refuse_new
from lbproc.net.sharing import Sharing
from lbproc.net.sockaddr import listening_address, takes_both_families
from lbproc.proxy.listener import StreamListener
from lbproc.proxy.udp_server import UdpServer
from lbproc.shm.siblings import Siblings
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.events import Event
from lbproc.types import Seconds, Slot

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from lbproc.boot import InheritedListener, WorkerBoot
    from lbproc.config.model import Config
    from lbproc.core.control.messages import Adopt
    from lbproc.net.readiness import Dispatcher
    from lbproc.net.transport import SocketPeer
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.listener import Listener
    from lbproc.proxy.udp_session import UdpSession

REMEMBERED: Seconds = 60.0
"""How long the listener of an address that went is remembered: no sibling hangs so long and lives."""


class Accepting:
    """Takes connections for one worker, for its own slot and for those that it adopts.

    Args:
        boot: what the worker was born with.
        context: what its connections share.
        dispatcher: reports the events of the sockets.
        hold: gets each connection that stays here: its listener, its socket, for which it takes
            responsibility, and the peer's address. It must not wait.
        on_end: told when one socket of a slot has ended, and whether the slot is drained with it.
    """

    __slots__ = (
        "_by_key",
        "_context",
        "_dispatcher",
        "_drained_by",
        "_hold",
        "_intakes",
        "_kept",
        "_left",
        "_on_end",
        "_retired",
        "_retiring",
        "_sharing",
        "_siblings",
        "_slot",
    )

    def __init__(
        self,
        boot: WorkerBoot,
        context: WorkerContext,
        dispatcher: Dispatcher,
        hold: Callable[[StreamListener, socket.socket, SocketPeer], None],
        on_end: Callable[[Slot, bool], Awaitable[None]],
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._hold = hold
        self._on_end = on_end
        self._slot = boot.slot
        self._kept = boot.kept_addresses
        listeners = context.runtime.listeners
        self._by_key = {item.key: listeners[item.listener_name] for item in boot.listeners}
        """The listener of each address that there is."""
        self._retired: dict[int, _Retired] = {}
        """And of those that have gone lately."""
        self._retiring: set[Slot] = set()
        """Adopted slots that end when they are drained."""
        self._intakes: dict[Slot, list[_Intake]] = {}
        self._drained_by = Stage.RETIRED
        """The stage of sockets for datagrams that a draining worker gets."""
        self._left: dict[_Intake, Slot] = {}
        """Sockets for datagrams that others receive at now, with sessions that go on here."""
        self._siblings = Siblings(boot.table, boot.slot, 1 + len(boot.outboxes))
        self._sharing = Sharing(boot.slot, self._siblings, boot.outboxes)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to take connections from."""
        return not any(self._intakes.values()) and not self._left

    def sessions(self) -> Iterator[UdpSession]:
        """All sessions of datagrams."""
        for intake in chain(self._left, *self._intakes.values()):
            if isinstance(intake.taker, UdpServer):
                yield from intake.taker.sessions

    def follow(self, ended: int, held: int, seconds: Seconds) -> None:
        """Learns how long connections live; see `Sharing.follow`."""
        self._sharing.follow(ended, held, seconds)

    # Slots --------------------------------------------------------------------------------------------------

    def begin(
        self,
        nursery: trio.Nursery,
        slot: Slot,
        sockets: Iterable[tuple[int, socket.socket]],
        inbox: socket.socket | None,
    ) -> None:
        """Begins to serve what comes to a slot.

        Args:
            nursery: for the tasks.
            slot: this worker's own, or one that it adopts.
            sockets: listening ones, each with the key of its address.
            inbox: the receiving end, if the slot has one.
        """
        intakes = [intake for key, sock in sockets if (intake := self._make_intake(key, sock)) is not None]
        if inbox is not None:
            intakes.append(_Intake(None, inbox, self._make_inbox(slot, inbox)))
        group = self._intakes.setdefault(slot, [])
        for intake in intakes:
            group.append(intake)
            nursery.start_soon(self._take_from, slot, intake)

    def finish(
        self, nursery: trio.Nursery, slot: Slot, removed: Iterable[InheritedListener], former: Config
    ) -> None:
        """Takes what is queued at addresses that went before this worker was born, and ends with that.

        Args:
            nursery: for the tasks.
            slot: this worker's own.
            removed: the addresses.
            former: the configuration that had them.
        """
        names = {item.key: item.listener_name for item in removed}
        listeners = self._context.runtime.revive(former, set(names.values()))
        forget_at = trio.current_time() + REMEMBERED
        for key, name in names.items():
            self._retired[key] = _Retired(listeners[name], forget_at)
        self.begin(nursery, slot, [(item.key, item.socket) for item in removed], None)

    def adopt(self, nursery: trio.Nursery, message: Adopt, sockets: tuple[socket.socket, ...]) -> None:
        """Begins to serve a slot whose worker is gone."""
        keys = [key for key, _, _ in message.listeners]
        listeners = self._context.runtime.listeners
        for key, name, _ in message.listeners:
            if self._find(key) is None and name in listeners:
                self._by_key[key] = listeners[name]
        if len(sockets) < descriptor_count(message):
            # No descriptor is left here: the queue waits for the slot's next worker.
            self._exhausted(None, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return
        inbox = sockets[-1] if message.inbox else None
        self.begin(nursery, Slot(message.slot), zip(keys, sockets, strict=False), inbox)

    def disown(self, slot: Slot) -> None:
        """Leaves a slot at once, with all that is queued, to its next worker.

        What is queued where nothing new comes is accepted here nevertheless. Sessions go on.
        """
        group = self._intakes.get(slot, [])
        for intake in tuple(group):
            if self._is_going(intake):  # nobody else may know its listener
                continue
            if isinstance(intake.taker, UdpServer):
                group.remove(intake)
                self._left[intake] = slot
                intake.taker.leave()
            else:
                intake.scope.cancel()

    def retire(self, slot: Slot) -> bool:
        """Takes what is queued on an adopted slot which has no future, and ends with that.

        Returns:
            Whether there is something to wait for.
        """
        self._retiring.add(slot)
        group = self._intakes.get(slot, [])
        for intake in group:
            intake.stop(Stage.RETIRED)
        return bool(group)

    def close(self) -> None:
        """Closes what is left when all tasks have ended."""
        self._sharing.close()

    def give_up(self) -> None:
        """Leaves all slots so."""
        for slot in self._intakes:
            self.disown(slot)

    def refuse_new(self) -> None:
        """Keeps new connections away from all slots; what is queued stays."""
        for intake in chain.from_iterable(self._intakes.values()):
            if not intake.is_kept and not isinstance(intake.taker, UdpServer):
                refuse_new(intake.socket)

    def drain(self, *, alone: bool = False, stage: Stage = Stage.STOPPING) -> None:
        """Takes what is queued, and ends with that. The context says already that the worker is draining.

        Args:
            alone: siblings go on, and take what comes to the sockets that are theirs too: these never become
                quiet, and are left at once.
            stage: of the sockets for datagrams.
        """
        self._drained_by = stage
        for intake in chain(self._left, *self._intakes.values()):
            if alone and intake.is_shared:
                intake.scope.cancel()
            else:
                intake.stop(stage)

    def hurry(self) -> None:
        """Says to what drains already that lbproc as a whole leaves now."""
        self._drained_by = Stage.STOPPING
        for intake in chain(self._left, *self._intakes.values()):
            if isinstance(intake.taker, UdpServer):
                intake.stop(Stage.STOPPING)

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
                if self._is_going(intake):
                    intake.stop(Stage.REMOVED)
                elif self._context.draining or slot in self._retiring:
                    intake.stop(self._drained_by)
                await intake.taker.run()
        finally:
            intake.socket.close()
            is_left = self._left.pop(intake, None) is not None
            if not is_left:
                group.remove(intake)
            intake.has_ended.set()
        is_drained = not group and (self._context.draining or slot in self._retiring)
        await self._on_end(slot, is_drained and not is_left)

    # Reloads ------------------------------------------------------------------------------------------------

    def move(
        self, names: Mapping[int, str], slots: int, outboxes: Mapping[Slot, socket.socket]
    ) -> list[trio.Event]:
        """Goes on with the addresses and slots of the runtime that is in use now.

        Args:
            names: the listener's name for the key of every address that there is.
            slots: how many workers there are.
            outboxes: to the inboxes of slots that are new.

        Returns:
            For each address that went the event that all which was queued there is accepted.
        """
        forget_at = trio.current_time() + REMEMBERED
        for key in self._by_key.keys() - names.keys():
            self._retired[key] = _Retired(self._by_key[key], forget_at)
        listeners = self._context.runtime.listeners
        self._by_key = {key: listeners[name] for key, name in names.items()}
        going = [
            intake
            for intake in chain(self._left, *self._intakes.values())
            if intake.key is not None and intake.key not in names
        ]
        for intake in going:
            intake.stop(Stage.REMOVED)
        for intake, slot in self._left.items():
            if slot >= slots:  # while it is open here, it keeps a place among the sockets of its address
                intake.scope.cancel()
        for intake in chain(self._left, *self._intakes.values()):
            if isinstance(intake.taker, UdpServer):
                intake.taker.nudge()
        self._sharing.resize(slots, outboxes)
        return [intake.has_ended for intake in going]

    def serves(self, slot: Slot) -> bool:
        """Whether what comes to this slot is taken here, the own one or an adopted one."""
        return not all(map(self._is_going, self._intakes.get(slot, [])))

    def forget_retired(self) -> None:
        """Forgets addresses that went long ago."""
        if self._retired:
            now = trio.current_time()
            for key in [key for key, retired in self._retired.items() if retired.forget_at <= now]:
                del self._retired[key]

    # Connections --------------------------------------------------------------------------------------------

    def _is_going(self, intake: _Intake) -> bool:
        """Whether nothing new comes to its address, because the address was taken away."""
        return intake.key is not None and intake.key not in self._by_key

    def _is_kept(self, sock: socket.socket) -> bool:
        """Whether somebody outside of lbproc holds the socket as well."""
        return bool(self._kept) and listening_address(sock) in self._kept

    def _make_acceptor(self, key: int, sock: socket.socket) -> Acceptor:
        return Acceptor(
            sock,
            self._dispatcher,
            self._context.deadlines,
            partial(self._accepted_mapped if takes_both_families(sock) else self._accepted, key),
            on_exhausted=partial(self._exhausted, key),
        )

    def _make_intake(self, key: int, sock: socket.socket) -> _Intake | None:
        if sock.type != SOCK_DGRAM:
            return _Intake(key, sock, self._make_acceptor(key, sock), is_kept=self._is_kept(sock))
        if self._find(key) is None:  # of an address that is new, and this worker has not moved yet
            self._context.move()
        if self._find(key) is None:
            sock.close()
            self._misunderstood(ControlError(f"a socket came of the unknown address {key}"))
            return None
        return _Intake(key, sock, UdpServer(sock, self._dispatcher, self._context, partial(self._find, key)))

    def _make_inbox(self, slot: Slot, sock: socket.socket) -> Inbox:
        return Inbox(
            sock,
            self._dispatcher,
            self._context.deadlines,
            partial(self._taken, slot),
            on_empty=partial(self._siblings.clear_waiting, slot),
            on_exhausted=partial(self._exhausted, None),
            on_nonsense=self._misunderstood,
        )

    def _accepted(self, key: int, sock: socket.socket, peer: SocketPeer) -> None:
        """Holds a new connection, or gives it away; runs inside the accept loop and does not wait."""
        context = self._context
        context.view.count(WorkerCounter.ACCEPTED)
        if not context.draining and self._sharing.give_away(key, sock, peer):
            context.view.count(WorkerCounter.HANDED_OVER)
            return
        self._keep(key, sock, peer)

    def _accepted_mapped(self, key: int, sock: socket.socket, peer: SocketPeer) -> None:
        """The same for a socket that takes IPv4 too, whose clients are to be known by their own address."""
        if isinstance(peer, tuple) and peer[0].startswith("::ffff:"):
            peer = (peer[0].removeprefix("::ffff:"), peer[1])
        self._accepted(key, sock, peer)

    def _taken(self, slot: Slot, key: int, sock: socket.socket, peer: SocketPeer) -> None:
        """Holds a connection that a sibling gave to a slot, and counted as accepted."""
        self._keep(key, sock, peer)
        self._siblings.remove_waiting(slot)

    def _keep(self, key: int, sock: socket.socket, peer: SocketPeer) -> None:
        listener = self._find(key)
        if listener is None:  # of an address that is new: whoever gave it follows the next generation already
            self._context.move()
            listener = self._find(key)
        if isinstance(listener, StreamListener):
            self._hold(listener, sock, peer)
        elif not self._sharing.pass_on(key, sock, peer):
            sock.close()
            self._misunderstood(ControlError(f"a connection came to the unknown address {key}"))

    def _find(self, key: int) -> Listener | None:
        """The listener of an address, also of one that has gone lately."""
        listener = self._by_key.get(key)
        if listener is None and (retired := self._retired.get(key)) is not None:
            return retired.listener.lineage.current or retired.listener
        return listener

    def _exhausted(self, key: int | None, error: OSError) -> None:
        listener = None if key is None else self._find(key)
        name = ",".join(self._context.runtime.listeners) if listener is None else listener.name
        self._context.view.count(WorkerCounter.ACCEPT_PAUSES)
        self._context.log.write(Event.ACCEPT_PAUSED, listener=name, reason=error.strerror)

    def _misunderstood(self, error: ControlError) -> None:
        names = ",".join(self._context.runtime.listeners)
        self._context.view.count(WorkerCounter.DEFECTS)
        self._context.log.write_crash(Event.CONNECTION_CRASHED, error, listener=names)


class _Retired(NamedTuple):
    """The listener that an address had, and until when that is remembered."""

    listener: Listener
    forget_at: float


class _Intake:
    """One listening socket or inbox that connections are taken from, and the way to stop at once.

    Args:
        key: of the address of a listening socket; None: an inbox.
        sock: closed when it has ended.
        taker: of what comes there.
        is_kept: somebody outside of lbproc holds the socket too, and what is queued there.
    """

    __slots__ = ("has_ended", "is_kept", "key", "scope", "socket", "taker")

    def __init__(
        self,
        key: int | None,
        sock: socket.socket,
        taker: Acceptor | Inbox | UdpServer,
        *,
        is_kept: bool = False,
    ) -> None:
        self.key = key
        self.socket = sock
        self.taker = taker
        self.is_kept = is_kept
        self.scope = trio.CancelScope()
        self.has_ended = trio.Event()

    @property
    def is_shared(self) -> bool:
        """Whether every worker takes from it."""
        return self.key is not None and self.socket.family is AF_UNIX

    def stop(self, stage: Stage) -> None:
        """Takes what is queued and ends with that; a queue that is kept is left to whoever comes next.

        Args:
            stage: what sessions of datagrams are to know.
        """
        if isinstance(self.taker, UdpServer):
            self.taker.stop(stage)
        elif self.is_kept:
            self.scope.cancel()
        else:
            self.taker.stop()
