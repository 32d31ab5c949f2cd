"""Log files of real workers and a real controller that have given up root's rights.

Started by an ordinary account nothing is given up; then the same holds for that account.
"""

from __future__ import annotations

import os
import pwd
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.supervisor.running import RunningSupervisor, wait_for

pytestmark = pytest.mark.slow

ACCOUNT = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
WHO = "nobody" if os.geteuid() == 0 else f"user id {os.geteuid()}"


def make_workers_log(running: RunningSupervisor) -> None:
    """One request that is refused: a line in both logs of some worker."""
    assert "400" in running.say("nonsense\r\n\r")


def has(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def is_logged(running: RunningSupervisor, path: Path, text: str) -> bool:
    make_workers_log(running)
    return has(path, text)


def assert_belongs_to_account(path: Path) -> None:
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    assert status.st_mode & 0o137 == 0


def test_children_without_rights_log_to_files_that_the_supervisor_has_made_for_them(tmp_path: Path) -> None:
    # private to the account that starts it, so that the descriptors must come from there
    directory = tmp_path / "private"
    directory.mkdir(mode=0o700)
    with RunningSupervisor(directory, real=True, user="nobody") as running:
        make_workers_log(running)
        wait_for(lambda: has(running.access_log, '"status":400'), "the line of the request")
        running.wait_for_log("request_rejected")
        for path in (running.access_log, running.error_log):
            assert_belongs_to_account(path)
        os.kill(running.workers()[0]["pid"], signal.SIGKILL)
        running.wait_for_log("worker_ready slot=0", times=2)
        running.kill(signal.SIGTERM)
        assert running.wait() == 0


def test_rotated_files_are_made_anew_for_children_without_rights(readable_directory: Path) -> None:
    with RunningSupervisor(readable_directory, real=True, user="nobody") as running:
        old = [path.rename(path.with_suffix(".1")) for path in (running.access_log, running.error_log)]
        running.kill(signal.SIGUSR1)
        running.wait_for_log("logs_reopened")
        # Until a worker has heard of it, it writes to the old files.
        for path, text in ((running.access_log, '"status":400'), (running.error_log, "request_rejected")):
            wait_for(partial(is_logged, running, path, text), f"{text} in the new file")
        for path in (running.access_log, running.error_log):
            assert_belongs_to_account(path)
            assert "log_reopen_failed" not in path.read_text()
        os.kill(running.workers()[0]["pid"], signal.SIGKILL)
        running.wait_for_log("worker_ready slot=0")
        running.kill(signal.SIGTERM)
        assert running.wait() == 0
    assert not any("log_reopen_failed" in path.read_text() for path in old)


def test_who_cannot_open_the_new_file_says_so_and_goes_on_with_the_old(readable_directory: Path) -> None:
    logs = readable_directory / "logs"
    logs.mkdir(mode=0o755)
    with RunningSupervisor(logs, workers=1, real=True, user="nobody") as running:
        access, error = (
            path.rename(readable_directory / path.name) for path in (running.access_log, running.error_log)
        )
        logs.chmod(0)
        running.kill(signal.SIGUSR1)
        told = f'reason="Permission denied; let {WHO} write to it and search its directory"'
        for process in ("controller", "worker-0"):
            text = f"error {process} log_reopen_failed path={running.error_log} {told}"
            wait_for(partial(has, error, text), text)
        text = f"error worker-0 log_reopen_failed path={running.access_log} {told}"
        wait_for(lambda: has(error, text), text)
        logs.chmod(0o755)
        make_workers_log(running)
        wait_for(lambda: has(access, '"status":400'), "a line in the old file")
        wait_for(lambda: has(error, "request_rejected"), "an event in the old file")
        running.kill(signal.SIGTERM)
        assert running.wait() == 0
