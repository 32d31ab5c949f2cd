"""Runs lbproc beside HAProxy, nginx and Caddy on this machine: ``scripts/bench``.

Prints Markdown tables and keeps them with a plot and the raw samples in bench/results/. With --profile, shows
where lbproc spends its time instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import BACKENDS, CONNECTIONS_FOR_MEMORY, MEMORY, PARTS, Plan, measure
from bench.peers import PEERS, ROOT, find_program, is_installed
from bench.plot import render_plot
from bench.process import BenchError, raise_file_limit
from bench.profile import Profile
from bench.report import Results, render_report
from bench.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION_ARGUMENTS = {"haproxy": ["-v"], "nginx": ["-v"], "caddy": ["version"]}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    files = raise_file_limit(65_536)
    if options.profile:
        return _profile(options)
    peers = [name for name in options.proxies if is_installed(name)]
    for name in options.proxies:
        if name not in peers:
            print(f"{name} is not installed and takes no part; apt-get install {name}", file=sys.stderr)
    if MEMORY in options.parts and files < CONNECTIONS_FOR_MEMORY:
        options.parts.remove(MEMORY)
        print(f"no part memory: only {files} open files are allowed; ulimit -n 20000", file=sys.stderr)
    rows = [row for row in ROWS if row.name in options.rows]
    try:
        results = measure(Plan(rows, peers, options.parts, options.rounds, options.seconds, options.workers))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    facts = _facts(peers, options)
    report = render_report(rows, results, facts)
    print(report)
    _keep(options.out, rows, results, facts, report)
    return 0


def _profile(options: argparse.Namespace) -> int:
    (row,) = (row for row in ROWS if row.name == options.profile)
    stem = options.out / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-profile-{row.name}"
    try:
        report = Profile(row, options.workers, options.seconds, stem).run()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(report)
    stem.with_suffix(".md").write_text(report)
    print(f"kept as {stem}.md, .svg (flame graph) and .stacks", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--seconds", type=int, help="length of one cell of one round (5), or of one look of a profile (10)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured (3)")
    parser.add_argument("--workers", type=int, default=2, help="workers or threads of every proxy (2)")
    parser.add_argument(
        "--rows", type=names, default=[row.name for row in ROWS], metavar="A,B", help="only these"
    )
    parser.add_argument("--proxies", type=names, default=list(PEERS), metavar="A,B", help="only these")
    parser.add_argument(
        "--parts",
        type=names,
        default=list(PARTS),
        metavar="A,B",
        help="only these of load (always), half (latency at half load) and memory (of idle connections)",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const="keepalive",
        choices=[row.name for row in ROWS],
        metavar="ROW",
        help="show where lbproc spends its time under this row (keepalive) instead of comparing",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="where results are kept")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 10 if options.profile else 5
    for kind, known in (("rows", [row.name for row in ROWS]), ("proxies", list(PEERS)), ("parts", PARTS)):
        unknown = set(getattr(options, kind)) - set(known)
        if unknown:
            parser.error(f"unknown {kind}: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return options


def _facts(peers: Sequence[str], options: argparse.Namespace) -> Mapping[str, str]:
    versions = ["lbproc from this tree" if peer == "lbproc" else _version(peer) for peer in peers]
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{len(os.sched_getaffinity(0))} CPUs ({_cpu_model()}), {platform.machine()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}",
        "programs": "; ".join(versions),
        "each": f"{options.workers} workers or threads, {BACKENDS} nginx backends on loopback, "
        f"{options.rounds} rounds of {options.seconds} s, client and backends on the same CPUs",
        "defaults": "access log to a file in every proxy, least connections, kept connections to backends",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown model"


def _version(peer: str) -> str:
    done = subprocess.run(
        [find_program(peer), *VERSION_ARGUMENTS[peer]], capture_output=True, text=True, check=False
    )
    line = (done.stdout or done.stderr).splitlines()[0]
    return line.removeprefix("nginx version: ").partition(" - ")[0] if peer != "caddy" else f"caddy {line}"


def _keep(out: Path, rows: Sequence[Row], results: Results, facts: Mapping[str, str], report: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    stem = out / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    stem.with_suffix(".md").write_text(report)
    stem.with_suffix(".svg").write_text(render_plot(rows, results, facts))
    stem.with_suffix(".json").write_text(json.dumps({"facts": facts, **asdict(results)}, indent=1))
    print(f"kept as {stem}.md, .svg and .json", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
