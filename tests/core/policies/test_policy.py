"""The context of a pick, and what a candidate is."""

from __future__ import annotations

from random import Random

from lbproc.core.policies.policy import Candidate, PickContext
from tests.core.policies.examples import tickets


def test_a_request_draws_one_ticket_and_then_random_numbers() -> None:
    made, ticket = PickContext(Random(1)), tickets()
    made.begin(b"", ticket)
    drawn = [made.draw() for _ in range(3)]
    assert drawn == [0, *(random_bits(1, 2))]
    assert ticket() == 1


def test_a_request_that_picks_again_takes_no_ticket() -> None:
    made, ticket = PickContext(Random(1)), tickets()
    made.begin(b"", ticket, again=True)
    made.draw()
    assert ticket() == 0


def test_each_request_begins_anew() -> None:
    made, ticket = PickContext(Random(1)), tickets()
    for number in range(5):
        made.begin(b"%d" % number, ticket)
        assert made.key == b"%d" % number
        assert made.draw() == number


def test_a_context_that_was_not_begun_draws_at_random() -> None:
    assert PickContext(Random(1)).draw() == random_bits(1, 1)[0]


def test_candidates_are_told_apart_by_identity() -> None:
    assert Candidate(0, "a", b"a") != Candidate(0, "a", b"a")


def random_bits(seed: int, amount: int) -> list[int]:
    random = Random(seed)
    return [random.getrandbits(32) for _ in range(amount)]
