"""Takes the samples of a run: which program, which row, how long, in which order.

All proxies run all the time; in each round each row goes to one proxy after the other, so that a slow minute
of the machine hits all of them. First all rows at full load; then all rows at half the rate that the slowest
proxy reached, the same for all and for the backend without a proxy; then memory, on proxies started for it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Self

from bench.certificate import write_certificate
from bench.handshakes import run_handshakes
from bench.idle import IdleConnections
from bench.paced import run_paced
from bench.peers import PEERS, TCP_PEERS, More, Place, find_program, start_backends
from bench.process import BenchError, CpuTime, Program, free_ports
from bench.report import DIRECT, HalfSample, MemorySample, Results, Sample, half_rate
from bench.rows import same_heads
from bench.wrk import run_wrk, write_requests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from bench.rows import Row

LOAD, HALF, MEMORY = "load", "half", "memory"
PARTS = (LOAD, HALF, MEMORY)

BACKENDS = 3


HALF_SECONDS = 3
"""Length of a cell at half load, at most."""

IDLE_CONNECTIONS = 10_000
CONNECTIONS_FOR_MEMORY = IDLE_CONNECTIONS + 2000
"""What client and proxies must be able to open."""

SETTLE_SECONDS = 1.0
"""Until what the last requests left behind is written and freed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures."""

    rows: Sequence[Row]
    peers: Sequence[str]
    parts: Sequence[str]
    rounds: int
    seconds: int
    workers: int

    def estimate(self) -> float:
        """Seconds that it will take, about."""
        cells = len(self.rows) * len(self.peers)
        load = cells * (self.rounds * (self.seconds + 0.3) + 1.3)
        half = len(self.rows) * (len(self.peers) + 1) * self.rounds * (min(self.seconds, HALF_SECONDS) + 0.5)
        memory = len(self.peers) * self.rounds * 8.0
        return load + half * (HALF in self.parts) + memory * (MEMORY in self.parts)


def say(line: str) -> None:
    """Shows how far the run is."""
    print(line, file=sys.stderr, flush=True)


class Stand:
    """Backends, the requests of the rows in files, and proxies in front of the backends."""

    def __init__(self, rows: Sequence[Row], workers: int) -> None:
        self._rows = rows
        self._workers = workers
        self._stack = ExitStack()
        self._random = Random()
        self.wrk = find_program("wrk")
        self.requests: dict[str, list[bytes]] = {}

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproc-bench-")))
        try:
            self._certificate = write_certificate(self.directory)
            self.backends = free_ports(BACKENDS)
            self._stack.enter_context(start_backends(self.directory / "backends", self.backends))
            for row in self._rows:
                self.requests[row.name] = row.make()
                write_requests(self.requests[row.name], self._file(row))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stack.close()

    def _file(self, row: Row) -> Path:
        return self.directory / f"{row.name}.requests"

    def start(
        self, peer: str, name: str = "", connections: int = 4096, environ: Mapping[str, str] | None = None
    ) -> Program:
        """A proxy that is not started yet, to be entered, in a directory ``name``."""
        port, tls_port, tcp_port = free_ports(3)
        more = any(row.way != "http" for row in self._rows)
        place = Place(
            self.directory / (name or peer),
            port,
            self._workers,
            self.backends,
            connections,
            environ or {},
            More(tls_port, tcp_port, self._certificate) if more else None,
        )
        place.directory.mkdir()
        program = PEERS[peer](place)
        program.ports |= {"https": tls_port, "tcp": tcp_port}
        return program

    def load(self, row: Row, program: Program, seconds: int) -> Sample:
        """A row at full load on a proxy."""
        try:
            with self._idle(row, program.port):
                before = program.cpu()
                port = program.ports[row.way]
                if row.close and row.way == "https":
                    totals = run_handshakes(row, self.requests[row.name], port, seconds)
                else:
                    totals = run_wrk(self.wrk, row, self._file(row), port, seconds, self._skip(row))
                return Sample(totals, program.cpu() - before)
        except BenchError as error:
            raise BenchError(f"{program.name}, {row.name}: {error}\n{program.tail()}") from error

    def pace(self, row: Row, program: Program | None, rate: float, seconds: int) -> HalfSample:
        """A row at a fixed rate on a proxy, or on a backend without one."""
        port = program.port if program else self.backends[0]
        with self._idle(row, port):
            before = program.cpu() if program else CpuTime()
            totals = run_paced(row, self.requests[row.name], port, rate, seconds, self._skip(row))
            return HalfSample(totals, (program.cpu() if program else CpuTime()) - before)

    def weigh(self, peer: str, number: int, request: bytes) -> MemorySample:
        """The memory of a proxy, started for it, before and while it holds idle connections."""
        with self.start(peer, f"{peer}-memory-{number}", connections=CONNECTIONS_FOR_MEMORY) as program:
            with IdleConnections(program.port, 32, request):
                pass  # what only a first request brings in
            time.sleep(SETTLE_SECONDS)
            before = program.memory()
            with IdleConnections(program.port, IDLE_CONNECTIONS, request) as idle:
                time.sleep(SETTLE_SECONDS)
                sample = MemorySample(before, program.memory(), IDLE_CONNECTIONS)
                if lost := idle.lost():
                    raise BenchError(f"{peer} closed {lost} of {IDLE_CONNECTIONS} idle connections")
        return sample

    def _idle(self, row: Row, port: int) -> AbstractContextManager[object]:
        return IdleConnections(port, row.idle, self.requests[row.name][0]) if row.idle else nullcontext()

    def _skip(self, row: Row) -> int:
        return self._random.randrange(len(self.requests[row.name]))


def measure(plan: Plan) -> Results:
    """All samples of a run.

    Raises:
        BenchError: a program did not start or died.
    """
    say(f"about {plan.estimate() / 60:.0f} minutes")
    results = Results()
    with Stand(plan.rows, plan.workers) as stand:
        with ExitStack() as stack:
            programs = {peer: stack.enter_context(stand.start(peer)) for peer in plan.peers}
            _measure_load(plan, stand, programs, results)
            if HALF in plan.parts:
                _measure_half(plan, stand, programs, results)
        if MEMORY in plan.parts:
            _measure_memory(plan, stand, results)
    return results


def _measure_load(plan: Plan, stand: Stand, programs: Mapping[str, Program], results: Results) -> None:
    for number in range(1, plan.rounds + 1):
        for row in plan.rows:
            samples_of = results.load.setdefault(
                row.name, {peer: [] for peer in programs if row.way != "tcp" or peer in TCP_PEERS}
            )
            for peer in samples_of:
                program = programs[peer]
                if number == 1:
                    stand.load(row, program, 1)  # warms caches and fills the pools of connections
                sample = stand.load(row, program, plan.seconds)
                samples_of[peer].append(sample)
                totals = sample.totals
                say(
                    f"load {number}/{plan.rounds}    {row.name:10} {peer:8} {sample.cpu_us:9.1f} µs  "
                    f"{totals.requests:8} requests  {totals.failures} failed"
                )


def _measure_half(plan: Plan, stand: Stand, programs: Mapping[str, Program], results: Results) -> None:
    for number in range(1, plan.rounds + 1):
        for row in (row for row in plan.rows if row.way == "http"):
            rate = half_rate(results.load[row.name])
            samples_of = results.half.setdefault(row.name, {peer: [] for peer in (DIRECT, *programs)})
            for peer in samples_of:
                sample = stand.pace(row, programs.get(peer), rate, min(plan.seconds, HALF_SECONDS))
                samples_of[peer].append(sample)
                totals = sample.totals
                say(
                    f"half {number}/{plan.rounds}    {row.name:10} {peer:8} {rate:9.0f} /s  "
                    f"p50 {totals.p50_us:6.0f} µs  p99 {totals.p99_us:6.0f} µs  {totals.failures} failed"
                )


def _measure_memory(plan: Plan, stand: Stand, results: Results) -> None:
    request = same_heads()[0]
    for number in range(1, plan.rounds + 1):
        for peer in plan.peers:
            sample = stand.weigh(peer, number, request)
            results.memory.setdefault(peer, []).append(sample)
            kib = sample.per_connection / 1024
            say(f"memory {number}/{plan.rounds}  {peer:19} {kib:9.2f} KiB per connection")
