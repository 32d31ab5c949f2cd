"""``[runtime] pid_file``: a file with the supervisor's process id, from the end of the start to the end.

Owns that it appears whole, that what is not a pid file is never overwritten, and that only our own file is
removed. It says where lbproc is, and locks nothing: that is the control socket's part. So what a
predecessor left, who may have been killed, is replaced without asking whether the number in it lives: after a
boot it may well be somebody else's.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from lbproc.errors import StartError

MODE: Final = 0o644
_CONTENT: Final = re.compile(rb"\s*[0-9]{0,10}\s*")
_LONGEST: Final = 64


class PidFile:
    """A pid file that is to be.

    Args:
        path: where.
        pid: what it will say.

    Raises:
        StartError: something else is there, or nothing can be written there.
    """

    __slots__ = ("_identity", "_path", "_pid")

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = pid
        self._identity: tuple[int, int] | None = None
        try:
            self._look()
        except OSError as error:
            raise StartError(f"[runtime] pid_file: {path}: {error.strerror}; choose another path") from error

    def write(self) -> None:
        """Makes the file, whole at once, in place of one that a predecessor left.

        Raises:
            OSError: it cannot be written.
        """
        draft = self._path.with_name(f".{self._path.name}.{self._pid}")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()  # of a predecessor with our number, who died at this point
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, MODE)
        try:
            os.fchmod(descriptor, MODE)  # whatever the umask: it is there to be read by others
            os.write(descriptor, f"{self._pid}\n".encode())
            status = os.fstat(descriptor)
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        finally:
            os.close(descriptor)
        self._identity = status.st_dev, status.st_ino

    def remove(self) -> None:
        """Removes it, unless it was never made or another has taken its name. Idempotent."""
        with contextlib.suppress(OSError):
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self._path.unlink()
        self._identity = None

    def _look(self) -> None:
        """Refuses what is there and is no pid file, and a directory that takes none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            directory = self._path.parent
            if not directory.is_dir():
                raise StartError(
                    f"[runtime] pid_file: there is no directory {directory}; make it first"
                ) from None
        else:
            try:
                content = os.read(descriptor, _LONGEST + 1)
            finally:
                os.close(descriptor)
            if len(content) > _LONGEST or not _CONTENT.fullmatch(content):
                raise StartError(
                    f"[runtime] pid_file: {self._path} is there and holds no process id; "
                    "remove it or choose another path"
                )
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise StartError(
                f"[runtime] pid_file: {self._path} cannot be written: no right to write in its directory"
            )
