"""Request targets and authorities (RFC 9112 section 3.2, RFC 9110 section 7.2).

Owns what a target and a Host value may look like. Does not route. Invariant: what comes out is origin-form
(or ``*``), and a host that passes cannot be read as a list, a path or an address with a user in front.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from lbproc.core.http.rejected import bad_request
from lbproc.core.memo import Memo

_LABEL = rb"[A-Za-z0-9_~-]++"
_AUTHORITY = re.compile(
    rb"(?:(?P<name>"
    + _LABEL
    + rb"(?>(?:\."
    + _LABEL
    + rb")*))\.?|\[(?P<v6>[0-9A-Fa-f:.]++)\])(?::(?P<port>[0-9]{0,5}))?\Z"
)
_MAX_AUTHORITY = 255 + 6
"""The longest DNS name, a colon and five digits."""

_HOSTNAMES: Memo[str] = Memo(1024, _MAX_AUTHORITY)
known_hostname = _HOSTNAMES.get
"""What `hostname_of` answered to a Host value that it has seen before, or None."""


def read_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes, bytes | None]:
    """Reads a target into what is forwarded, its path, its query, and the authority of an absolute-form.

    Raises:
        Rejected: 400 for a form that this method or this proxy does not take.
    """
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return target, path, query, None
    if target == b"*":
        if method != b"OPTIONS":
            raise bad_request("the target * belongs to OPTIONS only")
        return target, target, b"", None
    if target[:7].lower() != b"http://":
        raise bad_request("the target is neither a path nor an http:// address")
    return _read_absolute(method, target[7:])


def _read_absolute(method: bytes, rest: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """RFC 9112 section 3.2.4: an absolute-form OPTIONS without a path asks for ``*``."""
    authority, slash, path_and_query = rest.partition(b"/")
    authority, question, query_only = authority.partition(b"?")
    if question:
        # The slash, if there was one, stands inside the query.
        origin = b"/?" + query_only + slash + path_and_query
    elif slash:
        origin = slash + path_and_query
    else:
        origin = b"*" if method == b"OPTIONS" else b"/"
    hostname_of(authority)
    path, _, query = origin.partition(b"?")
    return origin, path, query, authority


def hostname_of(authority: bytes) -> str:
    """Checks a Host value and returns its host: lower case, no port, no last dot; IPv6 in brackets.

    Stricter than RFC 3986: letters, digits, ``-``, ``.``, ``_`` and ``~``. Commas, percent signs and the like
    are valid in a registered name, but no server is called so, and hops disagree on them.

    Raises:
        Rejected: 400.
    """
    known = known_hostname(authority)
    if known is not None:
        return known
    if len(authority) > _MAX_AUTHORITY:
        raise bad_request("Host is too long")
    hostname = _hostname(authority)
    if hostname is None:
        raise bad_request("Host is not a host name or address with an optional port")
    _HOSTNAMES.offer(authority, hostname)
    return hostname


def _hostname(authority: bytes) -> str | None:
    found = _AUTHORITY.match(authority)
    if found is None or int(found["port"] or 0) > 65_535:
        return None
    if found["v6"] is None:
        return found["name"].decode("ascii").lower()
    try:
        return f"[{IPv6Address(found['v6'].decode('ascii'))}]"
    except ValueError:
        return None
