"""Where the time of lbproc's workers goes under a row: ``scripts/bench --profile [ROW]``.

Looks at the same work several times, on workers that have been warmed:

- plain, for the CPU time per request;
- a sampler in every process (bench/sampler) notes the Python stack each 4 ms of CPU time; a function's share
  of the samples times the CPU time per request is what it costs;
- perf samples the CPU clock: kernel, interpreter, C modules;
- strace counts system calls. It makes the work slow, but not other than it is.

perf and strace are left out, with a word, where they are missing or may not trace.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Stand, say
from bench.peers import ROOT
from bench.process import BenchError, CpuTime, read_usages
from bench.stacks import parse_perf, parse_stacks, parse_strace, render_flames, render_stacks, render_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.process import Program
    from bench.report import Sample
    from bench.rows import Row

SAMPLER = Path(__file__).with_name("sampler")
MARGIN = 2
"""Seconds that the load goes on longer than the look, which takes a while to begin."""


class Profile:
    """One row, looked at with every tool there is.

    Args:
        row: the work.
        workers: of lbproc.
        seconds: length of one look.
        stem: path without suffix; files that the tools write are kept beside it.
    """

    def __init__(self, row: Row, workers: int, seconds: int, stem: Path) -> None:
        self._row = row
        self._workers = workers
        self._seconds = seconds
        self._stem = stem

    def run(self) -> str:
        """Looks, and returns the report in Markdown.

        Raises:
            BenchError: lbproc did not serve.
        """
        self._stem.parent.mkdir(parents=True, exist_ok=True)
        with Stand([self._row], self._workers) as stand:
            samples = stand.directory / "samples"
            samples.mkdir()
            with stand.start("lbproc") as program:
                stand.load(self._row, program, 2)
                before = {pid: usage.cpu for pid, usage in read_usages().items()}
                plain = stand.load(self._row, program, self._seconds)
                pids = _busy(program, before)
                say(f"{self._row.name}: {plain.cpu_us:.1f} µs per request; looking closer")
                native = self._native(stand, program, pids, plain)
                calls = self._calls(stand, program, pids)
            python = self._python(stand, samples)
        parts = [f"# Profile: {self._row.title}", _render_cost(plain), python, native, calls]
        return "\n\n".join(parts) + "\n"

    def _python(self, stand: Stand, samples: Path) -> str:
        with stand.start("lbproc", "sampled", environ=_sampled(samples)) as program:
            stand.load(self._row, program, 2)
            before = {file: file.stat().st_size for file in samples.iterdir()}
            sample = stand.load(self._row, program, self._seconds)
            found = [file.read_bytes()[before.get(file, 0) :].decode() for file in samples.iterdir()]
        stacks = parse_stacks("".join(found))
        if not stacks:
            raise BenchError(f"{self._seconds} s are too short for a sample")
        self._stem.with_suffix(".stacks").write_text(
            "".join(f"{';'.join(stack)} {count}\n" for stack, count in stacks.items())
        )
        title = f"{self._row.title}: {sample.cpu_us:.1f} µs of CPU time per request"
        self._stem.with_suffix(".svg").write_text(render_flames(stacks, title, sample.cpu_us))
        return render_stacks(stacks, sample.cpu_us)

    def _native(self, stand: Stand, program: Program, pids: Sequence[int], plain: Sample) -> str:
        perf = shutil.which("perf")
        if perf is None:
            return "perf is not installed (apt-get install linux-perf): no look below Python."
        data = self._stem.with_suffix(".perf")
        command = [perf, "record", "--quiet", "--event", "cpu-clock", "--freq", "997", "--output", str(data)]
        command += ["--pid", ",".join(map(str, pids)), "--", "sleep", str(self._seconds)]
        with _looking([command]):
            stand.load(self._row, program, self._seconds + MARGIN)
        reports = []
        for title, keys in (("part", "dso"), ("symbol", "dso,symbol")):
            command = [perf, "report", "--stdio", "--input", str(data), "--sort", keys]
            command += ["--field-separator", "\t", "--percent-limit", "0.4"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            shares = parse_perf(done.stdout)
            reports.append(render_table(("share", "µs/request", title), shares, plain.cpu_us))
        data.unlink(missing_ok=True)
        return "\n\n".join(["## Below Python (perf, CPU clock)", *reports])

    def _calls(self, stand: Stand, program: Program, pids: Sequence[int]) -> str:
        strace = shutil.which("strace")
        if strace is None:
            return "strace is not installed (apt-get install strace): system calls are not counted."
        output = self._stem.with_suffix(".strace")
        command = [strace, "-f", "-c", "-U", "calls,errors,name", "-o", str(output)]
        with _looking([[*command, *(f"--attach={pid}" for pid in pids)]]):
            sample = stand.load(self._row, program, min(self._seconds, 3))
        calls = parse_strace(output.read_text())
        output.unlink()
        lines = [f"## System calls per request (strace, {sample.totals.requests} requests)", ""]
        lines += ["| calls | of which fail | name |", "|---:|---:|---|"]
        work = sample.totals.work
        for name, (count, failed) in sorted(calls.items(), key=lambda item: -item[1][0]):
            if count / work >= 0.005:
                lines.append(f"| {count / work:.2f} | {failed / work:.2f} | {name} |")
        lines.append(f"| {sum(count for count, _ in calls.values()) / work:.2f} | | all |")
        return "\n".join(lines)


def _sampled(samples: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{SAMPLER}", "LBPROC_BENCH_SAMPLES": str(samples)}


def _busy(program: Program, before: dict[int, CpuTime]) -> list[int]:
    """The processes that did the work since ``before``: not the supervisor, not the controller."""
    usages = read_usages()
    gained = {pid: (usages[pid].cpu - before.get(pid, CpuTime())).total for pid in program.pids()}
    return [pid for pid, seconds in gained.items() if seconds > 0.05 * sum(gained.values())]


@contextmanager
def _looking(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Runs tools while the load lasts; they end by themselves or are interrupted."""
    tools = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in commands
    ]
    try:
        time.sleep(0.5)  # until they have attached
        yield
    finally:
        for command, tool in zip(commands, tools, strict=True):
            if tool.poll() is None:
                tool.send_signal(signal.SIGINT)
            _, errors = tool.communicate(timeout=30.0)
            if tool.returncode not in {0, -signal.SIGINT}:
                last_words = errors.decode(errors="replace")[-500:]
                say(f"{command[0]} ended with {tool.returncode}: {last_words}")


def _render_cost(plain: Sample) -> str:
    requests = plain.totals.requests / plain.totals.seconds
    return (
        f"{plain.cpu_us:.1f} µs of CPU time per request, {plain.user_us:.1f} in user mode and "
        f"{plain.system_us:.1f} in the kernel, all processes, at {requests:.0f} requests/s."
    )
