"""How long a worker may compute without showing that it lives: the last guard against an endless loop."""

from __future__ import annotations

import faulthandler
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbproc.types import Seconds


def limit_computing(seconds: Seconds | None) -> None:
    """Ends this process, with its stacks on standard error, when it has computed for so long from now on.

    For a worker that turns in circles after its supervisor died; a living supervisor is quicker. Processor
    time is counted: nothing happens to a process that was stopped, or to a machine that was suspended.

    Args:
        seconds: of processor time; None ends the limit.
    """
    if seconds is None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        faulthandler.unregister(signal.SIGPROF)
        return
    faulthandler.register(signal.SIGPROF, file=2, all_threads=True, chain=True)
    signal.setitimer(signal.ITIMER_PROF, seconds)
