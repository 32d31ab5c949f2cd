"""The published membership: which backends each pool has, where they are in the table, and at what addresses.

Owns the form of the blob that the supervisor publishes in the table and the others read: msgpack of
``{"generation": g, "pools": {pool: {"ticket": index, "backends": [[name, address, weight, max_connections,
backup, row, [resolved addresses]], ...]}}}``. The resolved addresses are best first; there is none while a
host name could not be resolved. Decides what of the controller's word is believed: only the addresses of
names that belong to backends. What operators changed (``overrides``) is in it.

A membership belongs to one generation of the configuration. The next one is prepared from it while it is
still in force, and until the next one is in force, what operators change here counts there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import msgpack

from lbproc.config.model import Config, PoolConfig
from lbproc.core.control.overrides import Member, Overrides
from lbproc.types import Address, Health, Row, TcpAddress, parse_address

PublishedBackend = tuple[str, str, int, int | None, bool, Row, list[str]]
"""Name, address, weight, max_connections, backup, row, resolved addresses."""

RowOf = Callable[[str, str, Health], Row]
"""The row of a backend, by pool and address; a new one begins with this health."""

_INITIAL = {"checking": Health.CHECKING, "up": Health.UP, "down": Health.DOWN}


def is_host_name(address: Address) -> bool:
    """Whether the address must be resolved before anybody can connect to it."""
    if not isinstance(address, TcpAddress):
        return False
    try:
        # a zone (fe80::1%eth0) is known to the kernel, not to a name server
        ip_address(address.host.partition("%")[0])
    except ValueError:
        return True
    return False


def host_names(config: Config) -> tuple[TcpAddress, ...]:
    """The backend addresses of a configuration that must be resolved, each once, in order."""
    found = {
        backend.address: None
        for pool in config.pools.values()
        for backend in pool.backends
        if isinstance(backend.address, TcpAddress) and is_host_name(backend.address)
    }
    return tuple(found)


def pools_of(blob: bytes, generation: int) -> dict[str, Any] | None:
    """The ``pools`` of a blob; None when it is of another generation. Nothing published is no pools."""
    if not blob:
        return {}
    published = msgpack.unpackb(blob)
    pools: dict[str, Any] = published["pools"]
    return pools if published["generation"] == generation else None


def published_names(pools: Mapping[str, Any]) -> dict[TcpAddress, bool]:
    """The addresses in the ``pools`` of a blob that must be resolved, each with whether it is."""
    found: dict[TcpAddress, bool] = {}
    for pool in pools.values():
        for backend in pool["backends"]:
            address = parse_address(backend[1])
            if isinstance(address, TcpAddress) and is_host_name(address):
                found[address] = bool(backend[6])
    return found


def initial_health(pool: PoolConfig) -> Health:
    """What a backend begins with."""
    return Health.UP if pool.health is None else _INITIAL[pool.health.initial]


class Membership:
    """Makes the blob of one generation, and knows whether it changed.

    Args:
        config: names pools and backends.
        row_of: gives the row of a backend.
        ticket_of: gives the index of a pool's ticket.
        generation: of the configuration.
        before: the membership that is in force, if there is one.

    Raises:
        CapacityError: the table has no room.
    """

    __slots__ = (
        "_before", "_overrides", "_resolved", "_row_of", "_ticket_of", "_tickets", "config", "generation",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        row_of: RowOf,
        ticket_of: Callable[[str], int],
        generation: int = 1,
        before: Membership | None = None,
    ) -> None:
        self.config = config
        self.generation = generation
        self._row_of = row_of
        self._ticket_of = ticket_of
        self._overrides = Overrides()
        self._before = before
        self._resolved: dict[str, list[str]] = {} if before is None else before._resolved  # noqa: SLF001
        """Shared with the one before, so that an answer that comes during a reload counts in both."""
        self._settle()

    def backends_with(self, config: Config) -> set[tuple[str, str]]:
        """Pool and address of all backends that there are with another configuration."""
        overrides = self.overrides.after_reload(self.config, config)
        return {
            (name, member.address)
            for name, pool in config.pools.items()
            for member in overrides.of(name).members(pool)
        }

    def prepare(self, config: Config, generation: int) -> Membership:
        """The membership of the next generation, of which nothing is in force yet.

        Everything it needs of the table is there then. It can be thrown away.

        Raises:
            CapacityError: the table has no room. What was found until then stays taken, so look first.
        """
        self._overrides, self._before = self.overrides, None
        following = Membership(config, self._row_of, self._ticket_of, generation, self)
        needed = {address for membership in (self, following) for _, address in membership.all_members()}
        for name in self._resolved.keys() - needed:
            del self._resolved[name]
        return following

    @property
    def overrides(self) -> Overrides:
        """What operators changed."""
        if self._before is None:
            return self._overrides
        return self._before.overrides.after_reload(self._before.config, self.config)

    def override(self, overrides: Overrides) -> None:
        """Takes over what operators changed. Only while this membership is in force.

        Raises:
            CapacityError: the table has no room for what was added; nothing has changed.
        """
        before = self.overrides, self._before
        self._overrides, self._before = overrides, None
        try:
            self._settle()
        except Exception:
            self._overrides, self._before = before
            raise

    def members(self, pool: str) -> tuple[Member, ...]:
        """The backends of a pool that are in force."""
        return self.overrides.of(pool).members(self.config.pools[pool])

    def find(self, pool: str, backend: str) -> Member | None:
        """A backend by its name, or by its address if none has that name."""
        members = self.members(pool)
        by_name = (member for member in members if member.name == backend)
        by_address = (member for member in members if member.address == backend)
        return next(by_name, None) or next(by_address, None)

    def row(self, pool: str, member: Member) -> Row:
        """The row of a backend."""
        return self._row_of(pool, member.address, initial_health(self.config.pools[pool]))

    def rows(self) -> dict[tuple[str, str], Row]:
        """The rows of all backends, by pool and address."""
        return {(pool, member.address): self.row(pool, member) for pool, member in self._all()}

    def tickets(self) -> dict[str, int]:
        """The index of each pool's ticket."""
        return dict(self._tickets)

    def all_members(self) -> dict[tuple[str, str], Member]:
        """All backends that are in force, by pool and address."""
        return {(pool, member.address): member for pool, member in self._all()}

    def size(self) -> int:
        """How many backends there are."""
        return sum(1 for _ in self._all())

    def resolve(self, addresses: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Takes over what host names stand for; returns what those that changed stood for until now.

        The same addresses in another order are no change: name servers rotate them, and the order of the
        first answer is as good. What is not an address and port, and names that belong to no backend, are
        left out.
        """
        before = {}
        for name, found in addresses.items():
            known = self._resolved.get(name)
            usable = list(dict.fromkeys(text for text in found if _is_usable(text)))
            if known is not None and usable and set(usable) != set(known):
                before[name], self._resolved[name] = known, usable
        return before

    def put_back(self, before: Mapping[str, list[str]]) -> None:
        """Undoes a `resolve`, by what it has returned."""
        self._resolved.update(before)

    def resolved(self, member: Member) -> list[str]:
        """Where a backend is: what its name stands for, or its address."""
        return self._resolved.get(member.address, [member.address])

    def encode(self) -> bytes:
        """The blob."""
        overrides = self.overrides
        pools = {
            name: {
                "ticket": self._tickets[name],
                "backends": [self._publish(name, member) for member in overrides.of(name).members(pool)],
            }
            for name, pool in self.config.pools.items()
        }
        blob: bytes = msgpack.packb({"generation": self.generation, "pools": pools})
        return blob

    def _all(self) -> Iterator[tuple[str, Member]]:
        overrides = self.overrides
        for name, pool in self.config.pools.items():
            for member in overrides.of(name).members(pool):
                yield name, member

    def _settle(self) -> None:
        """Sees to it that everything is in the table, and that names may be resolved."""
        self._tickets = {name: self._ticket_of(name) for name in self.config.pools}
        for pool, member in self._all():
            self.row(pool, member)
            if is_host_name(member.config.address):
                self._resolved.setdefault(member.address, [])

    def _publish(self, pool: str, member: Member) -> PublishedBackend:
        backend = member.config
        return (
            backend.name,
            member.address,
            backend.weight,
            backend.max_connections,
            backend.backup,
            self.row(pool, member),
            self.resolved(member),
        )


def _is_usable(text: str) -> bool:
    try:
        address = parse_address(text)
    except ValueError:
        return False
    return isinstance(address, TcpAddress) and not is_host_name(address)
