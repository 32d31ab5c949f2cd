"""Who is let in: the limits that are looked at when a connection comes, before anything is spent on it.

Owns the order of the looks and what becomes of those that are refused: counted, told, never in part. Does not
own the counts, which are in the table and exact over all workers (`shm.limited`, `shm.listeners`).

A listener without such limits has no entrance. With one, whoever keeps a connection calls `Entrance.enter` at
once, and `Places.release` when the connection has ended. Where clients are known by a PROXY header only, the
limits of clients wait for `Entrance.recognise`, whose places are given back likewise. What comes by way of a
trusted proxy, or a Unix socket, has no client's address yet and is under no limit of clients.

All limits must have room. Places are taken first, because they can be given back; then the rates are looked
at together, and charged when none of them refuses. A sibling may be quicker just then, and a charge remain
for a connection that another rate refuses: clients may be let in too seldom for that, never too often.

Measured on two shared x86-64 cores in November 2026, with `release`: 1.2 µs with `max_connections`, 11 µs
with a limit of connections and of new connections by client as well.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lbproc.core.http.forwarding import is_trusted
from lbproc.core.limits.client_key import client_key
from lbproc.core.limits.gcra import SECOND, RateLimit, carried_over
from lbproc.errors import CapacityError
from lbproc.shm.layout import UNLIMITED
from lbproc.shm.limited import NO_ROOM, REFUSED, Arithmetic
from lbproc.shm.listeners import FULL
from lbproc.shm.views import Refusal
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lbproc.config.limits import LimitConfig
    from lbproc.config.model import ListenerConfig
    from lbproc.proxy.context import WorkerContext
    from lbproc.shm.limited import RateDecision
    from lbproc.shm.views import WorkerView

TOLD_EVERY = SECOND
"""Between two lines about one reason of one listener, over all workers: ns."""

_GCRA = Arithmetic(RateLimit, carried_over)

Held = tuple[str, str]
"""The name of a limit, and its ``key``: with another one it counts something else."""

_LISTENER: Held = ("", "")
"""The listener's own places. No limit has an empty name."""


class Places:
    """What one connection holds in shared counts, by limits and what these count by."""

    __slots__ = ("_release", "held")

    def __init__(self, release: Callable[[int], None]) -> None:
        self._release = release
        self.held: dict[Held, int] = {}

    def release(self) -> None:
        """Gives everything back; may be called again."""
        held, self.held = self.held, {}
        for entry in held.values():
            self._release(entry)


class _Refused(Exception):  # noqa: N818  it is what became of a connection, and nobody's mistake
    """A connection is not let in."""

    def __init__(self, refusal: Refusal, limit: str = "") -> None:
        super().__init__(refusal.name)
        self.refusal = refusal
        self.limit = limit


class _Gate:
    """One limit at one listener."""

    __slots__ = (
        "_generation", "_keys", "_ledger", "_rate", "counts", "held_as", "name", "of_connections", "of_rate",
    )  # fmt: skip

    def __init__(self, name: str, config: LimitConfig, generation: int, view: WorkerView) -> None:
        self.name = name
        self.held_as: Held = (name, config.key)
        self._generation = generation
        self.counts = config.connections
        self._rate: RateLimit | None = None
        if config.new_connections is not None:
            rate = config.new_connections
            self._rate = RateLimit.per(rate.amount, rate.per_seconds, config.burst)
        self._keys = view.keys
        self._ledger = view.ledger
        self.of_connections = view.key_hash("connections", name).of
        self.of_rate = view.key_hash("new_connections", name).of

    @property
    def is_rate(self) -> bool:
        """Whether connections are charged."""
        return self._rate is not None

    def hold(self, key: bytes, now: int, at_most: int) -> int:
        """Counts a connection; gives the ledger entry, or REFUSED, or NO_ROOM."""
        take = partial(self._ledger.take, amount=1, at_most=at_most)
        return self._keys.hold(self.of_connections(key), now, take, self._ledger.release)

    def has_room(self, key: bytes, now: int) -> bool:
        """Whether a charge would be let in just now."""
        assert self._rate is not None
        return self._rate.decide(self._keys.stands_at(self.of_rate(key), self._rate), now).admitted

    def charge(self, key: bytes, now: int) -> RateDecision | None:
        """Charges a connection; None: there is no room to count it."""
        assert self._rate is not None
        return self._keys.charge(self.of_rate(key), now, self._rate, self._generation, _GCRA)


class _Wanted(NamedTuple):
    """A limit, and the name of what it counts by."""

    gate: _Gate
    key: bytes


