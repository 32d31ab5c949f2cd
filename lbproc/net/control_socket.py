"""Where the control socket is, and how it comes to listen there.

Used by the supervisor, which opens it, and by the command line, which looks for it. Owns the path, its
directory and its rights; what is said on it is `lbproc.core.control`.

The socket is made with mode 0600 from the first instant. The default place under the system's temporary
directory is a directory of the user's own: one that belongs to somebody else, is a symbolic link, or is
open to others is refused, because whoever owns the directory decides which socket a command talks to.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lbproc.errors import StartError
from lbproc.net.socket_file import SocketFile, locked_directory

SOCKET_NAME = "control.sock"

_BACKLOG = 64
_MAX_PATH_BYTES = 107  # sockaddr_un.sun_path with its final NUL, unix(7)


def default_control_socket(environ: Mapping[str, str] | None = None, user: int | None = None) -> Path:
    """The control socket of this user when the configuration names none.

    Creates nothing; `ControlListener` does. Tells nothing about whether anybody listens there.

    Args:
        environ: by default this process's environment.
        user: a user id, by default the one this process acts as.

    Raises:
        StartError: the directory under the temporary directory exists and is not this user's alone.
    """
    environ = os.environ if environ is None else environ
    user = os.geteuid() if user is None else user
    if user == 0:
        return Path("/run/lbproc") / SOCKET_NAME
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "lbproc" / SOCKET_NAME
    directory = Path(tempfile.gettempdir()) / f"lbproc-{user}"
    _check_private(directory, user)
    return directory / SOCKET_NAME


def _check_private(directory: Path, user: int) -> None:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise StartError(
            f"{directory} is not a directory that only this user can use; "
            "remove it, or set [runtime] control_socket"
        )


class ControlListener:
    """The listening control socket and its file.

    A missing directory is made with mode 0700 (its parents must exist). A socket file that nobody listens
    on is left over from a process that was killed, and replaced.

    Args:
        path: where.

    Raises:
        StartError: another lbproc listens there, or the path cannot be used; says what to do.
    """

    __slots__ = ("_file", "path", "socket")

    def __init__(self, path: Path) -> None:
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise StartError(
                f"the control socket {path} has more than {_MAX_PATH_BYTES} bytes; "
                "set [runtime] control_socket"
            )
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with locked_directory(path):
                _remove_stale(path)
                self.socket = _listen_privately(path)
                self._file = SocketFile.of(path)
        except OSError as error:
            raise StartError(
                f"the control socket {path} cannot be opened: {error.strerror}; set [runtime] control_socket"
            ) from None

    def close(self) -> None:
        """Closes the socket and removes its file, unless the file is another's by now. Idempotent."""
        if self.socket.fileno() >= 0:
            self._file.remove()
            self.socket.close()


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"{path} is not a socket; remove it, or set [runtime] control_socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        status = probe.connect_ex(os.fspath(path))
    if status == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
        return
    # Connected, or a full queue (EAGAIN), or no right to ask (EACCES): it is alive, or may well be.
    raise StartError(
        f"an lbproc is already running with the control socket {path}; "
        "stop it first, or set another [runtime] control_socket"
    )


def _listen_privately(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)  # so that there is no instant at which others could connect
    try:
        listening.setblocking(False)
        listening.bind(os.fspath(path))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening
