"""A worker's sockets for datagrams: adopted, left to others, retired, removed, and how long it stays."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.config.model import Config
from lbproc.core.control.messages import Adopt, Disown, Drained, DrainSlot, Leave, Message, Relinquished, Stop
from lbproc.core.sessions import QUIET
from lbproc.net.sockaddr import bound_address
from lbproc.net.udp_listeners import open_first
from lbproc.shm.views import WorkerCounter
from lbproc.types import TcpAddress
from tests.proxy.udp_rig import End
from tests.worker.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IDLE = 10.0
LOCAL = TcpAddress("127.0.0.1", 0)


class Scene(StandIn):
    """A stand-in with a listener for datagrams, and a backend in the hands of the test."""

    def __init__(self, directory: Path) -> None:
        self.backend = End()
        self.client_end = End()
        self.dns: dict[str, Any] = {
            "bind": "127.0.0.1:0",
            "protocol": "udp",
            "pool": "dns",
            "timeouts": {"idle": f"{IDLE:.0f}s"},
        }
        self.web = {"bind": "127.0.0.1:0", "pool": "dns"}
        super().__init__(directory, self.config_of(dns=self.dns, web=self.web))

    def config_of(self, **listeners: dict[str, Any]) -> dict[str, Any]:
        return {"listeners": listeners, "pools": {"dns": {"backends": [self.backend.address]}}}

    def bind(self, name: str) -> int:
        if name != "dns":
            return super().bind(name)
        (sock,) = open_first(LOCAL, 1)
        key = next(self._keys)
        self.sockets[key], self.names[key] = sock, name
        return key

    async def ask(self, sock: socket.socket | None = None, client: End | None = None) -> socket.socket | None:
        """Has a client send a datagram; gives what the backend sends its answer to, if it got one."""
        to = self.sockets[self.key_of("dns")] if sock is None else sock
        (client or self.client_end).sock.sendto(b"?", to.getsockname())
        await wait_all_tasks_blocked(0.005)
        got = self.backend.received()
        return got[-1][1] if got else None

    async def is_answered(self, session: object) -> bool:
        """Whether an answer of the backend comes to the client."""
        self.backend.sock.sendto(b"!", session)  # type: ignore[call-overload]
        await wait_all_tasks_blocked(0.005)
        return self.client_end.datagrams() == [b"!"]

    async def tell(self, message: Message, *sockets: socket.socket) -> None:
        """Returns when the worker has done it: that it answers the next message shows that."""
        self.channel.send(message, [sock.fileno() for sock in sockets])
        self.channel.send(DrainSlot(5))
        while await self.hear(Drained) != Drained(5):
            pass
        await wait_all_tasks_blocked(0.005)

    def close(self) -> None:
        super().close()
        self.backend.close()
        self.client_end.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


async def pass_time(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked(0.005)
    clock.jump(0.3)  # of the sweeper of deadlines
    await wait_all_tasks_blocked(0.005)


async def test_an_adopted_socket_is_served_and_answers_after_it_was_given_back(
    scene: Scene, mock_clock: MockClock
) -> None:
    (lent,) = open_first(LOCAL, 1)
    with lent:
        key = scene.key_of("dns")
        async with scene.running():
            await scene.tell(Adopt(1, ((key, "dns", str(bound_address(lent))),)), lent)
            session = await scene.ask(lent)
            assert session is not None
            await scene.tell(Disown(1))
            assert await scene.is_answered(session)
            assert await scene.ask(lent) is None  # that is for the slot's own worker now
            assert lent.recv(10) == b"?"
            own = await scene.ask()
            assert own is not None
            await pass_time(mock_clock, IDLE)
            assert not await scene.is_answered(session)


async def test_a_worker_that_leaves_stays_until_its_clients_were_silent(
    scene: Scene, mock_clock: MockClock
) -> None:
    async with scene.running():
        session = await scene.ask()
        await scene.tell(Leave())
        await pass_time(mock_clock, IDLE / 2)
        assert await scene.is_answered(session)
        assert await scene.ask() is None
        assert scene.status is None
        await pass_time(mock_clock, IDLE)
        assert scene.status == 0


async def test_a_retired_worker_serves_until_its_clients_were_silent(
    scene: Scene, mock_clock: MockClock
) -> None:
    async with scene.running():
        assert await scene.ask() is not None
        await scene.tell(Stop(now=False, retires=True))
        await pass_time(mock_clock, IDLE / 2)
        assert await scene.ask() is not None  # what was queued, or could not be steered
        await pass_time(mock_clock, IDLE)
        await pass_time(mock_clock, 1)
        assert scene.status == 0


@pytest.mark.parametrize(
    "before", [None, Leave(), Stop(now=False, retires=True)], ids=["", "left", "retired"]
)
async def test_a_worker_that_stops_waits_for_answers_and_not_for_clients(
    scene: Scene, mock_clock: MockClock, before: Message | None
) -> None:
    other = End()
    try:
        async with scene.running():
            session = await scene.ask()
            if before is not None:
                await scene.tell(before)
            await scene.tell(Stop(now=False))
            assert await scene.ask(client=other) is None
            assert await scene.is_answered(session)
            assert scene.status is None
            await pass_time(mock_clock, QUIET)
            assert scene.status == 0
    finally:
        other.close()


async def test_a_removed_listener_is_relinquished_when_its_sessions_are_over(
    scene: Scene, mock_clock: MockClock
) -> None:
    async with scene.running():
        session = await scene.ask()
        await scene.prepare(scene.config_of(web=scene.web))
        await scene.follow()
        await wait_all_tasks_blocked(0.005)
        assert Relinquished(2) not in scene.heard
        assert await scene.is_answered(session)
        await pass_time(mock_clock, QUIET)
        assert await scene.hear(Relinquished) == Relinquished(2)


async def test_who_is_born_when_a_listener_no_longer_takes_datagrams_finishes_its_socket(
    scene: Scene, mock_clock: MockClock
) -> None:
    gone = scene.key_of("dns")
    scene.removed, scene.former = {gone: scene.names.pop(gone)}, scene.config
    relayed = {"bind": "127.0.0.1:0", "protocol": "tcp", "pool": "dns"}
    scene.config = Config.model_validate(scene.config_of(dns=relayed, web=scene.web))
    StandIn.bind(scene, "dns")
    async with scene.running():
        assert await scene.ask(scene.sockets[gone]) is None
        await pass_time(mock_clock, QUIET)
        assert scene.status is None
        assert scene.view.reader.column(scene.column).counters[WorkerCounter.DEFECTS] == 0


async def test_a_new_listener_is_served_with_the_next_generation(scene: Scene) -> None:
    async with scene.running():
        await scene.reload(scene.config_of(dns=scene.dns, web=scene.web), new=["dns"])
        assert await scene.ask() is not None


async def test_what_was_left_to_another_worker_goes_with_its_address(
    scene: Scene, mock_clock: MockClock
) -> None:
    (lent,) = open_first(LOCAL, 1)
    with lent:
        async with scene.running():
            await scene.tell(Adopt(1, ((scene.key_of("dns"), "dns", str(bound_address(lent))),)), lent)
            session = await scene.ask(lent)
            await scene.tell(Disown(1))
            await scene.prepare(scene.config_of(web=scene.web))
            await scene.follow()
            await wait_all_tasks_blocked(0.005)
            assert Relinquished(2) not in scene.heard
            assert await scene.is_answered(session)
            await pass_time(mock_clock, QUIET)
            assert await scene.hear(Relinquished) == Relinquished(2)
            assert not await scene.is_answered(session)


async def test_what_was_left_of_a_slot_goes_with_the_slot(scene: Scene) -> None:
    (lent,) = open_first(LOCAL, 1)
    with lent:
        async with scene.running():
            await scene.tell(Adopt(1, ((scene.key_of("dns"), "dns", str(bound_address(lent))),)), lent)
            session = await scene.ask(lent)
            own = await scene.ask()
            await scene.tell(Disown(1))
            await scene.reload(scene.config_of(dns=scene.dns, web=scene.web), slots=1)
            await wait_all_tasks_blocked(0.005)
            assert not await scene.is_answered(session)
            assert await scene.is_answered(own)
