"""A worker's part in sharing connections evenly: asks for the decision, and sends what is given away.

Brings three things together that know nothing of each other: the loads in the table (`lbproc.shm.siblings`),
the decision (`lbproc.core.sharing`) and the way (`lbproc.net.inbox`). While the loads are even it costs one
look at a few words of the table for each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.sharing import are_short, choose_slot, may_keep
from lbproc.net.inbox import hand_over

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from lbproc.net.transport import SocketPeer
    from lbproc.shm.siblings import Siblings
    from lbproc.types import Seconds, Slot


class Sharing:
    """Gives connections away when this worker holds clearly more than its share.

    Args:
        slot: of this worker.
        siblings: sees all workers, this one among them.
        outboxes: the sending ends of the other slots' inboxes; closed here when their slot goes.
    """

    __slots__ = ("_are_short", "_outboxes", "_siblings", "_slot", "_slots")

    def __init__(self, slot: Slot, siblings: Siblings, outboxes: Mapping[Slot, socket.socket]) -> None:
        self._slot = slot
        self._siblings = siblings
        self._outboxes = dict(outboxes)
        self._slots = 1 + len(outboxes)
        self._are_short = False

    def follow(self, ended: int, held: int, seconds: Seconds) -> None:
        """Learns how long connections live.

        Args:
            ended: connections of this worker that ended since the last call.
            held: connections that it holds.
            seconds: since the last call.
        """
        self._are_short = are_short(ended, held, seconds)

    def resize(self, slots: int, fresh: Mapping[Slot, socket.socket]) -> None:
        """Shares with another number of workers from now on.

        A worker whose own slot goes gives nothing away any more.

        Args:
            slots: how many there are.
            fresh: the sending ends of the inboxes of new slots.
        """
        self._outboxes.update(fresh)
        last = slots if self._slot < slots else 0
        for slot in [slot for slot in self._outboxes if slot >= last]:
            self._outboxes.pop(slot).close()
        self._slots = 1 + len(self._outboxes)
        self._siblings.resize(max(slots, self._slot + 1))

    def close(self) -> None:
        """Closes the outboxes; nothing is given away any more."""
        for outbox in self._outboxes.values():
            outbox.close()
        self._outboxes.clear()

    def give_away(self, key: int, sock: socket.socket, peer: SocketPeer) -> bool:
        """Hands a connection that was just accepted to a sibling with fewer, if there is reason to.

        Args:
            key: of the bound address that it came to.
            sock: not yet registered with an epoll. Closed here if it was given away.
            peer: as accept returned it.

        Returns:
            Whether it was given away.
        """
        if self._are_short:
            return False
        siblings = self._siblings
        own, total = siblings.totals()
        if may_keep(own, total, self._slots):
            return False
        slot = choose_slot(self._slot, siblings.ready_loads())
        outbox = None if slot is None else self._outboxes.get(slot)
        if slot is None or outbox is None:
            return False
        return self._give(slot, outbox, key, sock, peer)

    def pass_on(self, key: int, sock: socket.socket, peer: SocketPeer) -> bool:
        """Hands a connection that this worker cannot serve to any sibling; as `give_away`."""
        return any(self._give(slot, outbox, key, sock, peer) for slot, outbox in self._outboxes.items())

    def _give(
        self, slot: Slot, outbox: socket.socket, key: int, sock: socket.socket, peer: SocketPeer
    ) -> bool:
        self._siblings.add_waiting(slot)
        if hand_over(outbox, key, sock, peer):
            return True
        self._siblings.remove_waiting(slot)
        return False
