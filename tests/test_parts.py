"""Two parts of the tests at the same time: what is shown, and what the end says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = "import sys; from tests.parts import main; sys.exit(main({'one': sys.argv[1:2], 'two': sys.argv[2:]}))"
RIGHT = "def test_right():\n    pass\n"
WRONG = "def test_wrong():\n    assert 1 == 2\n"
INTERRUPTIBLE = """
import signal
def test_signals():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def run(directory: Path, one: str, two: str) -> tuple[int, list[str]]:
    """Runs two files of tests, as a job in the background. Returns the exit status and the lines."""
    files = [directory / name / "test_it.py" for name in ("one", "two")]
    for file, text in zip(files, (one, two), strict=True):
        file.parent.mkdir()
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, files)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.slow
def test_every_line_says_of_which_part_it_is_and_the_end_is_good_if_all_parts_are(tmp_path: Path) -> None:
    status, lines = run(tmp_path, RIGHT, INTERRUPTIBLE)
    assert status == 0, lines
    assert {line[:7] for line in lines[:-2]} == {" one | ", " two | "}
    assert [line.split(" in ")[0] for line in lines[-2:]] == ["one: passed", "two: passed"]


@pytest.mark.slow
def test_one_part_that_fails_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    status, lines = run(tmp_path, WRONG, RIGHT)
    assert status == 1
    assert " one | E       assert 1 == 2" in lines
    assert [line.split(" in ")[0] for line in lines[-2:]] == ["one: FAILED with exit status 1", "two: passed"]
