"""The policies by the names that a pool's ``policy`` takes. One literal: nothing registers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.core.policies.consistent_hash import ConsistentHash
from lbproc.core.policies.first_available import FirstAvailable
from lbproc.core.policies.ip_hash import IpHash
from lbproc.core.policies.least_connections import LeastConnections
from lbproc.core.policies.power_of_two import PowerOfTwo
from lbproc.core.policies.round_robin import RoundRobin
from lbproc.core.policies.weighted_random import WeightedRandom

if TYPE_CHECKING:
    from collections.abc import Callable

    from lbproc.core.policies.policy import Policy

REGISTRY: dict[str, Callable[[], Policy]] = {
    "least_connections": LeastConnections,
    "round_robin": RoundRobin,
    "random": WeightedRandom,
    "power_of_two": PowerOfTwo,
    "ip_hash": IpHash,
    "consistent_hash": ConsistentHash,
    "first_available": FirstAvailable,
}
