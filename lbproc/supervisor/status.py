"""The status object: what `lbproc status --json` prints. Its keys are stable, docs/status.md lists them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lbproc import __version__
from lbproc.config.certified import Certified, certified
from lbproc.config.model import PoolConfig
from lbproc.core.control.membership import Membership
from lbproc.core.control.overrides import Member
from lbproc.core.control.steering import availability
from lbproc.core.pool import status_of
from lbproc.core.slow_start import FULL, level
from lbproc.core.supervision import PlaceState
from lbproc.core.supervision_events import ChildId
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.views import BackendCounter, Reader, RowStatus
from lbproc.types import Column, Health, Row, Seconds

_SECOND = 1_000_000_000


def describe(
    *,
    config_path: Path,
    uptime: Seconds,
    places: Iterable[PlaceState],
    processes: Mapping[ChildId, tuple[int, Column]],
    membership: Membership,
    reader: Reader,
    reload: Mapping[str, object],
    today: Seconds,
) -> dict[str, object]:
    """Builds the status object.

    Args:
        config_path: where the configuration came from.
        uptime: since the supervisor started.
        places: of controller and workers.
        processes: process id and column of the children that live.
        membership: in force.
        reader: of the table.
        reload: the one that is under way, and how the last one ended.
        today: the date, as seconds since 1970.
    """
    now = monotonic_ns()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "config": os.fspath(config_path),
        "generation": reader.generation(),
        "reload": dict(reload),
        "uptime_seconds": round(uptime, 3),
        "workers": [_describe_worker(place, processes, reader) for place in places if place.slot is not None],
        "pools": {
            name: _describe_pool(name, pool, membership, reader, now)
            for name, pool in membership.config.pools.items()
        },
        "certificates": [_describe_certificate(one, today) for one in certified(membership.config)],
    }


def _describe_certificate(one: Certified, today: Seconds) -> dict[str, object]:
    facts = one.cert.facts
    return {
        "listener": one.listener or None,
        "pool": one.pool or None,
        "file": one.cert.path,
        "names": list(one.names),
        "key_kind": facts.key_kind,
        "subject": facts.subject,
        "fingerprint": facts.fingerprint,
        "not_after": facts.not_after,
        "days_left": one.days_left(today),
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


def _describe_pool(
    name: str, pool: PoolConfig, membership: Membership, reader: Reader, now: int
) -> dict[str, object]:
    members = membership.members(name)
    rows = [membership.row(name, member) for member in members]
    cells = [reader.status(row) for row in rows]
    state = availability(
        members,
        [
            status_of((cell.health, cell.admin, cell.ejected), is_resolved=bool(membership.resolved(member)))
            for member, cell in zip(members, cells, strict=True)
        ],
        pool.panic_threshold,
    )
    return {
        "policy": pool.policy,
        "panic": state.panic,
        "removed": sorted(membership.overrides.of(name).removed),
        "backends": [
            _describe_backend(
                member, row, cell, totals, reader, now, is_checked=pool.health is not None,
                slow_start=round((pool.slow_start or 0) * _SECOND), resolved=membership.resolved(member),
            )
            for member, row, cell, totals in zip(
                members, rows, cells, reader.backends_totals(rows), strict=True
            )
        ],
    }  # fmt: skip


def _describe_backend(
    member: Member,
    row: Row,
    cells: RowStatus,
    totals: tuple[int, ...],
    reader: Reader,
    now: int,
    *,
    is_checked: bool,
    slow_start: int,
    resolved: list[str],
) -> dict[str, object]:
    backend, checks = member.config, reader.checks(row)
    share = level(reader.started_at(row), slow_start, now) / FULL
    is_starting = cells.health is Health.UP and share < 1
    return {
        "name": backend.name,
        "address": member.address,
        "resolved": resolved,
        "weight": backend.weight,
        "effective_weight": round(backend.weight * share, 2) if is_starting else backend.weight,
        "max_connections": backend.max_connections,
        "backup": backend.backup,
        "health": "starting" if is_starting else cells.health.name.lower(),
        "health_seconds": _since(checks.since, now),
        "checked_seconds_ago": _since(checks.checked_at, now) if is_checked else None,
        "liveness": checks.liveness.name.lower(),
        "admin": cells.admin.name.lower(),
        "overridden": list(member.overridden),
        "ejected": cells.ejected,
        "ejected_seconds_left": _until(reader.ejected_until(row), now) if cells.ejected else None,
        "ejections": reader.ejections(row),
        "in_flight": reader.in_flight(row),
        "requests": totals[BackendCounter.REQUESTS],
        "failures": totals[BackendCounter.FAILURES],
    }


def _since(stamp: int, now: int) -> float | None:
    return round(max(now - stamp, 0) / _SECOND, 3) if stamp else None


def _until(stamp: int, now: int) -> float:
    return round(max(stamp - now, 0) / _SECOND, 3)
