"""The first and the last moments of a child: from the fork to its own main function, and out."""

from __future__ import annotations

import faulthandler
import gc
import socket
from collections.abc import Callable
from functools import partial

from lbproc.core.control.messages import FailedToBoot
from lbproc.errors import LbprocError
from lbproc.net.channel import send_last_words
from lbproc.supervisor.forking import fork
from lbproc.supervisor.rights import Account, become
from lbproc.telemetry.log import ErrorLog

EXIT_REFUSED = 1
"""The child said why it cannot work."""


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
    return fork(partial(_live, main, channel, account), release, log)


def _live(main: Callable[[], int], channel: socket.socket, account: Account | None) -> int:
    # What was made before the fork is shared with the parent as long as no collector touches it.
    gc.freeze()
    # SIGABRT from the supervisor: write the stacks of all threads, then die. Works while Python is stuck.
    faulthandler.enable(2, all_threads=True)
    try:
        if account is not None:
            become(account)
        return main()
    except LbprocError as error:
        send_last_words(channel, FailedToBoot(str(error)))
        return EXIT_REFUSED
