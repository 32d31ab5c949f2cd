from __future__ import annotations

from xml.etree import ElementTree

from bench.report import Results, Sample, render_plot, render_report
from bench.wrk import ROWS, Totals

ROW = ROWS[0]


def sample(cpu_us: float, failures: int = 0) -> Sample:
    return Sample(Totals(1000, 1000, 2.0, failures, 1500, 2500), cpu_us / 1000)


RESULTS: Results = {
    ROW.name: {
        "lbproc": [sample(60.0), sample(80.0), sample(70.0, 2)],
        "haproxy": [sample(40.0), sample(30.0)],
    }
}


def test_a_cell_is_the_median_of_its_rounds_and_a_ratio_to_haproxy() -> None:
    report = render_report([ROW], RESULTS, {"when": "now"})
    assert "- when: now" in report
    assert "| lbproc | 70.0 | 60.0-80.0 | 2.00 | 500 | 1.50 | 2.50 | 3000 | 2 |" in report
    assert "| haproxy | 35.0 | 30.0-40.0 | 1.00 | 500 | 1.50 | 2.50 | 2000 | 0 |" in report


def test_without_haproxy_there_is_no_ratio() -> None:
    report = render_report([ROW], {ROW.name: {"nginx": [sample(20.0)]}}, {})
    assert "| nginx | 20.0 | 20.0-20.0 | - |" in report


def test_the_plot_has_a_bar_for_every_proxy() -> None:
    drawing = ElementTree.fromstring(render_plot([ROW], RESULTS))
    bars = [element for element in drawing.iter() if element.tag.endswith("rect")]
    assert len(bars) == 1 + 2
