"""What may be tried again, and that retries never outgrow their budget, in whatever order they are taken."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.exchange import CONNECT_FAULTS, Fault
from lbproc.core.retry import BUCKET, RETRY, RetryRules, credit, has_credit, may_repeat, withdrawn

ALL = ("reset", "timeout", "malformed", "503")


def rules(on: tuple[str, ...] = ALL, *, attempts: int = 1, budget: float = 0.2) -> RetryRules:
    return RetryRules.of(attempts=attempts, on=on, budget=budget, per_try_timeout=None, max_body=65536)


# Which outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("reset", {Fault.BACKEND_LOST, Fault.BACKEND_DOWN, Fault.RESPONSE_INCOMPLETE}),
        ("timeout", {Fault.RESPONSE_TIMEOUT, Fault.BACKEND_STALLED}),
        ("malformed", {Fault.RESPONSE_MALFORMED}),
        ("503", set()),
    ],
)
def test_a_condition_names_its_faults_and_no_other(condition: str, named: set[Fault]) -> None:
    assert {fault for fault in Fault if rules((condition,)).names(fault)} == named


def test_statuses_are_those_that_are_written() -> None:
    allowed = rules(("reset", "500", "429"))
    assert {status for status in range(100, 600) if allowed.names(status)} == {500, 429}


def test_what_no_condition_names_is_never_tried_again() -> None:
    """What the client did, what lbproc itself lacks, and what ends after the response has begun."""
    blameless = set(Fault) - rules().faults
    assert blameless >= CONNECT_FAULTS  # redispatched, which needs no permission
    assert blameless >= {Fault.CLIENT_GONE, Fault.REQUEST_MALFORMED, Fault.OUT_OF_SOCKETS, Fault.NO_BACKEND}
    assert Fault.RESPONSE_STALLED in blameless


# When it is safe --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Fault.BACKEND_LOST, 503])
@pytest.mark.parametrize(
    ("idempotent", "sent", "seen", "at_hand", "repeated"),
    list(product((True, False), (True, False), (True, False), (True, False), (0, 1, 2))),
)
def test_decision_table(
    outcome: Fault | int, *, idempotent: bool, sent: bool, seen: bool, at_hand: bool, repeated: int
) -> None:
    decided = may_repeat(
        rules(attempts=2),
        outcome,
        repeated=repeated,
        is_idempotent=idempotent,
        is_sent=sent,
        is_seen=seen,
        is_at_hand=at_hand,
    )
    reasons_against = (repeated == 2, sent and not idempotent, seen, not at_hand)
    assert decided is not any(reasons_against)


def test_an_outcome_that_is_not_named_is_not_tried_again() -> None:
    assert not may_repeat(
        rules(("reset",)),
        503,
        repeated=0,
        is_idempotent=True,
        is_sent=True,
        is_seen=False,
        is_at_hand=True,
    )


# The budget -------------------------------------------------------------------------------------------------


def test_a_word_of_zero_is_a_full_bucket_of_ten_retries() -> None:
    word, taken = 0, 0
    while has_credit(word):
        word, taken = withdrawn(word), taken + 1
    assert taken == 10
    assert credit(word) == 0


def test_what_flows_over_the_brim_is_gone() -> None:
    full = 5_000_000
    assert credit(full) == BUCKET
    assert credit(withdrawn(full)) == BUCKET - RETRY


def test_a_part_of_a_retry_is_none() -> None:
    word = 0
    for _ in range(10):
        word = withdrawn(word)
    for _ in range(4):
        word = (word + rules().deposit) % 2**64
        assert not has_credit(word)
    assert has_credit((word + rules().deposit) % 2**64)


@pytest.mark.parametrize(
    ("budget", "deposit"), [(0.001, 1), (0.2, 200), (0.0625, 62), (1.0, 1000), (0.9999, 1000)]
)
def test_a_request_deposits_its_share(budget: float, deposit: int) -> None:
    assert rules(budget=budget).deposit == deposit


@given(steps=st.lists(st.one_of(st.integers(0, 4000), st.none()), max_size=60))
def test_the_word_is_exactly_a_bucket_that_never_holds_more_than_its_size(steps: list[int | None]) -> None:
    """A number: it is put into. None: a retry is taken, if there is one."""
    word, level = 0, BUCKET
    for step in steps:
        if step is not None:
            word, level = (word + step) % 2**64, min(BUCKET, level + step)
        elif has_credit(word):
            assert level >= RETRY
            word, level = withdrawn(word), level - RETRY
        else:
            assert level < RETRY
        assert credit(word) == level


class Word:
    """A word of the table that several workers change."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> None:
        self.value = (self.value + amount) % 2**64

    def swap(self, expected: int, desired: int) -> bool:
        if self.value != expected:
            return False
        self.value = desired
        return True


class Worker:
    """Takes requests whose tries all fail. One step is one access to the word, as the table does it."""

    def __init__(self, word: Word, allowed: RetryRules) -> None:
        self._word = word
        self._rules = allowed
        self._read: int | None = None
        self._wants = 0

    def step(self) -> str:
        """Does the next step; says what it was."""
        if not self._wants:
            self._word.add(self._rules.deposit)
            self._wants = self._rules.attempts
            return "request"
        if self._read is None:
            self._read = self._word.value
            if not has_credit(self._read):
                self._read, self._wants = None, 0
                return "denied"
            return "look"
        read, self._read = self._read, None
        if not self._word.swap(read, withdrawn(read)):
            return "look"
        self._wants -= 1
        return "retry"


@given(
    budget=st.sampled_from([0.001, 0.1, 0.2, 0.5, 1.0]),
    attempts=st.integers(1, 10),
    schedule=st.lists(st.integers(0, 3), min_size=1, max_size=400),
)
def test_over_any_stretch_retries_are_at_most_ten_and_the_share_of_the_requests(
    budget: float, attempts: int, schedule: list[int]
) -> None:
    """Four workers, one access to the shared word at a time, in any order."""
    word, allowed = Word(), rules(attempts=attempts, budget=budget)
    workers = [Worker(word, allowed) for _ in range(4)]
    share = Fraction(allowed.deposit, RETRY)
    surplus = most_needed = Fraction(0)
    for number in schedule:
        event = workers[number].step()
        # The largest sum of (retries - share * requests) over any stretch that ends here (Kadane).
        surplus = max(Fraction(0), surplus) + (event == "retry") - (share if event == "request" else 0)
        most_needed = max(most_needed, surplus)
    assert most_needed <= 10


@given(schedule=st.lists(st.integers(0, 3), min_size=1, max_size=300))
def test_a_retry_is_denied_only_when_there_is_none(schedule: list[int]) -> None:
    word, allowed = Word(), rules(attempts=2, budget=0.3)
    workers = [Worker(word, allowed) for _ in range(4)]
    for number in schedule:
        before = credit(word.value)
        if workers[number].step() == "denied":
            assert before < RETRY
