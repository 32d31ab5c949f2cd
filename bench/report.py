"""The result of a bench run as Markdown.

Pure: values in, text out. The figure of a cell is the median of its rounds, and the tables of each row name
the spread, so that nobody reads more into a difference than the machine can tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bench.paced import PacedTotals
    from bench.process import CpuTime
    from bench.rows import Row
    from bench.wrk import Totals

_S = TypeVar("_S")

REFERENCES = ("haproxy", "caddy")
"""Peers that figures are put in relation to."""

DIRECT = "direct"
"""No proxy: the client asks a backend."""

TITLES = {"lbproc": "lbproc", "haproxy": "HAProxy", "nginx": "nginx", "caddy": "Caddy", DIRECT: "direct"}

MEMORY_TARGET = 8192
"""Bytes per idle connection that we want at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy under one row at full load for one round."""

    totals: Totals
    cpu: CpuTime

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request: user and system, all processes of the proxy."""
        return self.cpu.total * 1e6 / self.totals.work

    @property
    def user_us(self) -> float:
        """Its part in user mode."""
        return self.cpu.user * 1e6 / self.totals.work

    @property
    def system_us(self) -> float:
        """Its part in the kernel."""
        return self.cpu.system * 1e6 / self.totals.work

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.totals.requests / self.totals.seconds


