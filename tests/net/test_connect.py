"""Connecting: at once, later, never, and the words for why not."""

from __future__ import annotations

import math
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lbproc.net.connect import ConnectFailed, open_transport
from lbproc.net.listeners import listen, open_slotted, open_unix, refuse_new
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.sockaddr import bound_address
from lbproc.types import TcpAddress, UnixAddress
from tests.net.waiting import receive_exactly

_SO_DETACH_FILTER = 27


def listening(host: str = "127.0.0.1") -> tuple[socket.socket, TcpAddress]:
    (listener,) = open_slotted(TcpAddress(host, 0), 1)
    listen(listener)
    return listener, bound_address(listener)


async def accepted_later(listener: socket.socket) -> socket.socket:
    while True:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)


async def failure_of(address: TcpAddress | UnixAddress, dispatcher: Dispatcher) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await open_transport(address, dispatcher, Deadlines(), math.inf)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_connects_over_tcp(dispatcher: Dispatcher, deadlines: Deadlines, host: str) -> None:
    listener, address = listening(host)
    with listener:
        transport = await open_transport(address, dispatcher, deadlines, math.inf)
        assert (transport.peer_ip, transport.peer_port) == (host, address.port)
        with await accepted_later(listener) as accepted:
            assert transport.send(b"hello") == 5
            assert accepted.recv(10) == b"hello"
            accepted.send(b"there")
            assert await receive_exactly(transport, 5) == b"there"
        transport.close()


async def test_connects_over_a_unix_socket(
    dispatcher: Dispatcher, deadlines: Deadlines, tmp_path: Path
) -> None:
    address = UnixAddress(str(tmp_path / "app.sock"))
    with open_unix(address)[0] as listener:
        listen(listener)
        transport = await open_transport(address, dispatcher, deadlines, math.inf)
        assert (transport.peer_ip, transport.peer_port) == ("", 0)
        with listener.accept()[0] as accepted:
            accepted.send(b"hello")
            assert await receive_exactly(transport, 5) == b"hello"
        transport.close()


async def test_bytes_that_came_before_the_first_read_are_seen(
    dispatcher: Dispatcher, deadlines: Deadlines
) -> None:
    listener, address = listening()
    with listener:
        transport = await open_transport(address, dispatcher, deadlines, math.inf)
        with await accepted_later(listener) as accepted:
            accepted.send(b"banner")
        await wait_all_tasks_blocked()
        assert await receive_exactly(transport, 6) == b"banner"
        transport.close()


async def test_a_port_without_a_listener_refuses(dispatcher: Dispatcher) -> None:
    (unheard,) = open_slotted(TcpAddress("127.0.0.1", 0), 1)
    with unheard:
        failure = await failure_of(bound_address(unheard), dispatcher)
    assert failure.kind == "refused"
    assert str(failure) == "refused: Connection refused"


async def test_a_unix_socket_without_a_listener_or_without_a_file_refuses(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    address = UnixAddress(str(tmp_path / "app.sock"))
    assert (await failure_of(address, dispatcher)).kind == "refused"
    open_unix(address)[0].close()
    assert (await failure_of(address, dispatcher)).kind == "refused"


async def test_what_cannot_be_routed_is_unreachable(dispatcher: Dispatcher) -> None:
    assert (await failure_of(TcpAddress("224.0.0.1", 80), dispatcher)).kind == "unreachable"


async def test_an_interface_that_does_not_exist_fails(dispatcher: Dispatcher) -> None:
    failure = await failure_of(TcpAddress("fe80::1%nowhere0", 80), dispatcher)
    assert failure.kind in {"other", "unreachable"}


@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_a_lack_of_descriptors_is_our_own_fault(
    dispatcher: Dispatcher, tmp_path: Path, over: str
) -> None:
    address = TcpAddress("127.0.0.1", 1) if over == "tcp" else UnixAddress(str(tmp_path / "s"))
    with no_more_descriptors():
        failure = await failure_of(address, dispatcher)
    assert (failure.kind, failure.detail) == ("local", "Too many open files")


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_no_answer_is_a_timeout(dispatcher: Dispatcher, nursery: trio.Nursery) -> None:
    deadlines = Deadlines(resolution=0.01)
    nursery.start_soon(deadlines.run)
    listener, address = listening()
    with listener:
        refuse_new(listener)
        with pytest.raises(ConnectFailed) as caught:
            await open_transport(address, dispatcher, deadlines, trio.current_time() + 0.05)
        assert caught.value.kind == "timeout"


async def test_a_cancelled_connect_closes_its_socket(dispatcher: Dispatcher, deadlines: Deadlines) -> None:
    listener, address = listening()
    with listener:
        refuse_new(listener)
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_transport(address, dispatcher, deadlines, math.inf)
        assert scope.cancelled_caught
    # a leaked socket would be a ResourceWarning, which is an error here


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["connected", "refused"])
async def test_an_answer_that_comes_later_is_waited_for(
    dispatcher: Dispatcher, deadlines: Deadlines, nursery: trio.Nursery, outcome: str
) -> None:
    """The first SYN is dropped; the kernel sends it again after a second."""
    listener, address = listening()
    outcomes: list[str] = []
    has_ended = trio.Event()

    async def connect() -> None:
        try:
            transport = await open_transport(address, dispatcher, deadlines, math.inf)
        except ConnectFailed as failure:
            outcomes.append(failure.kind)
        else:
            outcomes.append("connected")
            assert transport.send(b"x") == 1
            transport.close()
        has_ended.set()

    with listener:
        refuse_new(listener)
        nursery.start_soon(connect)
        await wait_all_tasks_blocked()
        if outcome == "refused":
            listener.close()
        else:
            listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        with trio.fail_after(5):
            await has_ended.wait()
    assert outcomes == [outcome]


async def test_a_full_unix_queue_is_tried_again_until_there_is_room(
    dispatcher: Dispatcher, nursery: trio.Nursery, tmp_path: Path
) -> None:
    address = UnixAddress(str(tmp_path / "app.sock"))
    with open_unix(address)[0] as listener:
        listen(listener, 0)
        first = await open_transport(address, dispatcher, Deadlines(), math.inf)
        with pytest.raises(ConnectFailed) as caught:
            await open_transport(address, dispatcher, Deadlines(), trio.current_time() + 0.03)
        assert caught.value.kind == "timeout"
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_transport(address, dispatcher, Deadlines(), math.inf)
        assert scope.cancelled_caught
        listener.accept()[0].close()
        second = await open_transport(address, dispatcher, Deadlines(), math.inf)
        first.close()
        second.close()
