"""Draws a scene: a live picture for terminals, one plain line for everything else.

Pure: values in, renderable or text out. The plain line is ASCII, whatever the locale.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbproc import __version__
from lbproc.cli.demo.scene import BackendScene, Scene, WorkerScene
from lbproc.types import Seconds

DOTS_WIDTH = 8
OTHER_COLUMNS = 62  # what a backend's line takes besides its bar
COLOURS = ("cyan", "magenta", "yellow")


@dataclass(frozen=True, slots=True)
class Heading:
    """What stays the same while the demo runs.

    Args:
        url: where the balancer answers.
        policy: how it balances.
        slow: name of the backend that is slow on purpose.
        status_command: asks this lbproc for its status.
        clients: how many clients of its own the demo runs.
    """

    url: str
    policy: str
    slow: str
    status_command: str
    clients: int


@dataclass(frozen=True, slots=True)
class TrafficScene:
    """What the demo's own clients saw. ``latency`` is the median of the latest answers."""

    answered: int
    failed: int
    latency: Seconds | None


def draw(heading: Heading, scene: Scene, traffic: TrafficScene, width: int) -> RenderableType:
    """The picture as rich renders it: about twenty lines, the bars as long as ``width`` columns allow."""
    return Group(draw_counts(heading, scene, traffic, width), Text(), *_invitations(heading, scene))


def draw_counts(heading: Heading, scene: Scene, traffic: TrafficScene, width: int) -> RenderableType:
    """The picture without what to try: for the end, when there is nothing to try any more."""
    separator = ("  ·  ", "dim")
    headline = Text.assemble(
        (f"lbproc {__version__}", "bold"),
        separator,
        (heading.url, "bold underline"),
        separator,
        (heading.policy, "bold"),
        separator,
        f"{scene.rate:.0f} requests/s",
    )
    bar_width = max(8, min(40, width - OTHER_COLUMNS))
    return Group(
        headline,
        Text(),
        _backends(heading, scene, bar_width),
        Text(),
        _workers(scene.workers),
        Text(),
        _traffic(heading, traffic),
    )


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        name, _, side = head.partition(">")
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    return table


def _backends(heading: Heading, scene: Scene, bar_width: int) -> Table:
    table = _table("backend", "share", ">right", "requests>right", "per s>right", "in flight")
    widest = max((backend.share for backend in scene.backends), default=0.0)
    for colour, backend in zip(_cycle(len(scene.backends)), scene.backends, strict=True):
        name = Text.assemble((backend.name, f"bold {colour}"), ("  ", ""), (backend.address, "dim"))
        if backend.name == heading.slow:
            name.append("  slow", "dim italic")
        filled = round(bar_width * backend.share / widest) if widest else 0
        table.add_row(
            name,
            Text.assemble(("█" * filled, colour), ("░" * (bar_width - filled), "dim")),
            f"{100 * backend.share:.1f} %",
            f"{backend.requests:,}".replace(",", " "),
            f"{backend.rate:.0f}",
            _dots(backend, colour),
        )
    return table


def _cycle(length: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(length)]


def _dots(backend: BackendScene, colour: str) -> Text:
    dots = "●" * min(backend.in_flight, DOTS_WIDTH)
    more = f" {backend.in_flight}" if backend.in_flight > DOTS_WIDTH else ""
    return Text.assemble((dots.ljust(DOTS_WIDTH), colour), more)


def _workers(workers: tuple[WorkerScene, ...]) -> Table:
    table = _table("worker", "pid>right", "state", "connections>right", "requests>right", "restarts>right")
    for worker in workers:
        table.add_row(
            str(worker.slot),
            "-" if worker.pid is None else str(worker.pid),
            Text(worker.state, "green" if worker.state == "ready" else "yellow"),
            str(worker.connections),
            f"{worker.requests:,}".replace(",", " "),
            Text(str(worker.restarts), "bold" if worker.restarts else "dim"),
        )
    return table


def _traffic(heading: Heading, traffic: TrafficScene) -> Text:
    if not heading.clients:
        return Text("no traffic of its own: send some", "dim")
    latency = "" if traffic.latency is None else f", half of them within {1000 * traffic.latency:.0f} ms"
    answered = f"{traffic.answered:,}".replace(",", " ")
    return Text.assemble(
        (f"{heading.clients} clients", "bold"),
        f": {answered} answers{latency}, ",
        (f"{traffic.failed} failed", "bold red" if traffic.failed else "dim"),
    )


def _invitations(heading: Heading, scene: Scene) -> list[Text]:
    """What to try; as short as it can be, so that it can be copied from a terminal of 80 columns."""
    lines = [("try    ", f"curl -i {heading.url}/", ""), ("       ", heading.status_command, "")]
    pid = next((worker.pid for worker in scene.workers if worker.pid is not None), None)
    if pid is not None:
        lines.append(("       ", f"kill -9 {pid}", "   a worker: only what it holds is lost"))
    lines.append(("end    ", "Ctrl-C", ""))
    return [Text.assemble((label, "dim"), (what, "bold"), (why, "dim")) for label, what, why in lines]


def render_line(scene: Scene, traffic: TrafficScene) -> str:
    """One line: time, rate, and per backend its requests, share and requests in flight."""
    backends = "  ".join(
        f"{backend.name} {backend.requests} ({100 * backend.share:.0f}%, {backend.in_flight} in flight)"
        for backend in scene.backends
    )
    return f"{scene.elapsed:5.1f} s  {scene.rate:4.0f} req/s  {backends}  failed {traffic.failed}"


def render_summary(scene: Scene, traffic: TrafficScene) -> str:
    """The last line, when the demo ends."""
    shares = ", ".join(f"{backend.name} {100 * backend.share:.1f} %" for backend in scene.backends)
    return f"{scene.requests} requests in {scene.elapsed:.0f} s ({shares}), {traffic.failed} failed."
