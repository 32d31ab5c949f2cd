"""What a reload adds to latency: requests at a fixed rate, with and without a reload each second.

``python -m bench.reload [SECONDS]`` prints a table. Two configurations take turns; in one all backends have
another weight and the policy is another, so that everything is built anew. Other backends than the three that
answer are there to be built only: they have weight 0.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from bench.measure import BACKENDS
from bench.paced import PacedTotals, run_paced
from bench.peers import ROOT, start_backends
from bench.process import Program, free_ports
from bench.rows import ROWS, same_heads

SIZES = (3, 100, 1000)
"""Backends in the configuration."""

RATE = 1000.0
EVERY = 1.0
"""Seconds from one reload to the next."""

_CONFIG = """
[runtime]
workers = 2
control_socket = "{directory}/control.sock"
[log]
access = "{directory}/access.log"
[listeners.web]
bind = "127.0.0.1:{port}"
pool = "web"
[pools.web]
policy = "{policy}"
backends = [
{backends}
]
"""


def render(directory: Path, port: int, serving: list[int], size: int, turn: int) -> str:
    """One of the two configurations."""
    weight, policy = ((1, "least_connections"), (2, "round_robin"))[turn]
    backends = [f'{{ address = "127.0.0.1:{one}", weight = {weight} }},' for one in serving]
    for number in range(size - len(serving)):
        address = f"127.0.1.{number % 250 + 1}:{2000 + number // 250}"
        backends.append(f'{{ address = "{address}", weight = 0, name = "{turn}-{number}" }},')
    return _CONFIG.format(directory=directory, port=port, policy=policy, backends="\n".join(backends))


class Reloads:
    """A reload now and then, from a thread that does next to nothing."""

    def __init__(self, program: Program, path: Path, texts: list[str]) -> None:
        self._pid = program.pids()[0]
        self._path = path
        self._texts = texts
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self) -> Reloads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(EVERY):
            self.count += 1
            self._path.write_text(self._texts[self.count % 2])
            os.kill(self._pid, signal.SIGHUP)


def measure(size: int, seconds: float) -> tuple[PacedTotals, PacedTotals, int]:
    """Latencies without and with reloads, and how many of these there were."""
    row = next(row for row in ROWS if row.name == "keepalive")
    requests = same_heads()
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        port, *serving = free_ports(1 + BACKENDS)
        path = directory / "lbproc.toml"
        texts = [render(directory, port, serving, size, turn) for turn in (0, 1)]
        path.write_text(texts[0])
        command = [sys.executable, "-m", "lbproc", "run", "-c", str(path)]
        environ = {"PYTHONPATH": str(ROOT)}
        with (
            start_backends(directory / "backends", serving),
            Program("lbproc", command, directory, port, environ) as program,
        ):
            run_paced(row, requests, port, RATE, 1.0)
            quiet = run_paced(row, requests, port, RATE, seconds)
            with Reloads(program, path, texts) as reloads:
                reloading = run_paced(row, requests, port, RATE, seconds)
            return quiet, reloading, reloads.count


def main() -> None:
    """Prints the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    print(f"{RATE:.0f} requests a second, 2 workers, a reload every {EVERY:g} s; microseconds\n")
    print("| backends | reloads | failures | p50 without | p50 with | p99 without | p99 with | p99 added |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in SIZES:
        quiet, reloading, count = measure(size, seconds)
        cells = (
            size, count, quiet.failures + reloading.failures, round(quiet.p50_us), round(reloading.p50_us),
            round(quiet.p99_us), round(reloading.p99_us), round(reloading.p99_us - quiet.p99_us),
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
