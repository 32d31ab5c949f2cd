"""What is said with a connection that changes hands."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.control.handover import MAX_HAND_OVER_BYTES, Peer, decode_hand_over, encode_hand_over
from lbproc.errors import ControlError

PEERS: tuple[Peer, ...] = (
    ("192.0.2.1", 40000),
    ("fe80::1%eth0", 1, 0, 3),
    "",
    "/run/client.sock",
    "/run/\udcff",
    b"\0abstract",
)


@pytest.mark.parametrize("peer", PEERS)
def test_key_and_peer_arrive_as_they_were(peer: Peer) -> None:
    octets = encode_hand_over(7, peer)
    assert len(octets) < MAX_HAND_OVER_BYTES / 4
    assert decode_hand_over(octets) == (7, peer)


def test_more_than_a_receiver_takes_is_not_sent() -> None:
    with pytest.raises(ControlError, match="above 1024"):
        encode_hand_over(7, "/" + 1020 * "p")


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        [7],
        ["web", "peer"],
        [7, 1],
        [7, ["192.0.2.1"]],
        [7, ["192.0.2.1", "40000"]],
        [7, ["192.0.2.1", 1, 2]],
        [7, "peer", 3],
        {7: "peer"},
    ],
)
def test_anything_else_is_refused(content: object) -> None:
    with pytest.raises(ControlError, match="is not"):
        decode_hand_over(msgpack.packb(content))


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(octets: bytes) -> None:
    try:
        key, _ = decode_hand_over(octets)
    except ControlError:
        return
    assert isinstance(key, int)
