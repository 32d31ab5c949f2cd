from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbproc.cli.demo.play import find_own_command

pytestmark = pytest.mark.slow


@contextmanager
def running_demo(temporary: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process of its own, with its files under ``temporary``, in plain lines."""
    with subprocess.Popen(
        [sys.executable, "-m", "lbproc", "demo", "--workers", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def read_until(demo: subprocess.Popen[str], pattern: str) -> str:
    """Reads lines until one matches."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if re.search(pattern, line):
            return line
    assert demo.stderr is not None
    raise AssertionError(demo.stderr.read())


def processes_below(directory: Path) -> list[str]:
    """Command lines of living processes that mention this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


def test_ends_by_itself_after_the_seconds_with_requests_answered(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--seconds", "2") as demo:
        output, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert "curl -i http://127.0.0.1:" in output
    summary = re.search(
        r"^(\d+) requests in 2 s \(a .* %, b .* %, c .* %\), 0 failed\.$", output, re.MULTILINE
    )
    assert summary is not None
    assert int(summary[1]) > 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_the_like_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, r"req/s")
        demo.send_signal(number)
        output, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert " failed." in output.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []


def test_ctrl_c_before_it_has_begun_ends_it_too(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        while not list(tmp_path.glob("lbproc-demo-*/lbproc.toml")):
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_killed_demo_takes_its_processes_along(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, r"req/s")
        demo.kill()
        demo.wait(60)
        with subprocess.Popen(["sleep", "60"]) as patience:
            while processes_below(tmp_path):
                assert patience.poll() is None
            patience.kill()


def test_balancer_that_is_stopped_ends_the_demo_with_the_reason(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, r"req/s")
        (path,) = tmp_path.glob("*/control.sock")
        subprocess.run(
            [sys.executable, "-m", "lbproc", "stop", "--socket", str(path)], check=True, timeout=60
        )
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert errors.startswith("lbproc: the demo's balancer ended (status 0)")
    assert "Traceback" not in errors


def test_reader_that_leaves_ends_it_without_traceback(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, r"req/s")
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.close()
        assert demo.stderr.read() == ""
        assert demo.wait(60) == 1
    assert list(tmp_path.iterdir()) == []


def test_own_command_is_what_this_shell_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "lbproc"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_own_command(str(script)) == "bin/lbproc"
    monkeypatch.setenv("PATH", str(script.parent))
    assert find_own_command(str(script)) == "lbproc"
    assert find_own_command("/x/lbproc/__main__.py") == f"{sys.executable} -m lbproc"
