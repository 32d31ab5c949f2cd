"""Who keeps a connection: the decision alone, and with siblings that decide at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.core.sharing import MAX_WAITING, are_short, choose_slot, may_keep
from lbproc.types import Slot, SlotLoad

OWN = Slot(0)


def loads_of(*held: int, waiting: int = 0) -> list[SlotLoad]:
    """Loads by slot; of the siblings' connections so many wait."""
    return [
        SlotLoad(Slot(slot), count - (waiting if slot else 0), waiting if slot else 0)
        for slot, count in enumerate(held)
    ]


@pytest.mark.parametrize(
    "held",
    [
        pytest.param((0, 0, 0, 0), id="the first"),
        pytest.param((1, 0, 0, 0), id="two short ones on one worker"),
        pytest.param((16, 16, 16, 16), id="even"),
        pytest.param((17, 15, 15, 15), id="a little above"),
        pytest.param((2600, 2500, 2490, 2470), id="as a hash spreads many"),
        pytest.param((1000,), id="no sibling"),
    ],
)
def test_a_worker_near_its_share_keeps_what_it_accepts(held: tuple[int, ...]) -> None:
    assert may_keep(held[0], sum(held), len(held))
    assert choose_slot(OWN, loads_of(*held)) is None


@pytest.mark.parametrize(
    ("held", "chosen"),
    [
        ((2, 0, 0, 0), 1),
        ((19, 15, 14, 15), 2),
        ((2900, 2480, 2450, 2470), 2),
        ((64, 0), 1),
    ],
)
def test_one_that_holds_clearly_more_gives_to_the_one_with_fewest(held: tuple[int, ...], chosen: int) -> None:
    assert not may_keep(held[0], sum(held), len(held))
    assert choose_slot(OWN, loads_of(*held)) == chosen


def test_what_waits_in_an_inbox_counts_as_held() -> None:
    assert choose_slot(OWN, [SlotLoad(OWN, 9, 0), SlotLoad(Slot(1), 0, 6), SlotLoad(Slot(2), 3, 0)]) == 2
    assert choose_slot(OWN, [SlotLoad(OWN, 1, 8), SlotLoad(Slot(1), 2, 0), SlotLoad(Slot(2), 3, 0)]) == 1


def test_a_sibling_that_leaves_its_inbox_full_gets_no_more() -> None:
    stuck = SlotLoad(Slot(1), 0, MAX_WAITING)
    assert choose_slot(OWN, [SlotLoad(OWN, 200, 0), stuck]) is None
    assert choose_slot(OWN, [SlotLoad(OWN, 200, 0), stuck, SlotLoad(Slot(2), 150, 0)]) == 2
    assert choose_slot(OWN, [SlotLoad(OWN, 200, 0), stuck, SlotLoad(Slot(2), 200, 0)]) is None


def test_of_equal_siblings_different_workers_choose_different_ones() -> None:
    for own, chosen in ((0, 1), (1, 2), (3, 0)):
        loads = [SlotLoad(Slot(slot), 20 if slot in {own, 3} else 5, 0) for slot in range(4)]
        assert choose_slot(Slot(own), loads) == chosen


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 70)), min_size=1, max_size=12), st.data())
def test_a_choice_always_makes_it_more_even(cells: list[tuple[int, int]], data: st.DataObject) -> None:
    loads = [SlotLoad(Slot(slot), *cell) for slot, cell in enumerate(cells)]
    held = [load.open + load.waiting for load in loads]
    own = Slot(data.draw(st.integers(0, len(loads) - 1)))
    chosen = choose_slot(own, loads)
    if chosen is None:
        others = [
            load.open + load.waiting for load in loads if load.slot != own and load.waiting < MAX_WAITING
        ]
        assert may_keep(held[own], sum(held), len(loads)) or held[own] <= min(others, default=held[own])
    else:
        assert chosen != own
        assert loads[chosen].waiting < MAX_WAITING
        assert held[chosen] < held[own]


