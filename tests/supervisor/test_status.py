"""The status object has the documented keys and the numbers of the table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from lbproc import __version__
from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.supervision import PlaceState
from lbproc.core.supervision_events import ChildId
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import BackendCounter, Role, SupervisorView, WorkerCounter, WorkerView
from lbproc.supervisor.status import describe
from lbproc.types import Admin, Slot

CONFIG = Config.model_validate(
    {
        "listeners": {"web": {"bind": "127.0.0.1:80", "pool": "web"}},
        "pools": {"web": {"backends": ["10.0.0.1:80", {"address": "10.0.0.2:80", "name": "b", "weight": 2}]}},
    }
)


@pytest.fixture
def described() -> dict[str, object]:
    table = Table.create(Capacities(columns=8, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096))
    view = SupervisorView(table)
    membership = Membership(CONFIG, view.ensure_row, view.ensure_pool)
    view.set_generation(1)
    column = view.allocate_column(Slot(0), Role.WORKER)
    worker = WorkerView(table, column)
    row = membership.row("web", CONFIG.pools["web"].backends[1])
    for _ in range(3):
        worker.count(WorkerCounter.REQUESTS)
        worker.count_backend(row, BackendCounter.REQUESTS)
    worker.count(WorkerCounter.CONNECTIONS)
    worker.count_backend(row, BackendCounter.FAILURES)
    worker.take(row, 100)
    view.set_admin(row, Admin.DRAIN)
    body = describe(
        config=CONFIG,
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
    )
    table.close()
    return body


def test_the_object(described: dict[str, object]) -> None:
    assert json.loads(json.dumps(described)) == {
        "version": __version__,
        "pid": os.getpid(),
        "config": "/etc/lbproc.toml",
        "generation": 1,
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
                "backends": [
                    {
                        "name": "10.0.0.1:80",
                        "address": "10.0.0.1:80",
                        "weight": 1,
                        "health": "up",
                        "admin": "ready",
                        "ejected": False,
                        "in_flight": 0,
                        "requests": 0,
                        "failures": 0,
                    },
                    {
                        "name": "b",
                        "address": "10.0.0.2:80",
                        "weight": 2,
                        "health": "up",
                        "admin": "drain",
                        "ejected": False,
                        "in_flight": 1,
                        "requests": 3,
                        "failures": 1,
                    },
                ],
            }
        },
    }


def test_every_key_is_documented(described: dict[str, object]) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "status.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_]+)`", page))
    text = json.dumps(described)
    assert set(re.findall(r'"([a-z_]+)":', text)) - {"web", "b"} <= documented
