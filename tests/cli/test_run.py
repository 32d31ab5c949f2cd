from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from lbproc.cli import main
from lbproc.cli.client import ask
from lbproc.core.control.messages import StatusRequest
from lbproc.errors import ControlError
from tests.ports import free_port

LBPROC = [sys.executable, "-m", "lbproc"]


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [*LBPROC, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "LBPROC_SOCKET"},
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lbproc.toml"
    path.write_text(
        f"""
[runtime]
workers = 1
control_socket = "control.sock"
[listeners.web]
bind = "127.0.0.1:{free_port()}"
pool = "web"
[pools.web]
backends = ["127.0.0.1:{free_port()}"]
"""
    )
    return path


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A running lbproc, ready: its control socket answers that all workers are."""
    with subprocess.Popen(
        [*LBPROC, "run", *arguments], cwd=cwd, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not is_ready(cwd):
                assert process.poll() is None, process.stderr and process.stderr.read()
            yield process
        finally:
            process.terminate()


def is_ready(directory: Path) -> bool:
    try:
        status = ask(directory / "control.sock", StatusRequest())
    except ControlError:
        return False
    return all(worker["state"] == "ready" for worker in status["workers"])


@pytest.mark.slow
def test_broken_configuration_exits_2_with_every_problem(tmp_path: Path) -> None:
    (tmp_path / "lbproc.toml").write_text('[listeners.web]\nbind = "nonsense"\npool = "web"\n[pools.web]\n')
    result = call("run", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("lbproc.toml:2: listeners.web.bind: ")
    assert lines[1].startswith("lbproc.toml:4: pools.web.backends: ")


@pytest.mark.parametrize("command", ["run", "check"])
def test_missing_configuration_exits_2_in_one_line(command: str) -> None:
    result = CliRunner().invoke(main, [command, "-c", "/nonexistent/missing.toml"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "missing.toml" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("workers", ["0", "201", "many"])
def test_impossible_number_of_workers_is_wrong_usage(config: Path, workers: str) -> None:
    result = CliRunner().invoke(main, ["run", "-c", str(config), "--workers", workers])
    assert result.exit_code == 2
    assert "--workers" in result.stderr


@pytest.mark.slow
def test_run_status_stop(config: Path) -> None:
    with running("--workers", "2", cwd=config.parent) as process:
        status = call("status", cwd=config.parent)
        assert status.returncode == 0
        assert f"pid {process.pid}" in status.stdout
        assert "pool web, least_connections" in status.stdout
        workers = json.loads(call("status", "--json", "-c", str(config), cwd=Path("/")).stdout)["workers"]
        assert [worker["slot"] for worker in workers] == [0, 1]
        stop = call("stop", cwd=config.parent)
        assert (stop.returncode, stop.stdout) == (0, "lbproc has stopped\n")
        assert process.poll() == 0
    assert not (config.parent / "control.sock").exists()
    again = call("stop", cwd=config.parent)
    assert again.returncode == 1
    assert "no lbproc is running here" in again.stderr


@pytest.mark.slow
def test_second_one_on_the_same_configuration_exits_1_and_ctrl_c_ends_the_first(config: Path) -> None:
    with running(cwd=config.parent) as process:
        result = call("run", cwd=config.parent)
        assert (result.returncode, result.stdout) == (1, "")
        assert "control.sock" in result.stderr
        assert "Traceback" not in result.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
