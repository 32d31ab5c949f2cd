"""What the demo shows, worked out from one status after the other. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from lbproc.types import Seconds

WINDOW: Seconds = 2.0
"""Rates are averages over this span: steady enough to read, quick enough to follow."""


@dataclass(frozen=True, slots=True)
class BackendScene:
    """A backend in the picture. ``rate`` in requests a second, ``share`` of all requests from 0 to 1."""

    name: str
    address: str
    requests: int
    share: float
    rate: float
    in_flight: int
    failures: int


@dataclass(frozen=True, slots=True)
class WorkerScene:
    """A worker in the picture. ``pid`` is None while the slot has none."""

    slot: int
    pid: int | None
    state: str
    connections: int
    requests: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is to be seen at one instant, ``elapsed`` seconds after the first."""

    elapsed: Seconds
    requests: int
    rate: float
    backends: tuple[BackendScene, ...]
    workers: tuple[WorkerScene, ...]


class Sampler:
    """Turns statuses into scenes; keeps as many old counts as rates need."""

    def __init__(self) -> None:
        self._samples: deque[tuple[Seconds, dict[str, int]]] = deque()
        self._began_at: Seconds | None = None

    def observe(self, now: Seconds, status: dict[str, Any]) -> Scene:
        """The scene of this status.

        Args:
            now: when the status was taken; never smaller than before.
            status: the object of ``lbproc status --json``; its pools are shown as one.
        """
        listed = [backend for pool in status["pools"].values() for backend in pool["backends"]]
        counts = {backend["name"]: int(backend["requests"]) for backend in listed}
        if self._began_at is None:
            self._began_at = now
        self._samples.append((now, counts))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        total = sum(counts.values())
        backends = tuple(
            BackendScene(
                name=backend["name"],
                address=backend["address"],
                requests=backend["requests"],
                share=backend["requests"] / total if total else 0.0,
                rate=self._rate(backend["name"]),
                in_flight=backend["in_flight"],
                failures=backend["failures"],
            )
            for backend in listed
        )
        return Scene(
            elapsed=now - self._began_at,
            requests=total,
            rate=sum(backend.rate for backend in backends),
            backends=backends,
            workers=tuple(_worker(worker) for worker in status["workers"]),
        )

    def _rate(self, name: str) -> float:
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        return (after[name] - before.get(name, 0)) / (now - then) if now > then else 0.0


def _worker(worker: dict[str, Any]) -> WorkerScene:
    return WorkerScene(
        slot=worker["slot"],
        pid=worker["pid"],
        state=worker["state"],
        connections=worker["connections"],
        requests=worker["requests"],
        restarts=worker["restarts"],
    )
