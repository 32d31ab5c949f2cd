"""A supervisor in a process of its own, with small children, and the ways to talk to it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import tomllib
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import tomli_w

from lbproc.boot import WorkerBoot
from lbproc.config.model import Config
from lbproc.config.show import render_config
from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import CommandLineRequest, ReloadRequest, Reply, StatusRequest
from lbproc.errors import LbprocError
from lbproc.supervisor.belongings import Entries
from lbproc.supervisor.start import run
from tests.ports import free_port
from tests.supervisor.small_children import SmallWorker, small_controller

PATIENCE = 20.0
"""Nothing takes this long; a test that waits longer has found a defect."""


def run_small_worker(trouble: Path, boot: WorkerBoot) -> int:
    return SmallWorker(boot, trouble).run()


class RunningSupervisor:
    """Starts at the entry of a ``with`` and is ready then; killed with its children at the end if it still
    runs.

    Args:
        directory: for sockets, logs, and the files that make children misbehave.
        workers: how many.
        bind: more addresses.
        real: with the real worker and controller instead of small ones, and all logs at full length.
        runtime: more keys of ``[runtime]``.
    """

    def __init__(
        self,
        directory: Path,
        workers: int | str = 2,
        bind: tuple[str, ...] = (),
        *,
        real: bool = False,
        **runtime: object,
    ) -> None:
        self.directory = directory
        self.real = real
        self.access_log = directory / "access.log"
        self.port = free_port()
        self.control = directory / "control.sock"
        self.unix = directory / "web.sock"
        self.error_log = directory / "error.log"
        self.output = directory / "output"
        self.config = Config.model_validate(
            {
                "runtime": {"workers": workers, "control_socket": str(self.control), **runtime},
                "log": {
                    "access": str(self.access_log) if real else "off",
                    "error": str(self.error_log),
                    "level": "debug" if real else "info",
                },
                "listeners": {
                    "web": {"bind": [f"127.0.0.1:{self.port}", f"unix:{self.unix}", *bind], "pool": "web"},
                },
                "pools": {"web": {"backends": ["127.0.0.1:9"] if real else ["127.0.0.1:9", "name.test:80"]}},
            }
        )
        self.file = directory / "lbproc.toml"
        self.file.write_text(render_config(self.config))
        self.workers_option: int | None = None
        self.on_ready: Callable[[], None] | None = None
        self.entries: Entries | None = None
        if not real:
            self.entries = Entries(partial(run_small_worker, directory), partial(small_controller, directory))
        self.pid = 0
        self.status: int | None = None

    def __enter__(self) -> Self:
        self.fork()
        self.wait_for_log("ready workers=")
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            for pid in [*self.descendants(), self.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            os.waitpid(self.pid, 0)

    def fork(self) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        gc.freeze()  # what earlier tests have left behind is not to be closed while somebody looks
        status = 99
        try:
            with self.output.open("ab", buffering=0) as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            status = run(
                self.config,
                self.file,
                workers=self.workers_option,
                entries=self.entries,
                on_ready=self.on_ready,
            )
        except LbprocError as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            status = 1
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            flush_coverage()
            os._exit(status)

    def descendants(self) -> list[int]:
        """Its children, also after its own death only as long as they are still its children."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(word) for word in path.read_text().split()]
        except FileNotFoundError:
            return []

    def ask(self, request: CommandLineRequest) -> Reply:
        with self.connect_to_control() as sock:
            sock.sendall(encode(request))
            return self.receive(sock)

    def connect_to_control(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.control))
        return sock

    def send_reload(self, sock: socket.socket) -> None:
        sock.sendall(encode(ReloadRequest("", dry_run=False)))

    def receive(self, sock: socket.socket) -> Reply:
        decoder = Decoder()
        while (message := decoder.next_message()) is None:
            octets = sock.recv(65536)
            assert octets, "closed without an answer"
            decoder.feed(octets)
        assert isinstance(message, Reply)
        return message

    def reload(self, dry_run: bool = False, file: Path | None = None) -> Reply:
        return self.ask(ReloadRequest("" if file is None else str(file), dry_run))

    def rewrite(self, **tables: Any) -> None:
        """Changes keys in the file: tables by name, in them tables or values; None takes one out."""
        document = tomllib.loads(self.file.read_text())
        _merge(document, tables)
        self.file.write_text(tomli_w.dumps(document))

    def state(self) -> dict[str, Any]:
        body = self.ask(StatusRequest()).body
        assert isinstance(body, dict)
        return body

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.state()["workers"]
        return found

    def say(self, line: str, unix: bool = False) -> str:
        """One connection, one line; returns all that comes back."""
        with self.connect(unix) as sock:
            sock.sendall(line.encode() + b"\n")
            with sock.makefile() as answer:
                return answer.read()

    def connect(self, unix: bool = False) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.unix) if unix else ("127.0.0.1", self.port))
        return sock

    def wait_for_log(self, text: str, times: int = 1) -> str:
        return str(wait_for(lambda: self.log_with(text, times), f"{text!r} in the log"))

    def log_with(self, text: str, times: int = 1) -> str:
        log = self.error_log.read_text() if self.error_log.exists() else ""
        if log.count(text) >= times:
            return log
        assert self.is_running(), self.output.read_text() + log
        return ""

    def is_running(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def wait(self) -> int:
        wait_for(lambda: not self.is_running(), "the end of the supervisor")
        assert self.status is not None
        return self.status

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def _merge(document: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            del document[key]
        elif isinstance(value, dict):
            _merge(document.setdefault(key, {}), value)
        else:
            document[key] = value


def flush_coverage() -> None:
    if coverage := sys.modules.get("coverage"):
        current = coverage.Coverage.current()
        if current is not None:
            current.stop()
            current.save()


def wait_for(condition: Any, what: str) -> Any:
    """Looks again and again until it holds."""
    deadline = time.perf_counter() + PATIENCE
    while not (result := condition()):
        assert time.perf_counter() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return result


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
