"""Preferences over all members, seen through those that are there."""

from __future__ import annotations

from lbproc.core.policies.placement import Placement
from lbproc.core.policies.rendezvous import Rendezvous
from tests.core.policies.examples import members


def test_positions_are_those_among_the_present_candidates() -> None:
    pool = members(1, 2, 3, 4)
    placement, rendezvous = Placement(pool), Rendezvous(pool)
    for present in (pool, pool[1:], (pool[0], pool[3]), pool[2:3], pool):
        placement.look_at(present)
        assert placement.weights.candidates is present
        for slot in range(50):
            expected = [
                present.index(pool[index]) for index in rendezvous.order(slot) if pool[index] in present
            ]
            assert list(placement.order(slot)) == expected
            favourite = pool[rendezvous.favourite(slot)]
            assert placement.favourite(slot) == (present.index(favourite) if favourite in present else None)
