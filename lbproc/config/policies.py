"""The names of the balancing policies, the default first. What they do is ``lbproc.core.policies``.

Apart from the model, so that a command can list them without loading it.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

PolicyName = Literal[
    "least_connections",
    "round_robin",
    "random",
    "power_of_two",
    "ip_hash",
    "consistent_hash",
    "first_available",
]
POLICIES: Final[tuple[PolicyName, ...]] = get_args(PolicyName)
