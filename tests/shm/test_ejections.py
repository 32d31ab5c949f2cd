"""The words of passive checks: nothing is counted twice or lost, whoever dies, however many change them."""

from __future__ import annotations

import os

import pytest

from lbproc.core.outlier import OutlierRules
from lbproc.shm.ejections import CLAIM_PATIENCE, Ejections, Past, is_ejected
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.types import Row
from tests.shm.test_atomics_processes import in_children

ROWS = [Row(number) for number in range(4)]
NOW = 1_000_000_000_000


def epoch(table: Table) -> int:
    return table.words.load(table.layout.in_header("status_epoch"))


def word(table: Table, row: Row, field: str) -> int:
    return table.words.load(table.layout.in_row(row, field))


def eject(table: Table, row: Row, until: int, number: int = 1) -> None:
    ejections = Ejections(table)
    assert ejections.confirm(row, ejections.claim(row, NOW), number, until)


def test_failures_add_up_over_all_views_until_a_success(table: Table) -> None:
    one, other = Ejections(table), Ejections(table)
    assert [one.failed(Row(1)), other.failed(Row(1)), one.failed(Row(2)), one.failed(Row(1))] == [1, 2, 1, 3]
    other.succeeded(Row(1))
    assert one.failed(Row(1)) == 1
    assert one.failed(Row(2)) == 2


def test_a_success_without_failures_writes_nothing(table: Table) -> None:
    before = bytes(table.cells)
    Ejections(table).succeeded(Row(0))
    assert bytes(table.cells) == before


def test_a_claim_is_no_ejection_and_tells_nobody(table: Table) -> None:
    ejections, before = Ejections(table), epoch(table)
    claim = ejections.claim(Row(0), NOW)
    assert claim
    assert ejections.until(Row(0)) == 0
    assert not is_ejected(word(table, Row(0), "ejected"))
    assert ejections.count(ROWS, NOW) == 1
    ejections.withdraw(Row(0), claim)
    assert ejections.count(ROWS, NOW) == 0
    assert epoch(table) == before


def test_of_two_who_claim_one_gets_it(table: Table) -> None:
    one, other = Ejections(table), Ejections(table)
    assert one.claim(Row(0), NOW)
    assert not other.claim(Row(0), NOW + 5)


def test_an_ejection_is_announced_and_begins_the_count_anew(table: Table) -> None:
    ejections, before = Ejections(table), epoch(table)
    ejections.failed(Row(0))
    eject(table, Row(0), NOW + 10, number=3)
    assert ejections.until(Row(0)) == NOW + 10
    assert is_ejected(word(table, Row(0), "ejected"))
    assert ejections.past(Row(0)).ejections == 3
    assert word(table, Row(0), "errors") == 0
    assert epoch(table) == before + 1
    assert not ejections.claim(Row(0), NOW + 2 * CLAIM_PATIENCE)


def test_an_ejection_ends_once_and_starts_slowly_from_its_end(table: Table) -> None:
    eject(table, Row(0), NOW + 10)
    one, other, before = Ejections(table), Ejections(table), epoch(table)
    assert one.give_back(Row(0), NOW + 10, NOW + 10)
    assert not other.give_back(Row(0), NOW + 10, NOW + 10)
    assert one.until(Row(0)) == 0
    assert one.past(Row(0)) == Past(1, NOW + 10)
    assert word(table, Row(0), "started_at") == NOW + 10
    assert epoch(table) == before + 1


def test_a_slow_start_that_began_later_is_kept(table: Table) -> None:
    eject(table, Row(0), NOW + 10)
    table.words.store(table.layout.in_row(Row(0), "started_at"), NOW + 11)
    assert Ejections(table).give_back(Row(0), NOW + 10, NOW + 10)
    assert word(table, Row(0), "started_at") == NOW + 11


def test_forgiving_leaves_an_ejection_that_came_meanwhile(table: Table) -> None:
    eject(table, Row(0), NOW + 10, number=2)
    ejections = Ejections(table)
    ejections.forgive(Row(0), 1)
    assert ejections.past(Row(0)).ejections == 2
    ejections.forgive(Row(0), 2)
    assert ejections.past(Row(0)).ejections == 0


