"""What operators changed while lbproc runs, and how long that wins over the configuration.

Owns the rules; keeps nothing, tells nobody. A pool's backends are those of the file, in its order, without
the ones that were removed, followed by the ones that were added. Everything is kept by pool and address, so
that an override stays with its backend when the file gives the backend another name or place.

How long an override wins:

- the admin state until `ready`;
- a weight until it is reset, or until the file gives that backend another weight than before;
- a removal until the backend is added again, or until the file no longer has it;
- an addition until the backend is removed, or until the file has it: then it is the file's, weight included.
- A backend that goes takes its overrides along, and so does a pool.

Invariants: an override that changes nothing is not kept (a weight that the backend has anyway, the state
ready); no pool is left without backends: if its removals leave none, they are forgotten; names in a pool
differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from lbproc.types import Admin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbproc.config.model import BackendConfig, Config, PoolConfig

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Member:
    """A backend as it is in force.

    Args:
        config: with the weight and the name that are in force.
        admin: what the operator said.
        overridden: what of it operators changed: of ``admin``, ``weight`` and ``added``, in this order.
    """

    config: BackendConfig
    admin: Admin = Admin.READY
    overridden: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """As configured; it names the backend in its pool."""
        return str(self.config.address)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.config.name


@dataclass(frozen=True, slots=True)
class PoolOverrides:
    """What operators changed in one pool, by address.

    Args:
        admin: states other than ready.
        weights: instead of those that the backends have otherwise.
        added: backends that the file does not have.
        removed: backends of the file that are not used.
    """

    admin: Mapping[str, Admin] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    added: Mapping[str, BackendConfig] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def members(self, pool: PoolConfig) -> tuple[Member, ...]:
        """The backends that are in force, the file's first."""
        of_file = [backend for backend in pool.backends if str(backend.address) not in self.removed]
        taken = {backend.name for backend in of_file}
        members = [self._member(backend, is_added=False) for backend in of_file]
        for backend in self.added.values():
            name = _free_name(backend, taken)
            taken.add(name)
            members.append(self._member(backend.model_copy(update={"name": name}), is_added=True))
        return tuple(members)

    def _member(self, backend: BackendConfig, *, is_added: bool) -> Member:
        address = str(backend.address)
        weight = self.weights.get(address)
        if weight is not None:
            backend = backend.model_copy(update={"weight": weight})
        marks = {"admin": address in self.admin, "weight": weight is not None, "added": is_added}
        return Member(
            backend,
            self.admin.get(address, Admin.READY),
            tuple(mark for mark, is_so in marks.items() if is_so),
        )

    def own_weight(self, pool: PoolConfig, address: str) -> int:
        """The weight of a backend without the override.

        Raises:
            KeyError: there is no such backend.
        """
        backend = self.added[address] if address in self.added else _by_address(pool)[address]
        return backend.weight

    def after_reload(self, old: PoolConfig, new: PoolConfig) -> PoolOverrides:
        """What is left of the overrides when the file says ``new`` where it said ``old``."""
        was, will_be = _by_address(old), _by_address(new)
        added = {address: backend for address, backend in self.added.items() if address not in will_be}
        removed = frozenset(address for address in self.removed if address in will_be)
        if removed == will_be.keys() and not added:
            removed = frozenset()
        present = (will_be.keys() - removed) | added.keys()
        weights = {
            address: weight
            for address, weight in self.weights.items()
            if address in added
            or (address in present and address in was and was[address].weight == will_be[address].weight)
        }
        admin = {address: state for address, state in self.admin.items() if address in present}
        return PoolOverrides(admin, weights, added, removed)

    def without(self, address: str) -> PoolOverrides:
        """Everything that was said of one backend forgotten, also that it was added or removed."""
        return PoolOverrides(
            _without(self.admin, address),
            _without(self.weights, address),
            _without(self.added, address),
            self.removed - {address},
        )


NOTHING = PoolOverrides()


@dataclass(frozen=True, slots=True)
class Overrides:
    """What operators changed in all pools. A value: each change gives a new one."""

    pools: Mapping[str, PoolOverrides] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, pool: str) -> PoolOverrides:
        """Those of one pool."""
        return self.pools.get(pool, NOTHING)

    def with_admin(self, pool: str, address: str, state: Admin) -> Overrides:
        """A backend is in another admin state."""
        before = self.of(pool)
        admin = _without(before.admin, address)
        if state is not Admin.READY:
            admin[address] = state
        return self._with(pool, replace(before, admin=admin))

    def with_weight(self, pool: str, config: PoolConfig, address: str, weight: int | None) -> Overrides:
        """A backend has another weight; None: its own again."""
        before = self.of(pool)
        weights = _without(before.weights, address)
        if weight is not None and weight != before.own_weight(config, address):
            weights[address] = weight
        return self._with(pool, replace(before, weights=weights))

    def with_backend(self, pool: str, config: PoolConfig, backend: BackendConfig) -> Overrides:
        """A backend is there that was not. One of the file that was removed is the file's again."""
        before, address = self.of(pool), str(backend.address)
        after = before.without(address)
        if address not in _by_address(config):
            after = replace(after, added={**after.added, address: backend})
        return self._with(pool, after)

    def without_backend(self, pool: str, config: PoolConfig, address: str) -> Overrides:
        """A backend is gone, whether it was the file's or added."""
        after = self.of(pool).without(address)
        if address in _by_address(config):
            after = replace(after, removed=after.removed | {address})
        return self._with(pool, after)

    def after_reload(self, old: Config, new: Config) -> Overrides:
        """What is left of the overrides when the file says ``new`` where it said ``old``."""
        kept = Overrides()
        for name, overrides in self.pools.items():
            if name in new.pools:
                kept = kept._with(name, overrides.after_reload(old.pools[name], new.pools[name]))
        return kept

    def _with(self, pool: str, overrides: PoolOverrides) -> Overrides:
        pools = dict(self.pools)
        pools.pop(pool, None)
        if overrides != NOTHING:
            pools[pool] = overrides
        return Overrides(MappingProxyType(pools))


def _by_address(pool: PoolConfig) -> dict[str, BackendConfig]:
    return {str(backend.address): backend for backend in pool.backends}


def _without(values: Mapping[str, Value], key: str) -> dict[str, Value]:
    return {known: value for known, value in values.items() if known != key}


def _free_name(backend: BackendConfig, taken: Iterable[str]) -> str:
    """Its name, unless a reload gave that to another one; then its address, which tells it apart."""
    name = backend.name
    if name in taken:
        name = str(backend.address)
    while name in taken:
        name += "+"
    return name
