"""The result of a bench run as one SVG, drawn to be looked at. Pure: values in, text out.

Three charts below each other, as far as they were measured: CPU time per request as a multiple of HAProxy's,
latency that a proxy adds at half load, memory per idle connection. Bars of one chart share a scale; a dark
stroke across lbproc's bar is what we want at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bench.report import DIRECT, MEMORY_TARGET, TITLES, mid, proxies_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report import HalfSample, Results
    from bench.rows import Row

WIDTH = 920
LEFT = 300
RIGHT = 135
BAR = 15
GAP = 12
COLOURS = {"lbproc": "#d9480f", "haproxy": "#1c5d8f", "nginx": "#5c9ecb", "caddy": "#a9cbe0"}
INK, FAINT, RULE = "#1f2933", "#66727f", "#e3e8ed"


@dataclass(frozen=True, slots=True)
class Bar:
    """One proxy: how long, what it says, and where the strokes of its targets are."""

    proxy: str
    value: float
    label: str
    targets: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Bars of one row, under one another."""

    title: str
    note: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """Groups on one scale."""

    title: str
    unit: str
    groups: Sequence[Group]


def render_plot(rows: Sequence[Row], results: Results, facts: Mapping[str, str]) -> str:
    """All charts of a run."""
    charts = [cpu_chart(rows, results)]
    if any(not row.body_bytes for row in rows if row.name in results.half):
        charts.append(latency_chart(rows, results))
    if results.memory:
        charts.append(memory_chart(results))
    parts: list[str] = []
    y = _draw_head(parts, proxies_of(results), facts)
    for chart in charts:
        y = _draw_chart(parts, chart, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def cpu_chart(rows: Sequence[Row], results: Results) -> Chart:
    """CPU time per request; of HAProxy, or of the first proxy where that took no part."""
    groups = []
    names = proxies_of(results)
    unit = "haproxy" if "haproxy" in names else names[0]
    for row in (row for row in rows if unit in results.load[row.name]):
        costs = {
            proxy: mid(samples, lambda sample: sample.cpu_us)
            for proxy, samples in results.load[row.name].items()
        }
        strokes = [costs[peer] * ratio / costs[unit] for peer, ratio in row.targets.items() if peer in costs]
        bars = [
            Bar(
                proxy,
                cost / costs[unit],
                f"{cost / costs[unit]:.2f} x, {_spaced(cost)} µs",
                strokes if proxy == "lbproc" else (),
            )
            for proxy, cost in costs.items()
        ]
        wanted = ", ".join(f"≤ {ratio:.1f} x {TITLES[peer]}" for peer, ratio in row.targets.items())
        groups.append(Group(row.title, f"wanted: {wanted}" if wanted else "", bars))
    return Chart("CPU time per request, user and system", f"x {TITLES[unit]}", groups)


def latency_chart(rows: Sequence[Row], results: Results) -> Chart:
    """What a proxy adds to the median and to the 99th percentile; the bar is the median.

    Without large answers, which would need a scale of their own; the report has them.
    """
    groups = []
    for row in (row for row in rows if row.name in results.half and not row.body_bytes):
        samples_of = results.half[row.name]
        (direct50, direct99), bars = _percentiles(samples_of[DIRECT]), []
        for proxy, samples in samples_of.items():
            if proxy != DIRECT:
                p50, p99 = _percentiles(samples)
                label = f"{p50 - direct50:.2f} ms, p99 {p99 - direct99:.2f}"
                bars.append(Bar(proxy, max(p50 - direct50, 0.0), label))
        groups.append(Group(row.title, f"at {_spaced(samples_of[DIRECT][0].totals.rate)} requests/s", bars))
    return Chart("Added latency at half load, median", "ms", groups)


def _percentiles(samples: Sequence[HalfSample]) -> tuple[float, float]:
    return (
        mid(samples, lambda sample: sample.totals.p50_us) / 1000,
        mid(samples, lambda sample: sample.totals.p99_us) / 1000,
    )


def memory_chart(results: Results) -> Chart:
    """Memory per idle connection."""
    bars = []
    for proxy, samples in results.memory.items():
        kib = mid(samples, lambda sample: sample.per_connection) / 1024
        strokes = (MEMORY_TARGET / 1024,) if proxy == "lbproc" else ()
        bars.append(Bar(proxy, max(kib, 0.0), f"{kib:.1f} KiB", strokes))
    note = f"wanted: ≤ {MEMORY_TARGET / 1024:.0f} KiB"
    return Chart("Memory per idle connection", "KiB", [Group("10 000 keep-alive connections", note, bars)])


def _draw_head(parts: list[str], proxies: Sequence[str], facts: Mapping[str, str]) -> int:
    parts.append(_text(24, 34, "lbproc side by side", size=19, weight="bold"))
    y = 54
    for name in ("machine", "programs", "when"):
        if name in facts:
            parts.append(_text(24, y, facts[name], size=11, colour=FAINT))
            y += 15
    x = 24
    for proxy in proxies:
        parts.append(_rect(x, y + 2, 12, 12, COLOURS[proxy]))
        parts.append(_text(x + 17, y + 12, TITLES[proxy]))
        x += 90
    parts.append(_rect(x, y, 2, 16, INK))
    parts.append(_text(x + 8, y + 12, "wanted at most"))
    return y + 20


def _draw_chart(parts: list[str], chart: Chart, y: int) -> int:
    parts.append(_text(24, y + 32, chart.title, size=15, weight="bold"))
    y += 58
    height = sum(BAR * len(group.bars) + GAP for group in chart.groups)
    values = [value for group in chart.groups for bar in group.bars for value in (bar.value, *bar.targets)]
    step = nice_step(max(values, default=1.0))
    scale = (WIDTH - LEFT - RIGHT) / max(max(values, default=1.0), step)
    tick = 0
    while tick * step * scale <= WIDTH - LEFT - RIGHT + 1:
        x = LEFT + tick * step * scale
        label = f"{tick * step:g}"
        parts.append(_rect(x, y - 4, 1, height, RULE))
        parts.append(_text(x, y - 9, f"{label} {chart.unit}" if tick == 0 else label, 11, FAINT, "middle"))
        tick += 1
    for group in chart.groups:
        parts.append(_text(LEFT - 14, y + 12, group.title, anchor="end"))
        parts.append(_text(LEFT - 14, y + 27, group.note, size=11, colour=FAINT, anchor="end"))
        for bar in group.bars:
            length = bar.value * scale
            parts.append(_rect(LEFT, y, max(length, 1), BAR - 2, COLOURS[bar.proxy]))
            weight = "bold" if bar.proxy == "lbproc" else "normal"
            end = max(length, *(target * scale for target in bar.targets), 0)
            parts.append(_text(LEFT + end + 7, y + 11, bar.label, size=11, weight=weight))
            parts += [_rect(LEFT + target * scale - 1, y - 3, 2, BAR + 4, INK) for target in bar.targets]
            y += BAR
        y += GAP
    return y + 8


def nice_step(largest: float) -> float:
    """A round distance between lines of a scale, so that there are four to ten."""
    size = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if largest / (size * factor) <= 8:
                return size * factor
        size *= 10


def _spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    size: int = 12,
    colour: str = INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
