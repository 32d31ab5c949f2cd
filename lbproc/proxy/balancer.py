"""One pool in one worker: which backend the next request goes to, and the place it takes there.

The deciding is pure (``core.pick`` and the policies); this shell reads the loads from the table, asks, and
takes the place by compare-and-swap at the load that the policy saw. When a sibling was quicker it reads and
asks again, so the place is on a backend that was least loaded at that instant, over all workers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypedDict
from weakref import ref

from lbproc.core.hash_key import compile_hash_key
from lbproc.core.outlier import OutlierRules
from lbproc.core.pick import NoBackend, choose
from lbproc.core.policies.policy import Candidate, PickContext
from lbproc.core.policies.registry import REGISTRY
from lbproc.core.pool import PoolState, pool_state, status_of
from lbproc.core.retry import RetryRules
from lbproc.errors import CapacityError
from lbproc.net.connpool import IdleConnections
from lbproc.proxy.ejection import PassiveChecks
from lbproc.proxy.weighing import Weighing
from lbproc.shm.layout import UNLIMITED
from lbproc.telemetry.entry import render_backend
from lbproc.telemetry.events import Event
from lbproc.types import Address, Admin, Health, Row, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lbproc.config.model import PoolConfig
    from lbproc.core.hash_key import Asked
    from lbproc.net.tls.upstream import BackendTls
    from lbproc.net.transport import Transport
    from lbproc.proxy.context import WorkerContext

MAX_IDLE = 128
"""Idle connections a worker keeps to one backend."""

MAX_IDLE_AGE = 55.0
"""Seconds an idle backend connection is kept: less than the 60 to 75 s of common servers."""

MAX_LIFETIME = 3600.0
"""Seconds after which a backend connection is not used again, however busy it is."""


class PoolMembership(TypedDict):
    """What the supervisor publishes of one pool: the index of its ticket word, and its members in order.

    A member is (name, address, weight, max_connections, backup, row, addresses it resolves to).
    """

    ticket: int
    backends: list[tuple[str, str, int, int | None, bool, int, list[str]]]


class Backend:
    """One server of a pool as this worker sees it: its row in the table, where it is, its idle connections.

    A backend whose addresses change is a new one with the same row: connections to the old addresses end with
    the old one.
    """

    __slots__ = (
        "_idle", "_keeps", "addresses", "candidate", "host", "is_member", "logged", "name", "outlier",
        "resolved", "row", "tls",
    )  # fmt: skip

    def __init__(
        self, candidate: Candidate, row: Row, resolved: list[str], tls: BackendTls | None = None
    ) -> None:
        self.candidate = candidate
        self.name = candidate.name
        self.logged = render_backend(candidate.name)
        self.row = row
        self.resolved = resolved
        """The addresses as they were published; comparing these costs less than reading them."""
        self.addresses: tuple[Address, ...] = tuple(map(parse_address, resolved))
        self.is_member = True
        self.outlier: PassiveChecks | None = None
        """Hears of every answer and failure; None: nobody does."""
        self.tls = tls
        """How connections are made secret; None: they are not."""
        self._keeps = True
        """Connections that become idle are kept."""
        address = candidate.identity
        self.host = b"localhost" if address.startswith(b"unix:") else address
        """What an HTTP/1.0 request that names no host is taken to mean."""
        self._idle = IdleConnections(MAX_IDLE, MAX_IDLE_AGE, MAX_LIFETIME)

    def checkout(self) -> Transport | None:
        """An idle connection, or None."""
        return self._idle.checkout()

    def checkin(self, transport: Transport, now: float) -> None:
        """Keeps a connection for reuse, or closes it when nobody would use it."""
        displaced = self._idle.checkin(transport, now) if self._keeps else transport
        if displaced is not None:
            displaced.close()

    def close_aged(self, now: float) -> None:
        """Closes connections that have been idle too long, or that the backend has ended."""
        for transport in self._idle.expire(now):
            transport.close()

    def retire(self) -> None:
        """Closes the idle connections, and each other one as its exchange ends."""
        self.is_member = self._keeps = False
        self._idle.close_all()

    def use(self, *, is_in_use: bool) -> None:
        """Takes note of whether it is in use. Of one that is not, no idle connection is kept."""
        self._keeps = is_in_use and self.is_member
        if not is_in_use:
            self._idle.close_all()


class Lease:
    """A place taken on a backend. Whoever holds it gives it back, once."""

    __slots__ = ("_context", "_entry", "backend")

    def __init__(self, backend: Backend, entry: int, context: WorkerContext) -> None:
        self.backend = backend
        self._entry = entry
        self._context = context

    def release(self) -> None:
        """Gives the place back."""
        self._context.view.release(self._entry)


class Balancer:
    """Picks backends of one pool and takes places on them.

    Args:
        name: the pool's.
        config: what the operator asked for.
        context: the worker's.
        follow_membership: called when something changed, before the statuses are read anew; calls `follow`
            when it was the membership.
    """

    __slots__ = (
        "__weakref__",
        "_by_row",
        "_context",
        "_follow_membership",
        "_hash_key",
        "_heir",
        "_is_retired",
        "_out",
        "_outlier",
        "_panic",
        "_passive",
        "_pick",
        "_policy",
        "_predecessors",
        "_state",
        "_status_epoch",
        "_ticket",
        "_weighing",
        "_words",
        "backends",
        "config",
        "name",
        "pool_index",
        "retries",
        "timeouts",
        "tls",
    )

    def __init__(
        self, name: str, config: PoolConfig, context: WorkerContext, follow_membership: Callable[[], None]
    ) -> None:
        self.name = name
        self.config = config
        self.timeouts = config.timeouts
        self.retries = _retry_rules(config)
        """None: only what was never sent is tried again."""
        self.tls = None if config.tls is None else context.client_contexts.for_pool(config.tls)
        self.pool_index = 0
        """Of the pool's words in the table."""
        self.backends: tuple[Backend, ...] = ()
        self._context = context
        self._follow_membership = follow_membership
        self._is_retired = False
        """Another generation's balancer has its place."""
        self._heir: Balancer | None = None
        """Of its successors the last one, when that has none itself."""
        self._predecessors: list[ref[Balancer]] = []
        """Whose requests may still run; not to be kept for that by whoever has their place."""
        rules = None if config.outlier is None else OutlierRules.of(config.outlier)
        self._passive = PassiveChecks(name, rules, context)
        self._outlier = None if rules is None else self._passive
        self._weighing = Weighing(config.slow_start, context)
        self._panic: bool | None = None
        """Of the pool, as last seen; None: never."""
        self._policy = REGISTRY[config.policy]()
        self._hash_key = compile_hash_key(self._policy.fixed_key or config.hash_key)
        self._by_row: dict[Row, Backend] = {}
        self._out: frozenset[Row] = frozenset()
        """Backends that are out of use, as the pulse saw it."""
        self._pick = PickContext(context.random)
        self._ticket = partial(context.view.ticket, 0)
        """Not a method: the context of the pick keeps it, and must not keep this balancer."""
        self._state: PoolState = pool_state((), ())
        self._words: tuple[int, ...] = ()
        self._status_epoch = -1

    def inherit(self, before: Balancer) -> None:
        """Gets the backends of the balancer whose place it takes, for `follow` to choose from.

        Not when connections to them begin in another way now, so that no idle one is used again.
        """
        if (before.config.proxy_protocol, before.tls) == (self.config.proxy_protocol, self.tls):
            self._by_row, before._by_row = before._by_row, {}
        self._out, self._panic = before._out, before._panic
        self._predecessors = [one for one in before._predecessors if one() is not None] + [ref(before)]
        before._passive.follow((), ())
        before.backends, before._state, before._words = (), pool_state((), ()), ()

    def retire(self) -> None:
        """Leaves the pool to the balancer of the next generation, if that has one of its name.

        Without one, what is left of its listeners is served by the backends that it had, each request over a
        connection of its own; so `keep` them.
        """
        self._is_retired = True
        self._status_epoch = -1
        for backend in self._by_row.values():
            backend.retire()
            backend.outlier = None

    def keep(self) -> int | None:
        """Keeps its rows, and the words of its pool, from becoming others' as long as requests may come here.

        For one that retires without a successor, before its worker says that it follows a membership
        without the pool. It then serves those of its predecessors, too.

        Returns:
            The ledger entry to release when nobody has this balancer any more. None: this worker can hold
            nothing more; then it has no backends any more, and picks none.
        """
        for predecessor in self._predecessors:
            if (one := predecessor()) is not None:
                one._heir = self  # noqa: SLF001
        self._predecessors = []
        try:
            return self._context.view.keep_pool(self.pool_index)
        except CapacityError:
            self._by_row, self.backends = {}, ()
            self._state, self._words = pool_state((), ()), ()
            self._passive.follow((), ())
            self._weighing.follow((), ())
            return None

    def _successor(self) -> Balancer | None:
        """Who has its place, if it is retired."""
        if not self._is_retired:
            return None
        successor = self._context.runtime.pools.get(self.name)
        return self._heir if successor is None else None if successor is self else successor

    def follow(self, membership: PoolMembership) -> None:
        """Takes over published membership. What is no member any more is retired."""
        self.pool_index = membership["ticket"]
        self._ticket = partial(self._context.view.ticket, self.pool_index)
        before = self._by_row
        self._by_row = {}
        for index, published in enumerate(membership["backends"]):
            name, address, weight, cap, backup, number, resolved = published
            row = Row(number)
            candidate = Candidate(index, name, address.encode(), weight, cap, backup)
            known = before.get(row)
            if known is not None and known.resolved == resolved:
                known.name, known.candidate, known.logged = name, candidate, render_backend(name)
                self._by_row[row] = before.pop(row)
            else:
                tls = None if self.tls is None else self.tls.towards(address)
                self._by_row[row] = Backend(candidate, row, resolved, tls)
        for backend in before.values():
            backend.retire()
        self.backends = tuple(self._by_row.values())
        for backend in self.backends:
            backend.outlier = self._outlier
        self._weighing.follow(
            tuple(backend.candidate for backend in self.backends),
            tuple(backend.row for backend in self.backends),
        )
        self._adopt_weights()
        self._follow_status()

    def stay_empty(self) -> None:
        """There are no backends, and nobody will tell of any; so nothing is said of the pool in the table."""
        self._panic = False

    def take(self, request: Asked, client_ip: str, tried: Collection[Backend]) -> Lease | NoBackend:
        """Picks a backend for a request, or for a connection, and takes a place on it.

        Args:
            request: what is asked, for policies that hash.
            client_ip: the client's address as the log shows it.
            tried: the backends this request has failed on.

        Raises:
            CapacityError: this worker's ledger is full.
        """
        view = self._context.view
        if view.status_epoch() != self._status_epoch:
            if (successor := self._successor()) is not None:
                return successor.take(request, client_ip, tried)
            self._follow_membership()
            self._follow_status()
        policy, pick = self._policy, self._pick
        pick.begin(
            self._hash_key(request, client_ip) if policy.needs_key else b"", self._ticket, again=bool(tried)
        )
        state, words = self._state, self._words
        if tried:
            state = state.without([backend.candidate for backend in tried])
            words = self._load_words(state)
        while True:
            choice = choose(state, policy, view.loads(words), pick)
            if isinstance(choice, NoBackend):
                return choice
            candidate, at_most = choice
            backend = self.backends[candidate.index]
            entry = view.take(backend.row, at_most)
            if entry >= 0:
                return Lease(backend, entry, self._context)

    def take_at(self, row: Row) -> Lease | None:
        """Takes a place on a certain backend, if a pick could fall on it; None: it cannot, or it is full.

        Raises:
            CapacityError: this worker's ledger is full.
        """
        if (successor := self._catch_up()) is not None:
            return successor.take_at(row)
        backend = self._by_row.get(row)
        if backend is None or backend.candidate not in self._state.eligible:
            return None
        cap = backend.candidate.max_connections
        entry = self._context.view.take(row, UNLIMITED if cap is None else cap - 1)
        return Lease(backend, entry, self._context) if entry >= 0 else None

    def serves(self, backend: Backend) -> bool:
        """Whether what goes on with this backend may do so: it is one of the pool, and not out of use.

        That it gets nothing new (a drain, an ejection) does not matter. Costs as much as a pick: ask when the
        status epoch has changed.
        """
        if (successor := self._catch_up()) is not None:
            return successor.serves(backend)
        if self._by_row.get(backend.row) is not backend:
            return False
        if backend.candidate in self._state.eligible:
            return True
        ((health, admin, _),) = self._context.view.statuses([backend.row])
        return health is not Health.DOWN and admin is not Admin.MAINTENANCE

    def _catch_up(self) -> Balancer | None:
        """Follows what has changed since the last pick; gives whoever has its place, who is to be asked."""
        if self._context.view.status_epoch() != self._status_epoch:
            if (successor := self._successor()) is not None:
                return successor
            self._follow_membership()
            self._follow_status()
        return None

    def is_eligible(self, backend: Backend) -> bool:
        """Whether a request may go to this backend, be it full or not, as of the last pick."""
        if (successor := self._successor()) is not None:
            return successor.is_eligible(backend)
        return backend.candidate in self._state.eligible

    def notice_out(self) -> frozenset[Row]:
        """Closes the idle connections of backends out of use: down, unless in a panic, or in maintenance.

        Returns:
            Those of them that were not so at the last call, if what is under way there is to be cut.
        """
        view = self._context.view
        if view.status_epoch() != self._status_epoch:
            self._follow_status()
        in_use = {candidate.identity for candidate in self._state.eligible}
        statuses = view.statuses([backend.row for backend in self.backends])
        out = set()
        for backend, (health, admin, _) in zip(self.backends, statuses, strict=True):
            is_out = (
                health is Health.DOWN or admin is Admin.MAINTENANCE
            ) and backend.candidate.identity not in in_use
            backend.use(is_in_use=not is_out)
            if is_out:
                out.add(backend.row)
        before, self._out = self._out, frozenset(out)
        return self._out - before if self.config.on_down == "cut" else frozenset()

    def look(self) -> None:
        """Does what is due without a request: ten times a second, from the worker's pulse.

        Ends ejections whose time is over, goes on with slow starts, and follows a change of a status that no
        pick has met yet.
        """
        context = self._context
        if context.view.status_epoch() != self._status_epoch:
            self._follow_membership()
            self._follow_status()
        if self._passive.look(context.stamp()) or (self._weighing.is_starting and self._weigh()):
            self._follow_status()

    def _weigh(self) -> bool:
        """Takes over weights that have changed with time. Returns whether some have."""
        if not self._weighing.weigh():
            return False
        self._adopt_weights()
        return True

    def _adopt_weights(self) -> None:
        members = self._weighing.members
        for backend, candidate in zip(self.backends, members, strict=True):
            backend.candidate = candidate
        self._policy.rebuild(members)

    def _load_words(self, state: PoolState) -> tuple[int, ...]:
        view = self._context.view
        return tuple(view.load_word(self.backends[candidate.index].row) for candidate in state.eligible)

    def _follow_status(self) -> None:
        """Works out anew what may be picked.

        The epoch is read first: a change in between is followed next time.
        """
        view = self._context.view
        self._status_epoch = -1 if self._is_retired else view.status_epoch()
        statuses = view.statuses([backend.row for backend in self.backends])
        self._weigh()
        self._passive.follow(self.backends, statuses)
        known = [
            status_of(status, is_resolved=bool(backend.addresses))
            for backend, status in zip(self.backends, statuses, strict=True)
        ]
        self._state = pool_state(self._weighing.members, known, self.config.panic_threshold)
        self._words = self._load_words(self._state)
        if self._state.panic is not self._panic:
            self._tell_panic(panic=self._state.panic)

    def _tell_panic(self, *, panic: bool) -> None:
        """Notes that panic begins or ends. Of all workers that see it, one tells."""
        self._panic = panic
        if self._context.view.set_panic(self.pool_index, panic=panic):
            if panic:
                threshold = self.config.panic_threshold
                self._context.log.write(Event.POOL_PANIC, pool=self.name, threshold=threshold)
            else:
                self._context.log.write(Event.POOL_CALM, pool=self.name)


def _retry_rules(config: PoolConfig) -> RetryRules | None:
    retries = config.retries
    if retries is None:
        return None
    return RetryRules.of(
        attempts=retries.attempts,
        on=retries.on,
        budget=retries.budget,
        per_try_timeout=retries.per_try_timeout,
        max_body=retries.max_body,
    )
