"""The published membership: which backends each pool has, where they are in the table, and at what addresses.

Owns the form of the blob that the supervisor publishes in the table and the workers read: msgpack of
``{"pools": {pool: {"ticket": index, "backends": [[name, address, weight, max_connections, backup, row,
[resolved addresses]], ...]}}}``. The resolved addresses are best first; there is none while a host name
could not be resolved. Decides what of the controller's word is believed: only the addresses of names that
were configured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address

import msgpack

from lbproc.config.model import BackendConfig, Config
from lbproc.types import Address, Row, TcpAddress, parse_address

PublishedBackend = tuple[str, str, int, int | None, bool, Row, list[str]]
"""Name, address, weight, max_connections, backup, row, resolved addresses."""


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
    """The backend addresses that must be resolved, each once, in order."""
    found = {
        backend.address: None
        for pool in config.pools.values()
        for backend in pool.backends
        if isinstance(backend.address, TcpAddress) and is_host_name(backend.address)
    }
    return tuple(found)


class Membership:
    """Makes the blob, and knows whether it changed.

    Args:
        config: names pools and backends.
        row_of: gives the row of a backend, by pool and address.
        ticket_of: gives the index of a pool's ticket.
    """

    __slots__ = ("_config", "_resolved", "_rows", "_tickets")

    def __init__(
        self, config: Config, row_of: Callable[[str, str], Row], ticket_of: Callable[[str], int]
    ) -> None:
        self._config = config
        self._resolved: dict[str, list[str]] = {str(address): [] for address in host_names(config)}
        self._tickets = {name: ticket_of(name) for name in config.pools}
        self._rows = {
            (name, str(backend.address)): row_of(name, str(backend.address))
            for name, pool in config.pools.items()
            for backend in pool.backends
        }

    def resolve(self, addresses: Mapping[str, list[str]]) -> bool:
        """Takes over what host names stand for; returns whether anything changed.

        The same addresses in another order are no change: name servers rotate them, and the order of the
        first answer is as good. What is not an address and port, and names that nobody configured, are left
        out.
        """
        changed = False
        for name, found in addresses.items():
            known = self._resolved.get(name)
            usable = list(dict.fromkeys(text for text in found if _is_usable(text)))
            if known is not None and usable and set(usable) != set(known):
                self._resolved[name] = usable
                changed = True
        return changed

    def row(self, pool: str, backend: BackendConfig) -> Row:
        """The row of a backend of the configuration."""
        return self._rows[pool, str(backend.address)]

    def encode(self) -> bytes:
        """The blob."""
        pools = {
            name: {"ticket": self._tickets[name], "backends": [self._publish(name, b) for b in pool.backends]}
            for name, pool in self._config.pools.items()
        }
        blob: bytes = msgpack.packb({"pools": pools})
        return blob

    def _publish(self, pool: str, backend: BackendConfig) -> PublishedBackend:
        address = str(backend.address)
        return (
            backend.name,
            address,
            backend.weight,
            backend.max_connections,
            backend.backup,
            self.row(pool, backend),
            self._resolved.get(address, [address]),
        )


def _is_usable(text: str) -> bool:
    try:
        address = parse_address(text)
    except ValueError:
        return False
    return isinstance(address, TcpAddress) and not is_host_name(address)
