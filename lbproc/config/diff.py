"""What differs between two configurations, as lines for people, and what of it a reload cannot change.

Owns the form of a change, ``dotted.key: old -> new``, the list of keys that are fixed while
lbproc runs, and how the addresses of two configurations correspond. Values are written as ``config show``
writes them; of a secret, and of what a check sends, which may hold one, it is said only that it changed. Of a
certificate it is said for whom and until when the new one is, of a key nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lbproc.config.certified import date, listed_names
from lbproc.config.limits import LimitConfig
from lbproc.config.model import BackendConfig, Config, PoolConfig, RouteConfig
from lbproc.config.pem import CertificateFile, KeyFile
from lbproc.config.secret import Secret
from lbproc.config.table import Table
from lbproc.config.tls import CertificateConfig
from lbproc.config.wording import count, dotted, quote
from lbproc.types import TcpAddress

if TYPE_CHECKING:
    from lbproc.config.wording import KeyPath
    from lbproc.types import Address

FIXED: Final[frozenset[KeyPath]] = frozenset(
    {
        ("runtime", "control_socket"),
        ("runtime", "user"),
        ("runtime", "pid_file"),
        ("runtime", "max_columns"),
        ("runtime", "max_backends"),
        ("runtime", "max_keys"),
        ("admin",),
        ("admin", "bind"),
    }
)
"""What only a restart changes. ``admin`` is the coming and going of the whole table."""

_SENT_BY_CHECKS: Final = (("health", "headers"), ("health", "send"))
"""Keys whose values are not written: a check may have to log in, and what is written here reaches the log."""

_LONGEST_LIST: Final = 60

AddressIdentity = tuple[str, str, int]
"""By what an address of two configurations is the same: see `addresses`."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Args:
        key: the path of what differs.
        what: ``added ...``, ``removed ...``, or the old and the new value.
    """

    key: KeyPath
    what: str

    def __str__(self) -> str:
        """The line a person reads."""
        return f"{dotted(self.key)}: {self.what}"

    @property
    def is_fixed(self) -> bool:
        """Whether only a restart brings it about."""
        return self.key in FIXED


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """Every difference, in the order of the tables and keys; empty when both say the same."""
    return tuple(_tables((), old, new, old.model_dump(), new.model_dump()))


def why_not(changes: Sequence[Change]) -> str:
    """Why a running lbproc cannot take these changes: each key that is fixed; empty: it can."""
    fixed = [change for change in changes if change.is_fixed]
    lines = [f"{change}: this cannot change while lbproc runs" for change in fixed]
    if lines:
        lines.append("leave it as it is, or stop lbproc and run it again")
    return "; ".join(lines)


def addresses(config: Config) -> dict[AddressIdentity, tuple[str, Address]]:
    """Every address that is listened on, with its listener, by what makes it the same address.

    An address is the same also when it has moved to another listener, so that its sockets stay. One with
    port 0 is known by its listener, and by its place among such ones there. That of UDP is another one.
    """
    found: dict[AddressIdentity, tuple[str, Address]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for name, listener in config.listeners.items():
        for address in listener.bind:
            is_chosen_by_kernel = isinstance(address, TcpAddress) and address.port == 0
            kind = "udp " if listener.protocol == "udp" else ""
            key = (name if is_chosen_by_kernel else "", f"{kind}{address}")
            found[*key, seen[key]] = name, address
            seen[key] += 1
    return found


def _tables(path: KeyPath, old: Table, new: Table, old_dump: _Dump, new_dump: _Dump) -> list[Change]:
    changes: list[Change] = []
    for key in type(new).model_fields:
        before, after = getattr(old, key, None), getattr(new, key)
        if before != after:
            changes += _values((*path, key), before, after, old_dump.get(key), new_dump[key])
    return changes


def _values(path: KeyPath, old: Any, new: Any, old_dump: Any, new_dump: Any) -> list[Change]:  # noqa: ANN401  whatever a configuration holds
    if path[-2:] in _SENT_BY_CHECKS:
        return _unwritten(path, old, new)
    match old, new:
        case Table(), Table():
            return _tables(path, old, new, old_dump, new_dump)
        case dict(), dict():
            return _named(path, old, new, old_dump, new_dump)
        case tuple(), tuple():
            return _sequences(path, old, new, old_dump, new_dump)
        case _:
            return [Change(path, _replaced(old, new, old_dump, new_dump))]


def _sequences(path: KeyPath, old: Any, new: Any, old_dump: Any, new_dump: Any) -> list[Change]:  # noqa: ANN401
    """Lists of tables that have names, of certificates, or of values."""
    kinds = {type(item) for item in (*old, *new)}
    if kinds <= {BackendConfig, RouteConfig}:
        return _listed_tables(path, old, new, old_dump, new_dump)
    if kinds == {CertificateConfig}:
        return _certificates(path, old, new, old_dump, new_dump)
    return _lists(path, old_dump, new_dump)


def _unwritten(path: KeyPath, old: object, new: object) -> list[Change]:
    """What became of values that are nobody's business: one text, or texts by name."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [Change(path, "removed" if new is None else "added" if old is None else "another value")]
    changes = [Change((*path, name), "removed") for name in old if name not in new]
    changes += [Change((*path, name), "added") for name in new if name not in old]
    return changes + [
        Change((*path, name), "another value") for name in new if name in old and old[name] != new[name]
    ]


