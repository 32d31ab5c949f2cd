"""Reading a file of certificates or a key, and noticing that it has changed since.

Owns how much is read and of what: a regular file of at most one MiB, opened without ever waiting. And the one
question that only the TLS library of this system answers: whether it takes what was read.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import TYPE_CHECKING

from lbproc.config.pem import LARGEST_PEM
from lbproc.config.place import FileContent, Stamp

if TYPE_CHECKING:
    from pathlib import Path


def read_pem(path: Path) -> FileContent:
    """The content of a file, and which one it is.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would make us wait
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read(LARGEST_PEM + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST_PEM:
        raise ValueError("it is larger than 1 MiB")
    return FileContent(content, stat.S_IMODE(status.st_mode), _stamp(status))


def refusal_of(certificate: bytes, key: bytes) -> str:
    """Why TLS of this system would not show a certificate that is good in itself; empty: it would.

    What is too weak for it hangs on how the system is set up. Better told by a check than by a start.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptors: list[int] = []
    try:
        for content in (certificate, key):
            descriptors.append(os.memfd_create("lbproc-pem", os.MFD_CLOEXEC))
            with os.fdopen(os.dup(descriptors[-1]), "wb") as stream:
                stream.write(content)
        shown, secret = (f"/proc/self/fd/{descriptor}" for descriptor in descriptors)
        context.load_cert_chain(shown, secret, password=b"")
    except ssl.SSLError as error:
        return (error.reason or "unknown").lower().replace("_", " ")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return ""


def stamp_of(path: str) -> Stamp | None:
    """Which file is there now, after links were followed; None if none can be looked at."""
    try:
        return _stamp(os.stat(path))  # noqa: PTH116  a path is made for each look otherwise
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
