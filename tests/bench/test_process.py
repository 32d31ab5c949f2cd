from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.process import BenchError, CpuTime, Program, Usage, free_ports, parse_stat, tree_cpu, tree_of
from tests.e2e.harness import all_processes, wait_until

SERVE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def compute():
    while sum(os.times()[:2]) < 0.1:
        pass
if sys.argv[2] == "ends" and os.fork() == 0:
    compute()
    os._exit(0)
if sys.argv[2] == "ends":
    os.wait()
elif os.fork() == 0:
    compute()
while True:
    listening.accept()
"""


def usage(parent: int, seconds: float, session: int = 1) -> Usage:
    return Usage(parent, session, CpuTime(seconds, seconds / 2))


def test_the_time_of_a_tree_is_that_of_all_its_descendants() -> None:
    usages = {
        1: usage(0, 9.0),
        10: usage(1, 1.0),
        11: usage(10, 2.0),
        12: usage(11, 4.0),
        20: usage(1, 8.0),
    }
    assert tree_cpu(10, usages) == CpuTime(7.0, 3.5)
    assert tree_cpu(20, usages) == CpuTime(8.0, 4.0)


def test_a_process_whose_parent_has_ended_is_known_by_its_session() -> None:
    usages = {10: usage(1, 1.0, 10), 12: usage(1, 4.0, 10), 20: usage(1, 8.0, 20)}
    assert tree_of(10, usages) == [10, 12]


def test_a_line_of_the_kernel_is_read_with_the_time_of_ended_children() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    line = "10 (a (b) c) S 7 8 9 0 -1 4194304 1 2 3 4 500 200 30 20 20 0 1 0 100 1000 10"
    found = parse_stat(line)
    assert (found.parent, found.session) == (7, 9)
    assert found.cpu.user == pytest.approx(530 * tick)
    assert found.cpu.system == pytest.approx(220 * tick)
    assert found.cpu.total == pytest.approx(750 * tick)


def test_times_are_added_and_subtracted_in_both_parts() -> None:
    assert CpuTime(2.0, 1.0) + CpuTime(1.0, 0.5) - CpuTime(0.5, 0.5) == CpuTime(2.5, 1.0)


def test_a_program_is_measured_with_its_children_and_killed_with_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Program("serve", [sys.executable, "-c", SERVE, str(port), "stays"], tmp_path, port) as program:
        wait_until(lambda: program.cpu().total >= 0.1, "the child has used CPU time")
        group = {process.group for process in all_processes() if process.parent == _pid(program)}
        assert group == {_pid(program)}
        assert len(program.pids()) == 2
        assert program.memory() > 1_000_000
    wait_until(lambda: _pid(program) not in _groups(), "all processes are gone")


def test_what_an_ended_child_has_used_still_counts(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Program("serve", [sys.executable, "-c", SERVE, str(port), "ends"], tmp_path, port) as program:
        wait_until(lambda: program.pids() == [_pid(program)], "the child has ended")
        assert program.cpu().total >= 0.1


def _groups() -> set[int]:
    return {process.group for process in all_processes()}


def _pid(program: Program) -> int:
    assert program._popen is not None
    return program._popen.pid


def test_a_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(BenchError, match="no such option"), Program("broken", command, tmp_path, 1):
        pass
