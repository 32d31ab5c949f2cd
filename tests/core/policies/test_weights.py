"""Weights of a set of candidates and draws by them."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from lbproc.core.policies.weights import Weights, effective_weights
from tests.core.policies.examples import ChosenRandom, members

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 600


def fractions() -> Iterator[ChosenRandom]:
    """Every draw of a fine grid, so that shares can be counted exactly."""
    random = ChosenRandom()
    for step in range(STEPS):
        random.fraction = step / STEPS
        yield random


def test_all_weights_0_count_as_equal() -> None:
    assert effective_weights(members(0, 0)) == (1, 1)
    assert effective_weights(members(0, 3)) == (0, 3)
    assert effective_weights(()) == ()


def test_equal_and_zero_weights_are_known() -> None:
    assert Weights(members(2, 2)).is_equal
    assert Weights(members(0, 0)).is_equal
    assert not Weights(members(0, 0)).has_zero
    assert not Weights(members(1, 2)).is_equal
    assert Weights(members(1, 0)).has_zero
    assert Weights(()).is_equal


def test_draws_are_exactly_by_weight() -> None:
    weights = Weights(members(1, 0, 2, 3))
    assert Counter(weights.draw(random) for random in fractions()) == {0: 100, 2: 200, 3: 300}


def test_equal_draws_are_exactly_equal() -> None:
    weights = Weights(members(7, 7, 7))
    assert Counter(weights.draw(random) for random in fractions()) == {0: 200, 1: 200, 2: 200}


def test_the_other_draw_is_exactly_by_the_weights_of_the_others() -> None:
    weights = Weights(members(1, 0, 2, 3))
    assert Counter(weights.draw_other(0, random) for random in fractions()) == {2: 240, 3: 360}
    assert Counter(weights.draw_other(2, random) for random in fractions()) == {0: 150, 3: 450}
    assert Counter(weights.draw_other(3, random) for random in fractions()) == {0: 200, 2: 400}


def test_the_other_draw_among_equals_is_exactly_equal() -> None:
    weights = Weights(members(7, 7, 7))
    for first, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        drawn = Counter(weights.draw_other(first, random) for random in fractions())
        assert drawn == dict.fromkeys(others, 300)


def test_without_another_one_the_first_is_drawn_again() -> None:
    assert Weights(members(5)).draw_other(0, Random(1)) == 0
    assert Weights(members(0, 5)).draw_other(1, Random(1)) == 1
