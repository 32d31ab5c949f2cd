"""The whole supervisor with small children: real forks, sockets, signals and kills."""

from __future__ import annotations

import os
import pwd
import select
import signal
import socket
from pathlib import Path

import pytest

from lbproc.boot import WorkerBoot
from lbproc.controller import run_controller
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Ready, Reply, StopRequest
from lbproc.errors import StartError
from lbproc.supervisor.belongings import Entries
from lbproc.supervisor.following import count_workers
from lbproc.worker import run_worker
from tests.supervisor.running import RunningSupervisor, is_gone, wait_for

pytestmark = pytest.mark.slow


def crash(running: RunningSupervisor, slot: int) -> int:
    """Kills the worker of a slot; returns the id of its replacement."""
    pid = running.workers()[slot]["pid"]
    os.kill(pid, signal.SIGKILL)

    def replaced() -> int:
        worker = running.workers()[slot]
        return worker["pid"] if worker["state"] == "ready" and worker["pid"] != pid else 0

    return int(wait_for(replaced, "the replacement"))


def test_it_serves_answers_status_and_stops(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        state = running.state()
        assert {running.say("who").split()[0] for _ in range(50)} == {"0", "1"}
        assert running.say("who", unix=True)
        children = running.descendants()
        assert len(children) == 3
        assert running.ask(StopRequest(now=False, wait=True)) == Reply(ok=True, body={"status": 0})
        assert not running.control.exists()
        assert not running.unix.exists()
        assert running.wait() == 0
        assert all(is_gone(pid) for pid in children)
    assert state["generation"] == 1
    assert state["config"] == str(running.file)
    assert state["pid"] == running.pid
    assert [worker["slot"] for worker in state["workers"]] == [0, 1]
    assert {worker["pid"] for worker in state["workers"]} < set(children)
    assert [backend["address"] for backend in state["pools"]["web"]["backends"]] == [
        "127.0.0.1:9",
        "name.test:80",
    ]


def test_a_killed_worker_is_repaired_and_replaced_and_no_connection_is_lost(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        for _ in range(10):
            running.say("take 0")
        assert running.state()["pools"]["web"]["backends"][0]["in_flight"] == 10
        for slot in (0, 1):
            crash(running, slot)
            assert all(running.say("who") for _ in range(10))
        state = running.state()
        assert state["pools"]["web"]["backends"][0]["in_flight"] == 0
        assert [worker["restarts"] for worker in state["workers"]] == [1, 1]
        running.kill(signal.SIGTERM)
        assert running.wait() == 0
    assert 'status="was ended by signal 9"' in running.error_log.read_text()


def test_a_slot_whose_worker_keeps_dying_is_served_by_a_sibling(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        sibling = running.workers()[1]["pid"]
        (tmp_path / "crash-0").touch()
        os.kill(running.workers()[0]["pid"], signal.SIGKILL)
        running.wait_for_log("worker_failed_to_boot slot=0", times=2)
        answers = [running.say("who").split() for _ in range(40)]
        assert {answer[1] for answer in answers} == {str(sibling)}
        (tmp_path / "crash-0").unlink()
        running.wait_for_log("slot_returned slot=0")
        wait_for(lambda: {running.say("who").split()[0] for _ in range(20)} == {"0", "1"}, "both slots")


def test_what_is_queued_while_no_worker_is_there_is_served_by_the_next(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        (tmp_path / "crash-0").touch()
        os.kill(running.workers()[0]["pid"], signal.SIGKILL)
        running.wait_for_log("worker_failed_to_boot slot=0")
        waiting = [running.connect() for _ in range(20)]
        (tmp_path / "crash-0").unlink()
        for sock in waiting:
            sock.sendall(b"who\n")
            assert sock.recv(100)
            sock.close()


def test_a_hung_worker_is_dumped_and_replaced(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, heartbeat_timeout="1s") as running:
        pids = [worker["pid"] for worker in running.workers()]
        with running.connect() as sock:
            sock.sendall(b"hang\n")
        running.wait_for_log("worker_hung")
        running.wait_for_log("worker_ready", times=3)
        assert len({worker["pid"] for worker in running.workers()} - set(pids)) == 1
        assert all(running.say("who") for _ in range(20))
        assert "time.sleep" in Path(__file__).with_name("small_children.py").read_text()
        assert "in obey" in running.output.read_text(), "the stack of the hung worker"


def test_a_stopped_process_cannot_dump_and_is_killed(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, heartbeat_timeout="1s") as running:
        pid = running.workers()[0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        running.wait_for_log("worker_hung slot=0")
        assert all(running.say("who") for _ in range(20)), "a sibling has its slot"
        wait_for(lambda: is_gone(pid), "the kill")


def test_a_worker_that_cannot_be_forked_has_no_process_id_in_the_log(tmp_path: Path) -> None:
    fork, failures = os.fork, iter([True])

    def fail_once() -> int:
        if next(failures, False):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    def break_fork() -> None:  # runs in the supervisor's own process
        os.fork = fail_once

    running = RunningSupervisor(tmp_path)
    running.on_ready = break_fork
    with running:
        crash(running, 0)
        log = running.error_log.read_text()
    assert 'worker_failed_to_boot slot=0 reason="fork failed: Resource' in log
    assert "pid=0" not in log
    assert log.count("worker_started slot=0") == 2


def test_a_worker_that_talks_nonsense_is_replaced(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        pid = running.workers()[0]["pid"]
        running.say("garbage")
        running.wait_for_log("worker_ready", times=2)
        assert running.workers()[0]["pid"] != pid


def test_the_controller_is_replaced(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        (controller,) = set(running.descendants()) - {worker["pid"] for worker in running.workers()}
        os.kill(controller, signal.SIGKILL)
        running.wait_for_log("controller_started", times=2)
        assert len(running.descendants()) == 3


def test_a_child_that_refuses_ends_the_start_with_its_reason_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "refuse-1").touch()
    running = RunningSupervisor(tmp_path)
    running.fork()
    assert running.wait() == 1
    assert "StartError: slot 1 is not in the mood" in running.output.read_text()
    assert 'supervisor start_failed reason="slot 1 is not in the mood"' in running.error_log.read_text()
    assert not running.control.exists()
    assert not running.unix.exists()


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RuntimeError("a defect"), "crashed traceback="),
        (StartError("no room"), 'start_failed reason="no room"'),
    ],
)
def test_what_ends_the_supervisor_is_in_the_log_and_nothing_is_left(
    tmp_path: Path, error: Exception, event: str
) -> None:
    def fail() -> None:
        raise error

    running = RunningSupervisor(tmp_path)
    running.on_ready = fail
    running.fork()
    assert running.wait() in {1, 99}
    log = running.error_log.read_text()
    assert f"error supervisor {event}" in log
    assert str(error) in log
    assert not running.control.exists()
    assert not running.unix.exists()


def test_a_program_that_takes_the_address_before_we_listen_ends_the_start_in_good_order(
    tmp_path: Path,
) -> None:
    running = RunningSupervisor(tmp_path)
    thief = socket.socket()
    # Both ways of sharing, as a second lbproc would: bound while we have bound, and listening before us.
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    thief.bind(("127.0.0.1", running.port))
    os.mkfifo(tmp_path / "hold-controller")
    running.fork()
    running.wait_for_log("controller_started")
    thief.listen()
    (tmp_path / "hold-controller").write_bytes(b"go")
    assert running.wait() == 1
    thief.close()
    log = running.error_log.read_text()
    assert "Address already in use" in running.output.read_text()
    assert log.count("start_failed") == 1
    assert "crashed" not in log
    assert "stopped status=1" in log
    assert not running.control.exists()
    assert not running.unix.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_while_it_waits_for_a_predecessor_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    with socket.socket(socket.AF_UNIX) as predecessor:
        busy = tmp_path / "busy.sock"
        predecessor.bind(str(busy))
        predecessor.listen()
        running = RunningSupervisor(tmp_path, bind=(f"unix:{busy}",))
        running.fork()
        predecessor.accept()[0].close()  # it has looked, and waits
        running.kill(signal.SIGHUP)
        running.kill(number)
        assert running.wait() == 0
    assert "stopped status=0" in running.error_log.read_text()
    assert not running.control.exists()
    assert not running.unix.exists()


def test_stop_signals_after_the_end_was_decided_change_nothing(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        running.kill(signal.SIGTERM)
        end = os.pidfd_open(running.pid)
        # Thousands a second and at every moment, but not so many that it does nothing but hear them.
        while not select.select([end], [], [], 0.0002)[0]:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                running.kill(number)
        os.close(end)
        assert running.wait() == 0
        assert running.output.read_text() == ""


def test_a_drain_waits_for_what_is_held_and_further_signals_change_nothing(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        held = running.connect()
        held.sendall(b"hold\n")
        slot = int(held.recv(10))
        running.kill(signal.SIGTERM)
        wait_for(lambda: running.workers()[slot]["state"] == "draining", "the drain")
        running.kill(signal.SIGTERM)
        running.kill(signal.SIGINT)
        running.kill(signal.SIGHUP)
        wait_for(lambda: running.workers()[1 - slot]["state"] == "down", "the other worker's end")
        wait_for(lambda: is_refused(running), "closed listeners")
        assert running.workers()[slot]["connections"] == 1
        held.close()
        assert running.wait() == 0


def is_refused(running: RunningSupervisor) -> bool:
    with socket.socket() as sock:
        sock.settimeout(0.5)
        return sock.connect_ex(("127.0.0.1", running.port)) != 0


@pytest.mark.parametrize("way", ["SIGQUIT", "command"])
def test_stop_at_once_does_not_wait_for_what_is_held(tmp_path: Path, way: str) -> None:
    with RunningSupervisor(tmp_path) as running:
        held = running.connect()
        held.sendall(b"hold\n")
        held.recv(10)
        if way == "SIGQUIT":
            running.kill(signal.SIGTERM)
            running.kill(signal.SIGQUIT)
        else:
            assert running.ask(StopRequest(now=True, wait=False)) == Reply(ok=True, body={})
        assert running.wait() == 0
        assert held.recv(10) == b""
        held.close()


def test_a_drain_that_takes_too_long_is_cut(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, drain_timeout="1s") as running:
        held = running.connect()
        held.sendall(b"hold\n")
        assert held.recv(10) in {b"0\n", b"1\n"}
        running.kill(signal.SIGTERM)
        assert running.wait() == 0
        held.close()
    assert "drain_timed_out" in running.error_log.read_text()


def test_a_killed_supervisor_leaves_no_orphans_and_a_new_one_starts_at_once(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        children = running.descendants()
        running.kill(signal.SIGKILL)
        assert running.wait() == -9
        assert running.control.exists()
        running.status = None
        running.error_log.unlink()
        running.fork()
        running.wait_for_log("ready workers=")
        assert running.say("who")
        wait_for(lambda: all(is_gone(pid) for pid in children), "the end of the children")
        assert all(running.say("who", unix=True) for _ in range(5))
        running.kill(signal.SIGTERM)
        assert running.wait() == 0


def test_a_second_one_with_the_same_configuration_is_refused_at_once(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        second = RunningSupervisor(tmp_path)
        second.port, second.config = running.port, running.config
        second.fork()
        assert second.wait() == 1
        assert "already running" in running.output.read_text()
        assert "supervisor start_failed reason=" in running.error_log.read_text()
        assert running.say("who")
        assert running.say("who", unix=True)


def test_garbage_on_the_control_socket_harms_nobody(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path) as running:
        idle = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for sock in idle:
            sock.connect(str(running.control))
        for garbage in (b"\xff" * 5000, b"\x00\x00\x00\x02\xc1\xc1", encode(Ready()), b"\x00\x00\x00\x05ab"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(running.control))
                sock.sendall(garbage)
        assert running.state()["pid"] == running.pid
        for sock in idle:
            sock.close()


def run_worker_with_a_loose_tongue(boot: WorkerBoot) -> int:
    channel = boot.channel.fileno()

    def talk_nonsense(*_: object) -> None:
        os.write(channel, b"\xff" * 1000)

    signal.signal(signal.SIGUSR2, talk_nonsense)
    return run_worker(boot)


def test_a_worker_that_lost_its_channel_leaves_its_slot_in_order_to_the_next(tmp_path: Path) -> None:
    running = RunningSupervisor(tmp_path, real=True)
    running.entries = Entries(run_worker_with_a_loose_tongue, run_controller)
    with running:
        pid = running.workers()[0]["pid"]
        os.kill(pid, signal.SIGUSR2)
        running.wait_for_log("supervisor worker_ready slot=0", times=2)
        assert running.workers()[0]["pid"] != pid
        for _ in range(20):  # some go to each slot
            running.connect().close()
        running.connect(unix=True).close()
        running.kill(signal.SIGTERM)
        assert running.wait() == 0


def test_children_have_only_their_own_descriptors_and_no_signals_of_the_terminal(tmp_path: Path) -> None:
    # What the tests were started with is inherited: input and output may be pipes, or sockets.
    held = {str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    inherited = {link for link in held if link.startswith(("pipe:", "socket:"))}
    with RunningSupervisor(tmp_path, workers=3, bind=("127.0.0.1:0",)) as running:
        links = [link for link in running.say("descriptors").split() if link not in inherited]
        sockets = [link for link in links if link.startswith("socket:")]
        # two slotted, one shared, its inbox and the ways to two others, the channel, and this very connection
        assert len(sockets) == 8
        assert sum("eventpoll" in link for link in links) == 1
        assert not [link for link in links if link.startswith("pipe:")], "not those of the supervisor"
        pid = running.workers()[0]["pid"]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
        assert all(running.say("who") for _ in range(10))
        assert running.workers()[0]["pid"] == pid


def test_logs_are_reopened_on_sigusr1(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        running.error_log.rename(tmp_path / "old.log")
        running.kill(signal.SIGUSR1)
        running.wait_for_log("logs_reopened")
        wait_for(lambda: running.say("reopened") == "1\n", "the worker's turn")


def test_resolved_names_are_published_before_workers_are_born(tmp_path: Path) -> None:
    with RunningSupervisor(tmp_path, workers=1) as running:
        log = running.error_log.read_text()
    assert log.index("membership_published", log.index("controller_started")) < log.index("worker_started")


def test_started_as_root_children_run_as_the_configured_account_and_the_supervisor_does_not(
    readable_directory: Path,
) -> None:
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with RunningSupervisor(readable_directory, user="nobody") as running:
        _, _, uid, gid = running.say("who").split()
        assert (int(uid), int(gid)) == (account.pw_uid, account.pw_gid)
        status = Path(f"/proc/{running.workers()[0]['pid']}/status").read_text()
        ids = dict(line.split(":", 1) for line in status.splitlines())
        assert ids["Uid"].split() == [str(account.pw_uid)] * 4
        assert ids["CapEff"].strip().strip("0") == ""
        assert Path(f"/proc/{running.pid}").stat().st_uid == os.geteuid()


def test_auto_is_one_worker_for_each_processor_this_may_use(tmp_path: Path) -> None:
    config = RunningSupervisor(tmp_path, workers="auto").config
    assert count_workers(config) == len(os.sched_getaffinity(0))
