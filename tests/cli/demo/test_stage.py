from __future__ import annotations

import socket
import stat
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from lbproc.cli.demo import stage
from lbproc.cli.demo.stage import Stage, find_free_port, open_listener
from lbproc.config.policies import POLICIES
from lbproc.errors import StartError


def test_preferred_port_is_used_when_it_is_free() -> None:
    port = find_free_port(0)
    with open_listener(port) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)


def test_another_port_is_used_when_the_preferred_one_is_taken() -> None:
    with open_listener(0) as taken:
        port = taken.getsockname()[1]
        assert find_free_port(port) != port
        with open_listener(port) as other:
            assert other.getsockname()[1] != port


def test_port_taken_on_all_addresses_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert find_free_port(port) != port


def test_no_port_at_all_is_the_system_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "listen", lambda *_: (_ for _ in ()).throw(OSError(98, "in use")))
    with pytest.raises(OSError, match="in use"):
        open_listener(0)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_stage_is_private_and_leaves_nothing(temporary: Path) -> None:
    opened = Stage("least_connections", 2)
    try:
        (directory,) = temporary.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        config = tomllib.loads((directory / "lbproc.toml").read_text())
        assert config["runtime"] == {"workers": 2, "control_socket": str(opened.control_socket)}
        assert [backend["name"] for backend in config["pools"]["web"]["backends"]] == ["a", "b", "c"]
        processes = [opened._proxy, *opened._backends]
        opened.require_running()
    finally:
        opened.close()
    assert all(process is not None and process.returncode is not None for process in processes)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_backend_that_ends_is_reported(temporary: Path) -> None:
    opened = Stage("least_connections", 2)
    try:
        opened._backends[1].kill()
        opened._backends[1].wait()
        with pytest.raises(StartError, match="backend b ended"):
            opened.require_running()
    finally:
        opened.close()


@pytest.mark.slow
def test_balancer_that_ends_is_reported_with_what_it_wrote(temporary: Path) -> None:
    opened = Stage("no_such_policy", 2)
    try:
        assert opened._proxy is not None
        opened._proxy.wait(60)
        with pytest.raises(StartError, match=r"balancer ended \(status 2\):\n.*lbproc\.toml:\d+: .*policy"):
            opened.require_running()
    finally:
        opened.close()


def test_start_that_fails_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError):
        Stage("least_connections", 1)
    assert list(temporary.iterdir()) == []


def test_long_temporary_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = stage._make_directory()
    directory.rmdir()
    assert directory.parent == Path("/tmp")


def test_policies_of_the_demo_are_those_of_a_configuration() -> None:
    from lbproc.core.policies.registry import REGISTRY  # noqa: PLC0415

    assert set(POLICIES) == set(REGISTRY)
