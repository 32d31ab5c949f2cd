"""Fixtures of the proxy's tests: rigs, and a nursery that sweeps their deadlines."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.proxy.rig import Rig

BASIC: dict[str, Any] = {
    "listeners": {"web": {"bind": "127.0.0.1:8080", "pool": "web"}},
    "pools": {"web": {"backends": ["127.0.0.1:9001"]}},
}

MakeRig = Callable[..., Rig]


@pytest.fixture
async def make_rig(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[MakeRig]:
    """Makes a rig of a listener ``web`` and a pool ``web``, with changes, and with more tables."""
    rigs: list[Rig] = []

    def make(
        *,
        listener: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        pools: dict[str, Any] | None = None,
        log: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        capacity: int = 65536,
    ) -> Rig:
        config = copy.deepcopy(BASIC)
        config["listeners"]["web"].update(listener or {})
        config["pools"]["web"].update(pool or {})
        config["pools"].update(pools or {})
        config["log"] = log or {}
        config["limits"] = limits or {}
        rig = Rig(tmp_path, config, capacity)
        nursery.start_soon(rig.deadlines.run)
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