@dataclass(frozen=True, slots=True)
class HalfSample:
    """One proxy, or none, under one row at a fixed rate for one round."""

    totals: PacedTotals
    cpu: CpuTime

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request."""
        return self.cpu.total * 1e6 / self.totals.requests


@dataclass(frozen=True, slots=True)
class MemorySample:
    """User memory of a proxy, in bytes, without and with idle connections."""

    before: int
    after: int
    connections: int

    @property
    def per_connection(self) -> float:
        """Bytes that a connection adds."""
        return (self.after - self.before) / self.connections


@dataclass(slots=True)
class Results:
    """Samples: by row and then by proxy; those of memory by proxy. What was not measured is missing."""

    load: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    half: dict[str, dict[str, list[HalfSample]]] = field(default_factory=dict)
    memory: dict[str, list[MemorySample]] = field(default_factory=dict)


def half_rate(samples_of: Mapping[str, Sequence[Sample]]) -> float:
    """Half the rate of the proxy that was slowest at full load: one that all can keep."""
    slowest = min(mid(samples, lambda sample: sample.per_second) for samples in samples_of.values())
    return float(f"{slowest / 2:.2g}")


def mid(samples: Iterable[_S], figure: Callable[[_S], float]) -> float:
    """The median of a figure."""
    return median(figure(sample) for sample in samples)


def render_report(rows: Sequence[Row], results: Results, facts: Mapping[str, str]) -> str:
    """The whole report in Markdown."""
    parts = ["# Side by side", "\n".join(f"- {name}: {value}" for name, value in facts.items())]
    parts += _cpu_part(rows, results)
    if results.half:
        parts += _half_part(rows, results)
    if results.memory:
        parts += _memory_part(results)
    parts.append("## Details of full load")
    for row in rows:
        parts += [f"### {row.title}", row.about, _load_table(results.load[row.name])]
    return "\n\n".join(parts) + "\n"


def _cpu_part(rows: Sequence[Row], results: Results) -> list[str]:
    proxies = proxies_of(results)
    references = [name for name in REFERENCES if name in proxies and name != "lbproc" and "lbproc" in proxies]
    titles = [
        "work",
        *(TITLES[proxy] for proxy in proxies),
        *(f"lbproc / {TITLES[name]}" for name in references),
    ]
    lines = []
    for row in rows:
        costs = {proxy: mid(samples, _cost) for proxy, samples in results.load[row.name].items()}
        cells = [row.title, *(_microseconds(costs.get(proxy)) for proxy in proxies)]
        for name in references:
            if name not in costs:
                cells.append("")
                continue
            target = f" (≤ {row.targets[name]:.1f})" if name in row.targets else ""
            cells.append(f"{costs['lbproc'] / costs[name]:.2f}{target}")
        lines.append(cells)
    return [
        "## CPU time per request, in microseconds",
        "User and system time of all processes of a proxy, also of those that ended, divided by the requests "
        "that it served, at full load; for 10 MB responses divided by ten million bytes. Medians of the "
        "rounds; in parentheses what we want.",
        _table(titles, lines),
    ]


def proxies_of(results: Results) -> list[str]:
    """All that took part in any row, in their order."""
    return list(dict.fromkeys(proxy for samples in results.load.values() for proxy in samples))


def _microseconds(cost: float | None) -> str:
    """Empty for a proxy that does not do such work."""
    if cost is None:
        return ""
    return f"{cost:.0f}" if cost >= 1000 else f"{cost:.1f}"


def _cost(sample: Sample) -> float:
    return sample.cpu_us


def _half_part(rows: Sequence[Row], results: Results) -> list[str]:
    lines = []
    for row in (row for row in rows if row.name in results.half):
        samples_of = results.half[row.name]
        direct = _latencies(samples_of[DIRECT])
        for proxy, samples in samples_of.items():
            own = _latencies(samples)
            added = (
                ["", "", ""] if proxy == DIRECT else [_ms(o - d) for o, d in zip(own, direct, strict=True)]
            )
            rate = f"{samples[0].totals.rate:.0f}"
            cpu = "" if proxy == DIRECT else f"{mid(samples, lambda sample: sample.cpu_us):.0f}"
            failures = str(sum(sample.totals.failures for sample in samples))
            late = _ms(max(sample.totals.client_us for sample in samples))
            name = row.title if proxy == DIRECT else ""
            lines.append([name, rate, TITLES[proxy], *map(_ms, own), *added, cpu, late, failures])
    titles = ["work", "requests/s", "through", "p50", "p90", "p99", "added p50", "added p90", "added p99"]
    return [
        "## Latency at half load, in milliseconds",
        "Half load is half the rate that the slowest proxy of this run reached at full load under the same "
        "work; every proxy, and the backend without a proxy, is sent that same rate. Requests are due at "
        "even intervals and latency counts from that moment, so a wait for a slow answer before is part of "
        "it. Added is the difference between a percentile through the proxy and the same percentile direct. "
        "*Client late* is how late our own client was at the 99th percentile in the worst round: figures of "
        "that size say nothing.",
        _table([*titles, "CPU µs/request", "client late", "failed"], lines, words=(0, 2)),
    ]


def _latencies(samples: Sequence[HalfSample]) -> tuple[float, float, float]:
    totals = [sample.totals for sample in samples]
    return (
        mid(totals, lambda total: total.p50_us),
        mid(totals, lambda total: total.p90_us),
        mid(totals, lambda total: total.p99_us),
    )


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f}"


def _memory_part(results: Results) -> list[str]:
    lines = []
    for proxy, samples in results.memory.items():
        values = [sample.per_connection / 1024 for sample in samples]
        target = f" (≤ {MEMORY_TARGET / 1024:.0f})" if proxy == "lbproc" else ""
        before, after = (mid(samples, figure) / 2**20 for figure in (_before, _after))
        spread = f"{min(values):.2f}-{max(values):.2f}"
        lines.append(
            [TITLES[proxy], f"{median(values):.2f}{target}", spread, f"{before:.0f}", f"{after:.0f}"]
        )
    count = next(iter(results.memory.values()))[0].connections
    return [
        "## Memory per idle connection, in KiB",
        f"{_spaced(count)} keep-alive connections that have made one request each: what they add to the "
        "memory of all processes of the proxy, freshly started, divided by their number. Memory is the "
        "proportional set size (Pss): user space only, so without the kernel's socket buffers, and without "
        "what a proxy sets aside for connections when it starts.",
        _table(["proxy", "KiB per connection", "spread", "MiB before", "MiB with them"], lines),
    ]


def _before(sample: MemorySample) -> float:
    return sample.before


def _after(sample: MemorySample) -> float:
    return sample.after


def _load_table(samples_of: Mapping[str, Sequence[Sample]]) -> str:
    lines = []
    for proxy, samples in samples_of.items():
        costs = [sample.cpu_us for sample in samples]
        totals = [sample.totals for sample in samples]
        lines.append(
            [
                TITLES[proxy],
                f"{median(costs):.1f}",
                f"{min(costs):.1f}-{max(costs):.1f}",
                f"{mid(samples, lambda sample: sample.user_us):.1f}",
                f"{mid(samples, lambda sample: sample.system_us):.1f}",
                f"{mid(samples, lambda sample: sample.per_second):.0f}",
                *map(_ms, _full_latencies(totals)),
                str(sum(total.requests for total in totals)),
                str(sum(total.failures for total in totals)),
            ]
        )
    titles = [
        "proxy",
        "CPU µs/request",
        "spread",
        "user",
        "system",
        "requests/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
    ]
    return _table([*titles, "requests", "failed"], lines)


def _full_latencies(totals: Sequence[Totals]) -> tuple[float, float, float]:
    return (
        mid(totals, lambda total: total.p50_us),
        mid(totals, lambda total: total.p90_us),
        mid(totals, lambda total: total.p99_us),
    )


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    rules = ["---" if number in words else "---:" for number in range(len(titles))]
    return "\n".join([_line(titles), f"|{'|'.join(rules)}|", *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
