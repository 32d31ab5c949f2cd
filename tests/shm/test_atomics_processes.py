"""Words that many processes change at once: nothing is lost."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from lbproc.shm._atomics import Words


def in_children(number: int, work: Callable[[int], None]) -> None:
    """Runs ``work`` in so many processes at once and waits for them."""
    gate_reader, gate_writer = os.pipe()
    children = []
    for index in range(number):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(gate_writer)
                os.read(gate_reader, 1)
                work(index)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(gate_reader)
    os.close(gate_writer)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * number


@pytest.mark.slow
def test_eight_processes_lose_no_addition_and_no_swap() -> None:
    words = Words(mmap.mmap(-1, 4096))
    rounds = 20_000

    def work(index: int) -> None:
        for _ in range(rounds):
            words.fetch_add(0, 1)
            words.fetch_add(1, -1)
            while not words.compare_exchange(2, (seen := words.load(2)), seen + index):
                pass

    in_children(8, work)
    assert words.load(0) == 8 * rounds
    assert words.load(1) == 2**64 - 8 * rounds
    assert words.load(2) == rounds * sum(range(8))


@pytest.mark.slow
def test_eight_processes_spread_exactly_and_give_everything_back() -> None:
    """All together fill three words to their cap, never beyond, then release half of what they have."""
    stride, cap = 15_100, 5000
    words = Words(mmap.mmap(-1, (10 * stride + 8) * 8), (10, 8, stride, 0, 1, 16, 3 * cap))
    most = Words(mmap.mmap(-1, 4096))

    def work(index: int) -> None:
        column, entry = index + 1, 0
        while True:
            loads = words.counts((0, 1, 2))
            least = min(loads)
            most.store(index, max(most.load(index), *loads))
            if least == cap:
                break
            if words.take(column, entry, loads.index(least), 1, least):
                entry += 1
        for held in range(0, entry, 2):
            words.release(column, column, held)

    in_children(8, work)
    assert max(most.load(index) for index in range(8)) == cap
    ledgers = [
        words.load(8 + column * stride + 16 + entry) for column in range(1, 9) for entry in range(3 * cap)
    ]
    for word in range(3):
        assert words.counts((word,)) == [sum(1 for held in ledgers if held and held >> 24 == word)]
    assert sum(1 for held in ledgers if held) >= 3 * cap // 2
