"""What is said with a connection that one worker hands over to another: one small message for each.

Sans-io. The descriptor travels beside the message. Only workers of one supervisor can write here, and what
they wrote is checked nevertheless.
"""

from __future__ import annotations

import msgpack

from lbproc.errors import ControlError

MAX_HAND_OVER_BYTES = 1024
"""Ten times what a key and the longest address take."""

Peer = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""A peer's address as accept returned it."""


def encode_hand_over(key: int, peer: Peer) -> bytes:
    """The message for a connection that came to the bound address of this key, from this peer.

    Raises:
        ControlError: it is longer than a receiver would take.
    """
    octets: bytes = msgpack.packb([key, peer], unicode_errors="surrogateescape")
    if len(octets) > MAX_HAND_OVER_BYTES:
        raise ControlError(f"a hand-over of {len(octets)} bytes is above {MAX_HAND_OVER_BYTES}")
    return octets


def decode_hand_over(octets: bytes) -> tuple[int, Peer]:
    """The key of the bound address and the peer.

    Raises:
        ControlError: this is no such message.
    """
    try:
        content: object = msgpack.unpackb(octets, unicode_errors="surrogateescape")
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ControlError(f"a hand-over is not msgpack: {type(error).__name__}") from None
    match content:
        case [int(key), str() | bytes() as peer]:
            return key, peer
        case [int(key), [str(host), int(port)]]:
            return key, (host, port)
        case [int(key), [str(host), int(port), int(flow), int(scope)]]:
            return key, (host, port, flow, scope)
        case _:
            raise ControlError("a hand-over is not [key, peer]")
