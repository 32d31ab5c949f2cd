"""From the fork to the exit: nothing of a child returns into the supervisor's code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbproc.core.control.messages import FailedToBoot
from lbproc.errors import ControlError, StartError
from lbproc.net.channel import SupervisorChannel, open_pair
from lbproc.supervisor.child import EXIT_REFUSED, fork_child
from lbproc.supervisor.forking import EXIT_CRASHED
from lbproc.telemetry.log import open_error_log


class Pair:
    """A channel and the child's log."""

    def __init__(self, log_path: Path) -> None:
        ours, self.theirs = open_pair()
        self.channel = SupervisorChannel(ours)
        self.log_path = log_path
        self.log = open_error_log(log_path, "info", "worker-0")

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        self.log.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path / "error.log")
    yield pair
    pair.close()


def nothing() -> None:
    pass


def outcome(pair: Pair, main: Callable[[], int], release: Callable[[], None] = nothing) -> int:
    pid = fork_child(main, release, pair.theirs, None, pair.log)
    assert pid > 0
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def test_the_status_of_main_is_the_status_of_the_process(pair: Pair) -> None:
    assert outcome(pair, lambda: 0) == 0
    assert outcome(pair, lambda: 7) == 7


def test_a_refusal_is_said_over_the_channel(pair: Pair) -> None:
    assert outcome(pair, raising(StartError("no room"))) == EXIT_REFUSED
    assert pair.channel.receive() == [FailedToBoot("no room")]


@pytest.mark.parametrize("error", [RuntimeError("defect"), SystemExit(0), KeyboardInterrupt()])
def test_a_defect_ends_the_child_with_a_traceback_in_the_log(pair: Pair, error: BaseException) -> None:
    assert outcome(pair, raising(error)) == EXIT_CRASHED
    (line,) = pair.log_path.read_text().splitlines()
    assert " error worker-0 crashed traceback=" in line
    assert type(error).__name__ in line
    assert pair.channel.receive() == []


def test_a_release_that_fails_ends_the_child_before_main(pair: Pair) -> None:
    def release() -> None:
        raise OSError("bad descriptor")

    assert outcome(pair, lambda: 0, release) == EXIT_CRASHED
    assert "bad descriptor" in pair.log_path.read_text()


def test_what_the_child_releases_is_closed_before_main(pair: Pair) -> None:
    def main() -> int:
        return 0 if pair.channel.socket.fileno() == -1 else 1

    assert outcome(pair, main, pair.channel.close) == 0
    pair.theirs.close()
    with pytest.raises(ControlError, match="closed"):
        pair.channel.receive()


def test_an_abort_writes_the_stack(pair: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        os.kill(os.getpid(), signal.SIGABRT)
        return 0

    assert outcome(pair, main) == -signal.SIGABRT
    assert "in main" in capfd.readouterr().err


def test_what_was_buffered_before_the_fork_is_written_once(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    sys.stdout.write("once")
    assert outcome(pair, lambda: 0) == 0
    assert capfd.readouterr().out == "once"
