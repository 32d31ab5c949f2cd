"""A loaded configuration as a sealed memory file, so that one process reads the files and all others get it.

Owns the form, a pickle, and the seals. Only a process of our own ever writes one: what comes from elsewhere
is never read here. Nobody can change it any more once it is sealed, not even the process that wrote it.
"""

from __future__ import annotations

import fcntl
import os
import pickle

from lbproc.config.model import Config
from lbproc.errors import ControlError

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def open_memory() -> int:
    """A descriptor of an empty memory file, to be filled by `seal`, here or in a forked process.

    Raises:
        OSError: there is no room for it.
    """
    return os.memfd_create("lbproc-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(descriptor: int, config: Config) -> None:
    """Writes the configuration, and lets nobody change it again.

    Raises:
        OSError: there is no room for it.
    """
    content = memoryview(pickle.dumps(config, protocol=pickle.HIGHEST_PROTOCOL))
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def unseal(descriptor: int) -> Config:
    """The configuration. The descriptor may be shared with other processes; its position does not matter.

    Raises:
        ControlError: it is not sealed, or holds something else.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    except OSError as error:
        raise ControlError(f"the new configuration cannot be read: {error.strerror}") from None
    if seals & _SEALS != _SEALS:
        raise ControlError("the new configuration is not sealed")
    config = pickle.loads(content)  # noqa: S301  written by our own process and sealed, or we would not be here
    if not isinstance(config, Config):
        raise ControlError(f"the new configuration is a {type(config).__name__}")
    return config
