from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.profile import SAMPLER
from bench.stacks import parse_perf, parse_stacks, parse_strace, render_flames, render_stacks

RAW = """\
main (/x/lbproc/worker.py:3);run (/v/lib/python3.11/site-packages/trio/_core/_run.py:10) 1
main (/x/lbproc/worker.py:3);run (/v/lib/python3.11/site-packages/trio/_core/_run.py:12) 2
main (/x/lbproc/worker.py:4);get (/usr/lib/python3.11/queue.py:7) 1
not a sample
"""

PERF = """\
# Overhead\tShared Object
 61.50%\tlibpython3.11.so\t[.] _PyEval_EvalFrameDefault   \t-      -
  7.25%\t[kernel.kallsyms]

# (Tip: none)
"""

STRACE = """\
    calls    errors syscall
--------- --------- ------------------
     3000      1000 recvfrom
     2000           sendto
--------- --------- ------------------
     5000      1000 total
"""

COMPUTE = """
import os, sys, time
is_child = os.fork() == 0
path = f"{os.environ['LBPROC_BENCH_SAMPLES']}/{os.getpid()}"
def compute():
    deadline = time.monotonic() + 20
    while not os.path.exists(path) and time.monotonic() < deadline:
        sum(range(1000))
compute()
if not is_child:
    os.wait()
os._exit(0)
"""


def test_stacks_are_read_with_short_paths() -> None:
    assert parse_stacks(RAW) == {
        ("main (lbproc/worker.py:3)", "run (trio/_core/_run.py:10)"): 1,
        ("main (lbproc/worker.py:3)", "run (trio/_core/_run.py:12)"): 2,
        ("main (lbproc/worker.py:4)", "get (queue.py:7)"): 1,
    }


def test_a_function_costs_its_share_of_the_time_per_request() -> None:
    report = render_stacks(parse_stacks(RAW), 40.0)
    own, with_calls = report.split("function with what it calls")
    assert "| 75.0% | 30.00 | trio/_core/_run.py |" in own
    assert "| 75.0% | 30.00 | run (trio/_core/_run.py) |" in own
    assert "| 50.0% | 20.00 | run (trio/_core/_run.py:12) |" in with_calls
    assert "main" not in report  # on every stack


def test_the_flame_graph_has_a_bar_for_each_function_under_its_callers() -> None:
    drawing = ElementTree.fromstring(render_flames(parse_stacks(RAW), "a <title>", 40.0))
    # main is on every stack and left out
    names = [element.text for element in drawing.iter() if element.tag.endswith("}title")]
    assert names == [
        "get (queue.py): 25.0%, 10.00 µs",
        "run (trio/_core/_run.py): 75.0%, 30.00 µs",
    ]


def test_shares_of_perf_are_read() -> None:
    assert parse_perf(PERF) == [
        (0.615, "libpython3.11.so [.] _PyEval_EvalFrameDefault"),
        (0.0725, "[kernel.kallsyms]"),
    ]


def test_counts_of_strace_are_read() -> None:
    assert parse_strace(STRACE) == {"recvfrom": (3000, 1000), "sendto": (2000, 0)}


@pytest.mark.slow
def test_the_sampler_sees_what_a_program_and_its_children_compute(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(SAMPLER), "LBPROC_BENCH_SAMPLES": str(tmp_path)}
    subprocess.run([sys.executable, "-c", COMPUTE], env=environ, check=True, timeout=30)
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        stacks = parse_stacks(file.read_text())
        assert any(frame.startswith("compute (") for stack in stacks for frame in stack)
