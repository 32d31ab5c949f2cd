"""The first and the last moments of a child: from the fork to its own main function, and out.

Owns the fork. In the child nothing returns into the supervisor's code: whatever happens, the process leaves
here, without running what the supervisor has registered to run at its own exit.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from lbproc.core.control.messages import FailedToBoot
from lbproc.errors import LbprocError
from lbproc.net.channel import send_last_words
from lbproc.supervisor.rights import Account, become
from lbproc.supervisor.signals import signals_held
from lbproc.telemetry.events import Event
from lbproc.telemetry.log import ErrorLog

EXIT_REFUSED = 1
"""The child said why it cannot work."""

EXIT_CRASHED = 70
"""A defect ended the child (EX_SOFTWARE of sysexits.h)."""


def fork_child(
    main: Callable[[], int],
    release: Callable[[], None],
    channel: socket.socket,
    account: Account | None,
    log: ErrorLog,
) -> int:
    """Forks; returns the process id in the parent, and never in the child.

    Only call this while the process has one thread.

    Args:
        main: what the child does; returns its exit status.
        release: closes, in the child, everything of the supervisor that it must not keep, and lets go of the
            supervisor's signals.
        channel: the child's end, for its last words when it cannot boot.
        account: whom the child runs as; None leaves that as it is.
        log: the child's own, for the defect that ends it.

    Raises:
        OSError: the fork failed.
    """
    _flush_streams()  # what is buffered would be written by both
    with signals_held():
        pid = os.fork()
        if pid == 0:
            status = EXIT_CRASHED
            try:
                release()
            except BaseException as error:  # the barrier of the process: nothing may return from here
                log.write_crash(Event.CRASHED, error)
                _leave(status)
    if pid == 0:
        _live(main, channel, account, log)
    return pid


def _live(
    main: Callable[[], int], channel: socket.socket, account: Account | None, log: ErrorLog
) -> NoReturn:
    status = EXIT_CRASHED
    try:
        # What was made before the fork is shared with the parent as long as no collector touches it.
        gc.freeze()
        # SIGABRT from the supervisor: write the stacks of all threads, then die. Works while Python is stuck.
        faulthandler.enable(2, all_threads=True)
        if account is not None:
            become(account)
        status = main()
    except LbprocError as error:
        send_last_words(channel, FailedToBoot(str(error)))
        status = EXIT_REFUSED
    except BaseException as error:  # the barrier of the process
        log.write_crash(Event.CRASHED, error)
    finally:
        _leave(status)


def _leave(status: int) -> NoReturn:
    """Leaves without the parent's exit functions; what was measured of the child is kept."""
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
