"""Which descriptors this process has opened since a moment, whatever else it closes meanwhile.

What earlier tests left to the garbage collector may go at any time, and its numbers be used again. So counts
prove nothing, and a descriptor is known by its number together with the file that it is open to.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

Descriptor = tuple[int, int, int]
"""Number, device and inode."""


def open_descriptors() -> set[Descriptor]:
    """All that are open now."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one of the listing itself is closed by now
            status = os.fstat(int(entry.name))
            found.add((int(entry.name), status.st_dev, status.st_ino))
    return found


def opened_since(before: set[Descriptor]) -> list[str]:
    """What is open now and was not before, as the kernel names it."""
    new = sorted(open_descriptors() - before)
    return [f"{number}: {Path(f'/proc/self/fd/{number}').readlink()}" for number, _, _ in new]
