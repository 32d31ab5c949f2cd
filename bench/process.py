"""Programs that a measurement runs, and the CPU time and memory that they use.

Every program leads a session of its own and is killed with all of it at the end. CPU time is that of all its
processes, user and system, from /proc/PID/stat, with the processes that have ended meanwhile: that is what an
operator pays, wherever in the program the work is done. Memory is the proportional set size (Pss) of all its
processes from /proc/PID/smaps_rollup: a page that several share counts once. The kernel's own memory, such as
socket buffers, is in neither.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL_BYTES = 2000
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The measurement cannot be made; says why."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds in user mode and in the kernel. The kernel knows their sum exactly and samples their shares."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        """Both together."""
        return self.user + self.system

    def __add__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.user + other.user, self.system + other.system)

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.user - other.user, self.system - other.system)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it started, and the children that it has waited for."""

    parent: int
    session: int
    cpu: CpuTime


def read_usages() -> dict[int, Usage]:
    """Every process of the machine by its pid. CPU time covers all its threads, at 10 ms resolution."""
    usages = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                usages[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except OSError:  # ended in the meantime
                continue
    return usages


def parse_stat(line: str) -> Usage:
    """A line of /proc/PID/stat. The name in it may hold spaces and parentheses."""
    fields = line.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(ticks) / _TICKS_PER_SECOND for ticks in fields[11:15])
    return Usage(int(fields[1]), int(fields[3]), CpuTime(user + children_user, system + children_system))


def tree_of(root: int, usages: Mapping[int, Usage]) -> list[int]:
    """``root``, all that descend from it, and what is left of its session where a parent has ended."""
    found = []
    for pid, usage in usages.items():
        ancestor = pid
        while ancestor not in {root, 0, 1} and ancestor in usages:
            ancestor = usages[ancestor].parent
        if root in {ancestor, usage.session}:
            found.append(pid)
    return found


def tree_cpu(root: int, usages: Mapping[int, Usage]) -> CpuTime:
    """CPU time of a whole tree. What an ended child has used is part of its parent's."""
    return sum((usages[pid].cpu for pid in tree_of(root, usages)), CpuTime())


def pss_bytes(pid: int) -> int:
    """Memory of one process in user space, its share of what it shares; 0 when it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def raise_file_limit(wanted: int) -> int:
    """Raises the limit of open files of this process and those that it starts; returns what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))  # root may
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < min(wanted, hard):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Program:
    """A server that runs while the measurement lasts.

    Args:
        name: for messages.
        command: program and arguments, staying in the foreground.
        directory: where it runs; its output goes to ``NAME.out`` there.
        port: it serves once this port accepts connections.
        environ: variables added to ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        port: int,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.ports = {"http": port}
        """By what is spoken there."""
        self._output = directory / f"{name}.out"
        self._command = command
        self._directory = directory
        self._environ = {**os.environ, **(environ or {})}
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_serving()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_serving(self) -> None:
        assert self._popen is not None
        deadline = time.perf_counter() + 15.0
        while True:
            if self._popen.poll() is not None:
                raise BenchError(f"{self.name} exited with {self._popen.returncode}:\n{self.tail()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.perf_counter() > deadline:
                raise BenchError(f"{self.name} does not serve port {self.port}:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """The end of what it printed."""
        with self._output.open("rb") as output:
            output.seek(max(output.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            return output.read().decode(errors="replace")

    def __exit__(self, *_: object) -> None:
        if self._popen is None:
            return
        self._popen.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(3.0)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def cpu(self) -> CpuTime:
        """CPU time of all its processes so far, the ended ones too."""
        return tree_cpu(self._pid(), read_usages())

    def pids(self) -> list[int]:
        """All its processes that run, by pid."""
        return sorted(tree_of(self._pid(), read_usages()))

    def memory(self) -> int:
        """Bytes of user memory of all its processes."""
        return sum(pss_bytes(pid) for pid in self.pids())

    def _pid(self) -> int:
        assert self._popen is not None
        if self._popen.poll() is not None:
            raise BenchError(f"{self.name} died with {self._popen.returncode}:\n{self.tail()}")
        return self._popen.pid


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that Linux takes for outgoing connections."""
    found: list[int] = []
    port = 14_000 + os.getpid() % 10_000
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
