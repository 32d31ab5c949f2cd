"""What a policy is: the candidates it chooses among, what it may look at, and the one method that picks.

A policy decides which of several eligible backends gets a request, and nothing else. It does not know of
health, caps, retries or sockets: what it gets has been filtered, and picking again after a failed try is
picking without the tried one. Policies are deterministic functions of their arguments: the shared ticket and
the random generator come with the context.

Invariants: ``pick`` returns a position in ``candidates``; a candidate of weight 0 is picked only when all are
of weight 0; a candidate and the tuple it comes in never change, so a policy may remember what it computed for
a tuple by the identity of that tuple.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A backend as the policies see it. Compared by identity: a changed backend is a new candidate.

    Attributes:
        index: its place among the members of the pool.
        name: what the operator calls it.
        identity: its address in bytes; hashing policies place it by this, so it survives reordering and
        renaming.
        weight: its share of the traffic relative to the others; 0 is no traffic.
        max_connections: the most requests in flight to it over all workers, None for no cap.
        backup: takes traffic only when no other backend of the pool is left.
    """

    index: int
    name: str
    identity: bytes
    weight: int = 1
    max_connections: int | None = None
    backup: bool = False


class PickContext:
    """What a policy may look at beside candidates and loads. One per worker, begun anew for each request.

    Attributes:
        key: what hashing policies hash; empty when the request has none, or when the policy needs none.
        random: made after the fork, else all workers draw alike.
        again: whether this request has drawn before.
    """

    __slots__ = ("_ticket", "again", "key", "random")

    def __init__(self, random: Random) -> None:
        self.key = b""
        self.random = random
        self.again = True
        self._ticket: Callable[[], int] | None = None

    def begin(self, key: bytes, ticket: Callable[[], int], *, again: bool = False) -> None:
        """Prepare for the picks of one request.

        Args:
            key: the hash key of the request, empty when it has none.
            ticket: takes the next ticket of the pool's shared counter; called at most once.
            again: the request was picked for before, and that backend did not work out.
        """
        self.key = key
        self._ticket = ticket
        self.again = again

    def draw(self) -> int:
        """The next shared ticket, or a random number when this request has drawn before.

        A second ticket for one request would take a turn away from somebody: with three backends of which the
        first refuses, every retry would take the turn of the second, which would end with a quarter of the
        requests.
        """
        if self.again or self._ticket is None:
            return self.random.getrandbits(32)
        self.again = True
        return self._ticket()


class Policy(Protocol):
    """A balancing algorithm. One object per pool and worker; the table is what workers have in common.

    Attributes:
        needs_key: it hashes ``context.key``; the others leave it alone.
        fixed_key: the ``hash_key`` it always hashes, whatever the pool says; None for the pool's.
        exact: the choice depends on the loads, so the place is taken only at the load that was seen, and the
        pick
            is made again when the load has grown meanwhile.
    """

    needs_key: ClassVar[bool]
    fixed_key: ClassVar[str | None]
    exact: ClassVar[bool]

    def rebuild(self, members: tuple[Candidate, ...]) -> None:
        """Take note of the members of the pool: before the first pick, and when any of them changes."""
        ...

    def pick(self, candidates: tuple[Candidate, ...], loads: list[int], context: PickContext) -> int:
        """Choose one.

        Args:
            candidates: at least one; eligible and not full; members of the last rebuild, in member order.
            loads: requests in flight to each candidate, over all workers.
            context: key, ticket and randomness of this request.

        Returns:
            The position of the chosen one in ``candidates``.
        """
        ...
