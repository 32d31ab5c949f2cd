"""Looking again and again: in place on a terminal, one after the other elsewhere."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from lbproc.cli import main
from lbproc.cli.watch import watch
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Reply
from lbproc.errors import ControlError
from tests.cli.answering import answering
from tests.cli.test_status import status

GONE = ControlError("no lbproc is running here")


def looks(said: Iterable[str | ControlError]) -> Callable[[], str]:
    """Gives one after the other, then is interrupted."""
    following = iter(said)

    def look() -> str:
        text = next(following, None)
        if text is None:
            raise KeyboardInterrupt
        if isinstance(text, ControlError):
            raise text
        return text

    return look


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=60, height=20, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_is_redrawn_in_place() -> None:
    console, pauses = terminal(), list[float]()
    watch(looks(["one\ntwo", "three\nfour"]), 2.0, console, pauses.append)
    text = shown(console)
    # The cursor goes up instead of the text going on.
    assert text.index("one") < text.index("\x1b[1A") < text.index("three")
    assert "\x1b[?25h" in text, "the cursor is there again at the end"
    assert pauses == [2.0, 2.0]


def test_a_terminal_says_that_lbproc_is_gone_and_shows_it_when_it_is_back() -> None:
    console = terminal()
    watch(looks(["before", GONE, GONE, "after"]), 1.0, console, lambda _: None)
    text = shown(console)
    assert text.index("before") < text.index("no lbproc is running here; still looking") < text.index("after")


def test_without_an_answer_at_first_there_is_nothing_to_watch() -> None:
    console = terminal()
    with pytest.raises(ControlError):
        watch(looks([GONE]), 1.0, console, lambda _: None)
    assert shown(console) == ""


def test_elsewhere_one_text_follows_the_other_until_lbproc_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ControlError):
        watch(looks(["one", "two", GONE]), 1.0, Console(file=io.StringIO()), lambda _: None)
    assert capsys.readouterr().out == "one\ntwo\n"


def test_the_command_ends_with_a_reason_when_lbproc_goes(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body=status()))):
        arguments = ["status", "--socket", str(path), "--watch", "--interval", "0.1", "--json"]
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 1, "one object a line"
    assert "lbproc: " in result.stderr


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_that_is_none_is_wrong_usage(interval: str) -> None:
    assert CliRunner().invoke(main, ["status", "--watch", "--interval", interval]).exit_code == 2


ENDLESS = (
    "from lbproc.cli.watch import watch\nfrom itertools import count\nnumbers = count()\n"
    "watch(lambda: f'look {next(numbers)}', 0.01)\nprint('ended well')\n"
)


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_it_quietly() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    heard = b""
    while b"look 3" not in heard:
        heard += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    while b"ended well" not in heard:
        heard += os.read(ours, 4096)
    assert process.wait(20) == 0
    os.close(ours)
    assert b"Traceback" not in heard


@pytest.mark.slow
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom lbproc.cli import main\nimport lbproc.cli.status as sut\n"
        "body = {'version': '1', 'uptime_seconds': 1, 'generation': 1, 'workers': [], 'pools': {}}\n"
        "sut.ask = lambda *_: body\n"
        "main(['status', '--socket', '/nowhere', '--watch', '--interval', '0.1'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"lbproc 1")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 1
