"""Programs that a measurement runs, and the CPU time that they use.

Every program leads a process group of its own and is killed with all of it at the end. CPU time is that of
the whole tree below the program, user and system, from /proc/PID/stat: that is what an operator pays,
wherever in the program the work is done.
"""

from __future__ import annotations

import os
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

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The measurement cannot be made; says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it started."""

    parent: int
    cpu_seconds: float


def read_usages() -> dict[int, Usage]:
    """Every process of the machine by its pid. CPU time covers all its threads, at 10 ms resolution."""
    usages = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # ended in the meantime
                continue
            ticks = int(fields[11]) + int(fields[12])
            usages[int(entry.name)] = Usage(int(fields[1]), ticks / _TICKS_PER_SECOND)
    return usages


def tree_cpu_seconds(root: int, usages: Mapping[int, Usage]) -> float:
    """CPU time of ``root`` and of all that descend from it."""
    total = 0.0
    for pid, usage in usages.items():
        ancestor = pid
        while ancestor not in {root, 0, 1} and ancestor in usages:
            ancestor = usages[ancestor].parent
        if ancestor == root:
            total += usage.cpu_seconds
    return total


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
                raise BenchError(f"{self.name} exited with {self._popen.returncode}:\n{self._tail()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.perf_counter() > deadline:
                raise BenchError(f"{self.name} does not serve port {self.port}:\n{self._tail()}")
            time.sleep(0.02)

    def _tail(self) -> str:
        return self._output.read_text(errors="replace")[-2000:]

    def __exit__(self, *_: object) -> None:
        if self._popen is None:
            return
        self._popen.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(3.0)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        assert self._popen is not None
        if self._popen.poll() is not None:
            raise BenchError(f"{self.name} died with {self._popen.returncode}:\n{self._tail()}")
        return tree_cpu_seconds(self._popen.pid, read_usages())


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
