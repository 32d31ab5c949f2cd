"""Reloads in a worker: preparing, refusing, moving, and leaving addresses, slots and logs behind."""

from __future__ import annotations

import json
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lbproc.config.model import Config
from lbproc.config.sealed import open_memory
from lbproc.core.control.messages import (
    Adopt,
    Disown,
    Drained,
    DrainSlot,
    Follow,
    Following,
    Prepared,
    Refused,
    Relinquished,
    Stop,
)
from lbproc.net.inbox import hand_over
from lbproc.net.listeners import refuse_new
from lbproc.shm.views import WorkerCounter
from lbproc.telemetry.sink import Sink
from lbproc.types import Slot
from tests.descriptors import open_descriptors, opened_since
from tests.worker.stand_in import Backend, StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


class Scene(StandIn):
    """A stand-in with three backends, and configurations made of them."""

    def __init__(self, directory: Path, backends: list[Backend]) -> None:
        self.a, self.b, self.c = backends
        super().__init__(directory, self.table_of(web=self.a))

    def table_of(self, **listeners: Backend) -> dict[str, Any]:
        """A configuration with these listeners, each in front of a pool of its own name with one backend."""
        return {
            "listeners": {name: {"bind": "127.0.0.1:0", "pool": name} for name in listeners},
            "pools": {name: {"backends": [backend.address]} for name, backend in listeners.items()},
        }


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    backends = [Backend(name) for name in "abc"]
    for backend in backends:
        await nursery.start(backend.run)
    scene = Scene(tmp_path, backends)
    yield scene
    scene.close()
    nursery.cancel_scope.cancel()


