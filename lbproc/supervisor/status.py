"""The status object: what `lbproc status --json` prints. Its keys are stable, docs/status.md lists them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.supervision import PlaceState
from lbproc.core.supervision_events import ChildId
from lbproc.shm.views import BackendCounter, Reader
from lbproc.types import Column, Seconds


def describe(
    *,
    config: Config,
    config_path: Path,
    uptime: Seconds,
    places: Iterable[PlaceState],
    processes: Mapping[ChildId, tuple[int, Column]],
    membership: Membership,
    reader: Reader,
) -> dict[str, object]:
    """Builds the status object.

    Args:
        config: in force.
        config_path: where it came from.
        uptime: since the supervisor started.
        places: of controller and workers.
        processes: process id and column of the children that live.
        membership: knows the row of each backend.
        reader: of the table.
    """
    return {
        "version": __version__,
        "pid": os.getpid(),
        "config": os.fspath(config_path),
        "generation": reader.generation(),
        "uptime_seconds": round(uptime, 3),
        "workers": [_describe_worker(place, processes, reader) for place in places if place.slot is not None],
        "pools": _describe_pools(config, membership, reader),
    }


def _describe_worker(
    place: PlaceState, processes: Mapping[ChildId, tuple[int, Column]], reader: Reader
) -> dict[str, object]:
    pid, generation, connections, requests = None, None, 0, 0
    if place.child is not None and place.child in processes:
        pid, column = processes[place.child]
        state = reader.column(column)
        generation, connections, requests = state.generation, state.connections, state.requests
    return {
        "slot": place.slot,
        "pid": pid,
        "state": place.state,
        "generation": generation,
        "connections": connections,
        "requests": requests,
        "restarts": place.restarts,
    }


def _describe_pools(config: Config, membership: Membership, reader: Reader) -> dict[str, object]:
    pools: dict[str, object] = {}
    for name, pool in config.pools.items():
        backends = []
        rows = [membership.row(name, backend) for backend in pool.backends]
        for backend, row, totals in zip(pool.backends, rows, reader.backends_totals(rows), strict=True):
            cells = reader.status(row)
            backends.append(
                {
                    "name": backend.name,
                    "address": str(backend.address),
                    "weight": backend.weight,
                    "health": cells.health.name.lower(),
                    "admin": cells.admin.name.lower(),
                    "ejected": cells.ejected,
                    "in_flight": reader.in_flight(row),
                    "requests": totals[BackendCounter.REQUESTS],
                    "failures": totals[BackendCounter.FAILURES],
                }
            )
        pools[name] = {"policy": pool.policy, "backends": backends}
    return pools
