"""Which tries of a request may be repeated on another backend, and how many repetitions a pool can afford.

Owns the conditions that ``retries.on`` names, when a repetition is safe, and the arithmetic of the retry
budget. Does not pick, wait or touch the table.

Theory of operation
-------------------
A try has an *outcome*: a fault of ``core.http.exchange``, or the status of an answer of which nothing has
gone to the client. It is repeated when all of these hold::

    named      the pool's ``on`` names the outcome
    left       fewer than ``attempts`` repetitions were made for this request
    safe       the method is idempotent (RFC 9110 section 9.2.2), or nothing of the request was sent
    unseen     the client has got nothing of the response: no byte of it, no interim response but a 100
    at hand    all of the body that was taken from the client is kept
    a place    on a backend that was not tried while there is one, else on one that was
    credit     the pool's retry budget has a retry left

A connect that fails is no try: nothing was sent, another backend gets the request, and nothing is asked.

The budget is a bucket for each pool, shared by all workers. It holds ten retries at most and begins full.
A request puts ``budget`` of a retry into it, a repetition takes a whole one out. So over any stretch of time
the repetitions are at most ten and ``budget`` times the requests, however many workers there are: an outage
is never multiplied.

The bucket is one word, in thousandths of a retry: what it holds more or less than when it is full, in two's
complement, so that a word of zero is a full bucket. To put in is one addition and never stops at the brim;
whoever takes out first pours away what is above it. That comes to the same, because nobody looks in between:
filling up step by step and never above the brim, or once at the end, leaves the same amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from lbproc.core.http.exchange import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbproc.types import Seconds

Outcome: TypeAlias = "Fault | int"
"""What became of a try: what went wrong, or the status that was answered."""

RETRY: Final = 1000
"""One retry, in the thousandths that the bucket counts."""

BUCKET: Final = 10 * RETRY
"""What a full bucket holds: so many retries are there at once after a quiet time."""

_WORD: Final = 1 << 64
_NEGATIVE: Final = 1 << 63

FAULTS: Final = {
    "reset": frozenset({Fault.BACKEND_LOST, Fault.BACKEND_DOWN, Fault.RESPONSE_INCOMPLETE}),
    "timeout": frozenset({Fault.RESPONSE_TIMEOUT, Fault.BACKEND_STALLED}),
    "malformed": frozenset({Fault.RESPONSE_MALFORMED}),
}
"""Conditions of ``on`` that name faults. The others are statuses, as strings."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What the operator allows one pool.

    Attributes:
        attempts: repetitions of one request at most.
        faults: that are repeated.
        statuses: likewise.
        codes: the same as they stand in a status line.
        deposit: what a request puts into the bucket, in thousandths of a retry.
        per_try_timeout: from the beginning of a try to the end of the response head; None for no limit.
        max_body: bytes of a request body that are kept to be sent again.
    """

    attempts: int
    faults: frozenset[Fault]
    statuses: frozenset[int]
    codes: frozenset[bytes]
    deposit: int
    per_try_timeout: Seconds | None
    max_body: int

    @classmethod
    def of(
        cls,
        *,
        attempts: int,
        on: Iterable[str],
        budget: float,
        per_try_timeout: Seconds | None,
        max_body: int,
    ) -> RetryRules:
        """The rules as the configuration writes them: see ``config.retries``."""
        faults: frozenset[Fault] = frozenset()
        codes = set()
        for condition in on:
            if condition in FAULTS:
                faults |= FAULTS[condition]
            else:
                codes.add(condition)
        return cls(
            attempts=attempts,
            faults=faults,
            statuses=frozenset(map(int, codes)),
            codes=frozenset(code.encode("ascii") for code in codes),
            deposit=round(budget * RETRY),
            per_try_timeout=per_try_timeout,
            max_body=max_body,
        )

    def names(self, outcome: Outcome) -> bool:
        """Whether the operator wants another try after such an outcome."""
        return outcome in (self.faults if isinstance(outcome, Fault) else self.statuses)


def may_repeat(
    rules: RetryRules,
    outcome: Outcome,
    *,
    repeated: int,
    is_idempotent: bool,
    is_sent: bool,
    is_seen: bool,
    is_at_hand: bool,
) -> bool:
    """Whether a try may be followed by another one, if there is a place and credit for it.

    Args:
        rules: the pool's.
        outcome: of the try.
        repeated: how often the request was repeated so far.
        is_idempotent: the method may be sent twice.
        is_sent: something of the request may have reached the backend.
        is_seen: the client may have got something of a response.
        is_at_hand: all that was taken of the request can be sent again.
    """
    return (
        repeated < rules.attempts
        and rules.names(outcome)
        and (is_idempotent or not is_sent)
        and not is_seen
        and is_at_hand
    )


def credit(word: int) -> int:
    """What the bucket holds, in thousandths of a retry: 0 to ``BUCKET``."""
    return BUCKET + min(word - _WORD if word >= _NEGATIVE else word, 0)


def has_credit(word: int) -> bool:
    """Whether the bucket holds a whole retry."""
    return credit(word) >= RETRY


def withdrawn(word: int) -> int:
    """The word after a retry was taken out of a bucket that has one; swapped in for exactly this word."""
    return (credit(word) - RETRY - BUCKET) % _WORD
