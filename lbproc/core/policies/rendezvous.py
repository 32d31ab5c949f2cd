"""Rendezvous hashing by weight: for every key an order of preference over the members of a pool.

Each member gets a score for the key from a hash of both, and the order is by score. A score looks at nobody
else, so a member that comes takes only keys that now prefer it, a member that goes gives up only its own, and
all else stays: movement is minimal by construction, for changes of weight too. Scores are the waiting times
of exponential clocks that run as fast as the weights, so shares follow the weights. Thaler and Ravishankar,
"Using Name-Based Mappings to Increase Hit Rates" (1998); by weight: the logarithmic method of Schindelhauer
and Schomaker (2005).

Keys are first hashed into slots, and what a slot prefers is worked out when it is first asked for and then
remembered: a pick costs one hash and one look-up, and a change of members costs nothing up front. Slots also
make the share of a backend depend on the luck of 65 536 draws: it stays within half a percent of all traffic.

The hash has no secret and no process state, so every worker, restart and machine with the same members
agrees.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING

from lbproc.core.policies.weights import effective_weights

if TYPE_CHECKING:
    from lbproc.core.policies.policy import Candidate

SLOTS = 1 << 16

MAX_RANKED = 1 << 18
"""Places in all remembered orders together, which bounds the memory of a pool to a few MiB per worker."""

BEHIND = 1000.0
"""Added to the score of a member of weight 0. Others stay below 45, the logarithm of 2**64."""

_UNKNOWN = -1
_MASK = (1 << 64) - 1


def slot_of(key: bytes) -> int:
    """The slot of a key: the same in every process and on every machine."""
    return int.from_bytes(blake2b(key, digest_size=2).digest(), "big")


class Rendezvous:
    """The order of preference of every slot over one set of members."""

    __slots__ = ("_favourites", "_max_orders", "_orders", "_seeds", "_weights")

    def __init__(self, members: tuple[Candidate, ...]) -> None:
        self._seeds = [
            int.from_bytes(blake2b(member.identity, digest_size=8).digest(), "big") for member in members
        ]
        self._weights = effective_weights(members)
        self._favourites = array("i", [_UNKNOWN]) * SLOTS
        self._orders: dict[int, tuple[int, ...]] = {}
        self._max_orders = max(1, MAX_RANKED // max(1, len(members)))

    def favourite(self, slot: int) -> int:
        """The index of the member that a slot prefers."""
        index = self._favourites[slot]
        if index == _UNKNOWN:
            scores = self._scores(slot)
            index = self._favourites[slot] = scores.index(min(scores))
        return index

    def order(self, slot: int) -> tuple[int, ...]:
        """The indexes of all members, the preferred one first, those of weight 0 last."""
        order = self._orders.get(slot)
        if order is None:
            if len(self._orders) >= self._max_orders:
                self._orders.clear()
            scores = self._scores(slot)
            order = self._orders[slot] = tuple(sorted(range(len(scores)), key=scores.__getitem__))
        return order

    def _scores(self, slot: int) -> list[float]:
        # +0.5: never the logarithm of 0.
        step = slot * 0x9E3779B97F4A7C15
        times = [-log((_mixed(seed + step) + 0.5) / 2**64) for seed in self._seeds]
        return [
            time / weight if weight else time + BEHIND
            for time, weight in zip(times, self._weights, strict=True)
        ]


def _mixed(value: int) -> int:
    """The finalizer of splitmix64: every bit of the result depends on every bit of the value."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
