"""Where log lines go: a file, or a standard stream that other processes share.

Owns the descriptor and how to write to it without disturbing or waiting for anybody. Does not own lines,
queues or threads. Invariants:

- A shared stream is never made non-blocking: O_NONBLOCK belongs to the open file description, so it would
  change the stream for the shell and for every other process that writes to it. Pipes and terminals are
  opened once more instead, which gives a description of our own; sockets are written with MSG_DONTWAIT.
- One write to anything but a regular file is at most ``PIPE_LIMIT`` bytes of whole lines, so that lines of
  several processes never interleave (pipe(7), PIPE_BUF).
- Files are opened for appending with mode 0640; several processes may append to one file.
- Root opens a file for an account without rights only by its own name, never through a symbolic link at its
  end, and changes the owner only of what it has just made: the account may own the directory, and what it
  puts there must not turn root's rights on a file elsewhere.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lbproc.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

PIPE_LIMIT = 4095
"""The most bytes that one write to a pipe carries: "under 4096", the PIPE_BUF of Linux."""

_FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STANDARD = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True, slots=True)
class FileOwner:
    """To whom a log file belongs that root makes, because others will open it again.

    Args:
        name: of the account, for messages.
        uid: user id.
        gid: group id.
    """

    name: str
    uid: int
    gid: int


class Sink:
    """One open destination. It may be opened before a fork and used by all processes after it.

    Args:
        destination: ``"stdout"``, ``"stderr"`` or the path of a file.
        owner: whom a new file is given to; None leaves it to the account that makes it.
        descriptor: the destination, opened by another process; belongs to the sink from now on.

    Raises:
        StartError: the file cannot be opened; says why.
    """

    __slots__ = ("_fd", "_is_patient", "_own", "_owner", "_socket", "is_regular", "path")

    def __init__(
        self,
        destination: Literal["stdout", "stderr"] | Path,
        owner: FileOwner | None = None,
        descriptor: int | None = None,
    ) -> None:
        self._owner = owner
        self._socket: socket.socket | None = None
        self.path: Path | None = None
        """``None`` for a standard stream."""
        self._own = False
        self._is_patient = False
        """A write may block, so the kernel is asked whether it would."""
        if not isinstance(destination, str):
            self.path = destination
        try:
            if descriptor is not None:
                self._adopt(descriptor)
            elif isinstance(destination, str):
                self._fd = _STANDARD[destination]
                self._use_shared(self._fd)
            else:
                self._fd = _open_file(destination, owner)
                self._own = True
            self.is_regular = self._socket is None and stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as error:
            raise StartError(f"the log {destination} cannot be opened: {self.explain(error)}") from error

    def _adopt(self, fd: int) -> None:
        """Takes over a descriptor that another process has opened."""
        self._fd = fd
        self._own = True
        # One that may block is somebody's standard stream: it is asked before each write, and left as it is.
        self._is_patient = os.get_blocking(fd)
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = socket.socket(fileno=fd)

    def fileno(self) -> int:
        """The descriptor, to be sent to another process."""
        return self._fd if self._socket is None else self._socket.fileno()

    def _use_shared(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            try:
                self._fd = os.open(f"/proc/self/fd/{fd}", _FILE_FLAGS & ~os.O_CREAT)
                self._own = True
            except OSError:
                # Another user's pipe, or no /proc. Then poll is asked before each write to the shared one.
                self._fd = fd
                self._is_patient = True

    def write(self, octets: bytes | memoryview) -> int:
        """Writes what fits now and returns how many bytes that was.

        Raises:
            BlockingIOError: nothing fits at the moment.
            OSError: disk full, reader gone, and so on.
        """
        if self._socket is not None:
            return self._socket.send(octets, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._is_patient and not self.is_regular and not self._poll(0):
            raise BlockingIOError
        return os.write(self._fd, octets)

    def wait_writable(self) -> None:
        """Blocks the calling thread until something can be written, or writing would fail at once."""
        self._poll(None)

    def _poll(self, timeout_ms: int | None) -> bool:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        return bool(poller.poll(timeout_ms))

    def reopen(self) -> None:
        """Opens the path again after it was renamed (log rotation). Standard streams stay as they are.

        Raises:
            OSError: the path cannot be opened; the old file stays in use.
        """
        if self.path is None:
            return
        fresh = _open_file(self.path, self._owner)
        os.close(self._fd)
        self._fd = fresh
        self.is_regular = stat.S_ISREG(os.fstat(fresh).st_mode)

    def explain(self, error: OSError) -> str:
        """Why the path cannot be opened, and what would help where that is known."""
        if error.errno in {errno.EACCES, errno.EPERM} and self.path is not None:
            who = f"user id {os.geteuid()}" if self._owner is None else self._owner.name
            return f"{reason(error)}; let {who} write to it and search its directory"
        if error.errno == errno.ELOOP and self._owner is not None:
            return f"it is a symbolic link, and is to be opened for {self._owner.name}; name the file itself"
        return reason(error)

    def close(self) -> None:
        """Closes what this object opened; idempotent."""
        if self._socket is not None:
            self._socket.close()
        elif self._own:
            self._own = False
            os.close(self._fd)


def _open_file(path: Path, owner: FileOwner | None) -> int:
    if owner is None:
        return os.open(path, _FILE_FLAGS, 0o640)
    try:
        fd = os.open(path, _FILE_FLAGS | os.O_EXCL, 0o640)
    except FileExistsError:
        return os.open(path, _FILE_FLAGS & ~os.O_CREAT | os.O_NOFOLLOW)
    try:
        os.fchown(fd, owner.uid, owner.gid)
    except OSError:
        os.close(fd)
        raise
    return fd


def reason(error: OSError) -> str:
    """What the system says about an error, without number and path."""
    return error.strerror or str(error)
