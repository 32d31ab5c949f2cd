"""What the service manager hears."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

from lbproc.shm.clock import monotonic_ns
from lbproc.supervisor.notify import Notifier

PID = 4242


def listen(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.setblocking(False)
    return sock


def heard(sock: socket.socket) -> list[str]:
    """All datagrams that wait there."""
    found = []
    while True:
        try:
            found.append(sock.recv(4096).decode())
        except BlockingIOError:
            return found


def test_ready_and_status_and_stopping_are_datagrams_of_lines(tmp_path: Path) -> None:
    with listen(str(tmp_path / "notify")) as sock:
        notifier = Notifier(str(tmp_path / "notify"))
        notifier.ready("serving\nwith 2 workers")
        notifier.ready()
        notifier.status("draining")
        notifier.status("")
        notifier.stopping(610.5)
        notifier.stopping(math.inf)
        assert heard(sock) == [
            "READY=1\nSTATUS=serving with 2 workers",
            "READY=1",
            "STATUS=draining",
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=610500000",
            "STOPPING=1",
        ]


def test_a_reload_tells_when_it_began(tmp_path: Path) -> None:
    with listen(str(tmp_path / "notify")) as sock:
        before = monotonic_ns() // 1000
        Notifier(str(tmp_path / "notify")).reloading()
        (said,) = heard(sock)
    first, second = said.split("\n")
    assert first == "RELOADING=1"
    key, _, value = second.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= monotonic_ns() // 1000


def test_an_abstract_name_is_written_with_an_at_sign() -> None:
    name = f"lbproc-test-notify-{monotonic_ns()}"
    with listen(f"\0{name}") as sock:
        Notifier(f"@{name}").ready()
        assert heard(sock) == ["READY=1"]


def test_the_watchdog_hears_from_us_three_times_as_often_as_it_asks_to(tmp_path: Path) -> None:
    environ = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(PID),
    }
    with listen(str(tmp_path / "notify")) as sock:
        notifier = Notifier.take_from(environ, PID)
        notifier.beat(100.0)
        assert notifier.next_beat_at == 101.0
        notifier.beat(100.9)
        notifier.beat(101.0)
        assert heard(sock) == ["WATCHDOG=1"] * 2
    assert environ == {}


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_of_ours_nothing_beats(watchdog: dict[str, str], tmp_path: Path) -> None:
    with listen(str(tmp_path / "notify")) as sock:
        notifier = Notifier.take_from({"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog}, PID)
        assert notifier.next_beat_at == math.inf
        notifier.beat(1e9)
        notifier.ready()
        assert heard(sock) == ["READY=1"]


def test_what_concerns_others_stays_in_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/run/nobody", "PATH": "/bin"}
    Notifier.take_from(environ, PID)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative", "/" + "x" * 500, "@" + "y" * 500])
def test_a_manager_that_is_not_there_harms_nobody(address: str) -> None:
    notifier = Notifier.take_from({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}, PID)
    notifier.ready()
    notifier.reloading()
    notifier.stopping(1.0)
    notifier.beat(0.0)


def test_a_manager_that_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    with listen(str(tmp_path / "notify")) as sock:
        notifier = Notifier(str(tmp_path / "notify"))
        for _ in range(2000):  # far more than its queue holds
            notifier.ready()
        assert 0 < len(heard(sock)) < 2000
