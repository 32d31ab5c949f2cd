"""The one clock of the table: nanoseconds that mean the same in every process of this machine.

Owns the choice of the clock. ``trio.current_time()`` has a random offset per process and must never be
written to shared memory; CLOCK_MONOTONIC is machine-wide on Linux and never steps back. It is 0 at boot, so
it fits into 62 bits for 146 years.
"""

from __future__ import annotations

import time


def monotonic_ns() -> int:
    """Nanoseconds since boot, the same in every process; for stamps in the table."""
    return time.monotonic_ns()  # noqa: TID251 - this is the one place that reads it