def _replaced(old: object, new: object, old_dump: object, new_dump: object) -> str:
    """What became of one value, or of a table that came or went."""
    if isinstance(old, Secret) and isinstance(new, Secret):
        return "another secret"
    if isinstance(old, Table) or isinstance(new, Table):
        return "removed" if isinstance(old, Table) else "added"
    if isinstance(old, CertificateFile) and isinstance(new, CertificateFile):
        where = "" if old.path == new.path else f"{_text(old.path)} -> {_text(new.path)}, "
        return f"{where}certificate replaced: {_certified(new)}"
    if old_dump == new_dump:
        return f"{'another key in' if isinstance(old, KeyFile) else 'other content of'} {_text(new_dump)}"
    return f"{_text(old_dump)} -> {_text(new_dump)}"


def _certified(file: CertificateFile) -> str:
    """For whom a certificate is, and until when."""
    names = file.facts.names or file.facts.addresses or (file.facts.subject,)
    return f"{listed_names(names)}, until {date(file.facts.not_after)}"


def _certificates(
    path: KeyPath,
    old: Sequence[CertificateConfig],
    new: Sequence[CertificateConfig],
    old_dump: Sequence[_Dump],
    new_dump: Sequence[_Dump],
) -> list[Change]:
    """Certificates by the file that they stand in. The first one is for clients that name no host."""
    before = {file: (item, dump) for file, item, dump in zip(_files(old), old, old_dump, strict=True)}
    after = {file: (item, dump) for file, item, dump in zip(_files(new), new, new_dump, strict=True)}
    changes = [Change(path, f"removed {_text(file[0])}") for file in before if file not in after]
    changes += [
        Change(path, f"added {_text(file[0])}: {_certified(item.cert)}")
        for file, (item, _) in after.items()
        if file not in before
    ]
    for place, (file, (item, dump)) in enumerate(after.items()):
        if file in before and before[file][0] != item:
            changes += _tables((*path, place), before[file][0], item, before[file][1], dump)
    if [file for file in before if file in after] != [file for file in after if file in before]:
        changes.append(Change(path, "another order"))
    return changes


def _files(certificates: Sequence[CertificateConfig]) -> list[tuple[str, int]]:
    """The path of each, and how many before it have the same: one may stand there twice, for other hosts."""
    seen: Counter[str] = Counter()
    found = []
    for certificate in certificates:
        found.append((certificate.cert.path, seen[certificate.cert.path]))
        seen[certificate.cert.path] += 1
    return found


def _named(path: KeyPath, old: _Objects, new: _Objects, old_dump: _Dump, new_dump: _Dump) -> list[Change]:
    """Tables by name. Those that went come first."""
    changes = [Change((*path, name), "removed") for name in old if name not in new]
    for name, table in new.items():
        if name not in old:
            changes.append(Change((*path, name), f"added{_gist(table, new_dump[name])}"))
        elif old[name] != table:
            changes += _values((*path, name), old[name], table, old_dump[name], new_dump[name])
    return changes


def _listed_tables(
    path: KeyPath,
    old: Sequence[BackendConfig | RouteConfig],
    new: Sequence[BackendConfig | RouteConfig],
    old_dump: Sequence[_Dump],
    new_dump: Sequence[_Dump],
) -> list[Change]:
    """Backends and routes: a list of tables that have names."""
    before = dict(zip((item.name for item in old), old_dump, strict=True))
    after = dict(zip((item.name for item in new), new_dump, strict=True))
    was = {item.name: item for item in old}
    is_now = {item.name: item for item in new}
    changes = [Change(path, f"removed {_title(was[name])}") for name in before if name not in after]
    changes += [Change(path, f"added {_title(is_now[name])}") for name in after if name not in before]
    for name, item in is_now.items():
        if name in was and was[name] != item:
            changes += _tables((*path, name), was[name], item, before[name], after[name])
    if [name for name in before if name in after] != [name for name in after if name in before]:
        changes.append(Change(path, "another order"))
    return changes


def _lists(path: KeyPath, old: Sequence[object], new: Sequence[object]) -> list[Change]:
    changes = [Change(path, f"removed {_text(item)}") for item in old if item not in new]
    changes += [Change(path, f"added {_text(item)}") for item in new if item not in old]
    return changes or [Change(path, "another order")]


def _gist(table: object, dump: _Dump) -> str:
    """What says most of a pool or listener that is new."""
    if isinstance(table, LimitConfig):
        return ""
    if isinstance(table, PoolConfig):
        return f", {count(len(table.backends), 'backend')}"
    return f", {_text(dump['bind'])}"


def _title(item: BackendConfig | RouteConfig) -> str:
    if isinstance(item, BackendConfig) and item.name != str(item.address):
        return f"{_text(item.name)} ({item.address})"
    return _text(item.name)


def _text(value: object) -> str:
    """A value as it may stand on a terminal and in a log."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case tuple() | list():
            whole = ", ".join(map(_text, value[:_LONGEST_LIST]))
            return whole if len(value) <= _LONGEST_LIST else f"{whole}, ..."
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_text(inner)}" for key, inner in value.items()) + " }"
        case _:
            text = str(value)
            return text if text and text.isascii() and text.isprintable() and " " not in text else quote(text)


_Dump = Mapping[str, Any]
_Objects = Mapping[str, object]
