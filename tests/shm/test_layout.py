from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.shm.layout import LINES, PAGE_WORDS, SECTIONS, WORD_BYTES, Capacities, Layout, Placed
from lbproc.types import Column, Row, Slot

CAPACITIES = st.builds(
    Capacities,
    columns=st.integers(3, 256),
    backends=st.integers(1, 10_000),
    pools=st.integers(1, 10_000),
    keys=st.integers(0, 20).map(lambda bits: 1 << bits),
    ledger=st.integers(1, 1 << 22),
    membership_bytes=st.integers(1, 1 << 24),
)


def sections(layout: Layout) -> list[Placed]:
    shared = [layout.header, layout.rows, layout.pools, layout.columns, layout.keys, layout.membership]
    return [*shared, layout.slots]


@given(CAPACITIES)
def test_nothing_overlaps_and_everything_is_inside(capacities: Capacities) -> None:
    layout = Layout(capacities)
    end = 0
    for placed in sections(layout):
        assert placed.base >= end
        assert placed.base % PAGE_WORDS == 0
        end = placed.end
        within = 0
        for field in placed.section.fields:
            offset = placed.offsets[field.name]
            assert offset >= within
            assert placed.at(placed.blocks - 1, field.name) % field.align == 0
            within = offset + field.length(capacities)
        assert within <= placed.stride
    assert end * WORD_BYTES <= layout.size_bytes


@given(CAPACITIES)
def test_the_geometry_names_the_words_of_a_column(capacities: Capacities) -> None:
    layout = Layout(capacities)
    columns, base, stride, intent, notes, ledger, entries = layout.geometry()
    assert (columns, entries) == (capacities.columns, capacities.ledger)
    last = Column(columns - 1)
    for offset, field in ((intent, "intent"), (notes, "notes"), (ledger, "ledger")):
        assert base + last * stride + offset == layout.in_column(last, field)
    assert notes + columns <= ledger


def test_words_that_many_change_share_no_cache_lines() -> None:
    layout = Layout(Capacities())
    for placed, field in ((layout.rows, "in_flight"), (layout.pools, "ticket"), (layout.columns, "intent")):
        others = [
            offset for name, offset in placed.offsets.items() if name not in {field, "claim", "claimed_from"}
        ]
        assert placed.offsets[field] % LINES == 0
        assert min(others) - placed.offsets[field] >= LINES
        assert placed.stride % LINES == 0
    assert layout.slots.stride == LINES
    assert layout.listeners.offsets["identity"] >= LINES


def test_shorthands_lead_to_the_same_places() -> None:
    layout = Layout(Capacities())
    assert layout.in_header("generation") == layout.header.at(0, "generation")
    assert layout.in_column(Column(2), "pid") == layout.columns.at(2, "pid")
    assert layout.in_slot(Slot(3), "waiting") == layout.slots.at(3, "waiting")
    rows = layout.columns.stride - layout.columns.offsets["backend_counters"]
    assert layout.backend_counters * layout.capacities.backends <= rows


def test_a_key_is_one_cache_line() -> None:
    assert Layout(Capacities()).keys.stride * WORD_BYTES == 64


def test_flows_are_as_keys_are_so_that_one_program_serves_both() -> None:
    layout = Layout(Capacities())
    assert layout.flows.stride == layout.keys.stride
    for of_keys, of_flows in (("arrival", "place"), ("key", "key"), ("begins_at", "begins_at")):
        assert layout.keys.offsets[of_keys] == layout.flows.offsets[of_flows]
    assert layout.keys.offsets["concurrency"] == layout.flows.offsets["unused"]


def test_names_are_unique() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    for section in SECTIONS:
        assert len({field.name for field in section.fields}) == len(section.fields)


def test_the_default_is_sparse_and_not_too_large() -> None:
    assert Layout(Capacities()).size_bytes < 1 << 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", 2),
        ("columns", 257),
        ("backends", 0),
        ("pools", -1),
        ("keys", 0),
        ("flows", 1 << 31),
        ("listeners", 0),
        ("ledger", (1 << 22) + 1),
        ("membership_bytes", 1 << 32),
    ],
)
def test_a_capacity_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"the table's {name} must be"):
        replace(Capacities(), **{name: value})


def test_keys_and_flows_are_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="keys must be a power of two"):
        Capacities(keys=1000)
    with pytest.raises(ValueError, match="flows must be a power of two"):
        Capacities(flows=1000)


def test_a_block_that_does_not_exist_has_no_place() -> None:
    layout = Layout(Capacities(backends=4))
    assert layout.in_row(Row(3), "health") > layout.in_row(Row(0), "health")
    for row in (-1, 4):
        with pytest.raises(IndexError, match="rows has 4 blocks"):
            layout.in_row(Row(row), "health")
