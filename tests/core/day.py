"""A day of a pool in virtual time: backends that flap, checks, ejections, retries; all decisions by the core.

What is simulated here is only what shells do: probing, counting into shared words, sending. Every decision
(when to probe and what follows, who may be picked, what counts, when to eject and for how long, what may be
tried again and paid for) is the core's. Promises that hold at every instant are asserted where they could be
broken; what can only be said of the whole day is kept for the test.

A request is tried and answered at one instant: the day knows no latency of requests. Probes take their time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from lbproc.core.health import Cadence, Check, Standing
from lbproc.core.http.exchange import Fault, is_backend_fault
from lbproc.core.outlier import OutlierRules, is_failed_answer
from lbproc.core.pool import PoolState, Status, pool_state
from lbproc.core.retry import BUCKET, RETRY, Outcome, RetryRules, has_credit, may_repeat, withdrawn
from lbproc.types import Admin, Health, Seconds
from tests.core.policies.examples import members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from lbproc.core.policies.policy import Candidate

DAY: Seconds = 86_400.0
SECOND = 1_000_000_000

CADENCE = Cadence(interval=2.0, timeout=1.0, doubt_interval=1.0, down_interval=4.0, rise=2, fall=3)
OUTLIER = OutlierRules(consecutive_errors=5, eject_for=30.0, max_eject_for=300.0, max_ejected=0.5)
RETRIES = RetryRules.of(
    attempts=2, on=["reset", "timeout", "503"], budget=0.2, per_try_timeout=None, max_body=65_536
)

RETURN: Seconds = CADENCE.down_interval + CADENCE.rise * (CADENCE.doubt_interval + CADENCE.timeout)
"""The longest time from a backend's being well again to its being found up, while it stays well."""


class Mood(Enum):
    """How a backend is."""

    WELL = "well"
    REFUSING = "refusing"
    HANGING = "hanging"
    GREY = "grey"
    """Passes its checks and answers half of the requests with 503."""

    @property
    def is_dead(self) -> bool:
        """Whether a probe that begins now fails."""
        return self in {Mood.REFUSING, Mood.HANGING}


Plan = list[tuple[Seconds, Mood]]
"""When a backend changes its mood, in order."""


@dataclass(slots=True)
class Backend:
    """A backend, and what the table and the prober hold of it."""

    number: int
    check: Check
    mood: Mood = Mood.WELL
    since: Seconds = 0.0
    """Since when it is alive or dead."""
    answers_404: bool = False
    errors: int = 0
    ejected_until: int = 0
    ejections: int = 0
    returned_at: int = 0
    times_ejected: int = 0
    seconds_ejected: Seconds = 0.0
    failures: int = 0
    served: int = 0

    @property
    def status(self) -> Status:
        """As a pick sees it."""
        health = Health.UP if self.check.standing is Standing.PASSING else Health.DOWN
        return health, Admin.READY, bool(self.ejected_until)


@dataclass(slots=True)
class Books:
    """What the clients saw, and what it cost."""

    requests: int = 0
    tries: int = 0
    repeated: int = 0
    denied: int = 0
    lost: int = 0
    without_backend: int = 0
    late: list[tuple[int, Seconds]] = field(default_factory=list)
    """Requests that reached a dead backend later than it should have been noticed: number, how late."""
    highest_spending: int = 0
    """The most that was spent over any stretch beyond what its requests brought, in thousandths."""


