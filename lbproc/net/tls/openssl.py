"""What OpenSSL can do and Python has no call for: keys of session tickets, and no store of sessions.

The one place that leans on how CPython lays out its objects. It calls the very library that the ``ssl``
module uses, on the ``SSL_CTX`` that a context object points to, which is the first word behind the object's
head. Nothing here proves that this is so: `lbproc.net.tls.proof` does, in a process that may crash, and
nobody else calls this before it has.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys
import sysconfig
from functools import cache
from typing import Final

_SET_TICKET_KEYS: Final = 59
"""SSL_CTRL_SET_TLSEXT_TICKET_KEYS of openssl/ssl.h."""

_SET_SESSION_CACHE_MODE: Final = 44
"""SSL_CTRL_SET_SESS_CACHE_MODE."""

_CACHE_OFF: Final = 0


class UnknownLayoutError(Exception):
    """This Python, or its OpenSSL, is none that is known here."""


def is_layout_known() -> bool:
    """Whether this is a build of Python whose objects are laid out as expected, with a library to call."""
    try:
        _library()
    except UnknownLayoutError:
        return False
    return True


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> None:
    """Makes a server's context encrypt and accept tickets with these keys, from the next handshake on.

    Args:
        context: a server's.
        keys: name, HMAC key and AES key, 80 bytes.

    Raises:
        UnknownLayoutError: they cannot be set.
    """
    if _library().SSL_CTX_ctrl(_pointer(context), _SET_TICKET_KEYS, len(keys), keys) != 1:
        raise UnknownLayoutError("OpenSSL does not take the keys of tickets")


def store_no_sessions(context: ssl.SSLContext) -> None:
    """Keeps a server's context from storing the sessions of clients that take no tickets.

    Nobody else could resume them, and it would be thousands.
    """
    _library().SSL_CTX_ctrl(_pointer(context), _SET_SESSION_CACHE_MODE, _CACHE_OFF, None)


@cache
def _library() -> ctypes.PyDLL:
    """The library that ``_ssl`` is linked to, found through ``_ssl`` itself, so that it is no other one."""
    if (
        sys.implementation.name != "cpython"
        or hasattr(sys, "gettotalrefcount")
        or sysconfig.get_config_var("Py_GIL_DISABLED")
        or object.__basicsize__ != 2 * ctypes.sizeof(ctypes.c_void_p)
    ):
        raise UnknownLayoutError("this build of Python lays out its objects in another way")
    try:
        # Without a file it is part of the program itself, and so may OpenSSL be.
        library = ctypes.PyDLL(getattr(_ssl, "__file__", None))
        control = library.SSL_CTX_ctrl
    except (OSError, AttributeError) as error:
        raise UnknownLayoutError("the OpenSSL of this Python cannot be called") from error
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    control.restype = ctypes.c_long
    return library


def _pointer(context: ssl.SSLContext) -> int:
    found = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if not found:
        raise UnknownLayoutError("there is no SSL_CTX where it was expected")
    return found
