"""The end of what a worker has under way with backends that go out of use, in pools with ``on_down = "cut"``.

Looked for at the worker's pulse, when a status has changed: a request pays nothing for it. What becomes of a
request that is cut is decided as for any failure: the client's connection is reset if the response has begun,
else the request is tried again where that is allowed, or answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lbproc.proxy.runtime import Runtime
    from lbproc.telemetry.log import ErrorLog
    from lbproc.types import Row

_NAMED = 10
"""Backends that are named in an event."""


class Cuttable(Protocol):
    """A client's connection, or a session of datagrams."""

    def cut(self, rows: Collection[Row]) -> Row | None:
        """Ends what is under way with one of these backends, if it is, and says with which."""


def cut_what_is_out(runtime: Runtime, connections: Iterable[Cuttable], log: ErrorLog) -> int:
    """Closes idle connections to backends that went out of use, and cuts what is under way there if asked to.

    Args:
        runtime: in force.
        connections: all that this worker holds.
        log: gets an event when there was something to cut.

    Returns:
        How many requests and tunnels were cut.
    """
    rows = runtime.notice_out()
    if not rows:
        return 0
    cut = [row for connection in connections if (row := connection.cut(rows)) is not None]
    if cut:
        out = set(cut)
        names = sorted(
            f"{pool.name}/{backend.name}"
            for pool in runtime.pools.values()
            for backend in pool.backends
            if backend.row in out
        )
        shown = names[:_NAMED] + (["..."] if len(names) > _NAMED else [])
        log.write(Event.CONNECTIONS_CUT, backends=" ".join(shown), connections=len(cut))
    return len(cut)
