"""Reloads of the whole supervisor when something goes wrong late: at the commit, or after it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from lbproc.boot import WorkerBoot
from lbproc.controller import run_controller
from lbproc.core.control.messages import Reply
from lbproc.supervisor.belongings import Entries
from lbproc.worker import run_worker
from tests.ports import free_port
from tests.supervisor.looking import (
    NEW,
    Snapshot,
    addresses,
    assert_soon,
    backends,
    connect,
    generations,
    refused,
    run_worker_beside_a_small_one,
    slots,
)
from tests.supervisor.running import RunningSupervisor, is_gone, run_small_worker, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_limits")]


class HeldUp:
    """A reload that goes on when `let_go` says so; a child is in the middle of preparing.

    Args:
        running: what reloads.
        trouble: names the child, and what it does then.
    """

    def __init__(self, running: RunningSupervisor, trouble: str) -> None:
        self._running = running
        self._path = running.directory / trouble
        os.mkfifo(self._path)
        self._waiting = running.connect_to_control()
        running.send_reload(self._waiting)
        self._pipe = os.open(self._path, os.O_WRONLY)  # until the child reads

    def let_go(self) -> None:
        self._path.unlink()
        os.close(self._pipe)

    def answer(self) -> Reply:
        with self._waiting:
            return self._running.receive(self._waiting)


def steal(port: int) -> socket.socket:
    """Another program that has begun to use an address."""
    thief = socket.socket()
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    thief.bind(("127.0.0.1", port))
    thief.listen()
    return thief


@pytest.mark.parametrize("is_real", [False, True])
def test_a_commit_that_fails_after_all_have_prepared_changes_nothing(tmp_path: Path, is_real: bool) -> None:
    running = RunningSupervisor(tmp_path, real=is_real)
    if is_real:
        running.entries = Entries(partial(run_worker_beside_a_small_one, tmp_path), run_controller)
    with running:
        before = Snapshot(running)
        port, unix = free_port(), tmp_path / "x.sock"
        running.rewrite(
            runtime={"workers": 4},
            log={"access": str(tmp_path / "new.log"), "error": str(tmp_path / "errors.log")},
            listeners={"x": {"bind": [f"unix:{unix}", f"127.0.0.1:{port}"], "pool": "web"}},
        )
        with ExitStack() as stack:
            reload = HeldUp(running, "prepare-hold-1")
            thief = stack.enter_context(steal(port))
            reload.let_go()
            reply = reload.answer()
            assert not reply.ok
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in str(reply.body)
            assert before.unchanged()
            assert not unix.exists()
            thief.close()
        assert running.reload().ok, "nothing is in the way afterwards"
        assert_soon(lambda: slots(running), [(slot, "ready") for slot in range(4)])


def test_a_controller_that_hangs_while_it_prepares_undoes_the_reload(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, heartbeat_timeout="2s") as running:
        before = Snapshot(running)
        trouble = tmp_path / "prepare-hang-c"
        trouble.touch()
        running.rewrite(**NEW, listeners={"x": {"bind": "127.0.0.1:0", "pool": "web"}})
        reply = running.reload()
        assert reply == Reply(ok=False, body="the controller did not prepare the new configuration in time")
        assert before.unchanged()
        trouble.unlink()
        running.wait_for_log("controller_hung")
        wait_for(
            lambda: "controller_ready" in running.error_log.read_text().partition("controller_hung")[2],
            "its successor",
        )
        assert running.reload().ok
        assert addresses(running) == ["127.0.0.1:9", "127.0.0.1:10"]


def test_a_table_without_room_refuses_and_changes_nothing(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1, max_backends=4) as running:
        before = Snapshot(running)
        whole = running.file.read_text()
        running.rewrite(**backends(*(f"127.0.0.2:{port}" for port in range(1, 5))))
        reply = running.reload()
        assert not reply.ok
        assert "max_backends" in str(reply.body)
        assert before.unchanged()
        running.file.write_text(whole)
        running.rewrite(**NEW)
        assert running.reload().ok


@pytest.mark.parametrize("trouble", ["prepare-silent-1", "prepare-refuse-1", "follow-silent-1"])
def test_who_only_finishes_refuses_nothing_and_is_not_cut(tmp_path: Path, trouble: str) -> None:
    with RunningSupervisor(tmp_path) as running, ExitStack() as stack:
        slot = ""
        while slot != "1":
            held = stack.enter_context(running.connect())
            held.sendall(b"hold\n")
            slot = held.recv(10).decode().strip()
        running.rewrite(runtime={"workers": 1})
        assert running.reload().ok
        wait_for(lambda: slots(running) == [(0, "ready"), (1, "retired")], "the retirement")
        retired = running.workers()[1]["pid"]
        (tmp_path / trouble).touch()
        running.rewrite(**NEW)
        assert running.reload().ok
        assert [worker["generation"] for worker in running.workers()] == [3, 2]
        assert "straggled" not in running.error_log.read_text()
        running.rewrite(**backends("127.0.0.1:9"))
        assert running.reload().ok, "the next reload is in nobody's way either"
        held.setblocking(False)
        with pytest.raises(BlockingIOError):
            held.recv(1)
        assert not is_gone(retired)


def run_small_worker_once(trouble: Path, boot: WorkerBoot) -> int:
    """A small one is the first in slot 0; all others are real."""
    mark = trouble / "first"
    if boot.slot == 0 and not mark.exists():
        mark.touch()
        return run_small_worker(trouble, boot)
    return run_worker(boot)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_queued_where_nothing_new_comes_outlives_its_worker(tmp_path: Path, workers: int) -> None:
    """One that is killed between the commit and the end of its queue, with and without a sibling."""
    port, other = free_port(), free_port()
    running = RunningSupervisor(tmp_path, workers, bind=(f"127.0.0.1:{other}",), real=True)
    running.entries = Entries(partial(run_small_worker_once, tmp_path), run_controller)
    with running, ExitStack() as stack:
        running.rewrite(
            listeners={"x": {"bind": f"127.0.0.1:{port}", "pool": "x"}},
            pools={"x": {"backends": ["127.0.0.1:9"]}},
        )
        assert running.reload().ok
        running.rewrite(
            listeners={"x": None, "web": {"bind": [f"127.0.0.1:{running.port}", f"unix:{running.unix}"]}},
            pools={"x": None},
        )
        victim = running.workers()[0]["pid"]
        reload = HeldUp(running, "prepare-freeze-0")
        clients = [stack.enter_context(connect(to)) for to in [port, other] * 10]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reload.let_go()
        wait_for(lambda: running.state()["generation"] == 3, "the commit")
        os.kill(victim, signal.SIGKILL)
        assert reload.answer().ok
        assert {client.recv(12) for client in clients} <= {b"HTTP/1.1 502", b"HTTP/1.1 503"}
        assert refused(port)
        assert refused(other)
        assert generations(running) == {3}
