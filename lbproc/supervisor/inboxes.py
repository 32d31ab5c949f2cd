"""The inboxes of the worker slots, in which workers give connections to each other.

They belong to the supervisor, as the listening sockets do: workers come and go, what is in an inbox stays.
The supervisor never reads or sends there. A reload may `prepare` inboxes for slots that are new, which are
open then and belong to nobody until `commit`. An inbox of a slot that is given up takes nothing more, and is
closed when it was emptied.
"""

from __future__ import annotations

import socket

from lbproc.errors import StartError
from lbproc.net.inbox import open_inbox
from lbproc.net.listeners import refuse_new
from lbproc.types import Slot

_Pair = tuple[socket.socket, socket.socket]


class Inboxes:
    """One inbox for each slot, both ends of it.

    Args:
        slots: how many workers there are.

    Raises:
        StartError: there are not enough descriptors; nothing stays open.
    """

    __slots__ = ("_next", "_pairs", "_slots")

    def __init__(self, slots: int) -> None:
        self._pairs: dict[Slot, _Pair] = {}
        self._next: dict[Slot, _Pair] = {}
        self._slots = 0
        self.prepare(slots)
        self.commit(slots)

    def of_slot(self, slot: Slot) -> socket.socket:
        """What the slot's worker, or who adopts the slot, reads from."""
        return self._pairs[slot][0]

    def outboxes(self, slot: Slot) -> dict[Slot, socket.socket]:
        """What the slot's worker sends to: the inboxes of all others."""
        return {
            other: pair[1] for other, pair in self._pairs.items() if other != slot and other < self._slots
        }

    def prepare(self, slots: int) -> None:
        """Opens the inboxes of slots that are new.

        Raises:
            StartError: there are not enough descriptors; nothing of it stays open.
        """
        try:
            for slot in map(Slot, range(self._slots, slots)):
                self._next[slot] = open_inbox()
        except OSError as error:
            self.undo()
            raise StartError(
                f"cannot open the inboxes of {slots} workers: {error.strerror}; raise the limit on open files"
            ) from error

    def next_outboxes(self) -> dict[Slot, socket.socket]:
        """The sending ends of the inboxes that are new."""
        return {slot: pair[1] for slot, pair in self._next.items()}

    def commit(self, slots: int) -> None:
        """Puts in force what was prepared.

        Args:
            slots: how many workers there are from now on.
        """
        self._pairs.update(self._next)
        self._next.clear()
        self._slots = slots

    def undo(self) -> None:
        """Closes what was prepared. Idempotent."""
        _close(self._next)

    def retire_from(self, first: Slot) -> None:
        """Keeps workers from sending to these slots any more; what is there stays to be taken."""
        for slot, (inbox, _) in self._pairs.items():
            if slot >= first:
                refuse_new(inbox)

    def close_slots_from(self, first: Slot) -> None:
        """Closes the inboxes of these slots."""
        for slot in [slot for slot in self._pairs if slot >= first]:
            for end in self._pairs.pop(slot):
                end.close()

    def refuse(self) -> None:
        """Keeps workers from sending any more; what is there stays to be taken."""
        self.retire_from(Slot(0))

    def close(self) -> None:
        """Closes everything. Idempotent."""
        self.undo()
        _close(self._pairs)

    def close_in_child(self, slot: Slot | None) -> None:
        """Closes, in a forked child, what a worker of this slot does not use (None: everything)."""
        used = set() if slot is None else set(self.outboxes(slot).values())
        if slot in self._pairs:
            used.add(self._pairs[slot][0])
        for pair in (*self._pairs.values(), *self._next.values()):
            for end in pair:
                if end not in used:
                    end.close()


def _close(pairs: dict[Slot, _Pair]) -> None:
    for pair in pairs.values():
        for end in pair:
            end.close()
    pairs.clear()
