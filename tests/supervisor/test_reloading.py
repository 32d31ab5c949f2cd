"""Reloads of the whole supervisor with small children: real forks, sockets, signals and kills.

Of a reload that fails everything stays as it was; of one that is done every process has taken part, whatever
children did. In both cases no process has a descriptor more than before.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lbproc.controller import run_controller
from lbproc.core.control.messages import Reply, StopRequest
from lbproc.shm.layout import Capacities
from lbproc.supervisor import start
from lbproc.supervisor.belongings import Entries
from tests.ports import free_port
from tests.supervisor.looking import (
    CHANGES,
    NEW,
    Snapshot,
    addresses,
    assert_soon,
    backends,
    connect,
    counts,
    descriptors,
    generations,
    links,
    pids,
    refused,
    run_worker_beside_a_small_one,
    slots,
)
from tests.supervisor.running import (
    RunningSupervisor,
    is_gone,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_limits")]


def say(port: int, line: str) -> str:
    with connect(port) as sock:
        sock.sendall(line.encode() + b"\n")
        return sock.makefile().read()


def test_a_reload_changes_everybody_in_place(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        children, before = pids(running), descriptors(running)
        running.rewrite(**NEW)
        reply = running.reload()
        assert reply.ok, reply
        assert reply.body == {
            "outcome": "done",
            "generation": 2,
            "config": str(running.file),
            "changes": CHANGES,
            "warnings": [],
        }
        state = running.state()
        assert state["generation"] == 2
        assert state["reload"] == {"stage": "idle", "last_refusal": None}
        assert generations(running) == {2}
        assert addresses(running) == ["127.0.0.1:9", "127.0.0.1:10"]
        assert_soon(lambda: pids(running), children)
        assert running.say("generation") == "2\n"
        assert_soon(lambda: descriptors(running), before)
        log = running.error_log.read_text()
        assert 'config_changed change="pools.web.backends: added 127.0.0.1:10"' in log
        assert f"reloaded generation=2 config={running.file} changes=2" in log


def test_a_dry_run_and_a_file_that_says_the_same_change_nothing(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = Snapshot(running)
        same = running.reload()
        assert same.ok
        assert isinstance(same.body, dict)
        assert (same.body["outcome"], same.body["changes"], same.body["generation"]) == ("unchanged", [], 1)
        running.rewrite(**NEW)
        plan = running.reload(dry_run=True)
        assert isinstance(plan.body, dict)
        assert (plan.body["outcome"], plan.body["changes"], plan.body["generation"]) == (
            "planned",
            CHANGES,
            1,
        )
        assert before.unchanged()


def test_sighup_reloads_too(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        running.rewrite(**NEW)
        running.kill(signal.SIGHUP)
        running.wait_for_log("reloaded generation=2")
        assert generations(running) == {2}
        running.rewrite(listeners={"web": {"bind": "nonsense"}})
        running.kill(signal.SIGHUP)
        log = running.wait_for_log("reload_refused")
        assert "listeners.web.bind" in log[log.index("reload_refused") :]
        assert running.state()["generation"] == 2
        assert "listeners.web.bind" in running.state()["reload"]["last_refusal"]


def test_another_file_is_used_once(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        other = tmp_path / "other.toml"
        other.write_text(running.file.read_text().replace("127.0.0.1:9", "127.0.0.1:11"))
        assert running.reload(file=other).ok
        assert running.state()["config"] == str(other)
        assert addresses(running)[0] == "127.0.0.1:11"
        assert running.reload().ok
        assert running.state()["config"] == str(running.file)
        assert addresses(running)[0] == "127.0.0.1:9"


# Refusals ---------------------------------------------------------------------------------------------------


def break_toml(running: RunningSupervisor) -> None:
    running.file.write_text("[listeners.web\n")


def break_value(running: RunningSupervisor) -> None:
    running.rewrite(listeners={"web": {"pool": "nowhere"}})


def remove_file(running: RunningSupervisor) -> None:
    running.file.unlink()


def break_fixed_key(running: RunningSupervisor) -> None:
    running.rewrite(runtime={"control_socket": str(running.directory / "other.sock")})


def ask_for_admin(running: RunningSupervisor) -> None:
    running.rewrite(admin={"bind": "127.0.0.1:0"})


def bind_elsewhere(running: RunningSupervisor) -> None:
    running.rewrite(listeners={"web": {"bind": [f"127.0.0.1:{running.port}", "192.0.2.1:80"]}})


def bind_in_a_missing_directory(running: RunningSupervisor) -> None:
    running.rewrite(listeners={"x": {"bind": ["unix:/nonexistent/x.sock", "127.0.0.1:0"], "pool": "web"}})


def ask_for_too_many_workers(running: RunningSupervisor) -> None:
    running.rewrite(runtime={"workers": 254})


def log_into_a_missing_directory(running: RunningSupervisor) -> None:
    running.rewrite(log={"access": "/nonexistent/access.log"})


def behave(how: str, new: dict[str, Any] = NEW) -> Callable[[RunningSupervisor], None]:
    def arrange(running: RunningSupervisor) -> None:
        (running.directory / how).touch()
        running.rewrite(**new)

    return arrange


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (break_toml, "lbproc.toml:1: "),
        (break_value, "listeners.web.pool: "),
        (remove_file, "lbproc.toml"),
        (break_fixed_key, "runtime.control_socket: "),
        (ask_for_admin, "admin: added: this cannot change while lbproc runs"),
        (bind_elsewhere, "cannot listen on 192.0.2.1:80: Cannot assign requested address"),
        (bind_in_a_missing_directory, "cannot listen on unix:/nonexistent/x.sock"),
        (ask_for_too_many_workers, "runtime.workers: "),
        (log_into_a_missing_directory, "the log /nonexistent/access.log cannot be opened"),
        (behave("prepare-refuse-1"), "worker 1: not in the mood"),
        (behave("prepare-refuse-c"), "the controller: not in the mood"),
        (behave("prepare-refuse-0", {"runtime": {"workers": 4}}), "worker 0: not in the mood"),
        (
            behave("prepare-refuse-0", {"listeners": {"x": {"bind": "127.0.0.1:0", "pool": "web"}}}),
            "worker 0: not in the mood",
        ),
    ],
)
def test_of_a_refused_reload_everything_stays_as_it_was(
    tmp_path: Path, arrange: Callable[[RunningSupervisor], None], reason: str
) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = Snapshot(running)
        whole = running.file.read_text()
        arrange(running)
        reply = running.reload()
        assert not reply.ok
        assert isinstance(reply.body, str)
        assert reason in reply.body
        assert before.unchanged()
        assert running.state()["reload"] == {"stage": "idle", "last_refusal": reply.body}
        for trouble in tmp_path.glob("prepare-*"):
            trouble.unlink()
        running.file.write_text(whole)
        running.rewrite(**NEW)
        assert running.reload().ok, "nothing is in the way afterwards"


def test_a_file_that_cannot_be_read_to_its_end_holds_up_nobody(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = Snapshot(running)
        whole = running.file.read_text()
        running.file.unlink()
        os.mkfifo(running.file)
        with running.connect_to_control() as waiting:
            running.send_reload(waiting)
            wait_for(lambda: running.state()["reload"]["stage"] == "loading", "the load")
            assert running.say("who")
            second = running.reload()
            assert (second.ok, second.body) == (
                False, "another reload is under way; try again when it is done",
            )  # fmt: skip
            (loader,) = pids(running) - set(before.seen["descriptors"])
            os.kill(loader, signal.SIGKILL)
            reply = running.receive(waiting)
        assert reply == Reply(
            ok=False, body=f"{running.file}: the process that loaded the configuration ended without a word"
        )
        assert before.unchanged()
        running.file.unlink()
        running.file.write_text(whole)
        running.rewrite(**NEW)
        assert running.reload().ok


def test_a_client_that_does_not_wait_changes_nothing(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        running.rewrite(**NEW)
        with running.connect_to_control() as impatient:
            running.send_reload(impatient)
        running.wait_for_log("reloaded generation=2")
        assert running.state()["generation"] == 2


def test_an_address_in_use_is_waited_for_a_while(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running, socket.socket() as predecessor:
        predecessor.bind(("127.0.0.1", 0))
        predecessor.listen()
        port = predecessor.getsockname()[1]
        running.rewrite(listeners={"x": {"bind": f"127.0.0.1:{port}", "pool": "web"}})
        with running.connect_to_control() as waiting:
            running.send_reload(waiting)
            wait_for(lambda: running.state()["reload"]["stage"] == "binding", "the bind")
            predecessor.close()
            assert running.receive(waiting).ok
        assert say(port, "generation") == "2\n"


def test_an_address_that_stays_in_use_is_a_refusal(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running, socket.socket() as other:
        before = Snapshot(running)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        running.rewrite(listeners={"x": {"bind": address, "pool": "web"}})
        reply = running.reload()
        assert not reply.ok
        assert f"cannot listen on {address}: another program listens there" in str(reply.body)
        assert before.unchanged()


def test_a_real_worker_forgets_what_it_had_prepared_when_another_refuses(tmp_path: Path) -> None:
    running = RunningSupervisor(tmp_path, real=True)
    running.entries = Entries(partial(run_worker_beside_a_small_one, tmp_path), run_controller)
    with running:
        whole = running.file.read_text()
        new = {
            "runtime": {"workers": 4},
            "log": {"access": str(tmp_path / "new.log"), "error": str(tmp_path / "errors.log")},
            "listeners": {"x": {"bind": ["127.0.0.1:0", f"unix:{tmp_path}/x.sock"], "pool": "web"}},
        }
        (tmp_path / "prepare-refuse-1").touch()
        real = running.workers()[0]["pid"]
        before = links(real)
        for _ in range(3):
            running.rewrite(**new)
            assert running.reload() == Reply(ok=False, body="worker 1: not in the mood")
            assert_soon(lambda: links(real), before)
        (tmp_path / "prepare-refuse-1").unlink()
        running.file.write_text(whole)
        running.rewrite(**NEW)
        assert running.reload().ok
        assert_soon(lambda: generations(running), {running.state()["generation"]})


# Silence and death ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["0", "c"])
def test_one_that_dies_while_it_prepares_undoes_the_reload(tmp_path: Path, slot: str) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = counts(running)
        trouble = tmp_path / f"prepare-die-{slot}"
        trouble.touch()
        running.rewrite(**NEW, listeners={"x": {"bind": "127.0.0.1:0", "pool": "web"}})
        reply = running.reload()
        assert not reply.ok
        assert "ended while it prepared the new configuration" in str(reply.body)
        trouble.unlink()
        wait_for(lambda: len(pids(running)) == 3, "the replacement")
        wait_for(lambda: generations(running) == {1}, "the old generation everywhere")
        assert running.state()["generation"] == 1
        wait_for(lambda: sorted(len(found) for found in descriptors(running).values()) == before, "as many")
        assert running.reload().ok
        assert generations(running) == {running.state()["generation"]}


@pytest.mark.parametrize("how", ["die", "hang"])
@pytest.mark.parametrize("slot", ["0", "c"])
def test_one_that_dies_or_hangs_after_the_commit_is_born_in_the_new_generation(
    tmp_path: Path, slot: str, how: str
) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = counts(running)
        children = pids(running)
        (tmp_path / f"follow-{how}-{slot}").touch()
        running.rewrite(**NEW)
        reply = running.reload()
        assert reply.ok, reply
        wait_for(lambda: len(pids(running) - children) == 1, "the successor")
        wait_for(lambda: len(pids(running)) == 3, "the end of the other")
        wait_for(lambda: generations(running) == {2}, "the new generation everywhere")
        assert addresses(running) == ["127.0.0.1:9", "127.0.0.1:10"]
        wait_for(lambda: sorted(len(found) for found in descriptors(running).values()) == before, "as many")
        log = running.error_log.read_text()
        assert ("straggled" in log) == (how == "hang")


def test_one_that_is_silent_undoes_the_reload(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = Snapshot(running)
        (tmp_path / "prepare-silent-1").touch()
        running.rewrite(**NEW)
        reply = running.reload()
        assert reply == Reply(ok=False, body="worker 1 did not prepare the new configuration in time")
        assert before.unchanged()


def test_a_stop_while_others_prepare_undoes_the_reload(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        (tmp_path / "prepare-silent-1").touch()
        running.rewrite(listeners={"x": {"bind": f"unix:{tmp_path}/x.sock", "pool": "web"}})
        with running.connect_to_control() as waiting:
            running.send_reload(waiting)
            wait_for(lambda: running.state()["reload"]["stage"] == "preparing", "the silence")
            running.kill(signal.SIGTERM)
            assert running.receive(waiting) == Reply(ok=False, body="lbproc is stopping")
        assert running.wait() == 0
        assert not (tmp_path / "x.sock").exists()


def test_a_stop_at_once_answers_whoever_waits(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        (tmp_path / "follow-silent-1").touch()
        running.rewrite(**NEW)
        with running.connect_to_control() as waiting:
            running.send_reload(waiting)
            wait_for(lambda: running.state()["reload"]["stage"] == "following", "the commit")
            assert running.ask(StopRequest(now=True, wait=False)).ok
            assert isinstance(running.receive(waiting), Reply)
        assert running.wait() == 0


# Addresses --------------------------------------------------------------------------------------------------


def test_listeners_come_and_go_and_addresses_that_stay_keep_their_sockets(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = descriptors(running)
        new, unix = free_port(), tmp_path / "x.sock"
        running.rewrite(
            listeners={
                "web": {"bind": f"unix:{running.unix}"},
                "api": {
                    "bind": [f"127.0.0.1:{running.port}", f"127.0.0.1:{new}", f"unix:{unix}"],
                    "pool": "web",
                },
            }
        )
        assert running.reload().ok
        after = descriptors(running)
        for pid, links_before in before.items():
            assert set(links_before) <= set(after[pid])
        assert running.say("generation") == say(new, "generation") == "2\n"
        running.rewrite(
            listeners={"api": None, "web": {"bind": [f"127.0.0.1:{running.port}", f"unix:{running.unix}"]}}
        )
        assert running.reload().ok
        assert refused(new)
        assert not unix.exists()
        assert running.say("generation", unix=True) == running.say("generation") == "3\n"
        assert_soon(lambda: descriptors(running), before)


def test_what_waits_on_an_address_that_goes_is_served(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        port = free_port()
        whole = running.file.read_text()
        running.rewrite(listeners={"x": {"bind": f"127.0.0.1:{port}", "pool": "web"}})
        assert running.reload().ok
        (worker,) = running.workers()
        os.kill(worker["pid"], signal.SIGSTOP)
        with ExitStack() as stack:
            waiting = [stack.enter_context(connect(port)) for _ in range(5)]
            for sock in waiting:
                sock.sendall(b"generation\n")
            os.kill(worker["pid"], signal.SIGCONT)
            running.file.write_text(whole)
            assert running.reload().ok
            assert {sock.recv(10) for sock in waiting} <= {b"2\n", b"3\n"}
        assert refused(port)


def test_addresses_may_overlap_with_those_that_go(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        running.rewrite(listeners={"web": {"bind": f"0.0.0.0:{running.port}"}})
        assert running.reload().ok
        assert running.say("generation") == "2\n"


# Workers ----------------------------------------------------------------------------------------------------


@contextmanager
def steady_clients(running: RunningSupervisor) -> Iterator[list[str]]:
    """Clients that come all the time; all of them must be answered. Gives the slots that did."""
    answers: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            answers.append((running.say("who").split() or ["nobody"])[0])

    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(ask) for _ in range(4)]
        try:
            wait_for(lambda: len(set(answers)) > 1, "answers of all workers")
            yield answers
            seen = len(answers)
            wait_for(lambda: len(answers) > seen + 50, "more answers")
        finally:
            is_over.set()
        for client in clients:
            client.result()


def test_workers_come_and_go_and_every_client_is_answered(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        before = len(descriptors(running)[running.pid])
        with steady_clients(running) as answers:
            for workers in (4, 2, 3, 1, 4, 2):
                running.rewrite(runtime={"workers": workers})
                reply = running.reload()
                assert reply.ok, reply
                here = [(slot, "ready") for slot in range(workers)]
                wait_for(lambda here=here: slots(running) == here, "the workers")
        assert set(answers) <= set("0123")
        for round_ in range(2):
            running.rewrite(runtime={"workers": 4})
            reply = running.reload()
            assert reply.ok, reply
            assert slots(running) == [(slot, "ready") for slot in range(4)]
            wait_for(lambda: {running.say("who").split()[0] for _ in range(40)} == set("0123"), "all four")
            assert generations(running) == {2 * round_ + 8}
            running.rewrite(runtime={"workers": 2})
            assert running.reload().ok
            wait_for(lambda: slots(running) == [(0, "ready"), (1, "ready")], "two to go")
            assert {running.say("who").split()[0] for _ in range(40)} == {"0", "1"}
        wait_for(lambda: len(descriptors(running)[running.pid]) == before, "as many descriptors as before")


def test_a_retired_worker_finishes_what_it_holds_and_takes_part_in_reloads(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=2) as running:
        held: list[tuple[str, socket.socket]] = []
        while not any(slot == "1" for slot, _ in held):
            sock = running.connect()
            sock.sendall(b"hold\n")
            held.append((sock.recv(10).decode().strip(), sock))
        running.rewrite(runtime={"workers": 1})
        assert running.reload().ok
        wait_for(lambda: slots(running) == [(0, "ready"), (1, "retired")], "the retirement")
        assert {running.say("who").split()[0] for _ in range(20)} == {"0"}
        running.rewrite(**NEW)
        assert running.reload().ok
        assert generations(running) == {3}
        running.rewrite(runtime={"workers": 2})
        assert running.reload().ok
        assert slots(running) == [(0, "ready"), (1, "ready"), (1, "retired")]
        assert generations(running) == {4}
        wait_for(lambda: {running.say("who").split()[0] for _ in range(20)} == {"0", "1"}, "the new one")
        retired = running.workers()[2]["pid"]
        for _, sock in held:
            sock.close()
        wait_for(lambda: is_gone(retired), "its end")
        wait_for(lambda: len(running.workers()) == 2, "its burial")


def test_the_queue_of_a_retired_worker_that_dies_goes_to_a_sibling(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=2) as running:
        retiring = running.workers()[1]["pid"]
        (tmp_path / "follow-die-1").touch()
        running.rewrite(runtime={"workers": 1})
        with steady_clients(running) as answers:
            assert running.reload().ok
            wait_for(lambda: is_gone(retiring), "the death")
            wait_for(lambda: slots(running) == [(0, "ready")], "one worker")
            running.wait_for_log("slot_adopted slot=1")
        assert set(answers) == {"0", "1"}
        running.rewrite(runtime={"workers": 2})
        (tmp_path / "follow-die-1").unlink()
        assert running.reload().ok
        assert slots(running) == [(0, "ready"), (1, "ready")]


def test_the_command_line_decides_on_workers_also_after_a_reload(tmp_path: Path) -> None:
    running = RunningSupervisor(tmp_path, workers=3)
    running.workers_option = 1
    with running:
        assert len(running.workers()) == 1
        running.rewrite(**NEW, runtime={"workers": 2})
        reply = running.reload()
        assert isinstance(reply.body, dict)
        assert reply.body["changes"] == CHANGES
        assert len(running.workers()) == 1


# The rest ---------------------------------------------------------------------------------------------------


def test_logs_move(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        running.rewrite(log={"error": str(tmp_path / "new.log"), "level": "debug"})
        assert running.reload().ok
        assert "reloaded generation=2" in (tmp_path / "new.log").read_text()
        assert "reloaded" not in running.error_log.read_text()


def test_many_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1, max_backends=8) as running:
        before = descriptors(running)
        for round_ in range(8):
            running.rewrite(**backends("127.0.0.1:9", *(f"127.0.1.{round_}:{port}" for port in (1, 2))))

            def done() -> bool:
                # rows become free with the next tick
                return running.reload().ok

            wait_for(done, "room for three more")
        assert running.state()["generation"] == 9
        assert_soon(lambda: descriptors(running), before)


def test_more_pools_than_the_table_has_room_for_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "Capacities", partial(Capacities, pools=4))
    with RunningSupervisor(tmp_path, workers=1) as running:
        before = ["web"]
        for round_ in range(3):
            names = [f"{letter}{round_}" for letter in "ab"]
            pools = {name: {"backends": ["127.0.0.1:9"]} for name in names}
            running.rewrite(listeners={"web": {"pool": names[0]}}, pools={**dict.fromkeys(before), **pools})
            # places become free with the next tick
            wait_for(lambda: running.reload().ok, "room for two more")
            assert sorted(running.state()["pools"]) == names
            before = names
        running.rewrite(pools={name: {"backends": ["127.0.0.1:9"]} for name in "cde"})
        reply = running.reload()
        assert not reply.ok
        assert "room for 4 pools" in str(reply.body)
