"""The demo's processes and files: three backends, the balancer, a private directory. Synchronous.

Owns their start and their end: when `Stage.close` returns, no process and no file of the demo is left. The
processes are in sessions of their own, so that Ctrl-C reaches the demo alone and the order of the end is its
choice: first the balancer, so that it can answer what it holds, then the backends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import tomli_w

from lbproc.errors import StartError
from lbproc.types import Seconds

PROXY_PORT = 8080
BACKEND_PORTS = (9001, 9002, 9003)
BACKEND_NAMES = ("a", "b", "c")
BACKEND_DELAYS_MS = (30, 30, 90)
SLOW_BACKEND = "c"

DRAIN_TIMEOUT: Seconds = 3.0
"""How long the balancer may go on answering after the end; somebody's tunnel may still be open."""

KILL_TIMEOUT: Seconds = 2.0

_LONGEST_SOCKET_PATH = 107  # sun_path of AF_UNIX, without the final NUL


def open_listener(preferred_port: int) -> socket.socket:
    """A listening socket on loopback: on the preferred port, or on any free one if that is taken."""
    for port in (preferred_port, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
        except OSError:
            listener.close()
            if port == 0:
                raise
        else:
            return listener
    raise AssertionError


def find_free_port(preferred_port: int) -> int:
    """A port that was free a moment ago, for a program that binds for itself."""
    with open_listener(preferred_port) as listener:
        port: int = listener.getsockname()[1]
        return port


class Stage:
    """The running demo, without anything that looks at it.

    Args:
        policy: the pool's policy.
        workers: how many worker processes; None: one per CPU, at least 2 and at most 4.

    Raises:
        OSError: the system gives no port, process or file.
    """

    def __init__(self, policy: str, workers: int | None) -> None:
        self._directory = _make_directory()
        self._backends: list[subprocess.Popen[bytes]] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self.control_socket = self._directory / "control.sock"
        self._output = self._directory / "output.log"
        self._config = self._directory / "lbproc.toml"
        try:
            addresses = [self._start_backend(i) for i in range(len(BACKEND_NAMES))]
            self.port = find_free_port(PROXY_PORT)
            count = workers or min(4, max(2, len(os.sched_getaffinity(0))))
            self._config.write_text(self._describe(policy, count, addresses), encoding="utf-8")
            self._proxy = self._start_proxy()
        except BaseException:
            self.close()
            raise

    def require_running(self) -> None:
        """Checks that nothing has ended on its own.

        Raises:
            StartError: something has; with what the balancer wrote, if it is the balancer.
        """
        if self._proxy is not None and self._proxy.poll() is not None:
            output = self._output.read_text(encoding="utf-8", errors="replace").strip()
            raise StartError(f"the demo's balancer ended (status {self._proxy.returncode}):\n{output}")
        for name, backend in zip(BACKEND_NAMES, self._backends, strict=True):
            if backend.poll() is not None:
                raise StartError(f"the demo's backend {name} ended (status {backend.returncode})")

    def close(self) -> None:
        """Ends all processes and removes the files. Ctrl-C during this makes it quicker, not incomplete."""
        try:
            if self._proxy is not None:
                self._proxy.terminate()
                if not _ends_within(self._proxy, DRAIN_TIMEOUT):
                    self._proxy.send_signal(signal.SIGQUIT)
                    _ends_within(self._proxy, KILL_TIMEOUT)
            for backend in self._backends:
                backend.terminate()
            for backend in self._backends:
                _ends_within(backend, KILL_TIMEOUT)
        except KeyboardInterrupt:
            pass
        finally:
            for process in (self._proxy, *self._backends):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _start_backend(self, place: int) -> str:
        with open_listener(BACKEND_PORTS[place]) as listener:
            descriptor = listener.fileno()
            arguments = [
                str(os.getpid()),
                BACKEND_NAMES[place],
                str(descriptor),
                str(BACKEND_DELAYS_MS[place]),
            ]
            command = [sys.executable, "-m", "lbproc.cli.demo.backend", *arguments]
            self._backends.append(self._start(command, (descriptor,)))
            return f"127.0.0.1:{listener.getsockname()[1]}"

    def _start_proxy(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lbproc.cli.demo.proxy", str(os.getpid()), str(self._config)]
        return self._start(command, ())

    def _start(self, command: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # this interpreter, our modules
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=descriptors,
                start_new_session=True,
            )

    def _describe(self, policy: str, workers: int, addresses: list[str]) -> str:
        backends = [
            {"address": address, "name": name} for address, name in zip(addresses, BACKEND_NAMES, strict=True)
        ]
        return tomli_w.dumps(
            {
                "runtime": {"workers": workers, "control_socket": str(self.control_socket)},
                "log": {"access": "off"},
                "listeners": {"web": {"bind": f"127.0.0.1:{self.port}", "pool": "web"}},
                "pools": {"web": {"policy": policy, "backends": backends}},
            }
        )


def _make_directory() -> Path:
    """A private directory (0700) whose path is short enough for a Unix socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="lbproc-demo-"))
    if len(os.fsencode(directory / "control.sock")) > _LONGEST_SOCKET_PATH:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="lbproc-demo-", dir="/tmp"))
    return directory


def _ends_within(process: subprocess.Popen[bytes], timeout: Seconds) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    return process.returncode is not None