def test_claim_of_a_dead_worker_is_taken_away_and_cannot_be_confirmed_any_more(table: Table) -> None:
    stopped, other = Ejections(table), Ejections(table)
    claim = stopped.claim(Row(0), NOW)
    later = (NOW | 1) + CLAIM_PATIENCE
    assert other.count(ROWS, later - 1) == 1
    assert other.count(ROWS, later) == 0
    assert not stopped.confirm(Row(0), claim, 1, NOW + 10)
    assert stopped.until(Row(0)) == 0


def test_whoever_ejects_passes_over_the_claim_of_a_dead_worker(table: Table) -> None:
    Ejections(table).claim(Row(0), NOW)
    ejections = Ejections(table)
    assert not ejections.claim(Row(0), NOW + CLAIM_PATIENCE - 1)
    assert ejections.claim(Row(0), (NOW | 1) + CLAIM_PATIENCE)


@pytest.mark.slow
def test_processes_that_eject_at_once_never_eject_too_many() -> None:
    """Eight processes fail six backends without end: with nobody coming back, ejections only grow."""
    table = Table.create(Capacities(columns=12, backends=8, pools=2, keys=4, ledger=4, membership_bytes=64))
    rows = [Row(number) for number in range(6)]
    rules = OutlierRules(consecutive_errors=3, max_ejected=0.5)
    confirmed = table.layout.in_row(Row(7), "errors")

    def work(index: int) -> None:
        ejections = Ejections(table)
        for turn in range(15_000):
            row = rows[(turn + index) % 6]
            if ejections.until(row) or not rules.is_due(ejections.failed(row)):
                continue
            claim = ejections.claim(row, NOW)
            if not claim:
                continue
            if ejections.count(rows, NOW) > rules.most_ejected(6):
                ejections.withdraw(row, claim)
            elif ejections.confirm(row, claim, 1, NOW + 10):
                table.words.fetch_add(confirmed, 1)

    in_children(8, work)
    ejections = Ejections(table)
    assert sum(ejections.until(row) != 0 for row in rows) == 3
    assert table.words.load(confirmed) == 3
    assert not any(word(table, row, "ejected") & 1 for row in rows)
    table.close()


@pytest.mark.slow
def test_processes_that_eject_and_give_back_agree_on_who_did_it() -> None:
    """Every ejection is confirmed once and ended once, and the epoch tells of each of both."""
    table = Table.create(Capacities(columns=12, backends=4, pools=2, keys=4, ledger=4, membership_bytes=64))
    ejected, returned = table.layout.in_row(Row(2), "errors"), table.layout.in_row(Row(3), "errors")

    def work(index: int) -> None:
        ejections = Ejections(table)
        for turn in range(15_000):
            until = ejections.until(Row(0))
            if until and ejections.give_back(Row(0), until, until):
                table.words.fetch_add(returned, 1)
            claim = ejections.claim(Row(0), NOW + 2 * (os.getpid() + turn))
            if claim and ejections.confirm(Row(0), claim, 1, NOW + 2 * turn + 2):
                table.words.fetch_add(ejected, 1)

    in_children(8, work)
    left = 1 if Ejections(table).until(Row(0)) else 0
    began, ended = table.words.load(ejected), table.words.load(returned)
    assert began == ended + left
    assert epoch(table) == began + ended
    assert began > 100
    table.close()


@pytest.mark.slow
def test_a_run_of_failures_seen_by_many_processes_is_one_run() -> None:
    table = Table.create(Capacities(columns=12, backends=4, pools=2, keys=4, ledger=4, membership_bytes=64))
    crossings = table.layout.in_row(Row(3), "errors")

    def work(index: int) -> None:
        ejections = Ejections(table)
        for _ in range(5000):
            if ejections.failed(Row(0)) == 20_000:
                table.words.fetch_add(crossings, 1)

    in_children(8, work)
    assert table.words.load(crossings) == 1
    assert word(table, Row(0), "errors") == 40_000
    table.close()
