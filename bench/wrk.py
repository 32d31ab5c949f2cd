"""One run of wrk: a row's load on one port for some seconds, and what came back.

A closed loop: each connection sends its next request when the last one is answered, so latency is that of a
proxy under full load, and only its ratio to the other proxies says something.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.peers import LARGE_BYTES
from bench.process import BenchError

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    Args:
        name: on the command line.
        title: in the report.
        path: what is asked for.
        connections: how many at once.
        distinct: every request head differs, so nothing can be remembered.
        close: every request on a connection of its own.
        body_bytes: size of the answer where that is what costs; then unfinished answers count by their bytes.
    """

    name: str
    title: str
    path: str
    connections: int
    distinct: bool = False
    close: bool = False
    body_bytes: int | None = None


ROWS = (
    Row("keepalive", "small GET, keep-alive, identical heads", "/", 32),
    Row("distinct", "small GET, keep-alive, every head different", "/", 32, distinct=True),
    Row("connect", "small GET, a new connection each", "/", 32, close=True),
    Row("large", "10 MB response, keep-alive", "/large", 8, body_bytes=LARGE_BYTES),
)


@dataclass(frozen=True, slots=True)
class Totals:
    """What one run achieved. Latencies in microseconds; CPU time is divided by ``work``, in requests."""

    requests: int
    work: float
    seconds: float
    failures: int
    p50_us: int
    p99_us: int


def run_wrk(program: str, row: Row, port: int, seconds: int) -> Totals:
    """Loads ``port`` with a row.

    Raises:
        BenchError: wrk did not do its work, or nothing was answered.
    """
    arguments = [row.path, "distinct" if row.distinct else "same", "close" if row.close else "keep"]
    command = [
        program,
        "-t",
        "1",
        "-c",
        str(row.connections),
        "-d",
        f"{seconds}s",
        "--timeout",
        "10s",
        "--latency",
    ]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("TOTALS "):
            totals = json.loads(line.removeprefix("TOTALS "))
            if not totals["requests"]:
                raise BenchError(f"nothing was answered on port {port}:\n{done.stdout}")
            return Totals(
                totals["requests"],
                totals["bytes"] / row.body_bytes if row.body_bytes else totals["requests"],
                totals["microseconds"] / 1e6,
                totals["failures"] + totals["bad_statuses"],
                totals["p50_us"],
                totals["p99_us"],
            )
    raise BenchError(f"wrk failed:\n{done.stdout}{done.stderr}")
