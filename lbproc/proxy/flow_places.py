"""Which backend a flow goes to, and its place there: by the pool's policy once, and then by the shared map.

Owns how the map of the table (`shm.flows`) and a pool agree, and the names of flows. The map outlives the
worker: whoever serves the flow's next datagram takes a place on the same backend, if a pick could fall on it
and it is not full. Otherwise the flow is picked for anew, as it is when its backend has gone.

Invariant: whatever is raised or returned, one place is held or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.hash_key import NO_FACTS
from lbproc.core.pick import NoBackend

if TYPE_CHECKING:
    from collections.abc import Collection

    from lbproc.proxy.balancer import Backend, Balancer, Lease
    from lbproc.proxy.context import WorkerContext
    from lbproc.types import Row, Seconds, TcpAddress

_LIFETIMES = 3
"""A flow is kept in the map for so many times the longest silence: sessions extend it once in one."""


class FlowPlaces:
    """The flows of one listener as one worker sees them.

    Args:
        name: of the listener.
        idle: the longest silence of a session.
        context: the worker's.
    """

    __slots__ = ("_flows", "_hash", "_lifetime", "_stamp")

    def __init__(self, name: str, idle: Seconds, context: WorkerContext) -> None:
        self._flows = context.view.flows
        self._hash = context.view.key_hash("udp", name)
        self._stamp = context.stamp
        self._lifetime = max(1, int(idle * 1000 * _LIFETIMES))

    def key_of(self, peer_ip: str, peer_port: int, local: TcpAddress) -> int:
        """What names a flow in every worker."""
        return self._hash.of(f"{peer_ip} {peer_port} {local}".encode())

    def take(
        self, balancer: Balancer, key: int, client_ip: str, tried: Collection[Backend] = ()
    ) -> Lease | NoBackend:
        """Takes a place for a flow: where it was, else where the policy wants it.

        Args:
            balancer: of the pool.
            key: of the flow.
            client_ip: for policies that hash.
            tried: backends that just turned the flow away.

        Raises:
            CapacityError: this worker's ledger is full.
        """
        now, flows = self._stamp(), self._flows
        avoided = {backend.row for backend in tried}
        row = flows.row_of(key, now)
        if row is not None and row not in avoided and (lease := balancer.take_at(row)) is not None:
            flows.keep(key, now, row, self._lifetime)
            return lease
        picked = balancer.take(NO_FACTS, client_ip, tried)
        if isinstance(picked, NoBackend):
            return picked
        chosen = picked.backend.row
        if row is None:
            kept = flows.open(key, now, chosen, self._lifetime)
        else:
            kept = flows.move(key, now, row, chosen, self._lifetime)
        if kept is None or kept == chosen:
            return picked
        # Another worker was quicker, for a datagram of the same flow.
        agreed = None if kept in avoided else balancer.take_at(kept)
        if agreed is None:
            flows.move(key, now, kept, chosen, self._lifetime)
            return picked
        picked.release()
        return agreed

    def keep(self, key: int, row: Row) -> None:
        """Extends a flow that goes on here; call it at least once in the longest silence."""
        self._flows.keep(key, self._stamp(), row, self._lifetime)
