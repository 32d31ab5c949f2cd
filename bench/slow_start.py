"""Slow start, drawn: the documented curve and what the policies make of it (``python -m bench.slow_start``).

One of three backends has just come back. A balancer over a real table picks for a steady stream of requests
in virtual time, and each second's share of the backend is put beside the curve. Deterministic; writes
docs/slow-start.svg.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, cast

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.http.head import parse_request_head
from lbproc.core.http.strict import HeadLimits
from lbproc.core.slow_start import FULL, level
from lbproc.net.readiness import Deadlines
from lbproc.proxy.balancer import Lease
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.runtime import Runtime
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import Role, SupervisorView, WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Level
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lbproc.net.transport import Transport
    from lbproc.types import Address

POLICIES = ("round_robin", "random", "least_connections", "power_of_two", "consistent_hash")
SLOW_START = 30
SECONDS = 36
RATE = 2000
"""Requests a second."""
STAY = 0.1
"""Seconds that a request takes, so 200 are in flight."""

_SECOND = 1_000_000_000
_BACK_AT = 1_000 * _SECOND
_TICKS = 10
"""Looks of a worker in a second."""

_REQUEST = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadLimits())
_BACKENDS = tuple(f"127.0.0.1:{9001 + number}" for number in range(3))


@dataclass(slots=True)
class _Clock:
    """The virtual present, ns."""

    now: int = _BACK_AT

    def __call__(self) -> int:
        return self.now


def measure(policy: str, *, seconds: int = SECONDS, rate: int = RATE) -> list[float]:
    """What share of a full backend's requests the one that came back gets, in each second."""
    config = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:8080", "pool": "web"}},
            "pools": {"web": {"backends": _BACKENDS, "policy": policy, "slow_start": f"{SLOW_START}s"}},
        }
    )
    table = Table.create(Capacities(columns=4, backends=8, pools=2, keys=4, ledger=4096))
    supervisor, clock = SupervisorView(table), _Clock()
    supervisor.set_generation(1)
    membership = Membership(config, supervisor.ensure_row, supervisor.ensure_pool)
    supervisor.publish_membership(membership.encode())
    for number, address in enumerate(_BACKENDS):
        supervisor.start_row(supervisor.ensure_row("web", address), 1 if number else _BACK_AT)
    context = WorkerContext(
        view=WorkerView(table, supervisor.allocate_column(Slot(0), Role.WORKER)),
        deadlines=Deadlines(),
        connect=_never,
        access_log=AccessLog("off"),
        log=ErrorLog(Sink(Path("/dev/null")), Level.ERROR, "worker-0"),
        wall_clock=UtcClock(),
        random=Random(7),
        stamp=clock,
    )
    balancer = Runtime.begin(config, context).pools["web"]
    under_way: deque[tuple[int, Lease]] = deque()
    shares = []
    for second in range(seconds):
        picks = dict.fromkeys(_BACKENDS, 0)
        for turn in range(rate):
            clock.now = _BACK_AT + second * _SECOND + turn * _SECOND // rate
            if turn % (rate // _TICKS) == 0:
                balancer.look()
            while under_way and under_way[0][0] <= clock.now:
                under_way.popleft()[1].release()
            client = f"192.0.{context.random.getrandbits(8)}.{context.random.getrandbits(8)}"
            lease = cast("Lease", balancer.take(_REQUEST, client, ()))
            under_way.append((clock.now + int(STAY * _SECOND), lease))
            picks[lease.backend.name] += 1
        first, *others = picks.values()
        shares.append(first * len(others) / sum(others))
    for _, lease in under_way:
        lease.release()
    table.close()
    return shares


async def _never(address: Address, deadline: float) -> Transport:
    raise AssertionError(f"nobody connects to {address} before {deadline}")


WIDTH, HEIGHT = 760, 420
LEFT, TOP, RIGHT, BOTTOM = 64, 64, 176, 48
COLOURS = dict(zip(POLICIES, ("#d9480f", "#1c5d8f", "#2b8a3e", "#862e9c", "#e0a100"), strict=True))
INK, FAINT, RULE = "#1f2933", "#66727f", "#e3e8ed"


def render(measured: dict[str, Sequence[float]]) -> str:
    """The picture: the curve in steps, its straight line, and a dot for each policy and second."""
    parts = [
        _text(24, 30, "Slow start of one of three backends", size=17, weight="bold"),
        _text(24, 48, f'slow_start = "{SLOW_START}s": requests it gets, of a full share', colour=FAINT),
    ]
    for percent in range(0, 101, 20):
        parts.append(_line(((0, percent), (SECONDS, percent)), RULE))
        parts.append(_text(LEFT - 8, _y(percent) + 4, f"{percent} %", anchor="end", colour=FAINT))
    parts += [
        _text(_x(second), HEIGHT - BOTTOM + 18, f"{second} s", anchor="middle", colour=FAINT)
        for second in range(0, SECONDS + 1, 5)
    ]
    steps: list[tuple[float, float]] = []
    for tenth in range(SECONDS * 10 + 1):
        height = 100 * level(_SECOND, SLOW_START * _SECOND, _SECOND + tenth * _SECOND // 10) / FULL
        if steps and steps[-1][1] != height:
            steps.append((tenth / 10, steps[-1][1]))
        steps.append((tenth / 10, height))
    parts.append(_line(((0, 10), (SLOW_START, 100)), FAINT, dashes="4 4"))
    parts.append(_line(steps, INK, width=2))
    for policy, shares in measured.items():
        for second, share in enumerate(shares):
            x, y = _x(second + 0.5), _y(100 * share)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[policy]}"/>')
    x = WIDTH - RIGHT + 20
    parts.append(_text(x, TOP + 10, "the curve, in steps", weight="bold"))
    for number, policy in enumerate(measured):
        y = TOP + 34 + 20 * number
        parts.append(f'<circle cx="{x + 4}" cy="{y - 4}" r="4" fill="{COLOURS[policy]}"/>')
        parts.append(_text(x + 14, y, policy))
    parts.append(_text(x, TOP + 44 + 20 * len(measured), "picks in each second,", colour=FAINT, size=11))
    parts.append(_text(x, TOP + 58 + 20 * len(measured), f"{RATE} requests/s", colour=FAINT, size=11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12" '
        f'fill="{INK}"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _x(second: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * second / SECONDS


def _y(percent: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM - 16) * percent / 100


def _line(points: Sequence[tuple[float, float]], colour: str, *, width: int = 1, dashes: str = "none") -> str:
    path = " ".join(f"{_x(second):.1f},{_y(percent):.1f}" for second, percent in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-dasharray="{dashes}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{text}</text>'
    )


if __name__ == "__main__":
    picture = render({policy: measure(policy) for policy in POLICIES})
    (Path(__file__).parents[1] / "docs" / "slow-start.svg").write_text(picture, encoding="utf-8")
