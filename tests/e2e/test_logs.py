"""The access log of real workers: rotation loses nothing, and a log that takes nothing holds up nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import fetch
from tests.e2e.load import Load
from tests.e2e.scrape import Admin

if TYPE_CHECKING:
    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

DROPPED = "lbproc_log_lines_dropped_total"


def targets(path: Path) -> list[str]:
    """The targets of all requests in a log; every line of it is whole."""
    return [json.loads(line)["target"] for line in path.read_text().splitlines()]


def is_open(server: LbprocServer, path: Path) -> bool:
    """Whether any process of a server still has a file open."""
    return any(path in open_files(process.pid) for process in server.processes())


def open_files(pid: int) -> set[Path]:
    """What the descriptors of a process stand for; nothing of one that has ended."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(link.readlink())
    return found


def test_rotation_under_load_loses_no_line_and_begins_a_new_file(
    stage: Stage, start_web: StartWeb, tmp_path: Path
) -> None:
    server, address = start_web([stage.open("a")])
    rotated = tmp_path / "rotated.log"
    fetch(address, "/before")
    server.access_log(1)
    with Load(address, clients=4) as load:
        wait_until(lambda: load.answered > 50, "the load runs")
        server.access_log_path.rename(rotated)
        server.send_signal(signal.SIGUSR1)
        wait_until(lambda: not is_open(server, rotated), "every worker has let go of the old file")
        answered = load.answered
        wait_until(lambda: load.answered > answered + 50, "the load goes on")
    fetch(address, "/after")
    assert server.stop() == 0
    assert (load.lost, load.refused, load.wrong) == (0, 0, [])
    old, new = targets(rotated), targets(server.access_log_path)
    assert old[0] == "/before"
    assert new.count("/after") == 1
    assert new.count("/") > 50
    assert len(old) + len(new) == load.answered + 2
    assert server.access_log_path.stat().st_mode & 0o777 == 0o640
    assert "logs_reopened" in server.events()


def test_full_disk_under_the_access_log_drops_lines_counts_them_and_fails_no_request(
    stage: Stage, start_web: StartWeb
) -> None:
    admin = Admin()
    server, address = start_web([stage.open("a")], access="/dev/full", rest=admin.table)
    assert [fetch(address).status for _ in range(50)] == [200] * 50
    wait_until(lambda: admin.total(DROPPED) == 50, "every dropped line is counted")
    assert "access_log_dropped" in server.events()
    assert server.stop() == 0


def test_reader_of_standard_output_that_never_reads_holds_up_neither_requests_nor_a_stop(
    stage: Stage, start_web: StartWeb, connect: Connect
) -> None:
    unread, stdout = os.pipe()
    poller = select.poll()
    poller.register(stdout, select.POLLOUT)
    try:
        server, address = start_web([stage.open("a")], access="stdout", stdout=stdout)
        client = connect(address)

        def is_full() -> bool:
            client.request("/" + "x" * 2000)
            return not poller.poll(0)

        wait_until(is_full, "the pipe is full")
        assert [client.request().status for _ in range(200)] == [200] * 200
        assert fetch(address).status == 200
        assert server.stop() == 0
        assert os.get_blocking(stdout)  # others write to it too
    finally:
        os.close(unread)
        os.close(stdout)
