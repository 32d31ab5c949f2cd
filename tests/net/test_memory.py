"""What is particular to transports in memory.

Their promises are checked with everybody's in test_transport.
"""

from __future__ import annotations

import pytest

from lbproc.net.memory import memory_pair
from lbproc.net.readiness import READ, WRITE
from lbproc.net.transport import ConnectionLost


def test_the_buffer_holds_as_much_as_was_said() -> None:
    near, far = memory_pair(capacity=10)
    assert near.send(b"0123456789ab") == 10
    assert near.send(b"ab") == 0
    assert far.recv(4) == b"0123"
    assert near.source.ready & WRITE
    assert near.send(b"abcdef") == 4
    assert far.recv(100) == b"456789abcd"


def test_each_direction_has_its_own_buffer() -> None:
    near, far = memory_pair(capacity=1)
    assert near.send(b"x") == far.send(b"y") == 1
    assert (near.recv(5), far.recv(5)) == (b"y", b"x")


def test_abort_throws_away_what_was_not_read() -> None:
    near, far = memory_pair()
    near.send(b"x")
    near.abort()
    with pytest.raises(ConnectionLost, match="reset by peer"):
        far.recv(1)
    assert near.is_closed
    assert not far.is_closed


def test_room_is_not_reported_to_a_source_that_did_not_ask() -> None:
    near, far = memory_pair()
    assert far.recv(1) is None
    assert far.source.ready == WRITE
    near.send(b"x")
    assert far.source.ready == READ | WRITE
