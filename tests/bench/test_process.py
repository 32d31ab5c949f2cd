from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.process import BenchError, Program, Usage, free_ports, tree_cpu_seconds
from tests.e2e.harness import all_processes, wait_until

SERVE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork() == 0:
    while sum(os.times()[:2]) < 0.05:
        pass
while True:
    listening.accept()
"""


def test_the_time_of_a_tree_is_that_of_all_its_descendants() -> None:
    usages = {1: Usage(0, 9.0), 10: Usage(1, 1.0), 11: Usage(10, 2.0), 12: Usage(11, 4.0), 20: Usage(1, 8.0)}
    assert tree_cpu_seconds(10, usages) == 7.0
    assert tree_cpu_seconds(20, usages) == 8.0


def test_a_program_is_measured_with_its_children_and_killed_with_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Program("serve", [sys.executable, "-c", SERVE, str(port)], tmp_path, port) as program:
        wait_until(lambda: program.cpu_seconds() >= 0.05, "the child has used CPU time")
        group = {process.group for process in all_processes() if process.parent == _pid(program)}
        assert group == {_pid(program)}
    wait_until(lambda: _pid(program) not in _groups(), "all processes are gone")


def _groups() -> set[int]:
    return {process.group for process in all_processes()}


def _pid(program: Program) -> int:
    assert program._popen is not None
    return program._popen.pid


def test_a_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(BenchError, match="no such option"), Program("broken", command, tmp_path, 1):
        pass
