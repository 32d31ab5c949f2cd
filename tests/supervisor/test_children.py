"""Forking, talking, losing and burying, one child at a time."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from lbproc.boot import ControllerBoot, WorkerBoot
from lbproc.config.model import Config
from lbproc.core.control.codec import Decoder, encode
from lbproc.core.control.messages import Disown, Message, Ready, Stop
from lbproc.core.supervision_events import ChannelLost, ChildExited, ChildId, Event, SpawnFailed
from lbproc.errors import ControlError
from lbproc.net.control_socket import ControlListener
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import SupervisorView
from lbproc.supervisor.belongings import Belongings, Entries
from lbproc.supervisor.children import Children, Process
from lbproc.supervisor.inboxes import Inboxes
from lbproc.supervisor.sockets import ListeningSockets
from lbproc.telemetry.log import open_error_log
from lbproc.telemetry.sink import Sink
from lbproc.types import Slot
from tests.supervisor.scarcity import no_descriptor_left

ONE = ChildId(1)


def await_stop(boot: WorkerBoot | ControllerBoot) -> int:
    """Says that it is ready, then waits for a stop; its status tells how it ended."""
    boot.channel.sendall(encode(Ready()))
    decoder = Decoder()
    while octets := boot.channel.recv(65536):
        decoder.feed(octets)
        while (message := decoder.next_message()) is not None:
            if isinstance(message, Stop):
                return 3
    return 4


def close_channel(boot: WorkerBoot) -> int:
    boot.channel.close()
    time.sleep(60)
    return 0


def talk_nonsense(boot: WorkerBoot) -> int:
    boot.channel.sendall(b"\xff" * 100)
    time.sleep(60)
    return 0


def sleep(_: WorkerBoot) -> int:
    time.sleep(60)
    return 0


class Scene:
    """Children whose events are collected."""

    def __init__(self, directory: Path, columns: int = 8) -> None:
        self.config = Config.model_validate(
            {
                "listeners": {"web": {"bind": "127.0.0.1:0", "pool": "web"}},
                "pools": {"web": {"backends": ["127.0.0.1:1"]}},
            }
        )
        self.worker: Callable[[WorkerBoot], int] = await_stop
        self.events: list[Event] = []
        self.heard: list[Message] = []
        self.selector = selectors.DefaultSelector()
        self.table = Table.create(
            Capacities(columns=columns, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096)
        )
        self.belongings = Belongings(
            self.config,
            directory,
            2,
            self.table,
            ListeningSockets(self.config, 2),
            Inboxes(2),
            None,
            ControlListener(directory / "control.sock"),
            None,
            open_error_log(directory / "error.log", "info", "supervisor"),
            Sink(directory / "access.log"),
        )
        self.view = SupervisorView(self.table)
        self.children = Children(
            self.belongings,
            self.view,
            Entries(self.run_worker, await_stop),
            self.selector,
            release=self.selector.close,
            happened=self.events.append,
            heard=self.hear,
        )

    def run_worker(self, boot: WorkerBoot) -> int:
        return self.worker(boot)

    def hear(self, _: Process, message: Message) -> None:
        if isinstance(message, Disown):
            raise ControlError("no business of a child")
        self.heard.append(message)

    def turn_until(self, condition: Callable[[], object]) -> None:
        deadline = time.perf_counter() + 20
        while not condition():
            assert time.perf_counter() < deadline
            for key, events in self.selector.select(0.01):
                key.data(events)
            self.children.reap()

    def has_exited(self, name: ChildId) -> bool:
        return any(isinstance(event, ChildExited) and event.child == name for event in self.events)

    def process(self, name: ChildId = ONE) -> Process:
        process = self.children.get(name)
        assert process is not None
        return process

    def close(self) -> None:
        for name in list(self.children.places()):
            if not self.has_exited(name):
                self.children.kill(name, signal.SIGKILL)
                self.turn_until(partial(self.has_exited, name))
            self.children.bury(name)
        self.children.close()
        self.selector.close()
        self.belongings.sockets.close()
        self.belongings.inboxes.close()
        self.belongings.control.close()
        self.belongings.log.close()
        assert self.belongings.access_log is not None
        self.belongings.access_log.close()
        self.table.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.mark.parametrize("slot", [None, Slot(1)])
def test_a_child_is_heard_told_reaped_and_buried(scene: Scene, slot: Slot | None) -> None:
    scene.children.spawn(ONE, slot)
    column = scene.view.reader.column(scene.process().column)
    assert (column.slot, column.pid) == (slot, scene.process().pid)
    scene.turn_until(lambda: scene.heard == [Ready()])
    assert scene.children.heartbeats()[ONE] > 0
    scene.children.send(ONE, Stop(now=False))
    scene.turn_until(lambda: scene.has_exited(ONE))
    assert scene.events[-1] == ChildExited(ONE, 3)
    report = scene.children.bury(ONE)
    assert report is not None
    assert scene.children.get(ONE) is None
    assert scene.children.bury(ONE) is None
    assert scene.children.places() == {}


def test_the_end_of_the_supervisor_is_seen_by_every_child(scene: Scene) -> None:
    names = [ChildId(number) for number in range(3)]
    for name in names:
        scene.children.spawn(name, Slot(name) if name < 2 else None)
    scene.turn_until(lambda: len(scene.heard) == 3)
    scene.children.close()
    scene.turn_until(lambda: all(map(scene.has_exited, names)))
    assert {event.status for event in scene.events if isinstance(event, ChildExited)} == {4}
    for name in names:
        scene.children.bury(name)


@pytest.mark.parametrize("trouble", [close_channel, talk_nonsense])
def test_a_child_that_cannot_be_talked_to_is_lost_once(
    scene: Scene, trouble: Callable[[WorkerBoot], int]
) -> None:
    scene.worker = trouble
    scene.children.spawn(ONE, Slot(0))
    scene.turn_until(lambda: scene.events)
    assert scene.events == [ChannelLost(ONE)]
    scene.children.send(ONE, Stop(now=True))
    scene.children.send_to_all(Stop(now=True))
    assert scene.events == [ChannelLost(ONE)]


def test_what_the_listener_of_messages_refuses_loses_the_child(scene: Scene) -> None:
    scene.worker = lambda boot: boot.channel.sendall(encode(Disown(1))) or sleep(boot)  # type: ignore[func-returns-value]
    scene.children.spawn(ONE, Slot(0))
    scene.turn_until(lambda: scene.events)
    assert scene.events == [ChannelLost(ONE)]


def test_a_child_that_does_not_read_is_lost_and_holds_up_nobody(scene: Scene) -> None:
    scene.worker = sleep
    scene.children.spawn(ONE, Slot(0))
    for _ in range(100_000):
        scene.children.send(ONE, Disown(1))
        if scene.events:
            break
    assert scene.events == [ChannelLost(ONE)]


def test_what_did_not_fit_is_sent_later(scene: Scene) -> None:
    scene.children.spawn(ONE, Slot(0))
    process = scene.process()
    os.kill(process.pid, signal.SIGSTOP)
    while not process.channel.has_unsent:
        scene.children.send(ONE, Disown(1))
    os.kill(process.pid, signal.SIGCONT)
    scene.turn_until(lambda: not process.channel.has_unsent)
    scene.children.send(ONE, Stop(now=False))
    scene.turn_until(lambda: scene.has_exited(ONE))
    assert scene.events[-1] == ChildExited(ONE, 3)
    scene.children.bury(ONE)


def test_a_fork_that_fails_is_an_event_and_its_column_comes_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fail)
        scene.children.spawn(ONE, Slot(0))
    assert scene.events == [SpawnFailed(ONE, "Resource temporarily unavailable")]
    scene.children.send(ONE, Stop(now=True))
    scene.children.kill(ONE, signal.SIGKILL)
    assert scene.children.bury(ONE) is not None
    assert len(scene.view.reader.columns()) == 1


def test_no_free_column_is_an_event(tmp_path: Path) -> None:
    scene = Scene(tmp_path, columns=3)
    scene.children.spawn(ONE, Slot(0))
    scene.children.spawn(ChildId(2), Slot(1))
    (event,) = scene.events
    assert isinstance(event, SpawnFailed)
    assert "max_columns" in event.reason
    assert scene.children.bury(ChildId(2)) is None
    scene.close()


def test_processes_that_are_no_children_of_ours_are_reaped_in_passing(scene: Scene) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    scene.children.reap()
    scene.children.reap()
    assert scene.events == []
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_channel_that_cannot_be_opened_is_a_failed_spawn_and_takes_no_column(scene: Scene) -> None:
    with no_descriptor_left():
        scene.children.spawn(ONE, Slot(0))
    assert [type(event) for event in scene.events] == [SpawnFailed]
    scene.children.bury(ONE)
    scene.children.spawn(ChildId(2), Slot(0))
    assert scene.process(ChildId(2)).column == 2


def test_sockets_that_cannot_be_copied_for_a_sibling_do_not_end_the_supervisor(scene: Scene) -> None:
    scene.children.spawn(ONE, Slot(0))
    scene.turn_until(lambda: scene.heard == [Ready()])
    with no_descriptor_left():
        scene.children.send_sockets(ONE, Slot(1))
    assert scene.process().pid


def test_a_channel_that_was_lost_in_the_same_round_is_not_written_to(scene: Scene) -> None:
    scene.children.spawn(ONE, Slot(0))
    process = scene.process()
    os.kill(process.pid, signal.SIGSTOP)
    while not process.channel.has_unsent:
        scene.children.send(ONE, Disown(1))
    key = scene.selector.get_key(process.channel.socket)
    os.kill(process.pid, signal.SIGKILL)
    scene.turn_until(lambda: ChannelLost(ONE) in scene.events)
    key.data(selectors.EVENT_READ | selectors.EVENT_WRITE)
    assert scene.events.count(ChannelLost(ONE)) == 1