async def test_connections_old_and_new_go_by_the_new_configuration(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running(), scene.client(web) as kept:
        assert await kept.get() == b"a"
        assert await scene.prepare(scene.table_of(web=scene.b)) == Prepared(2)
        assert await kept.get() == b"a"
        await scene.follow()
        assert await kept.get() == b"b"
        assert await scene.get(web) == b"b"
        assert scene.view.reader.column(scene.column).generation == 2
        assert await scene.hear(Relinquished) == Relinquished(2)


async def test_the_commit_is_enough_for_the_next_request(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running(), scene.client(web) as kept:
        assert await kept.get() == b"a"
        await scene.prepare(scene.table_of(web=scene.b))
        scene.commit()
        assert await kept.get() == b"b"
        assert await scene.hear(Following) == Following(2)


async def test_without_a_request_and_a_word_the_pulse_moves(scene: Scene) -> None:
    async with scene.running():
        await scene.prepare(scene.table_of(web=scene.b))
        scene.commit()
        assert await scene.hear(Following) == Following(2)


async def test_a_request_that_runs_ends_where_it_began_although_its_pool_is_gone(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running(), scene.client(web) as kept:
        await kept.send("/slow")
        await scene.a.asked.wait()
        await scene.reload(scene.table_of(web=scene.b))
        scene.a.released.set()
        assert (await kept.receive())[1] == b"a"
        assert await kept.get() == b"b"


async def test_a_new_address_is_served_from_the_move_on(scene: Scene) -> None:
    async with scene.running():
        assert await scene.prepare(scene.table_of(web=scene.a, new=scene.b), new=["new"]) == Prepared(2)
        new = scene.key_of("new")
        async with scene.client(new) as early:  # it waits in the queue
            await early.send()
            await scene.follow()
            assert (await early.receive())[1] == b"b"
        assert await scene.get(new) == b"b"
        assert await scene.get(scene.key_of("web")) == b"a"


@pytest.mark.slow
async def test_what_is_queued_on_an_address_that_goes_is_served(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running(), scene.client(web) as kept:
        assert await kept.get() == b"a"
        await scene.prepare(scene.table_of(other=scene.b), new=["other"])
        refuse_new(scene.sockets[web])
        async with trio.open_nursery() as nursery:
            scene.commit()
            nursery.start_soon(scene.hear, Relinquished)
            await kept.send()
            head, body = await kept.receive()
        assert body == b"a"
        assert b"Connection: close" in head
        assert await kept.stream.receive_some() == b""
        assert await scene.get(scene.key_of("other")) == b"b"


@pytest.mark.slow
async def test_idle_connections_of_a_removed_listener_end_after_a_grace(scene: Scene) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as kept:
        assert await kept.get() == b"a"
        await scene.reload(scene.table_of(other=scene.b), new=["other"])
        with trio.fail_after(5):
            assert await kept.stream.receive_some() == b""


async def test_an_address_changes_its_listener(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running():
        scene.names[web] = "renamed"
        await scene.reload(scene.table_of(renamed=scene.c))
        assert await scene.get(web) == b"c"


async def test_what_cannot_be_read_is_refused_and_changes_nothing(scene: Scene) -> None:
    async with scene.running():
        before = open_descriptors()
        answer = await scene.prepare(
            scene.table_of(web=scene.b, new=scene.b), new=["new"], memory=open_memory()
        )
        assert answer == Refused(2, "the new configuration is not sealed")
        scene.sockets.pop(scene.key_of("new")).close()
        assert opened_since(before) == []
        assert await scene.get(scene.key_of("web")) == b"a"


async def test_what_cannot_be_built_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene.running():
        monkeypatch.setattr("lbproc.worker.moving.Runtime", _explode)
        assert await scene.prepare(scene.table_of(web=scene.b)) == Refused(2, "RuntimeError: a defect")
    assert "reload_crashed" in (scene.directory / "error.log").read_text()


async def test_a_defect_at_the_move_is_told_and_leaves_the_worker_as_it_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.running():
        web = scene.key_of("web")
        await scene.prepare(scene.table_of(web=scene.b))
        monkeypatch.setattr("lbproc.proxy.runtime.Runtime.succeed", _explode)
        scene.commit()
        assert await scene.get(web) == b"a"  # the supervisor replaces who does not follow
        assert not [message for message in scene.heard if isinstance(message, Following)]
    assert "reload_crashed" in (scene.directory / "error.log").read_text()


def _explode(*_: object) -> None:
    raise RuntimeError("a defect")


async def test_what_is_abandoned_is_closed_and_never_followed(scene: Scene) -> None:
    async with scene.running():
        before = open_descriptors()
        await scene.prepare(scene.table_of(web=scene.b, new=scene.b), new=["new"], slots=4)
        scene.abandon()
        scene.channel.send(Follow(2))
        key = scene.key_of("new")
        scene.sockets.pop(key).close()
        del scene.names[key]
        assert isinstance(await scene.prepare(scene.table_of(web=scene.b), memory=open_memory()), Refused)
        assert opened_since(before) == []
        assert await scene.get(scene.key_of("web")) == b"a"
        await scene.reload(scene.table_of(web=scene.c))
        assert await scene.get(scene.key_of("web")) == b"c"


async def test_a_second_preparation_replaces_the_first(scene: Scene) -> None:
    async with scene.running():
        await scene.prepare(scene.table_of(web=scene.b))
        scene.generation += 1
        await scene.reload(scene.table_of(web=scene.c))
        assert await scene.get(scene.key_of("web")) == b"c"


async def test_a_sibling_that_moved_first_gives_a_connection_of_an_address_that_is_new_here(
    scene: Scene,
) -> None:
    async with scene.running():
        await scene.prepare(scene.table_of(web=scene.a, new=scene.b), new=["new"])
        scene.commit()
        assert await given(scene, scene.key_of("new")) == b"b"


async def test_a_sibling_that_moves_later_gives_a_connection_of_an_address_that_went(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running():
        await scene.reload(scene.table_of(other=scene.b), new=["other"])
        assert await given(scene, web) == b"a"
        column = scene.view.reader.column(scene.column)
        assert column.counters[WorkerCounter.DEFECTS] == 0


async def given(scene: Scene, key: int) -> bytes:
    """What a client gets whose connection comes from a sibling."""
    ours, theirs = socket.socketpair()
    assert hand_over(scene.inboxes[Slot(0)][1], key, theirs, "")
    ours.setblocking(False)
    with trio.socket.from_stdlib_socket(ours) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
            octets = await client.recv(1000)
            assert octets
            received += octets
        return received.rpartition(b"\r\n\r\n")[2]


async def test_what_nobody_can_place_goes_to_a_sibling(scene: Scene) -> None:
    async with scene.running():
        ours, theirs = socket.socketpair()
        with ours:
            assert hand_over(scene.inboxes[Slot(0)][1], 999, theirs, "")
            inbox = scene.inboxes[Slot(1)][0]
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(inbox)
            assert len(inbox.recv(1000)) > 0


async def test_other_numbers_of_workers(scene: Scene) -> None:
    async with scene.running():
        await scene.reload(scene.table_of(web=scene.a), slots=4)
        await scene.reload(scene.table_of(web=scene.a), slots=1)
        await scene.reload(scene.table_of(web=scene.b), slots=3)
        assert await scene.get(scene.key_of("web")) == b"b"


@pytest.mark.slow
async def test_an_adopted_slot_is_drained_and_given_up(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running():
        key = scene.bind("web")
        names = ((key, "web", "127.0.0.1:1"),)
        inbox = scene.inboxes[Slot(1)][0]
        scene.channel.send(Adopt(1, names, inbox=True), [scene.sockets[key].fileno(), inbox.fileno()])
        assert await scene.get(key) == b"a"
        refuse_new(scene.sockets[key])
        scene.channel.send(DrainSlot(1))
        assert await scene.hear(Drained) == Drained(1)
        assert await scene.get(web) == b"a", "its own slot goes on"
        scene.channel.send(DrainSlot(1))
        assert await scene.hear(Drained) == Drained(1), "nothing is left there"


async def test_who_is_born_after_the_reload_serves_what_is_queued_at_addresses_that_went(
    scene: Scene,
) -> None:
    same, gone, old = scene.bind("web"), scene.bind("gone"), scene.bind("old")
    keys = {key: scene.names.pop(key) for key in (same, gone, old)}
    scene.removed = keys
    pools = scene.table_of(web=scene.a, gone=scene.b)["pools"]
    old_listeners = {
        "gone": {"bind": "127.0.0.1:0", "pool": "gone"},
        "old": {"bind": "127.0.0.1:0", "pool": "web"},
        "web": {"bind": "127.0.0.1:0", "pool": "web"},
    }
    scene.former = Config.model_validate({"pools": pools, "listeners": old_listeners})
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(scene.client(key)) for key in keys]
        for client in clients:
            await client.send()
            refuse_new(scene.sockets[list(keys)[clients.index(client)]])
        async with scene.running():
            answers = [await client.receive() for client in clients]
            statuses = [head.split()[1] for head, _ in answers]
            assert statuses == [b"200", b"503", b"200"], "of a pool that is gone nobody can answer"
            assert [b"Connection: close" in head for head, _ in answers] == [False, True, True]
            for client in clients[1:]:
                assert await client.stream.receive_some() == b""
            assert await scene.get(scene.key_of("web")) == b"a"
            column = scene.view.reader.column(scene.column)
            assert column.counters[WorkerCounter.DEFECTS] == 0


@pytest.mark.slow
async def test_an_address_that_went_is_finished_also_when_its_slot_is_given_back(scene: Scene) -> None:
    web = scene.key_of("web")
    async with scene.running():
        await scene.reload(scene.table_of(other=scene.b), new=["other"])
        # Of a sibling's slot: the socket is another one of the same address, which was known here.
        sock = socket.create_server(("127.0.0.1", 0))
        with sock, socket.create_connection(sock.getsockname()) as queued:
            refuse_new(sock)
            inbox = scene.inboxes[Slot(1)][0]
            scene.channel.send(
                Adopt(1, ((web, "web", "127.0.0.1:1"),), inbox=True), [sock.fileno(), inbox.fileno()]
            )
            scene.channel.send(Disown(1))
            queued.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            queued.setblocking(False)
            received = b""
            with trio.fail_after(5):
                client = trio.socket.from_stdlib_socket(queued)
                while octets := await client.recv(1000):
                    received += octets
            assert received.endswith(b"\r\n\r\na")


async def test_a_retired_worker_leaves_a_shared_socket_to_its_siblings_at_once(
    scene: Scene, tmp_path: Path, mock_clock: MockClock
) -> None:
    """The clock stands still: whoever waits until no client comes any more waits for ever."""
    shared = socket.socket(socket.AF_UNIX)
    shared.bind(str(tmp_path / "web.sock"))
    shared.listen()
    key = scene.key_of("web")
    scene.sockets.pop(key).close()
    scene.sockets[key] = shared
    async with scene.running():
        scene.channel.send(Stop(now=False, retires=True))
        assert await scene.hear(Drained) == Drained(0)
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(tmp_path / "web.sock"))
            shared.setblocking(False)
            with shared.accept()[0]:
                pass


@pytest.mark.slow
async def test_a_draining_worker_takes_part(scene: Scene) -> None:
    async with scene.running(), scene.client(scene.key_of("web")) as kept:
        await kept.send("/slow")
        await scene.a.asked.wait()
        scene.channel.send(Stop(now=False))
        assert await scene.prepare(scene.table_of(web=scene.b, new=scene.b), new=["new"]) == Prepared(2)
        await scene.follow()
        await scene.hear(Relinquished)
        scene.a.released.set()
        head, body = await kept.receive()
        assert body == b"a"
        assert b"Connection: close" in head


async def test_logs_go_elsewhere_and_levels_change(scene: Scene) -> None:
    fresh = scene.directory / "fresh"
    fresh.mkdir()
    config = scene.table_of(web=scene.b)
    config["log"] = {"access": str(fresh / "access.log"), "error": str(fresh / "error.log"), "level": "error"}
    async with scene.running():
        assert await scene.get(scene.key_of("web")) == b"a"
        logs = (Sink(fresh / "access.log"), Sink(fresh / "error.log"))
        await scene.reload(config, logs=logs)
        for log in logs:
            log.close()
        assert await scene.get(scene.key_of("web")) == b"b"
        config["log"]["access"] = "off"
        await scene.reload(config)
        assert await scene.get(scene.key_of("web")) == b"b"
    assert scene.worker is not None
    old, new = ((place / "access.log").read_text().splitlines() for place in (scene.directory, fresh))
    assert [json.loads(line)["status"] for line in old] == [200]
    assert [json.loads(line)["status"] for line in new] == [200]
    assert (fresh / "error.log").read_text() == ""
