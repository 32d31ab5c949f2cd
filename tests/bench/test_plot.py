from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.plot import COLOURS, cpu_chart, latency_chart, memory_chart, nice_step, render_plot
from bench.report import DIRECT, MemorySample, Results
from bench.rows import ROWS
from tests.bench.test_report import ROW, half, results, sample


def full() -> Results:
    measured = results()
    measured.half[ROW.name] = {DIRECT: [half(100.0)], "lbproc": [half(300.0)], "haproxy": [half(90.0)]}
    measured.memory = {"lbproc": [MemorySample(0, 10_000 * 4096, 10_000)]}
    return measured


def test_the_plot_has_a_bar_for_every_proxy_of_every_chart() -> None:
    drawing = ElementTree.fromstring(render_plot([ROW], full(), {"machine": "2 CPUs <fast>"}))
    fills = [element.get("fill") for element in drawing.iter() if element.tag.endswith("rect")]
    in_legend = 1
    assert fills.count(COLOURS["lbproc"]) == in_legend + 3
    assert fills.count(COLOURS["haproxy"]) == in_legend + 2
    assert fills.count(COLOURS["caddy"]) == in_legend + 1
    assert "2 CPUs <fast>" in [element.text for element in drawing.iter()]


def test_cost_is_drawn_as_a_multiple_of_haproxy_with_what_is_wanted() -> None:
    (group,) = cpu_chart([ROW], results()).groups
    lbproc, haproxy, caddy = group.bars
    assert [lbproc.value, haproxy.value, caddy.value] == pytest.approx([2, 1, 4])
    assert list(lbproc.targets) == pytest.approx([1.8, 1.6])
    assert not haproxy.targets
    assert "≤ 0.4 x Caddy" in group.note


def test_without_haproxy_the_first_proxy_is_the_measure() -> None:
    chart = cpu_chart([ROW], Results(load={ROW.name: {"nginx": [sample(20.0)], "caddy": [sample(30.0)]}}))
    assert chart.unit == "x nginx"
    assert [bar.value for bar in chart.groups[0].bars] == [1.0, pytest.approx(1.5)]


def test_a_proxy_that_seems_faster_than_none_has_no_bar_to_the_left() -> None:
    (group,) = latency_chart([ROW], full()).groups
    assert [bar.value for bar in group.bars] == [pytest.approx(0.2), 0.0]
    assert "-0.01 ms" in group.bars[1].label


def test_large_answers_do_not_spoil_the_scale_of_latencies() -> None:
    (large,) = (row for row in ROWS if row.name == "large")
    measured = full()
    measured.half[large.name] = measured.half[ROW.name]
    assert len(latency_chart([ROW, large], measured).groups) == 1


def test_memory_is_drawn_with_what_is_wanted() -> None:
    (group,) = memory_chart(full()).groups
    assert group.bars[0].value == 4.0
    assert group.bars[0].targets == (8.0,)


@pytest.mark.parametrize(
    ("largest", "step"), [(5.9, 1.0), (0.21, 0.05), (26.0, 5.0), (8.0, 1.0), (14000, 2000)]
)
def test_scales_have_round_steps(largest: float, step: float) -> None:
    assert nice_step(largest) == pytest.approx(step)
