from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lbproc.cli import main
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Reply, StopRequest
from tests.cli.answering import answering

# A stand-in for the supervisor: answers, then lingers until its input ends.
LINGERING = """
import socket, sys
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Reply
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
connection.recv(4096)
connection.sendall(encode(Reply(ok=True, body=None)))
print("answered", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("arguments", "now"), [([], False), (["--now"], True)])
def test_stop_asks_and_says_when_it_is_done(
    tmp_path: Path, arguments: list[str], now: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbproc.cli.client.EXIT_TIMEOUT", 0.0)  # the process that answers is this one
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body=None))) as asked:
        result = CliRunner().invoke(main, ["stop", "--socket", str(path), *arguments])
    assert (result.exit_code, result.output) == (0, "lbproc has stopped\n")
    assert asked == [StopRequest(now=now, wait=True)]


@pytest.mark.slow
def test_stop_returns_only_when_the_process_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with subprocess.Popen(
        [sys.executable, "-c", LINGERING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdin is not None
        assert supervisor.stdout.readline() == "listening\n"
        command = [sys.executable, "-m", "lbproc", "stop", "--socket", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopping:
            assert supervisor.stdout.readline() == "answered\n"
            assert stopping.poll() is None
            supervisor.stdin.close()
            assert supervisor.wait(30) == 0
            assert stopping.communicate(timeout=30)[0] == "lbproc has stopped\n"
            assert stopping.returncode == 0
