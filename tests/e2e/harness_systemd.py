"""A small stand-in for systemd: starts lbproc as a service, hears what it says, keeps its sockets, minds it.

Owns the notify socket, the sockets that it passes, and the watchdog. As systemd does, it believes the main
process alone, waits for a reload's own READY, ends all processes of a service whose main process is gone, and
starts it again.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lbproc.types import Seconds
from tests.e2e.harness import PATIENCE, LbprocServer, wait_until

# What systemd does between fork and exec: descriptors from 3 on, and the variables that name the process.
_LAUNCH = """
import fcntl, os, sys
passed = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 100) for word in sys.argv[1].split(",") if word]
for number, descriptor in enumerate(passed, start=3):
    os.dup2(descriptor, number)
    os.close(descriptor)
if passed:
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(passed))
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Word:
    """One datagram.

    Args:
        at: when it was heard.
        pid: who said it, by the kernel's word.
        values: its lines.
    """

    at: Seconds
    pid: int
    values: dict[str, str]


class _Ear(threading.Thread):
    """Hears everything at once, so that nothing is lost to a full queue."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.words: list[Word] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._is_closing = False

    def run(self) -> None:
        """Listens until closed."""
        while True:
            octets, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
            if self._is_closing:
                return
            credentials = next(data for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS)
            pairs = (line.partition("=") for line in octets.decode().split("\n"))
            values = {key: value for key, _, value in pairs}
            self.words.append(Word(time.perf_counter(), struct.unpack("3i", credentials)[0], values))

    def close(self) -> None:
        """Ends the thread."""
        self._is_closing = True
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"END=1", self._socket.getsockname())
        self.join(PATIENCE)
        self._socket.close()


class ManagedLbproc(LbprocServer):
    """lbproc as a service of the stand-in.

    Args:
        directory: as for `LbprocServer`, and for the notify socket.
        config: likewise.
        sockets: passed, and kept here; closed at the end.
        names: of the sockets.
        watchdog: how often lbproc has to say that it turns.
        options: as for `LbprocServer`.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        sockets: tuple[socket.socket, ...] = (),
        names: str = "",
        watchdog: Seconds | None = None,
        **options: Any,
    ) -> None:
        notify = directory / "notify"
        self._ear = _Ear(notify)
        self._ear.start()
        self._sockets = sockets
        self._heard = 0  # words of processes before this one
        self.watchdog = watchdog
        environ = {"NOTIFY_SOCKET": str(notify), "LISTEN_FDNAMES": names}
        if watchdog is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        super().__init__(directory, config, environ=environ, **options)
        numbers = ",".join(str(sock.fileno()) for sock in sockets)
        self.command = [sys.executable, "-c", _LAUNCH, numbers, *self.command]

    def spawn(self) -> None:
        """Starts the process with its sockets."""
        self._heard = len(self._ear.words)
        with self.stdout_path.open("ab") as stdout, self.stderr_path.open("ab") as stderr:
            self._popen = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pass_fds=[sock.fileno() for sock in self._sockets],
            )

    def is_ready(self) -> bool:
        """The service says so, and so it is."""
        return bool(self.said("READY")) and super().is_ready()

    def said(self, key: str) -> list[Word]:
        """What this process has said with that key, in order. Nobody else may say anything."""
        words = self._ear.words[self._heard :]
        assert {word.pid for word in words} <= {self.pid}
        return [word for word in words if key in word.values]

    def reload(self, *, refused: bool = False) -> Word:
        """SIGHUP, and waits for the end of the reload as systemd does; returns its READY.

        READY=1 comes after a refusal too, so this makes sure that the reload was done, or ``refused``.
        """
        asked_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send_signal(signal.SIGHUP)

        def began() -> list[Word]:
            return [word for word in self.said("RELOADING") if int(word.values["MONOTONIC_USEC"]) >= asked_at]

        (beginning,) = wait_until(began, "RELOADING=1")
        end = wait_until(
            lambda: [word for word in self.said("READY") if word.at >= beginning.at], "READY=1 after it"
        )[0]
        assert ("a reload was refused" in end.values["STATUS"]) is refused, end.values["STATUS"]
        return end

    def fell_silent(self) -> bool:
        """Whether the watchdog would bite now."""
        assert self.watchdog is not None
        beats = self.said("WATCHDOG")
        return not beats or time.perf_counter() - beats[-1].at > self.watchdog

    def restart_after_failure(self) -> None:
        """What systemd does when the main process is gone: ends what is left, starts the service again."""
        self.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        wait_until(lambda: not self.processes(), "the children are gone")
        self.start()

    def destroy(self) -> None:
        """Ends the service and lets go of its sockets."""
        with ExitStack() as stack:
            for sock in self._sockets:
                stack.callback(sock.close)
            if self._ear.is_alive():
                stack.callback(self._ear.close)
            super().destroy()

    def __enter__(self) -> Self:
        return super().__enter__()


def listening_socket(host: str = "127.0.0.1", *, both_families: bool = False) -> socket.socket:
    """A TCP socket as systemd opens it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both_families)
    sock.bind((host, 0))
    sock.listen(4096)
    return sock


def listening_unix_socket(path: Path) -> socket.socket:
    """A Unix socket as systemd opens it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(4096)
    return sock
