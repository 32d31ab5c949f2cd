from __future__ import annotations

from bench.paced import PacedTotals
from bench.process import CpuTime
from bench.report import (
    DIRECT,
    HalfSample,
    MemorySample,
    Results,
    Sample,
    half_rate,
    render_report,
)
from bench.rows import ROWS
from bench.wrk import Totals

ROW = ROWS[0]


def sample(cpu_us: float, failures: int = 0, seconds: float = 2.0) -> Sample:
    totals = Totals(1000, 1000, seconds, failures, 1500, 2000, 2500)
    return Sample(totals, CpuTime(cpu_us * 0.0007, cpu_us * 0.0003))


def half(p50_us: float) -> HalfSample:
    totals = PacedTotals(250.0, 500, 0, p50_us, p50_us + 100, p50_us + 200, 20.0)
    return HalfSample(totals, CpuTime(0.02, 0.01))


def results() -> Results:
    return Results(
        load={
            ROW.name: {
                "lbproc": [sample(60.0), sample(80.0), sample(70.0, 2)],
                "haproxy": [sample(40.0), sample(30.0)],
                "caddy": [sample(140.0)],
            }
        }
    )


def test_a_cell_is_the_median_of_its_rounds_and_has_a_spread() -> None:
    report = render_report([ROW], results(), {"when": "now"})
    assert "- when: now" in report
    assert "| lbproc | 70.0 | 60.0-80.0 | 49.0 | 21.0 | 500 | 1.50 | 2.00 | 2.50 | 3000 | 2 |" in report
    assert "| HAProxy | 35.0 | 30.0-40.0 | 24.5 | 10.5 | 500 | 1.50 | 2.00 | 2.50 | 2000 | 0 |" in report


def test_lbproc_is_put_in_relation_to_its_peers_and_to_what_is_wanted() -> None:
    report = render_report([ROW], results(), {})
    assert "| work | lbproc | HAProxy | Caddy | lbproc / HAProxy | lbproc / Caddy |" in report
    assert f"| {ROW.title} | 70.0 | 35.0 | 140.0 | 2.00 (≤ 1.8) | 0.50 (≤ 0.4) |" in report


def test_without_peers_there_is_no_ratio() -> None:
    alone = Results(load={ROW.name: {"lbproc": [sample(20.0)]}})
    report = render_report([ROW], alone, {})
    assert "| work | lbproc |\n" in report
    assert "half load" not in report
    assert "Memory" not in report


def test_half_load_is_half_of_the_slowest() -> None:
    samples = {"lbproc": [sample(20.0, seconds=0.5)], "caddy": [sample(20.0), sample(20.0), sample(20.0)]}
    assert half_rate(samples) == 250.0
    assert half_rate({"lbproc": [sample(20.0, seconds=0.123)]}) == 4100.0


def test_added_latency_is_the_difference_to_the_backend_alone() -> None:
    measured = results()
    measured.half[ROW.name] = {DIRECT: [half(100.0), half(120.0)], "lbproc": [half(300.0), half(350.0)]}
    report = render_report([ROW], measured, {})
    assert f"| {ROW.title} | 250 | direct | 0.11 | 0.21 | 0.31 |  |  |  |  | 0.02 | 0 |" in report
    assert "|  | 250 | lbproc | 0.33 | 0.42 | 0.53 | 0.21 | 0.21 | 0.21 | 60 | 0.02 | 0 |" in report


def test_memory_is_what_a_connection_adds() -> None:
    measured = results()
    measured.memory = {"lbproc": [MemorySample(2**20 * 50, 2**20 * 50 + 10_000 * 4096, 10_000)]}
    report = render_report([ROW], measured, {})
    assert "10 000 keep-alive connections" in report
    assert "| lbproc | 4.00 (≤ 8) | 4.00-4.00 | 50 | 89 |" in report
