"""Pools, tickets and randomness for tests of policies. Everything is deterministic."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TYPE_CHECKING

from lbproc.core.policies.policy import Candidate, PickContext
from lbproc.core.policies.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.core.policies.policy import Policy


def members(*weights: int, cap: int | None = None, backups: int = 0) -> tuple[Candidate, ...]:
    """Members of these weights, the last ``backups`` of them backups."""
    primaries = len(weights) - backups
    return tuple(
        Candidate(index, f"b{index}", f"10.0.0.{index}:8000".encode(), weight, cap, index >= primaries)
        for index, weight in enumerate(weights)
    )


def rebuilt(name: str, pool: tuple[Candidate, ...]) -> Policy:
    """A policy by its name, ready to pick among these."""
    policy = REGISTRY[name]()
    policy.rebuild(pool)
    return policy


def context(seed: int = 1, key: bytes = b"") -> PickContext:
    """A context begun for a first request."""
    made = PickContext(Random(seed))
    made.begin(key, tickets())
    return made


def tickets() -> Callable[[], int]:
    """A counter as the pool's ticket word is one."""
    return count().__next__


def key_of(number: int) -> bytes:
    """One of many client addresses."""
    return f"192.0.{number >> 8 & 255}.{number & 255}".encode()


class ChosenRandom(Random):
    """Draws what it is told to."""

    fraction = 0.0

    def random(self) -> float:
        return self.fraction

    def getrandbits(self, k: int) -> int:
        return int(self.fraction * (1 << k))
