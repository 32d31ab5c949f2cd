"""What limits count a client by: an IPv4 address, or the /64 of an IPv6 address.

Whoever has an IPv6 connection has at least a /64 of addresses, so a single one says nothing of who it is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

PREFIX_BYTES = 8
"""Of an IPv6 address."""


def client_key(address: str) -> bytes:
    """The bytes that name a client: 4 for IPv4, also when it is mapped into IPv6, 8 for IPv6.

    Args:
        address: an IP address as the kernel or a checked header writes it, with or without a zone.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return parsed.packed
    if parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.packed
    return parsed.packed[:PREFIX_BYTES]
