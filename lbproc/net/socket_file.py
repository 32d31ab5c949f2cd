"""The file of a Unix socket: whose it is, and who may replace it.

A bind makes the file, but closing the socket leaves it; whoever comes next finds out that nobody listens
there, removes it and binds. Owns that both are done to the right file: a file is known by its device and
inode, and who looks, removes and binds holds a lock on the directory meanwhile, so that of two programs
that start at one time the second sees what the first has done.

Invariant: a file is removed before its socket is closed. Until then the socket keeps the inode, and another
file cannot have the same number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lbproc.types import Seconds

_LOCK_ATTEMPTS = 20
_LOCK_PAUSE: Seconds = 0.05
"""Together a second. The lock is held for microseconds, except by somebody who wants to be in the way."""


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file that a bind has made.

    Args:
        path: where.
        identity: device and inode.
    """

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file that is there now.

        Raises:
            OSError: there is none.
        """
        return cls(path, _identity(path))

    def is_there(self) -> bool:
        """Whether this very file still has its name."""
        try:
            return _identity(self.path) == self.identity
        except OSError:
            return False

    def remove(self) -> None:
        """Removes it, unless the name is another file's by now, or we have lost the right to."""
        with locked_directory(self.path), contextlib.suppress(OSError):
            if self.is_there():
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Keeps others who ask for it from the files in the path's directory.

    The lock guards against accidents, not against enemies: in a directory that cannot be read, or when
    somebody holds on to the lock, it is done without.

    Args:
        path: of a file.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_LOCK_PAUSE)
            else:
                break
        yield
    finally:
        os.close(descriptor)
