"""How long a worker may take to finish what it holds: without a limit while lbproc goes on, or not."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.core.control.messages import Drained, DrainSlot, Leave, Message, Stop
from tests.worker.stand_in import Backend, Client, StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DRAIN_TIMEOUT = 2.0
LONGER = DRAIN_TIMEOUT + 1.0

STOP = Stop(now=False)
RETIRE = Stop(now=False, retires=True)


class Scene(StandIn):
    """A stand-in whose worker holds a request that its backend does not answer yet."""

    def __init__(self, directory: Path, backend: Backend) -> None:
        self.backend = backend
        super().__init__(
            directory,
            {
                "runtime": {"drain_timeout": f"{DRAIN_TIMEOUT:.0f}s"},
                "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
                "pools": {"web": {"backends": [backend.address]}},
            },
        )

    async def tell(self, message: Message) -> None:
        """Returns when the worker has done it: that it answers the next message shows that."""
        self.channel.send(message)
        self.channel.send(DrainSlot(5))
        while await self.hear(Drained) != Drained(5):
            pass

    async def begin_slow(self, client: Client) -> None:
        await client.send("/slow")
        await self.backend.asked.wait()


async def pass_time(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    backend = Backend("a")
    await nursery.start(backend.run)
    scene = Scene(tmp_path, backend)
    yield scene
    scene.close()
    nursery.cancel_scope.cancel()


async def is_answered(scene: Scene, client: Client) -> bool:
    """Whether the request that waits gets its response, once there is one; else it was cut."""
    if scene.status is not None:
        return False
    scene.backend.released.set()
    return (await client.receive())[1] == b"a"


@pytest.mark.parametrize("message", [RETIRE, Leave()], ids=["retired", "worn"])
async def test_while_lbproc_goes_on_a_worker_has_all_the_time_it_needs(
    scene: Scene, message: Message, mock_clock: MockClock
) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as client:
        await scene.begin_slow(client)
        await scene.tell(message)
        await pass_time(mock_clock, LONGER)
        assert await is_answered(scene, client)


async def test_in_a_stop_all_is_cut_after_the_timeout(scene: Scene, mock_clock: MockClock) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as client:
        await scene.begin_slow(client)
        await scene.tell(STOP)
        await pass_time(mock_clock, LONGER)
        assert scene.status == 0


@pytest.mark.parametrize("message", [RETIRE, Leave()], ids=["retired", "worn"])
async def test_a_stop_that_comes_later_limits_the_time_from_then_on(
    scene: Scene, message: Message, mock_clock: MockClock
) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as client:
        await scene.begin_slow(client)
        await scene.tell(message)
        await pass_time(mock_clock, LONGER)
        await scene.tell(STOP)
        await pass_time(mock_clock, DRAIN_TIMEOUT - 0.5)
        assert scene.status is None
        await scene.tell(RETIRE)  # changes nothing any more
        await pass_time(mock_clock, 1.0)
        assert scene.status == 0


@pytest.mark.parametrize("message", [RETIRE, Leave()], ids=["retired", "worn"])
async def test_a_lost_supervisor_limits_the_time_as_well(
    scene: Scene, message: Message, mock_clock: MockClock
) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as client:
        await scene.begin_slow(client)
        await scene.tell(message)
        await pass_time(mock_clock, LONGER)
        scene.channel.socket.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        await pass_time(mock_clock, LONGER)
        assert scene.status == 0
