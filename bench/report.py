"""The result of a bench run as Markdown and as a plot.

Pure: values in, text out. The figure of a cell is the median of its rounds, and each row names the spread, so
that nobody reads more into a difference than the machine can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.wrk import Row, Totals

REFERENCE = "haproxy"


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy under one row for one round."""

    totals: Totals
    cpu_seconds: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request: user and system, all processes of the proxy."""
        return self.cpu_seconds * 1e6 / self.totals.work


Results = dict[str, dict[str, list[Sample]]]
"""Samples by row name, then by proxy."""


def render_report(rows: Sequence[Row], results: Results, facts: Mapping[str, str]) -> str:
    """The whole report in Markdown."""
    lines = ["# Side by side", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        "",
        "CPU is user and system time of all processes of the proxy, per request. Each figure is a median of",
        "the rounds; the spread is the lowest and the highest. Latency is of a closed loop at full load.",
    ]
    for row in rows:
        lines += ["", f"## {row.title}", "", *_table(results[row.name])]
    return "\n".join(lines) + "\n"


def _table(samples_of: Mapping[str, Sequence[Sample]]) -> list[str]:
    titles = ["proxy", "CPU µs/request", "spread", f"of {REFERENCE}", "requests/s", "p50 ms", "p99 ms"]
    lines = [_line([*titles, "requests", "failed"]), "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    reference = samples_of.get(REFERENCE)
    for proxy, samples in samples_of.items():
        costs = [sample.cpu_us for sample in samples]
        totals = [sample.totals for sample in samples]
        ratio = f"{median(costs) / median([sample.cpu_us for sample in reference]):.2f}" if reference else "-"
        cells = [
            proxy,
            f"{median(costs):.1f}",
            f"{min(costs):.1f}-{max(costs):.1f}",
            ratio,
            f"{median([t.requests / t.seconds for t in totals]):.0f}",
            f"{median([t.p50_us for t in totals]) / 1000:.2f}",
            f"{median([t.p99_us for t in totals]) / 1000:.2f}",
            str(sum(t.requests for t in totals)),
            str(sum(t.failures for t in totals)),
        ]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render_plot(rows: Sequence[Row], results: Results) -> str:
    """CPU per request as an SVG of bars, each row on a scale of its own."""
    bar, gap, left, width = 18, 34, 90, 560
    parts: list[str] = []
    y = 10
    for row in rows:
        costs = {
            proxy: median([sample.cpu_us for sample in samples])
            for proxy, samples in results[row.name].items()
        }
        y += 14
        parts.append(
            f'<text x="{left}" y="{y}" font-weight="bold">{escape(row.title)}, CPU µs/request</text>'
        )
        y += 8
        for proxy, cost in costs.items():
            length = cost / max(costs.values()) * (width - left - 70)
            colour = "#c2410c" if proxy == "lbproc" else "#64748b"
            parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(proxy)}</text>')
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 4}" fill="{colour}"/>'
                f'<text x="{left + length + 6:.1f}" y="{y + 12}">{cost:.1f}</text>'
            )
            y += bar
        y += gap - bar
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" '
    return (
        head + 'font-size="12"><rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )
