"""Idle connections: order, limits, and what is never handed out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproc.net.connpool import IdleConnections
from lbproc.net.memory import MemoryTransport, memory_pair


def keep(max_idle: int = 3, max_age: float = 50, max_lifetime: float = 3600) -> IdleConnections:
    return IdleConnections(max_idle, max_age, max_lifetime)


def test_an_empty_pool_has_nothing() -> None:
    idle = keep()
    assert idle.checkout() is None
    assert len(idle) == 0


def test_the_last_in_is_the_first_out() -> None:
    idle = keep()
    near = [memory_pair()[0] for _ in range(3)]
    for at, transport in enumerate(near):
        assert idle.checkin(transport, at) is None
    assert len(idle) == 3
    assert [idle.checkout() for _ in range(4)] == [near[2], near[1], near[0], None]


def test_beyond_the_limit_the_oldest_leaves() -> None:
    idle = keep(max_idle=2)
    a, b, c = (memory_pair()[0] for _ in range(3))
    assert [idle.checkin(t, 0.0) for t in (a, b, c)] == [None, None, a]
    assert len(idle) == 2
    assert not a.is_closed
    assert (idle.checkout(), idle.checkout()) == (c, b)


def test_a_connection_that_has_lived_long_is_not_kept() -> None:
    idle = keep(max_lifetime=3600)
    old, _ = memory_pair()
    young, _ = memory_pair()
    old.opened_at, young.opened_at = 1000.0, 1001.0
    assert idle.checkin(old, 4600.5) is old
    assert idle.checkin(young, 4600.5) is None
    assert len(idle) == 1


def test_a_limit_of_none_keeps_none() -> None:
    idle = keep(max_idle=0)
    near, _ = memory_pair()
    assert idle.checkin(near, 0.0) is near
    assert len(idle) == 0


def leave_by_close(far: MemoryTransport) -> None:
    far.close()


def leave_by_reset(far: MemoryTransport) -> None:
    far.abort()


def speak_unasked(far: MemoryTransport) -> None:
    far.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


@pytest.mark.parametrize("happening", [leave_by_close, leave_by_reset, speak_unasked])
def test_a_connection_that_is_not_quiet_is_closed_and_the_next_is_handed_out(
    happening: Callable[[MemoryTransport], None],
) -> None:
    idle = keep()
    good, _ = memory_pair()
    bad, far = memory_pair()
    idle.checkin(good, 0.0)
    idle.checkin(bad, 1.0)
    happening(far)
    assert idle.checkout() is good
    assert bad.is_closed
    assert len(idle) == 0


def test_what_is_too_old_expires() -> None:
    idle = keep(max_idle=4, max_age=50)
    near = [memory_pair()[0] for _ in range(4)]
    for at, transport in enumerate(near):
        idle.checkin(transport, at * 10.0)
    assert idle.expire(49.9) == []
    assert idle.expire(60.0) == near[:2]
    assert not near[0].is_closed  # closing is the caller's
    assert len(idle) == 2
    assert idle.expire(1000.0) == near[2:]
    assert len(idle) == 0


def test_what_the_backend_was_heard_on_expires_at_once() -> None:
    idle = keep(max_age=50)
    quiet, _ = memory_pair()
    left, far = memory_pair()
    for transport in (left, quiet):
        idle.checkin(transport, 0.0)
    assert idle.expire(0.5) == []
    far.close()
    assert idle.expire(1.0) == [left]
    assert idle.checkout() is quiet


def test_close_all_closes_all() -> None:
    idle = keep()
    near = [memory_pair()[0] for _ in range(3)]
    for transport in near:
        idle.checkin(transport, 0.0)
    idle.close_all()
    assert all(transport.is_closed for transport in near)
    assert len(idle) == 0
