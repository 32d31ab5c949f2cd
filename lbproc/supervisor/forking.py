"""A process forked by the supervisor: from the fork to its own main function, and out.

In the new process nothing returns into the supervisor's code: whatever happens, it leaves here, without
running what the supervisor has registered to run at its own exit.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from lbproc.supervisor.signals import signals_held
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog

EXIT_CRASHED = 70
"""A defect ended the process (EX_SOFTWARE of sysexits.h)."""


def fork(main: Callable[[], int], release: Callable[[], None], log: ErrorLog) -> int:
    """Forks; returns the process id in the parent, and never in the new process.

    Only call this while the process has one thread.

    Args:
        main: what the new process does; returns its exit status.
        release: closes there everything of the supervisor that it must not keep, and lets go of the
            supervisor's signals.
        log: the new process's own, for the defect that ends it.

    Raises:
        OSError: the fork failed.
    """
    _flush_streams()  # what is buffered would be written by both
    with signals_held():
        pid = os.fork()
        if pid == 0:
            try:
                release()
            except BaseException as error:  # the barrier of the process: nothing may return from here
                log.write_crash(Event.CRASHED, error)
                _leave(EXIT_CRASHED)
    if pid == 0:
        status = EXIT_CRASHED
        try:
            status = main()
        except BaseException as error:  # the barrier of the process
            log.write_crash(Event.CRASHED, error)
        finally:
            _leave(status)
    return pid


def _leave(status: int) -> NoReturn:
    """Leaves without the parent's exit functions; what was measured of the process is kept."""
    try:
        if coverage := sys.modules.get("coverage"):
            current = coverage.Coverage.current()
            if current is not None:
                current.stop()
                current.save()
        _flush_streams()
    finally:
        os._exit(status)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # closed, or a pipe whose reader is gone: nobody wants it
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
