"""Real programs under test: starting, waiting, stopping, and proving that nothing is left.

Owns processes. Every program runs in a session of its own, so that all it forks can be found and killed by
its process group, whatever becomes of its parent. Invariants: nothing here waits without a deadline; what a
program wrote to standard error is kept for the message of a failed test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lbproc.cli.client import ask
from lbproc.core.control.messages import StatusRequest
from lbproc.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lbproc.types import Seconds

PATIENCE: Seconds = 20.0
"""How long a condition may take on a slow machine. Only a failing test ever waits that long."""

T = TypeVar("T")

_ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], T], what: str, within: Seconds = PATIENCE) -> T:
    """Asks again until ``condition`` is true, and returns what it said.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.perf_counter() + within
    while not (value := condition()):
        assert time.perf_counter() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)  # the one pause of all tests: between two looks at a condition
    return value


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    state: str
    name: str


def all_processes() -> list[ProcessState]:
    """Every process of this machine but zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            before, _, after = (entry / "stat").read_text().rpartition(")")
        except OSError:  # ended in the meantime
            continue
        state, parent, group = after.split()[:3]
        if state not in {"Z", "X"}:
            name = before.partition("(")[2]
            found.append(ProcessState(int(entry.name), int(parent), int(group), state, name))
    return found


class Program:
    """A program in a process group of its own, with its output in files.

    Args:
        name: for messages, and for the names of the output files.
        command: program and arguments.
        directory: where it runs and where its output goes.
        environ: variables added to those of the test.
        stdout: a descriptor that becomes its standard output, instead of a file.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environ: Mapping[str, str] | None = None,
        *,
        stdout: int | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.directory = directory
        self.stdout_path = directory / f"{name}.stdout"
        self.stderr_path = directory / f"{name}.stderr"
        self._environ = {**os.environ, **(environ or {})}
        self._stdout = stdout
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @property
    def pid(self) -> int:
        """The process that was started; also its process group."""
        assert self._popen is not None, f"{self.name} was not started"
        return self._popen.pid

    def spawn(self) -> None:
        """Starts the program without waiting for anything."""
        with self.stdout_path.open("ab") as stdout, self.stderr_path.open("ab") as stderr:
            self._popen = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout if self._stdout is None else self._stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def start(self) -> None:
        """Starts the program and waits until it serves. A program that exits instead fails the test."""
        self.spawn()
        try:
            wait_until(self._is_up_or_dead, f"{self.name} serves")
            assert self.is_running(), f"{self.name} exited with {self._exit_status()}"
        except AssertionError as error:
            self.destroy()
            raise AssertionError(f"{error}\n{self.stderr()}") from None

    def _is_up_or_dead(self) -> bool:
        return not self.is_running() or self.is_ready()

    def is_ready(self) -> bool:
        """Whether the program serves; subclasses know."""
        return True

    def is_running(self) -> bool:
        """Whether the started process lives; says nothing of what it forked."""
        assert self._popen is not None
        return self._popen.poll() is None

    def _exit_status(self) -> int | None:
        return None if self._popen is None else self._popen.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the started process only."""
        os.kill(self.pid, number)

    def wait(self, within: Seconds = PATIENCE) -> int:
        """Waits for the started process to end and returns its exit status; negative for a signal."""
        assert self._popen is not None
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {within} s\n{self.stderr()}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, within: Seconds = PATIENCE) -> int:
        """Asks the program to end, waits, and returns its exit status."""
        self.send_signal(number)
        return self.wait(within)

    def processes(self) -> list[ProcessState]:
        """All live processes of the group, also those whose parent is gone."""
        return [process for process in all_processes() if process.group == self.pid]

    def destroy(self) -> None:
        """Kills everything that was started here and waits until it is gone. Idempotent."""
        if self._popen is None:
            return
        if self.processes():
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(PATIENCE)
        wait_until(lambda: not self.processes(), f"all processes of {self.name} are gone")

    def stderr(self) -> str:
        """What the program said on standard error."""
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def stdout(self) -> str:
        """What the program said on standard output."""
        return self.stdout_path.read_text(errors="replace") if self.stdout_path.exists() else ""


class LbprocServer(Program):
    """``python -m lbproc run`` on a configuration of its own.

    Args:
        directory: for the configuration, the control socket and the logs.
        config: TOML without ``[runtime]`` and ``[log]``, which are written here; see ``web_config``.
        workers: how many worker processes.
        runtime: more lines for ``[runtime]``.
        log: more lines for ``[log]``.
        access: where the access log goes; a file of its own if not given.
        environ: variables added to those of the test.
        stdout: a descriptor that becomes its standard output.
        name: tells several servers of one test apart.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        workers: int = 2,
        runtime: str = "",
        log: str = "",
        access: str | None = None,
        environ: Mapping[str, str] | None = None,
        stdout: int | None = None,
        name: str = "lbproc",
    ) -> None:
        self.config_path = directory / f"{name}.toml"
        self.control_socket = directory / f"{name}.sock"
        self.access_log_path = directory / f"{name}.access.log"
        self._workers = workers
        self.config_path.write_text(
            f"[runtime]\nworkers = {workers}\n"
            f"control_socket = {json.dumps(str(self.control_socket))}\n{runtime}\n"
            f"[log]\naccess = {json.dumps(access or str(self.access_log_path))}\n{log}\n{config}\n"
        )
        command = [sys.executable, "-m", "lbproc", "run", "-c", str(self.config_path)]
        path = {"PYTHONPATH": str(_ROOT)} if environ is None else {"PYTHONPATH": str(_ROOT), **environ}
        super().__init__(name, command, directory, path, stdout=stdout)

    def is_ready(self) -> bool:
        """Every worker says that it is ready."""
        try:
            workers = self.status()["workers"]
        except ControlError:
            return False
        return len(workers) == self._workers and all(worker["state"] == "ready" for worker in workers)

    def status(self) -> dict[str, Any]:
        """What ``lbproc status --json`` prints."""
        return ask(self.control_socket, StatusRequest())

    def worker_pids(self) -> list[int]:
        """The processes that serve, in the order of their slots."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def in_flight(self) -> dict[str, int]:
        """Requests in flight by ``POOL/BACKEND``, over all workers."""
        return {
            f"{pool_name}/{backend['name']}": backend["in_flight"]
            for pool_name, pool in self.status()["pools"].items()
            for backend in pool["backends"]
        }

    def access_log(self, lines: int = 0) -> list[dict[str, Any]]:
        """The access log, once it has at least ``lines`` lines; it is written a moment after each request."""
        wait_until(lambda: len(self.access_lines()) >= lines, f"{lines} lines in the access log")
        return [json.loads(line) for line in self.access_lines()]

    def access_lines(self) -> list[str]:
        """The lines of the access log so far, as they stand there."""
        return whole_lines(self.access_log_path.read_text()) if self.access_log_path.exists() else []

    def events(self) -> list[str]:
        """The names of all events of the error log so far, in order."""
        lines = (line.split() for line in whole_lines(self.stderr()))
        return [words[3] for words in lines if len(words) > 3]

    def run_command(self, *arguments: str, within: Seconds = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Runs ``lbproc ARGUMENTS`` against this server's control socket."""
        return subprocess.run(
            [sys.executable, "-m", "lbproc", *arguments],
            env={**os.environ, "PYTHONPATH": str(_ROOT), "LBPROC_SOCKET": str(self.control_socket)},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def assert_clean(self) -> None:
        """No defect showed itself: no traceback, no crashed connection or process."""
        stderr = self.stderr()
        for sign in ("Traceback", "connection_crashed", " crashed "):
            assert sign not in stderr, f"{self.name} said {sign!r}:\n{stderr}"


def whole_lines(text: str) -> list[str]:
    """The lines of a file that is being written, without one that has only begun.

    However a line is written, a reader may find the beginning of it: a file grows page by page.
    """
    return text[: text.rfind("\n") + 1].splitlines()


def web_config(
    address: str,
    backends: Iterable[str],
    *,
    listener: str = "",
    pool: str = "",
    backend_options: str = "",
    rest: str = "",
) -> str:
    """One listener ``web`` in front of one pool ``web``.

    Args:
        address: where to listen, ``host:port`` or ``unix:PATH``.
        backends: their addresses.
        listener: more lines for ``[listeners.web]``.
        pool: more lines for ``[pools.web]``.
        backend_options: put into every backend, for example ``max_connections = 10``.
        rest: what follows: other tables.
    """
    options = f", {backend_options}" if backend_options else ""
    rows = "".join(f"  {{ address = {json.dumps(backend)}{options} }},\n" for backend in backends)
    return (
        f'[listeners.web]\nbind = {json.dumps(address)}\npool = "web"\n{listener}\n'
        f"[pools.web]\nbackends = [\n{rows}]\n{pool}\n{rest}"
    )
