"""Who a request comes from, as far as it can be believed.

Owns which peers are trusted, the reading of the forwarding headers of those that are, and new ids. Does not
render. Invariant: nothing that an untrusted peer says about addresses, request ids or traces is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbproc.core.http.head import RequestHead

Networks = tuple[IPv4Network | IPv6Network, ...]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}\Z")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
_LONGEST_ADDRESS = 64


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What is passed on of what a trusted proxy says about a request.

    Attributes:
        client_ip: the client as far as it can be believed.
        peer_ip: the proxy, "" for a Unix socket.
        scheme: how the proxy spoke to this listener.
        request_id: goes into ``X-Request-Id``.
        traceparent: goes into ``traceparent``.
    """

    client_ip: str
    peer_ip: str
    scheme: str
    request_id: str
    traceparent: str


def identify_client(
    head: RequestHead, peer_ip: str, networks: Networks, random: Random, scheme: str = "http"
) -> Forwarding:
    """Settles who sent a request that came from a trusted proxy, and its ids.

    Args:
        head: the request.
        peer_ip: the proxy, which `is_trusted`; "" for a Unix socket.
        networks: the trusted proxies of the listener.
        random: for new ids, where the proxy has given none that are passed on.
        scheme: how the proxy spoke to this listener.
    """
    assert is_trusted(peer_ip, networks)
    request_id, traceparent = fresh_ids(random)
    said_ids = head.values(b"x-request-id")
    if len(said_ids) == 1 and _REQUEST_ID.match(said_ids[0]):
        request_id = said_ids[0].decode("ascii")
    said_traces = head.values(b"traceparent")
    if keeps_trace(said_traces):
        traceparent = said_traces[0].decode("ascii")
    client = client_ip(peer_ip, head.values(b"x-forwarded-for"), networks)
    return Forwarding(client, peer_ip, scheme, request_id, traceparent)


def fresh_ids(random: Random) -> tuple[str, str]:
    """A new request id and a new ``traceparent`` (W3C Trace Context).

    The trace is marked as sampled, so that backends which follow their caller's decision record it.
    """
    drawn = random.randbytes(40).hex()
    return drawn[:32], f"00-{drawn[32:64]}-{drawn[64:]}-01"


@lru_cache(maxsize=4096)
def is_trusted(peer_ip: str, networks: Networks) -> bool:
    """Whether an address lies in one of the trusted networks.

    A peer on a Unix socket (``""``) is a process of this machine: it counts as the loopback address.
    """
    address = ip_address(peer_ip or "127.0.0.1")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)


def client_ip(peer_ip: str, forwarded_for: Sequence[bytes], networks: Networks) -> str:
    """The rightmost address of ``X-Forwarded-For`` that is not a trusted proxy, or the peer, which is one.

    The list is read from the right, because only what trusted proxies appended is known to be true. Reading
    stops at the first entry that is no address: what stands left of it was written by nobody known.

    Args:
        peer_ip: the other end of the connection, which `is_trusted`.
        forwarded_for: the values of all ``X-Forwarded-For`` fields, in the order sent.
        networks: the trusted proxies.
    """
    if not forwarded_for:
        return peer_ip
    for entry in reversed(b",".join(forwarded_for).split(b",")):
        address = _read_address(entry.strip(b" \t"))
        if address is None:
            return peer_ip
        if not is_trusted(address, networks):
            return address
    return peer_ip


def keeps_trace(traceparents: Sequence[bytes]) -> bool:
    """Whether a trusted peer's trace goes on (W3C Trace Context); else its ``tracestate`` means nothing."""
    return len(traceparents) == 1 and _TRACEPARENT.match(traceparents[0]) is not None


def _read_address(entry: bytes) -> str | None:
    """One entry of ``X-Forwarded-For`` in its plain form, with or without a port, or None."""
    if len(entry) > _LONGEST_ADDRESS:
        return None
    text = entry.decode("latin-1")
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found[1] or found[2]
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    return str(address)
