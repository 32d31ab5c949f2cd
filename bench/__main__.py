"""Runs lbproc beside HAProxy, nginx and Caddy on this machine: ``scripts/bench``.

Every proxy runs all the time; in each round each row goes to one proxy after the other, so that a slow minute
of the machine hits all of them. Prints a Markdown table and keeps it with a plot and the raw samples in
bench/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import PEERS, ROOT, Place, find_program, is_installed, start_backends
from bench.process import BenchError, Program, free_ports
from bench.report import Results, Sample, render_plot, render_report
from bench.wrk import ROWS, Row, run_wrk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BACKENDS = 3
VERSION_ARGUMENTS = {"haproxy": ["-v"], "nginx": ["-v"], "caddy": ["version"]}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    peers = [name for name in options.proxies if is_installed(name)]
    for name in options.proxies:
        if name not in peers:
            print(f"{name} is not installed and takes no part; apt-get install {name}", file=sys.stderr)
    rows = [row for row in ROWS if row.name in options.rows]
    try:
        results = measure(rows, peers, options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report = render_report(rows, results, _facts(peers, options))
    print(report)
    _keep(options.out, rows, results, report)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of one cell of one round (5)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured (3)")
    parser.add_argument("--workers", type=int, default=2, help="workers or threads of every proxy (2)")
    parser.add_argument(
        "--rows", type=names, default=[row.name for row in ROWS], metavar="A,B", help="only these"
    )
    parser.add_argument("--proxies", type=names, default=list(PEERS), metavar="A,B", help="only these")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="where results are kept")
    options = parser.parse_args(arguments)
    for kind, known in (("rows", [row.name for row in ROWS]), ("proxies", list(PEERS))):
        unknown = set(getattr(options, kind)) - set(known)
        if unknown:
            parser.error(f"unknown {kind}: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return options


def measure(rows: Sequence[Row], peers: Sequence[str], options: argparse.Namespace) -> Results:
    """All samples of a run.

    Raises:
        BenchError: a program did not start or died.
    """
    wrk = find_program("wrk")
    results: Results = {row.name: {peer: [] for peer in peers} for row in rows}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproc-bench-")))
        ports = free_ports(BACKENDS + len(peers))
        stack.enter_context(start_backends(directory / "backends", ports[:BACKENDS]))
        programs: dict[str, Program] = {}
        for peer, port in zip(peers, ports[BACKENDS:], strict=True):
            place = Place(directory / peer, port, options.workers, ports[:BACKENDS])
            place.directory.mkdir()
            programs[peer] = stack.enter_context(PEERS[peer](place))
        for round_number in range(options.rounds):
            for row in rows:
                for peer, program in programs.items():
                    if round_number == 0:
                        run_wrk(wrk, row, program.port, 1)  # warms caches and fills the pools of connections
                    before = program.cpu_seconds()
                    totals = run_wrk(wrk, row, program.port, options.seconds)
                    sample = Sample(totals, program.cpu_seconds() - before)
                    results[row.name][peer].append(sample)
                    print(
                        f"round {round_number + 1}  {row.name:10} {peer:8} {sample.cpu_us:9.1f} µs  "
                        f"{totals.requests:8} requests  {totals.failures} failed",
                        file=sys.stderr,
                    )
    return results


def _facts(peers: Sequence[str], options: argparse.Namespace) -> Mapping[str, str]:
    versions = ["lbproc from this tree" if peer == "lbproc" else _version(peer) for peer in peers]
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{len(os.sched_getaffinity(0))} CPUs, {platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}",
        "programs": "; ".join(versions),
        "each": f"{options.workers} workers or threads, {BACKENDS} nginx backends on loopback, "
        f"{options.rounds} rounds of {options.seconds} s, wrk and backends on the same CPUs",
    }


def _version(peer: str) -> str:
    done = subprocess.run(
        [find_program(peer), *VERSION_ARGUMENTS[peer]], capture_output=True, text=True, check=False
    )
    line = (done.stdout or done.stderr).splitlines()[0]
    return line.removeprefix("nginx version: ").partition(" - ")[0] if peer != "caddy" else f"caddy {line}"


def _keep(out: Path, rows: Sequence[Row], results: Results, report: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    stem = out / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    stem.with_suffix(".md").write_text(report)
    stem.with_suffix(".svg").write_text(render_plot(rows, results))
    samples = {
        row: {peer: [asdict(sample) for sample in samples] for peer, samples in of.items()}
        for row, of in results.items()
    }
    stem.with_suffix(".json").write_text(json.dumps(samples, indent=1))
    print(f"kept as {stem}.md, .svg and .json", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
