"""Names of hosts as clients say them in TLS (RFC 6066 section 3): what may be one, and its one spelling.

Invariant: what comes out is lower case ASCII without a last dot, made of labels of letters, digits, hyphens
and underscores. So it may stand in logs and headers, and equal names are equal strings.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

_LABEL = rb"[A-Za-z0-9_-]{1,63}+"
_NAME = re.compile(_LABEL + rb"(?>(?:\." + _LABEL + rb")*)\.?\Z")
_V4 = re.compile(rb"(?>(?:[0-9]{1,3}\.){3})[0-9]{1,3}\.?\Z")
_LONGEST_V6 = 45
_LONGEST = 254
"""A DNS name of 253 characters, and a last dot."""


def read_server_name(raw: bytes) -> str | None:
    """The name in its one spelling, or None for an address.

    Addresses are not permitted there. Some clients send them none the less, and mean no name by it.

    Raises:
        ValueError: it is neither.
    """
    if len(raw) <= _LONGEST and _NAME.match(raw):
        return None if _V4.match(raw) else raw.decode("ascii").lower().removesuffix(".")
    if b":" in raw and len(raw) <= _LONGEST_V6:
        IPv6Address(raw.decode("ascii"))
        return None
    raise ValueError("not the name of a host")
