"""One run of wrk: a row's load on one port for some seconds, and what came back.

A closed loop: each connection sends its next request when the last one is answered, so latency is that of a
proxy under full load, and only its ratio to the other proxies says something.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rows import Row

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Totals:
    """What one run achieved. Latencies in microseconds; CPU time is divided by ``work``, in requests."""

    requests: int
    work: float
    seconds: float
    failures: int
    p50_us: int
    p90_us: int
    p99_us: int


def write_requests(requests: Sequence[bytes], path: Path) -> None:
    """The file of requests that the script reads: each behind a line with its length."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))


def run_wrk(program: str, row: Row, requests: Path, port: int, seconds: float, skip: int = 0) -> Totals:
    """Loads ``port`` with a row.

    Args:
        program: the path of wrk.
        row: says how many connections.
        requests: the file of its requests.
        port: where on 127.0.0.1.
        seconds: how long; wrk knows whole ones.
        skip: where in the requests to begin.

    Raises:
        BenchError: wrk did not do its work, or nothing was answered.
    """
    command = [program, "-t", "1", "-c", str(row.connections), "-d", f"{max(round(seconds), 1)}s"]
    command += ["--timeout", "10s", "--latency", "-s", str(SCRIPT)]
    scheme = "https" if row.way == "https" else "http"
    command += [f"{scheme}://127.0.0.1:{port}", "--", str(requests), str(skip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    return read_totals(done.stdout, done.stderr, row)


def read_totals(output: str, errors: str, row: Row) -> Totals:
    """What wrk printed.

    Raises:
        BenchError: no totals, or nothing was answered.
    """
    for line in output.splitlines():
        if line.startswith("TOTALS "):
            totals = json.loads(line.removeprefix("TOTALS "))
            if not totals["requests"]:
                raise BenchError(f"nothing was answered:\n{output}")
            return Totals(
                totals["requests"],
                totals["bytes"] / row.body_bytes if row.body_bytes else totals["requests"],
                totals["microseconds"] / 1e6,
                totals["failures"] + totals["bad_statuses"],
                totals["p50_us"],
                totals["p90_us"],
                totals["p99_us"],
            )
    raise BenchError(f"wrk failed:\n{output}{errors}")
