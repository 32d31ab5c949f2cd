"""What the tools of a profile print, read and made into tables and a flame graph. Pure."""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 40
SMALLEST = 0.004
"""A share below this is not shown in a table."""

COMMON = 0.97
"""Nor is a function that is on so many of the stacks: from main to the event loop, they say nothing."""

Stacks = dict[tuple[str, ...], int]
"""How often each stack was seen, from the outermost frame to the innermost; frames with their lines."""

_LINE = re.compile(r":(\d+|None)\)$")
_ROOT = re.compile(r"^.*/site-packages/|^.*/python3\.\d+/|^.*/(?=lbproc/)")
_PERF = re.compile(r"^\s*(\d+\.\d+)%?\s*\t(.*)$")
_PADDING = re.compile(r"\s+")


def parse_stacks(text: str) -> Stacks:
    """Lines of frames and a count, as the sampler writes them, of all processes one after the other."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        if frames and count.isdigit():
            stacks[tuple(_short(frame) for frame in frames.split(";"))] += int(count)
    return dict(stacks)


def _short(frame: str) -> str:
    # Paths within a package are enough to find a file; the rest is where Python is installed.
    name, found, path = frame.rpartition(" (")
    return f"{name} ({_ROOT.sub('', path)}" if found else frame


def function_of(frame: str) -> str:
    """A frame without its line."""
    return _LINE.sub(")", frame)


def render_stacks(stacks: Stacks, cpu_us: float) -> str:
    """The dearest functions and lines in Markdown, in microseconds per request."""
    counts: dict[str, Counter[str]] = {
        title: Counter()
        for title in ("file, by itself", "function, by itself", "function with what it calls", "line")
    }
    files, own, below, lines = counts.values()
    for stack, count in stacks.items():
        functions = [function_of(frame) for frame in stack]
        files[functions[-1].rpartition(" (")[2].rstrip(")")] += count
        own[functions[-1]] += count
        lines[stack[-1]] += count
        for function in set(functions):
            below[function] += count
    total = sum(stacks.values())
    parts = [f"## Python ({total} samples of all processes by CPU time)"]
    for title, counted in counts.items():
        shares = [(count / total, name) for name, count in counted.most_common()]
        shown = [(share, name) for share, name in shares if SMALLEST <= share <= COMMON][:SHOWN]
        parts.append(render_table(("share", "µs/request", title), shown, cpu_us))
    return "\n\n".join(parts)


def render_table(titles: Sequence[str], shares: Sequence[tuple[float, str]], cpu_us: float) -> str:
    """Shares of the CPU time per request as a Markdown table."""
    lines = [f"| {' | '.join(titles)} |", "|---:|---:|---|"]
    lines += [f"| {share:.1%} | {share * cpu_us:.2f} | {name.replace('|', '/')} |" for share, name in shares]
    return "\n".join(lines)


def parse_perf(text: str) -> list[tuple[float, str]]:
    """Shares and names from ``perf report --stdio --field-separator TAB``."""
    found = (_PERF.match(line) for line in text.splitlines() if not line.startswith("#"))
    shares = [(float(match[1]) / 100, _PADDING.sub(" ", match[2]).strip(" -")) for match in found if match]
    return shares[:SHOWN]


def parse_strace(text: str) -> dict[str, tuple[int, int]]:
    """Calls and errors by name from ``strace -c -U calls,errors,name``."""
    calls = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[0]), int(fields[1]) if len(fields) > 2 else 0
    return calls


_WIDTH, _HEIGHT, _CHARACTER = 1600, 17, 6.7
_COLOURS = {"lbproc/": "#f2a65a", "trio/": "#8fb8de", "h11/": "#b7a1d6"}
_OTHER = "#d5d5cf"
_NARROWEST = 0.0008
"""Frames below this share are not drawn."""


class _Node:
    """A function under a path of callers."""

    def __init__(self) -> None:
        self.count = 0
        self.below: dict[str, _Node] = {}

    def add(self, stack: Sequence[str], count: int) -> None:
        node = self
        node.count += count
        for frame in stack:
            node = node.below.setdefault(function_of(frame), _Node())
            node.count += count

    def below_common(self) -> _Node:
        """Where the stacks part."""
        node = self
        while node.below:
            child = max(node.below.values(), key=lambda child: child.count)
            if child.count < COMMON * self.count:
                break
            node = child
        return node


def render_flames(stacks: Stacks, title: str, cpu_us: float) -> str:
    """Stacks as an SVG of nested bars, outermost on top; the pointer shows the names of narrow ones."""
    root = _Node()
    for stack, count in stacks.items():
        root.add(stack, count)
    bars: list[str] = []
    deepest = 0
    left = [(root.below_common(), 0.0, 0)]
    while left:
        node, x, depth = left.pop()
        deepest = max(deepest, depth)
        for name, child in sorted(node.below.items()):
            share = child.count / root.count
            if share >= _NARROWEST:
                bars.append(_bar(name, x, depth, share, cpu_us))
                left.append((child, x, depth + 1))
            x += share * _WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{deepest * _HEIGHT + 40}" '
        'font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="20" font-size="14" font-family="sans-serif">{escape(title)}</text>'
        f"{''.join(bars)}</svg>\n"
    )


def _bar(name: str, x: float, depth: int, share: float, cpu_us: float) -> str:
    width, y = share * _WIDTH, 32 + depth * _HEIGHT
    drawn = max(width - 0.6, 0.4)
    colour = next((colour for part, colour in _COLOURS.items() if f"({part}" in name), _OTHER)
    fits = int(width / _CHARACTER) - 1
    label = name if len(name) <= fits else name[: max(fits - 1, 0)] + "…" if fits > 3 else ""
    return (
        f"<g><title>{escape(name)}: {share:.1%}, {share * cpu_us:.2f} µs</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{drawn:.1f}" height="{_HEIGHT - 1}" fill="{colour}"/>'
        f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(label)}</text></g>'
    )