class Entrance:
    """What one form of a listener lets in.

    Args:
        name: of the listener.
        config: its.
        limits: of the configuration.
        generation: of it; 0 if it is not in force any more.
        context: the worker's.
    """

    __slots__ = (
        "_admits_uncounted", "_at_most", "_by_client", "_by_header", "_by_listener", "_log", "_name",
        "_release", "_stamp", "_trusted", "_words",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        config: ListenerConfig,
        limits: Mapping[str, LimitConfig],
        generation: int,
        context: WorkerContext,
    ) -> None:
        self._name = name
        self._words = context.view.listener(name)
        self._release = context.view.release
        self._stamp = context.stamp
        self._log = context.log
        self._trusted = config.trusted_proxies
        self._by_header = config.proxy_protocol
        self._at_most = UNLIMITED if config.most_connections is None else config.most_connections - 1
        own = name.encode("utf-8", "surrogatepass")
        named = {one: limits[one] for one in config.limits if _is_for_connections(limits[one])}
        gates = {limit: _Gate(limit, one, generation, context.view) for limit, one in named.items()}
        self._by_client = tuple(gates[limit] for limit, one in named.items() if one.key == "client_ip")
        self._by_listener = tuple(
            _Wanted(gates[limit], own) for limit, one in named.items() if one.key == "listener"
        )
        self._admits_uncounted = {limit for limit, one in named.items() if one.when_full == "admit"}

    def enter(self, peer_ip: str) -> Places | None:
        """Lets a connection in that was just accepted, or not.

        Args:
            peer_ip: the other end; "" for a Unix socket.

        Returns:
            What it holds now; None if it is refused, which is counted and told: reset it.
        """
        places = Places(self._release)
        wanted = self._by_listener
        if self._by_client and not self._by_header:
            wanted = (*self._of_client(peer_ip), *wanted)
        return places if self._admit(places, wanted, peer_ip, at_listener=True) else None

    def recognise(self, client_ip: str) -> Places | None:
        """Lets a connection go on whose client is known now, or not. As `enter`; it has places of its own.

        Args:
            client_ip: as the PROXY header tells it; "" if it tells of no client.
        """
        places = Places(self._release)
        if not self._by_client:
            return places
        return places if self._admit(places, self._of_client(client_ip), client_ip) else None

    def complete(self, places: Places, peer_ip: str) -> None:
        """Counts a connection that was let in by an older form of the listener, where it is not counted yet.

        Whatever there is room for: it stays.
        """
        clients = () if self._by_header else self._of_client(peer_ip)
        try:
            if _LISTENER not in places.held and (entry := self._words.take()) >= 0:
                places.held[_LISTENER] = entry
            self._hold_more(places, (*clients, *self._by_listener))
        except CapacityError:
            return

    def complete_recognised(self, places: Places | None, client_ip: str) -> Places:
        """The same at the limits of a client that is known by its PROXY header; gives the places."""
        places = places or Places(self._release)
        if self._by_header:
            with suppress(CapacityError):
                self._hold_more(places, self._of_client(client_ip))
        return places

    def _hold_more(self, places: Places, wanted: Iterable[_Wanted]) -> None:
        now = self._stamp()
        for gate, key in wanted:
            if gate.counts is None or gate.held_as in places.held:
                continue
            if (entry := gate.hold(key, now, UNLIMITED)) >= 0:
                places.held[gate.held_as] = entry

    def _of_client(self, client_ip: str) -> tuple[_Wanted, ...]:
        """The limits of a client, if this is one."""
        if not client_ip or (self._trusted and is_trusted(client_ip, self._trusted)):
            return ()
        key = client_key(client_ip)
        return tuple(_Wanted(gate, key) for gate in self._by_client)

    def _admit(
        self, places: Places, wanted: tuple[_Wanted, ...], client_ip: str, *, at_listener: bool = False
    ) -> bool:
        now = self._stamp()
        try:
            self._take(places, wanted, now)
            if at_listener:
                self._take_place(places)
            self._charge([one for one in wanted if one.gate.is_rate], now)
        except _Refused as refused:
            places.release()
            self._tell(refused, client_ip, now)
            return False
        except CapacityError:
            places.release()
            self._tell(_Refused(Refusal.LEDGER_FULL), client_ip, now)
            return False
        return True

    def _take(self, places: Places, wanted: Iterable[_Wanted], now: int) -> None:
        for gate, key in wanted:
            if gate.counts is None:
                continue
            entry = gate.hold(key, now, gate.counts - 1)
            if entry == REFUSED:
                raise _Refused(Refusal.CONNECTIONS, gate.name)
            if entry == NO_ROOM:
                self._meet_full(gate.name, now)
            else:
                places.held[gate.held_as] = entry

    def _take_place(self, places: Places) -> None:
        entry = self._words.take(self._at_most)
        if entry == FULL:
            raise _Refused(Refusal.MAX_CONNECTIONS)
        if entry >= 0:  # else there is no such listener any more
            places.held[_LISTENER] = entry

    def _charge(self, wanted: list[_Wanted], now: int) -> None:
        if len(wanted) > 1:  # a single one is charged or not, and that is that
            for gate, key in wanted:
                if not gate.has_room(key, now):
                    raise _Refused(Refusal.NEW_CONNECTIONS, gate.name)
        for gate, key in wanted:
            decision = gate.charge(key, now)
            if decision is None:
                self._meet_full(gate.name, now)
            elif not decision.admitted:
                raise _Refused(Refusal.NEW_CONNECTIONS, gate.name)

    def _meet_full(self, limit: str, now: int) -> None:
        """A limit has no room to count a connection: what now is for the operator to say."""
        if limit not in self._admits_uncounted:
            raise _Refused(Refusal.KEYS_FULL, limit)
        admitted = self._words.refuse(Refusal.ADMITTED)
        if self._words.may_tell(Refusal.ADMITTED, now, TOLD_EVERY):
            self._log.write(Event.LIMIT_NOT_COUNTED, listener=self._name, limit=limit, admitted=admitted)

    def _tell(self, refused: _Refused, client_ip: str, now: int) -> None:
        total = self._words.refuse(refused.refusal)
        if self._words.may_tell(refused.refusal, now, TOLD_EVERY):
            self._log.write(
                Event.CONNECTION_REFUSED,
                listener=self._name,
                reason=refused.refusal.name.lower(),
                limit=refused.limit,
                client_ip=client_ip,
                refused=total,
            )


def make_entrance(
    name: str,
    config: ListenerConfig,
    limits: Mapping[str, LimitConfig],
    generation: int,
    context: WorkerContext,
) -> Entrance | None:
    """The entrance of a listener; None if it lets everybody in."""
    if config.most_connections is None and not any(_is_for_connections(limits[one]) for one in config.limits):
        return None
    return Entrance(name, config, limits, generation, context)


def _is_for_connections(config: LimitConfig) -> bool:
    return config.connections is not None or config.new_connections is not None
