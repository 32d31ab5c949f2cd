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
        outboxes: the sending ends of the other slots' inboxes; not closed here.
    """

    __slots__ = ("_are_short", "_outboxes", "_siblings", "_slot", "_slots")

    def __init__(self, slot: Slot, siblings: Siblings, outboxes: Mapping[Slot, socket.socket]) -> None:
        self._slot = slot
        self._siblings = siblings
        self._outboxes = outboxes
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

    def give_away(self, listener_name: str, sock: socket.socket, peer: SocketPeer) -> bool:
        """Hands a connection that was just accepted to a sibling with fewer, if there is reason to.

        Args:
            listener_name: of the listener that accepted it.
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
        if slot is None:
            return False
        siblings.add_waiting(slot)
        if hand_over(self._outboxes[slot], listener_name, sock, peer):
            return True
        siblings.remove_waiting(slot)
        return False
