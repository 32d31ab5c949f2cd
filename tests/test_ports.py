"""Ports for tests: no two processes of tests find the same one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port

OTHER = "from tests.ports import free_port\nprint(*[free_port() for _ in range(400)])"


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(50)}) == 50


def test_another_process_finds_other_ports() -> None:
    said = subprocess.run(
        [sys.executable, "-c", OTHER],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        timeout=20,
    ).stdout
    assert not {free_port() for _ in range(400)} & {int(port) for port in said.split()}


def test_a_port_that_is_taken_is_left_out() -> None:
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        assert taken not in {free_port() for _ in range(420)}
