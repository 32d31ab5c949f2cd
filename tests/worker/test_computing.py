"""The limit on a worker's computing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lbproc.worker.computing import limit_computing


def turn_in_circles() -> None:
    limit_computing(30.0)
    limit_computing(0.05)
    end = time.process_time() + 30.0
    while time.process_time() < end:
        pass


def compute_without_a_limit() -> None:
    limit_computing(0.02)
    limit_computing(None)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


def wait() -> None:
    limit_computing(0.02)
    signal.sigtimedwait([signal.SIGUSR2], 0.2)


def run_apart(act: Callable[[], None], errors: Path) -> int:
    """Runs it in a process of its own; gives the exit status as `os.waitstatus_to_exitcode` does."""
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 2)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_process_that_only_computes_writes_its_stacks_and_ends(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    assert run_apart(turn_in_circles, errors) == -signal.SIGPROF
    assert "in turn_in_circles" in errors.read_text()


@pytest.mark.parametrize("act", [compute_without_a_limit, wait])
def test_one_that_waits_and_one_without_a_limit_go_on(tmp_path: Path, act: Callable[[], None]) -> None:
    assert run_apart(act, tmp_path / "errors") == 0