class Workers:
    """Workers that accept, give and take at the same time, one step of one of them after the other.

    Every read of a sibling's cell is a step of its own, and so is everything between a decision and its
    effect; in between the others go on.
    """

    def __init__(self, queued: list[int], random: Random) -> None:
        self.random = random
        self.slots = range(len(queued))
        self.queued = list(queued)
        self.open = [0] * len(queued)
        self.waiting = [0] * len(queued)
        self.inboxes = [0] * len(queued)
        self.busy: set[int] = set()
        self.given = 0

    def run(self) -> None:
        """Runs until everything that was queued is held by somebody."""
        workers = [self.work(slot) for slot in self.slots]
        while any(self.queued) or any(self.inboxes) or self.busy:
            # Some get no processor for a long time, others all of it.
            slot = self.random.choice(self.slots)
            for _ in range(self.random.choice((1, 3, 30, 300))):
                next(workers[slot])

    def work(self, slot: int) -> Iterator[None]:
        while True:
            if self.inboxes[slot] and (not self.queued[slot] or self.random.random() < 0.5):
                self.busy.add(slot)
                yield from self.take(slot)
            elif self.queued[slot]:
                self.busy.add(slot)
                yield from self.accept(slot)
            self.busy.discard(slot)
            yield

    def take(self, slot: int) -> Iterator[None]:
        self.inboxes[slot] -= 1
        yield
        self.hold(slot)
        yield
        self.waiting[slot] -= 1

    def accept(self, slot: int) -> Iterator[None]:
        self.queued[slot] -= 1
        loads: list[SlotLoad] = []
        yield from self.read(loads)
        total = sum(load.open + load.waiting for load in loads)
        if may_keep(loads[slot].open + loads[slot].waiting, total, len(loads)):
            self.hold(slot)
            return
        yield from self.read(loads)
        chosen = choose_slot(Slot(slot), loads)
        yield
        if chosen is None:
            self.hold(slot)
            return
        self.waiting[chosen] += 1
        yield
        self.inboxes[chosen] += 1
        self.given += 1

    def read(self, loads: list[SlotLoad]) -> Iterator[None]:
        opened, waiting = [], []
        for slot in self.slots:
            opened.append(self.open[slot])
            yield
        for slot in self.slots:
            waiting.append(self.waiting[slot])
            yield
        loads[:] = [SlotLoad(Slot(slot), opened[slot], waiting[slot]) for slot in self.slots]

    def hold(self, slot: int) -> None:
        self.open[slot] += 1


def spread(connections: int, workers: int, skew: float, random: Random) -> list[int]:
    """Connections by worker, as a hash may send them; the higher the skew the less evenly."""
    weights = [random.random() ** skew for _ in range(workers)]
    queued = [0] * workers
    for slot in random.choices(range(workers), weights, k=connections):
        queued[slot] += 1
    return queued


@pytest.mark.parametrize("skew", [0.0, 1.0, 5.0, 100.0])
def test_64_connections_on_4_workers_are_shared_within_a_quarter_of_the_mean(skew: float) -> None:
    given_away = 0
    for seed in range(50):
        random = Random(seed)
        workers = Workers(spread(64, 4, skew, random), random)
        workers.run()
        assert sum(workers.open) == 64
        assert workers.waiting == [0] * 4
        assert max(workers.open) <= 20, seed
        given_away += workers.given
    assert given_away > 0


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 300), st.floats(0, 20), st.randoms(use_true_random=False))
def test_nobody_keeps_more_than_its_share_and_some(
    workers: int, connections: int, skew: float, random: Random
) -> None:
    model = Workers(spread(connections, workers, skew, random), random)
    model.run()
    assert sum(model.open) == connections
    share = connections / workers
    # kept by itself, or given by siblings that all chose the one with fewest at the same time
    assert max(model.open) <= max(share * 17 / 16 + 1.5, share + workers)


def test_thousands_of_connections_as_a_hash_spreads_them_are_left_where_they_are() -> None:
    random = Random(1)
    loads = spread(8000, 4, 0.0, random)
    opened = [load - 200 for load in loads]
    for slot in random.choices(range(4), k=800):
        assert may_keep(opened[slot], sum(opened), 4)
        opened[slot] += 1


@pytest.mark.parametrize(
    ("ended", "held", "short"),
    [(0, 0, False), (0, 32, False), (16, 16, False), (640, 32, False), (641, 32, True), (501, 0, True)],
)
def test_connections_that_live_less_than_a_twentieth_of_a_second_are_short(
    ended: int, held: int, short: bool
) -> None:
    assert are_short(ended, held, 1.0) is short


@pytest.mark.parametrize("held", [0, 1, 16])
def test_a_few_hundred_connections_that_ended_say_nothing_of_those_to_come(held: int) -> None:
    assert not are_short(500, held, 1.0)
