"""The inboxes of the worker slots, in which workers give connections to each other.

They belong to the supervisor, as the listening sockets do: workers come and go, what is in an inbox stays.
The supervisor never reads or sends there.
"""

from __future__ import annotations

import socket

from lbproc.errors import StartError
from lbproc.net.inbox import open_inbox
from lbproc.net.listeners import refuse_new
from lbproc.types import Slot


class Inboxes:
    """One inbox for each slot, both ends of it.

    Args:
        slots: how many workers there are.

    Raises:
        StartError: there are not enough descriptors; nothing stays open.
    """

    __slots__ = ("_pairs",)

    def __init__(self, slots: int) -> None:
        self._pairs: dict[Slot, tuple[socket.socket, socket.socket]] = {}
        try:
            for slot in range(slots):
                self._pairs[Slot(slot)] = open_inbox()
        except OSError as error:
            self.close()
            raise StartError(
                f"cannot open the inboxes of {slots} workers: {error.strerror}; raise the limit on open files"
            ) from error

    def of_slot(self, slot: Slot) -> socket.socket:
        """What the slot's worker, or who adopts the slot, reads from."""
        return self._pairs[slot][0]

    def outboxes(self, slot: Slot) -> dict[Slot, socket.socket]:
        """What the slot's worker sends to: the inboxes of all others."""
        return {other: pair[1] for other, pair in self._pairs.items() if other != slot}

    def refuse(self) -> None:
        """Keeps workers from sending any more; what is there stays to be taken."""
        for inbox, _ in self._pairs.values():
            refuse_new(inbox)

    def close(self) -> None:
        """Closes everything. Idempotent."""
        for pair in self._pairs.values():
            for end in pair:
                end.close()
        self._pairs.clear()

    def close_in_child(self, slot: Slot | None) -> None:
        """Closes, in a forked child, what a worker of this slot does not use (None: everything)."""
        for other, (inbox, outbox) in self._pairs.items():
            if slot is None or other != slot:
                inbox.close()
            if slot is None or other == slot:
                outbox.close()
