"""Statuses as the supervisor sends them, for the demo's tests."""

from __future__ import annotations

from typing import Any


def status(requests: dict[str, int], in_flight: int = 0, pid: int | None = 4242) -> dict[str, Any]:
    """A status with one worker and these backends, which had so many requests."""
    backends = [
        {
            "name": name,
            "address": f"127.0.0.1:900{i}",
            "requests": count,
            "in_flight": in_flight,
            "failures": 0,
        }
        for i, (name, count) in enumerate(requests.items(), 1)
    ]
    worker = {
        "slot": 0,
        "pid": pid,
        "state": "ready",
        "connections": 3,
        "requests": sum(requests.values()),
        "restarts": 1,
    }
    return {"workers": [worker], "pools": {"web": {"policy": "round_robin", "backends": backends}}}
