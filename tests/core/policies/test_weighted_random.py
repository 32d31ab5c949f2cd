"""Independent draws by weight."""

from __future__ import annotations

from collections import Counter

from lbproc.core.policies.policy import PickContext
from tests.core.policies.examples import ChosenRandom, members, rebuilt


def test_draws_are_by_the_weights_of_those_that_are_there_whatever_their_loads() -> None:
    pool = members(1, 2, 0, 3)
    policy = rebuilt("random", pool)
    random = ChosenRandom()
    made = PickContext(random)
    for candidates, expected in ((pool, {0: 100, 1: 200, 3: 300}), ((pool[0], pool[3]), {0: 150, 1: 450})):
        picked: Counter[int] = Counter()
        for step in range(600):
            random.fraction = step / 600
            picked[policy.pick(candidates, [9, 0, 0, 5][: len(candidates)], made)] += 1
        assert picked == expected
