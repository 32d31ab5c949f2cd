"""One pool in one worker: which backend the next request goes to, and the place it takes there.

The deciding is pure (``core.pick`` and the policies); this shell reads the loads from the table, asks, and
takes the place by compare-and-swap at the load that the policy saw. When a sibling was quicker it reads and
asks again, so the place is on a backend that was least loaded at that instant, over all workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from lbproc.core.hash_key import compile_hash_key
from lbproc.core.pick import NoBackend, choose
from lbproc.core.policies.policy import Candidate, PickContext
from lbproc.core.policies.registry import REGISTRY
from lbproc.core.pool import PoolState, pool_state
from lbproc.net.connpool import IdleConnections
from lbproc.telemetry.entry import render_backend
from lbproc.types import Address, Row, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lbproc.config.model import PoolConfig
    from lbproc.core.http.head import RequestHead
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

    __slots__ = ("_idle", "addresses", "candidate", "host", "is_member", "logged", "name", "row")

    def __init__(self, candidate: Candidate, row: Row, addresses: tuple[Address, ...]) -> None:
        self.candidate = candidate
        self.name = candidate.name
        self.logged = render_backend(candidate.name)
        self.row = row
        self.addresses = addresses
        self.is_member = True
        address = candidate.identity
        self.host = b"localhost" if address.startswith(b"unix:") else address
        """What an HTTP/1.0 request that names no host is taken to mean."""
        self._idle = IdleConnections(MAX_IDLE, MAX_IDLE_AGE, MAX_LIFETIME)

    def checkout(self) -> Transport | None:
        """An idle connection, or None."""
        return self._idle.checkout()

    def checkin(self, transport: Transport, now: float) -> None:
        """Keeps a connection for reuse, or closes it when nobody would use it."""
        displaced = self._idle.checkin(transport, now) if self.is_member else transport
        if displaced is not None:
            displaced.close()

    def close_aged(self, now: float) -> None:
        """Closes connections that have been idle too long, or that the backend has ended."""
        for transport in self._idle.expire(now):
            transport.close()

    def retire(self) -> None:
        """Closes the idle connections, and each other one as its exchange ends."""
        self.is_member = False
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
        "_by_row",
        "_context",
        "_follow_membership",
        "_hash_key",
        "_pick",
        "_policy",
        "_state",
        "_status_epoch",
        "_ticket_index",
        "_words",
        "backends",
        "config",
        "name",
        "timeouts",
    )

    def __init__(
        self, name: str, config: PoolConfig, context: WorkerContext, follow_membership: Callable[[], None]
    ) -> None:
        self.name = name
        self.config = config
        self.timeouts = config.timeouts
        self.backends: tuple[Backend, ...] = ()
        self._context = context
        self._follow_membership = follow_membership
        self._policy = REGISTRY[config.policy]()
        self._hash_key = compile_hash_key(self._policy.fixed_key or config.hash_key)
        self._by_row: dict[Row, Backend] = {}
        self._pick = PickContext(context.random)
        self._ticket_index = 0
        self._state: PoolState = pool_state((), ())
        self._words: tuple[int, ...] = ()
        self._status_epoch = -1

    def follow(self, membership: PoolMembership) -> None:
        """Takes over published membership. What is no member any more is retired."""
        self._ticket_index = membership["ticket"]
        before = self._by_row
        self._by_row = {}
        for index, published in enumerate(membership["backends"]):
            name, address, weight, cap, backup, number, resolved = published
            row = Row(number)
            addresses = tuple(parse_address(text) for text in resolved)
            candidate = Candidate(index, name, address.encode(), weight, cap, backup)
            known = before.get(row)
            if known is not None and known.addresses == addresses:
                known.name, known.candidate, known.logged = name, candidate, render_backend(name)
                self._by_row[row] = before.pop(row)
            else:
                self._by_row[row] = Backend(candidate, row, addresses)
        for backend in before.values():
            backend.retire()
        self.backends = tuple(self._by_row.values())
        self._policy.rebuild(tuple(backend.candidate for backend in self.backends))
        self._follow_status()

    def take(self, request: RequestHead, client_ip: str, tried: Collection[Backend]) -> Lease | NoBackend:
        """Picks a backend for a request and takes a place on it.

        Args:
            request: what is asked, for policies that hash.
            client_ip: the client's address as the log shows it.
            tried: the backends this request has failed on.

        Raises:
            CapacityError: this worker's ledger is full.
        """
        view = self._context.view
        if view.status_epoch() != self._status_epoch:
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

    def _ticket(self) -> int:
        return self._context.view.ticket(self._ticket_index)

    def _load_words(self, state: PoolState) -> tuple[int, ...]:
        view = self._context.view
        return tuple(view.load_word(self.backends[candidate.index].row) for candidate in state.eligible)

    def _follow_status(self) -> None:
        """Works out anew what may be picked.

        The epoch is read first: a change in between is followed next time.
        """
        view = self._context.view
        self._status_epoch = view.status_epoch()
        members = tuple(backend.candidate for backend in self.backends)
        self._state = pool_state(members, view.statuses([backend.row for backend in self.backends]))
        self._words = self._load_words(self._state)
