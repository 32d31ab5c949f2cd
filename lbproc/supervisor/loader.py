"""Loading a new configuration while the supervisor goes on: in a process of its own.

That process reads every file once, checks everything, compares with what is in force, and says what came of
it over a pipe; the configuration itself goes into a sealed memory file that all others are given. It may
take long, hang or die: the supervisor only watches a pipe. Owns that process, the pipe and the file, until
they are taken or closed. Does not own the time limit, except for the last one: a loader that was left alone,
because its supervisor died, ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lbproc.config.diff import diff, why_not
from lbproc.config.load import check_config, renew_config
from lbproc.config.model import Config
from lbproc.config.sealed import open_memory, seal, unseal
from lbproc.errors import LbprocError, StartError
from lbproc.supervisor.forking import fork
from lbproc.telemetry.log import ErrorLog

GIVES_UP_AFTER = 60
"""Seconds. The supervisor, if it lives, has ended a loader long before."""

NICENESS = 10
"""Traffic goes first: to check a thousand backends takes a processor for tenths of a second."""

_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """What came of loading.

    Args:
        changes: every difference from what is in force, a line each.
        refusal: why it cannot be used; empty: it can.
        warnings: what of it should be looked at all the same, a line each.
    """

    changes: tuple[str, ...]
    refusal: str = ""
    warnings: tuple[str, ...] = ()


class Loader:
    """One load, begun at once. Readable when there is something to `read`.

    Args:
        path: a file or directory.
        environ: where secrets are looked up.
        in_force: to compare with.
        adapt: applies what the command line of `run` said; called in the new process.
        release: closes there what is the supervisor's.
        log: for a defect.
        renews: what is in force is loaded once more, with what now stands in the files of its certificates.

    Raises:
        StartError: there are no descriptors or processes for it.
    """

    __slots__ = ("_memory", "_pipe", "_process", "_said", "path")

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        in_force: Config,
        adapt: Callable[[Config], Config],
        release: Callable[[], None],
        log: ErrorLog,
        *,
        renews: bool = False,
    ) -> None:
        self.path = path
        self._said = bytearray()
        self._memory = self._pipe = self._process = -1
        writing = -1
        try:
            self._memory = open_memory()
            self._pipe, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

            def main() -> int:
                os.close(self._pipe)
                os.set_blocking(writing, True)
                return _load(path, environ, in_force, adapt, self._memory, writing, renews=renews)

            pid = fork(main, release, log)
            # Until it is reaped, which is somebody else's part, the process id is its own.
            self._process = os.pidfd_open(pid)
        except OSError as error:
            self.close()
            raise StartError(f"the configuration cannot be loaded: {error.strerror}") from error
        finally:
            if writing >= 0:
                os.close(writing)

    def fileno(self) -> int:
        """The reading end of the pipe."""
        return self._pipe

    def read(self) -> LoadedConfig | None:
        """What came of it; None while that is not known."""
        try:
            while octets := os.read(self._pipe, _READ_BYTES):
                self._said += octets
        except BlockingIOError:
            return None
        try:
            said = pickle.loads(self._said)  # noqa: S301  from our own forked process
        except (EOFError, pickle.UnpicklingError, ValueError):
            said = None
        if isinstance(said, LoadedConfig):
            return said
        return LoadedConfig(
            (), f"{self.path}: the process that loaded the configuration ended without a word"
        )

    def take(self) -> tuple[int, Config]:
        """The sealed memory file, which belongs to the caller from now on, and the configuration in it.

        Raises:
            ControlError: the loader has not sealed it.
        """
        config = unseal(self._memory)
        memory, self._memory = self._memory, -1
        return memory, config

    def kill(self) -> None:
        """Ends the process if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Closes what was not taken. Idempotent, and right in a forked child too."""
        for descriptor in (self._memory, self._pipe, self._process):
            if descriptor >= 0:
                os.close(descriptor)
        self._memory = self._pipe = self._process = -1


def _load(
    path: Path,
    environ: Mapping[str, str],
    in_force: Config,
    adapt: Callable[[Config], Config],
    memory: int,
    pipe: int,
    *,
    renews: bool,
) -> int:
    """In the new process."""
    os.nice(NICENESS)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(GIVES_UP_AFTER)
    try:
        checked = renew_config(in_force) if renews else check_config(path, environ)
        config = adapt(checked.config)
        changes = diff(in_force, config)
        seal(memory, config)
        said = LoadedConfig(tuple(map(str, changes)), why_not(changes), tuple(map(str, checked.warnings)))
    except LbprocError as error:
        said = LoadedConfig((), str(error))
    except OSError as error:
        said = LoadedConfig((), f"{path}: {error.strerror or error}")
    content = pickle.dumps(said)
    while content:
        content = content[os.write(pipe, content) :]
    return 0
