"""The listening sockets of all listeners, from the first bind to the last close.

They belong to the supervisor: workers come and go, what is queued on a socket stays. Owns their order: bound
all together, listening in slot order, closed from the highest slot down, because the kernel counts the
sockets of an address in the order of `listen` and moves the last into the hole that a close leaves.

A reload goes in steps, of which all before `commit` can be undone: `prepare` binds what is new, be it an
address or one more slot, `listen_next` lets connections come there, or to none of it: a TCP socket listens
behind a filter first, or where the kernel is told to choose among others, so that undoing it resets nobody.
Datagrams come as soon as a socket is bound; what is queued at a new address goes with it if that is undone. A
Unix socket has no such filter. These listen last, after a look at all of them, so that it takes a program
which replaces the file of the second within microseconds to reset who has come to the first.

With `commit` addresses that stay have the same sockets as before, also where they belong to another listener
now, and those that went get no new connections; when the workers have accepted what is queued there,
`close_removed` closes them. Until then a worker that is born serves them too. No step waits.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lbproc.boot import InheritedListener
from lbproc.config.diff import addresses
from lbproc.config.model import Config
from lbproc.supervisor.activation import PassedSockets
from lbproc.supervisor.binding import BoundAddress, Sleep, bind, never_wait, one_at_a_time
from lbproc.types import Address, Slot, TcpAddress


@dataclass(slots=True)
class _Next:
    """What a reload is about to put in force.

    Args:
        slots: how many workers there will be.
        bound: every address that there will be, with the name of its listener.
        new: those of them that are not in force yet.
        grown: by key of an address that stays, its sockets of slots that are new.
    """

    slots: int
    bound: list[tuple[BoundAddress, str]] = field(default_factory=list)
    new: list[BoundAddress] = field(default_factory=list)
    grown: dict[int, list[socket.socket]] = field(default_factory=dict)


class ListeningSockets:
    """All sockets of all listeners; bound at once, not yet listening.

    Args:
        config: names the addresses.
        slots: how many workers there are.
        sleep: waits for a predecessor.
        passed: sockets that whoever started lbproc has opened; they are used where an address is theirs.

    Raises:
        StartError: an address cannot be bound; nothing stays open.
    """

    __slots__ = ("_keys", "_newest", "_next", "_passed", "_removed", "bound")

    def __init__(
        self, config: Config, slots: int, sleep: Sleep = time.sleep, passed: PassedSockets | None = None
    ) -> None:
        self.bound: list[BoundAddress] = []
        """In force."""
        self._keys = itertools.count(1)
        self._passed = passed
        self._next: _Next | None = None
        self._newest: list[BoundAddress] = []
        self._removed: list[BoundAddress] = []
        try:
            for identity, (name, address) in addresses(config).items():
                is_datagram = config.listeners[name].protocol == "udp"
                self.bound.append(
                    bind(
                        next(self._keys),
                        identity,
                        name,
                        address,
                        slots,
                        sleep=sleep,
                        passed=passed,
                        is_datagram=is_datagram,
                    )
                )
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Lets connections come.

        Raises:
            StartError: another program has begun to use an address.
        """
        with one_at_a_time():
            # All are looked at before the first listens, because our own addresses may overlap.
            for bound in self.bound:
                bound.probe()
            for bound in self.bound:
                bound.listen()

    def of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What the worker of a slot serves: the slot's own sockets and the shared ones."""
        return tuple(bound.inherited(slot) for bound in self.bound if bound.serves(slot))

    def own_of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What a sibling adopts: without the shared ones, which it has.

        With what went a moment ago: the slot's worker may have died before it had accepted all of it.
        """
        everything = (*self.bound, *self._removed)
        return tuple(
            bound.inherited(slot) for bound in everything if bound.serves(slot) and not bound.is_shared
        )

    def removed_of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What a worker that is born finishes for the slot's last one: nothing new comes there.

        What is queued on a socket from outside is left to whoever has it next.
        """
        return tuple(
            bound.inherited(slot) for bound in self._removed if bound.serves(slot) and not bound.is_kept
        )

    # A reload, step by step

    def prepare(self, config: Config, slots: int) -> None:
        """Binds what is in no force yet. Never waits.

        Args:
            config: names the addresses that there will be.
            slots: how many workers there will be. More than now only when the sockets of all slots that were
                given up before are closed.

        Raises:
            BusyError: somebody listens on an address, who may be about to leave.
            StartError: an address cannot be bound. In both cases nothing of it stays open.
        """
        self._next = _Next(slots)
        known = {bound.identity: bound for bound in self.bound}
        try:
            for identity, (name, address) in addresses(config).items():
                bound = known.get(identity)
                is_datagram = config.listeners[name].protocol == "udp"
                if bound is None:
                    bound = bind(
                        next(self._keys),
                        identity,
                        name,
                        address,
                        slots,
                        sleep=never_wait(address),
                        passed=self._passed,
                        is_probed=not self._is_ours(address, is_datagram=is_datagram),
                        is_datagram=is_datagram,
                    )
                    self._next.new.append(bound)
                elif (
                    isinstance(bound.address, TcpAddress) and not bound.is_kept and slots > len(bound.sockets)
                ):
                    # the configuration may say port 0; what the kernel chose stays
                    self._next.grown[bound.key] = bound.open_more(slots - len(bound.sockets))
                self._next.bound.append((bound, name))
        except BaseException:
            self.undo()
            raise

    def next_names(self) -> tuple[tuple[int, str], ...]:
        """Key and listener of every address that there will be."""
        return () if self._next is None else tuple((bound.key, name) for bound, name in self._next.bound)

    def lent(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What the worker of a slot is to serve besides, once it is in force."""
        new = () if self._next is None else self._next.new
        return tuple(bound.inherited(slot) for bound in new if bound.serves(slot))

    def listen_next(self) -> None:
        """Lets connections come to all that is new, or to nothing.

        Raises:
            StartError: another program has begun to use an address.
        """
        if self._next is None:
            return
        new = sorted(self._next.new, key=lambda bound: bound.is_shared)
        with one_at_a_time(attempts=1):
            for bound in new:
                is_ours = self._is_ours(bound.address, is_datagram=bound.is_datagram)
                bound.probe(is_ours=is_ours)
            for bound in new:
                bound.shut()
            for bound in self.bound:
                if grown := self._next.grown.get(bound.key):
                    bound.hold_back()
                    bound.listen(grown)
            for bound in new:
                bound.listen()
            for bound in new:
                bound.open()

    def commit(self) -> bool:
        """Puts what was prepared in force; returns whether addresses went."""
        following, self._next = self._next, None
        if following is None:
            return False
        stays = {bound.key for bound, _ in following.bound}
        self._removed += [bound for bound in self.bound if bound.key not in stays]
        self.bound = [bound for bound, _ in following.bound]
        self._newest = following.new
        for bound, name in following.bound:
            bound.listener_name = name
            if grown := following.grown.get(bound.key):
                bound.sockets += grown
                bound.steer(following.slots)
        for bound in self._removed:
            bound.refuse()
        return bool(self._removed)

    def undo(self) -> None:
        """Closes what was prepared. Idempotent."""
        following, self._next = self._next, None
        if following is None:
            return
        for bound in following.new:
            bound.close()
        for sockets in following.grown.values():
            for sock in reversed(sockets):
                sock.close()

    def close_removed(self) -> None:
        """Closes the addresses that went. Idempotent."""
        for bound in self._removed:
            bound.close()
        self._removed.clear()

    # Slots that are given up

    def newest_of_slot(self, slot: Slot) -> tuple[InheritedListener, ...]:
        """What came with the last commit, for a sibling that had adopted the slot before it."""
        return tuple(
            bound.inherited(slot) for bound in self._newest if bound.serves(slot) and not bound.is_shared
        )

    def retire_from(self, first: Slot) -> None:
        """Gives new connections to the slots below only."""
        for bound in self.bound:
            bound.steer(first)

    def close_slots_from(self, first: Slot) -> None:
        """Closes the sockets of these slots, the highest first."""
        for bound in self._all():
            bound.close_slots_from(first)

    # The end

    def refuse(self) -> None:
        """Keeps new connections out; what is queued stays to be accepted."""
        for bound in self.bound:
            bound.refuse()

    def close(self) -> None:
        """Closes everything and removes the files of Unix sockets. Idempotent."""
        self.undo()
        self.close_removed()
        for bound in self.bound:
            bound.close()
        self.bound.clear()

    def close_in_child(self, slot: Slot | None) -> None:
        """Closes, in a forked child, what is not of its slot (None: everything). Files stay."""
        own = () if slot is None else (*self.of_slot(slot), *self.removed_of_slot(slot))
        kept = {listener.socket for listener in own}
        grown = () if self._next is None else itertools.chain(*self._next.grown.values())
        for sock in itertools.chain(grown, *(bound.sockets for bound in self._all())):
            if sock not in kept:
                sock.close()

    def _all(self) -> Iterator[BoundAddress]:
        yield from self.bound
        yield from self._removed
        if self._next is not None:
            yield from self._next.new

    def _is_ours(self, address: Address, *, is_datagram: bool) -> bool:
        """Whether one of our own sockets would be found by whoever looks at that address."""
        return any(
            bound.overlaps(address, is_datagram=is_datagram) for bound in (*self.bound, *self._removed)
        )
