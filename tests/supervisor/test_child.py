"""From the fork to the exit: nothing of a child returns into the supervisor's code."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from lbproc.core.control.messages import FailedToBoot
from lbproc.errors import ControlError, StartError
from lbproc.net.channel import SupervisorChannel, open_pair
from lbproc.supervisor.child import EXIT_CRASHED, EXIT_REFUSED, fork_child

Pair = tuple[SupervisorChannel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = open_pair()
    channel = SupervisorChannel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def nothing() -> None:
    pass


def outcome(pair: Pair, main: Callable[[], int], release: Callable[[], None] = nothing) -> int:
    pid = fork_child(main, release, pair[1], None)
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
    assert pair[0].receive() == [FailedToBoot("no room")]


@pytest.mark.parametrize("error", [RuntimeError("defect"), SystemExit(0), KeyboardInterrupt()])
def test_a_defect_ends_the_child_with_a_traceback(
    pair: Pair, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    assert outcome(pair, raising(error)) == EXIT_CRASHED
    assert type(error).__name__ in capfd.readouterr().err
    assert pair[0].receive() == []


def test_a_release_that_fails_ends_the_child_before_main(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    def release() -> None:
        raise OSError("bad descriptor")

    assert outcome(pair, lambda: 0, release) == EXIT_CRASHED
    assert "bad descriptor" in capfd.readouterr().err


def test_what_the_child_releases_is_closed_before_main(pair: Pair) -> None:
    channel, theirs = pair

    def main() -> int:
        return 0 if channel.socket.fileno() == -1 else 1

    assert outcome(pair, main, channel.close) == 0
    theirs.close()
    with pytest.raises(ControlError, match="closed"):
        channel.receive()


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
