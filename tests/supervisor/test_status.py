"""The status object has the documented keys and the numbers of the table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.core.control.membership import Membership
from lbproc.core.supervision import PlaceState
from lbproc.core.supervision_events import ChildId
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import (
    BackendCounter,
    ControllerView,
    Role,
    SupervisorView,
    WorkerCounter,
    WorkerView,
)
from lbproc.supervisor.status import describe
from lbproc.types import Admin, Health, Liveness, Slot

TLS = Path(__file__).parents[1] / "health" / "tls"
CONFIG = Config.model_validate(
    {
        "listeners": {
            "web": {
                "bind": "127.0.0.1:80",
                "pool": "web",
                "tls": {"certificates": [{"cert": "server.pem", "key": "server.key"}]},
            }
        },
        "pools": {
            "web": {
                "backends": [
                    "10.0.0.1:80",
                    {"address": "10.0.0.2:80", "name": "b", "weight": 2},
                    {"address": "10.0.0.3:80", "backup": True},
                ],
                "health": {"initial": "up"},
                "slow_start": "100s",
            },
        },
    },
    context=Surroundings(TLS, read_pem=read_pem),
)


@pytest.fixture
def described() -> dict[str, object]:
    table = Table.create(Capacities(columns=8, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096))
    view = SupervisorView(table)
    membership = Membership(CONFIG, view.ensure_row, view.ensure_pool)
    view.set_generation(1)
    column = view.allocate_column(Slot(0), Role.WORKER)
    worker = WorkerView(table, column)
    overrides = membership.overrides.with_admin("web", "10.0.0.2:80", Admin.DRAIN)
    overrides = overrides.with_weight("web", CONFIG.pools["web"], "10.0.0.2:80", 10)
    membership.override(overrides.without_backend("web", CONFIG.pools["web"], "10.0.0.3:80"))
    first, row = membership.rows().values()
    controller = ControllerView(table, view.allocate_column(None, Role.CONTROLLER))
    now = monotonic_ns()
    view.start_row(first, now - 50_000_000_000)
    view.start_row(row, now - 200_000_000_000)
    controller.set_health(row, Health.DOWN)
    controller.set_liveness(row, Liveness.ALIVE)
    controller.set_checked(row)
    claim = worker.ejections.claim(first, now)
    worker.ejections.confirm(first, claim, 3, now + 30_000_000_000 & ~1)
    for _ in range(3):
        worker.count(WorkerCounter.REQUESTS)
        worker.count_backend(row, BackendCounter.REQUESTS)
    worker.count(WorkerCounter.CONNECTIONS)
    worker.count_backend(row, BackendCounter.FAILURES)
    worker.take(row, 100)
    view.set_admin(row, Admin.DRAIN)  # as whoever publishes does
    body = describe(
        config_path=Path("/etc/lbproc.toml"),
        uptime=12.34567,
        places=(
            PlaceState(None, ChildId(0), "ready", 0),
            PlaceState(Slot(0), ChildId(1), "ready", 2),
            PlaceState(Slot(1), None, "down", 7),
        ),
        processes={ChildId(0): (4, column), ChildId(1): (4242, column)},
        membership=membership,
        reader=view.reader,
        reload={"stage": "idle", "last_refusal": None},
        today=0.0,
    )
    table.close()
    return body


def test_the_object(described: dict[str, object]) -> None:
    body = json.loads(json.dumps(described))
    fingerprint, not_after = (body["certificates"][0][key] for key in ("fingerprint", "not_after"))
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert not_after > 4e9
    first, second = body["pools"]["web"]["backends"]
    assert 28 < first.pop("ejected_seconds_left") <= 30
    for backend in (first, second):
        assert 0 <= backend.pop("health_seconds") < 10
    assert 0 <= second.pop("checked_seconds_ago") < 10
    assert body == {
        "version": __version__,
        "pid": os.getpid(),
        "config": "/etc/lbproc.toml",
        "generation": 1,
        "reload": {"stage": "idle", "last_refusal": None},
        "uptime_seconds": 12.346,
        "workers": [
            {
                "slot": 0,
                "pid": 4242,
                "state": "ready",
                "generation": 0,
                "connections": 1,
                "requests": 3,
                "restarts": 2,
            },
            {
                "slot": 1,
                "pid": None,
                "state": "down",
                "generation": None,
                "connections": 0,
                "requests": 0,
                "restarts": 7,
            },
        ],
        "pools": {
            "web": {
                "policy": "least_connections",
                "panic": False,
                "removed": ["10.0.0.3:80"],
                "backends": [
                    {
                        "name": "10.0.0.1:80",
                        "address": "10.0.0.1:80",
                        "resolved": ["10.0.0.1:80"],
                        "weight": 1,
                        "effective_weight": 0.55,
                        "max_connections": None,
                        "backup": False,
                        "health": "starting",
                        "checked_seconds_ago": None,
                        "liveness": "unknown",
                        "admin": "ready",
                        "overridden": [],
                        "ejected": True,
                        "ejections": 3,
                        "in_flight": 0,
                        "requests": 0,
                        "failures": 0,
                    },
                    {
                        "name": "b",
                        "address": "10.0.0.2:80",
                        "resolved": ["10.0.0.2:80"],
                        "weight": 10,
                        "effective_weight": 10,
                        "max_connections": None,
                        "backup": False,
                        "health": "down",
                        "liveness": "alive",
                        "admin": "drain",
                        "overridden": ["admin", "weight"],
                        "ejected": False,
                        "ejected_seconds_left": None,
                        "ejections": 0,
                        "in_flight": 1,
                        "requests": 3,
                        "failures": 1,
                    },
                ],
            }
        },
        "certificates": [
            {
                "listener": "web",
                "pool": None,
                "file": str(TLS / "server.pem"),
                "names": ["app.internal"],
                "key_kind": "ECDSA",
                "subject": "CN=app.internal",
                "fingerprint": fingerprint,
                "not_after": not_after,
                "days_left": int(not_after // 86400),
            }
        ],
    }


def test_every_key_is_documented(described: dict[str, object]) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "status.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_]+)`", page))
    text = json.dumps(described)
    assert set(re.findall(r'"([a-z_]+)":', text)) - {"web", "b"} <= documented
