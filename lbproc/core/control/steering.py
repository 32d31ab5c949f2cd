"""What commands to a running lbproc mean: whom they name, what is refused, what is worth a warning.

Pure. Changes nothing: it gives new overrides, or refuses. The supervisor's shell carries out
(``supervisor.steering``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from lbproc.config.model import BackendConfig
from lbproc.config.wording import listed, nearest, quote
from lbproc.core.control.membership import Membership
from lbproc.core.control.overrides import Member, Overrides
from lbproc.core.policies.policy import Candidate
from lbproc.core.pool import PoolState, Status, pool_state
from lbproc.errors import LbprocError
from lbproc.types import Admin

MOST_NAMED = 8
"""Names in a message. A pool may have thousands of backends."""


class SteeringRefusedError(LbprocError):
    """A command cannot be carried out; says why, and what would be right."""


def find_pool(membership: Membership, pool: str) -> str:
    """The pool of that name.

    Raises:
        SteeringRefusedError: there is none.
    """
    if pool not in membership.config.pools:
        raise SteeringRefusedError(_no_such("pool", pool, tuple(membership.config.pools)))
    return pool


def find_backend(membership: Membership, pool: str, backend: str) -> Member:
    """The backend of that name or address.

    Raises:
        SteeringRefusedError: there is no such pool or backend.
    """
    member = membership.find(find_pool(membership, pool), backend)
    if member is None:
        names = tuple(member.name for member in membership.members(pool))
        raise SteeringRefusedError(_no_such("backend", backend, names, f" in pool {quote(pool)}"))
    return member


def read_state(state: str) -> Admin:
    """An admin state by its name.

    Raises:
        SteeringRefusedError: it is none.
    """
    try:
        return Admin[state.upper()]
    except KeyError:
        raise SteeringRefusedError(_no_such("state", state, ("ready", "drain", "maintenance"))) from None


def with_weight(membership: Membership, pool: str, member: Member, weight: int | None) -> Overrides:
    """The overrides with another weight of a backend; None: its own again.

    Raises:
        SteeringRefusedError: it is not a weight.
    """
    if weight is not None:
        read_backend({"address": member.address, "weight": weight})
    return membership.overrides.with_weight(pool, membership.config.pools[pool], member.address, weight)


def with_backend(membership: Membership, pool: str, given: Mapping[str, object]) -> tuple[Overrides, str]:
    """The overrides with one more backend, and its address.

    Raises:
        SteeringRefusedError: it is not a backend, or is there already.
    """
    backend = read_backend(given)
    address, config, overrides = str(backend.address), membership.config.pools[pool], membership.overrides
    for member in membership.members(pool):
        if member.address == address:
            known = "" if member.name == address else f", by the name of {quote(member.name)}"
            raise SteeringRefusedError(f"{quote(address)} is a backend of pool {quote(pool)} already{known}")
    if address in overrides.of(pool).removed:
        of_file = next(backend for backend in config.backends if str(backend.address) == address)
        other = [key for key in given.keys() - {"address", "weight"} if given[key] != getattr(of_file, key)]
        if other:
            raise SteeringRefusedError(
                f"{quote(address)} stands in the configuration with another {listed(sorted(other), 'and')}; "
                "add it as it stands there, or change it there and reload"
            )
        overrides = overrides.with_backend(pool, config, of_file)
        if "weight" in given:
            overrides = overrides.with_weight(pool, config, address, backend.weight)
        return overrides, address
    if any(member.name == backend.name for member in membership.members(pool)):
        raise SteeringRefusedError(
            f"{quote(backend.name)} is the name of another backend of pool {quote(pool)}; give it its own"
        )
    return overrides.with_backend(pool, config, backend), address


def without_backend(membership: Membership, pool: str, member: Member) -> Overrides:
    """The overrides without a backend.

    Raises:
        SteeringRefusedError: it is the only one.
    """
    if len(membership.members(pool)) == 1:
        raise SteeringRefusedError(
            f"{quote(member.name)} is the only backend of pool {quote(pool)}, which cannot be without; "
            f"add another one first, or put it into maintenance"
        )
    return membership.overrides.without_backend(pool, membership.config.pools[pool], member.address)


def read_backend(given: Mapping[str, object]) -> BackendConfig:
    """A backend from the keys that a configuration has for it.

    Raises:
        SteeringRefusedError: with all that is wrong.
    """
    try:
        return BackendConfig.model_validate(dict(given))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise SteeringRefusedError("\n".join(wrong)) from None


def availability(members: Sequence[Member], statuses: Sequence[Status], panic_threshold: float) -> PoolState:
    """What may be picked of a pool, as every worker works it out for itself."""
    candidates = tuple(
        Candidate(
            index,
            member.name,
            member.address.encode(),
            member.config.weight,
            member.config.max_connections,
            member.config.backup,
        )
        for index, member in enumerate(members)
    )
    return pool_state(candidates, statuses, panic_threshold)


def warnings(pool: str, statuses: Sequence[Status], state: PoolState) -> list[str]:
    """What somebody who changes a pool should hear of what is left of it."""
    if state.panic:
        return [
            f"too few backends of pool {quote(pool)} are available: "
            "requests go to all that are ready, as if none were down or ejected"
        ]
    if state.eligible:
        return []
    if all(admin is not Admin.READY for _, admin, _ in statuses):
        return [f"no backend of pool {quote(pool)} is ready now: its requests get 503"]
    return [
        f"none of the backends of pool {quote(pool)} that are ready is available "
        "(they are down, ejected, or of weight 0): its requests get 503"
    ]


def _no_such(noun: str, name: str, known: Sequence[str], where: str = "") -> str:
    shown = [quote(one) for one in known[:MOST_NAMED]]
    if len(known) > MOST_NAMED:
        shown.append(f"{len(known) - MOST_NAMED} more")
    there_is = (
        f"there is {shown[0]}"
        if len(shown) == 1
        else f"there are {listed(shown, 'and')}"
        if shown
        else "there is none"
    )
    guess = nearest(name, known)
    hint = f"; did you mean {quote(guess)}?" if guess is not None and len(known) > 1 else ""
    return f"no {noun} named {quote(name)}{where}; {there_is}{hint}"