class Day:
    """One day.

    Args:
        plans: of each backend.
        rate: requests a second.
        chance: for everything that is chance.
        retries: what is tried again; None: nothing is.
        outlier: when is ejected; None: never.
        always_404: backends that answer 404 while they are well.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        rate: float,
        chance: Random,
        retries: RetryRules | None = RETRIES,
        outlier: OutlierRules | None = OUTLIER,
        always_404: Sequence[int] = (),
    ) -> None:
        self.books = Books()
        self.backends = [
            Backend(
                number,
                Check(CADENCE, Standing.PASSING, chance.random() * CADENCE.interval),
                answers_404=number in always_404,
            )
            for number in range(len(plans))
        ]
        self._plans = plans
        self._rate = rate
        self._chance = chance
        self._retries = retries
        self._outlier = outlier
        self._members = members(*[1] * len(plans))
        self._state = self._pick_state()
        self._bucket = 0
        self._balance = self._lowest_balance = 0
        self._queue: list[tuple[Seconds, int, Callable[[Seconds], None]]] = []
        self._turn = 0

    def run(self) -> None:
        """Lets the day pass."""
        for backend, plan in zip(self.backends, self._plans, strict=True):
            self._at(backend.check.due_at, partial(self._probe, backend))
            for at, mood in plan:
                self._at(at, partial(self._change, backend, mood))
        self._at(0.0, self._arrive)
        while self._queue:
            now, _, happen = heappop(self._queue)
            if now >= DAY:
                break
            happen(now)

    def _at(self, at: Seconds, happen: Callable[[Seconds], None]) -> None:
        self._turn += 1
        heappush(self._queue, (at, self._turn, happen))

    def _pick_state(self) -> PoolState:
        return pool_state(self._members, [backend.status for backend in self.backends])

    def _change(self, backend: Backend, mood: Mood, now: Seconds) -> None:
        if mood.is_dead != backend.mood.is_dead:
            self._assert_noticed(backend, now)
            backend.since = now
        backend.mood = mood

    def _assert_noticed(self, backend: Backend, now: Seconds) -> None:
        """Whoever was dead or alive for long enough is known to be."""
        lasted = now - backend.since
        if backend.mood.is_dead and lasted > CADENCE.notice:
            assert backend.check.standing is Standing.FAILING, (backend.number, now)
        if not backend.mood.is_dead and lasted > RETURN:
            assert backend.check.standing is Standing.PASSING, (backend.number, now)

    # Checks

    def _probe(self, backend: Backend, now: Seconds) -> None:
        backend.check.begin(now)
        passed = not backend.mood.is_dead
        takes = CADENCE.timeout if backend.mood is Mood.HANGING else 0.01 * self._chance.random()
        self._at(now + takes, partial(self._conclude, backend, passed))

    def _conclude(self, backend: Backend, passed: bool, now: Seconds) -> None:
        if backend.check.conclude(passed, now, self._chance.random()):
            self._state = self._pick_state()
        self._at(backend.check.due_at, partial(self._probe, backend))

    # Requests

    def _arrive(self, now: Seconds) -> None:
        self._at(now + self._chance.expovariate(self._rate), self._arrive)
        self._end_ejections(now)
        self.books.requests += 1
        if self._retries is not None:
            self._bucket = (self._bucket + self._retries.deposit) % (1 << 64)
            self._balance -= self._retries.deposit
            self._lowest_balance = min(self._lowest_balance, self._balance)
        tried: list[Candidate] = []
        repeated = 0
        while True:
            eligible = self._state.without(tried).eligible
            if not eligible:
                self.books.without_backend += 1
                return
            candidate = self._chance.choice(eligible)
            tried.append(candidate)
            outcome = self._try(self.backends[candidate.index], now)
            if outcome is Fault.CONNECT_REFUSED:
                continue  # nothing was sent: another one gets it, for nothing
            if not isinstance(outcome, Fault) and not is_failed_answer(outcome):
                return
            if not self._may_repeat(outcome, repeated):
                self.books.lost += 1
                return
            repeated += 1

    def _try(self, backend: Backend, now: Seconds) -> Outcome:
        self.books.tries += 1
        if backend.mood.is_dead and now > backend.since + CADENCE.notice:
            self.books.late.append((backend.number, now - backend.since))
        outcome: Outcome = 404 if backend.answers_404 else 200
        if backend.mood is Mood.REFUSING:
            outcome = Fault.CONNECT_REFUSED
        elif backend.mood is Mood.HANGING:
            outcome = Fault.RESPONSE_TIMEOUT
        elif backend.mood is Mood.GREY and self._chance.random() < 0.5:
            outcome = 503
        if is_backend_fault(outcome) if isinstance(outcome, Fault) else is_failed_answer(outcome):
            backend.failures += 1
            self._count_failure(backend, round(now * SECOND))
        else:
            backend.served += 1
            backend.errors = 0
        return outcome

    def _may_repeat(self, outcome: Outcome, repeated: int) -> bool:
        rules = self._retries
        if rules is None or not may_repeat(
            rules,
            outcome,
            repeated=repeated,
            is_idempotent=True,
            is_sent=True,
            is_seen=False,
            is_at_hand=True,
        ):
            return False
        if not has_credit(self._bucket):
            self.books.denied += 1
            return False
        self._bucket = withdrawn(self._bucket)
        self.books.repeated += 1
        self._balance += RETRY
        self.books.highest_spending = max(self.books.highest_spending, self._balance - self._lowest_balance)
        assert self.books.highest_spending <= BUCKET
        return True

    # Ejections

    def _count_failure(self, backend: Backend, now: int) -> None:
        rules = self._outlier
        if rules is None or backend.ejected_until:
            return
        backend.errors += 1
        ejected = sum(bool(other.ejected_until) for other in self.backends)
        if not rules.is_due(backend.errors) or ejected + 1 > rules.most_ejected(len(self.backends)):
            return
        ejection = rules.next_ejection(backend.ejections, backend.returned_at, now)
        length = (ejection.until - now) / SECOND
        assert rules.eject_for <= length <= rules.max_eject_for + 1e-6
        assert ejection.number in {1, backend.ejections + 1}
        backend.ejections, backend.ejected_until, backend.errors = ejection.number, ejection.until, 0
        backend.times_ejected += 1
        backend.seconds_ejected += length
        self._state = self._pick_state()

    def _end_ejections(self, now: Seconds) -> None:
        for backend in self.backends:
            if backend.ejected_until and backend.ejected_until <= now * SECOND:
                backend.returned_at, backend.ejected_until, backend.errors = backend.ejected_until, 0, 0
                self._state = self._pick_state()


def flapping(chance: Random, well: Seconds, ill: Seconds, *moods: Mood, until: Seconds = DAY) -> Plan:
    """A backend that is well and ill in turns of random length, until an instant from which it stays well.

    Args:
        chance: for the lengths.
        well: mean length of a good turn.
        ill: mean length of a bad one.
        moods: of bad turns.
        until: the end of the last bad turn.
    """
    plan: Plan = []
    now = chance.expovariate(1 / well)
    while now < until:
        plan.append((now, chance.choice(moods)))
        now = min(until, now + chance.expovariate(1 / ill))
        plan.append((now, Mood.WELL))
        now += chance.expovariate(1 / well)
    return plan
