"""Clients that trickle heads, trickle bodies or read nothing are cut in time and hold up nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import LbprocServer, Program, wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.load import Load
from tests.e2e.memory import Growth
from tests.e2e.slow import Kind, SlowClient, SlowClients, descriptors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lbproc.types import Seconds
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import Stage
    from tests.e2e.harness_nginx import Nginx
    from tests.e2e.harness_wire import Message

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
LARGE = bytes(2 * MEBIBYTE)
"""More than the kernel takes for a client that reads nothing; and not so much that 700 use up its memory."""

BYTES_A_CONNECTION = 128 * 1024
"""Private memory of a worker that a slow client may cost; docs/threat-model.md has what it is made of."""

LINGER: Seconds = 5.0
"""How long a client that was answered early is read on."""

MANY = 2000
TRICKLED: Seconds = 6.0
DEADLINE: Seconds = 10.0
SLACK: Seconds = 4.0
"""For the sweep, for a worker that is busy with others, and for a test that shares its processors with it."""


def limits(seconds: int) -> str:
    text = f'"{seconds}s"'
    return f"[listeners.web.timeouts]\nheader = {text}\nbody = {text}\nwrite = {text}\n"


def connections(server: LbprocServer) -> int:
    return sum(worker["connections"] for worker in server.status()["workers"])


def assert_cut(clients: Iterable[SlowClient]) -> None:
    """Those that sent too slowly got 408, those that read nothing a reset."""
    for client in clients:
        if client.kind is Kind.READS_NOTHING:
            assert client.answer == b""
        else:
            assert client.status == 408, (client.kind, client.answer)
            assert b"\r\nConnection: close\r\n" in client.answer


def assert_in_time(slow: SlowClients) -> None:
    """Never early, since that would cut clients that are merely slow; and late by the slack at most."""
    cut_after = [client.cut_after for client in slow.clients]
    assert min(cut_after) >= DEADLINE
    assert max(cut_after) < DEADLINE + SLACK
    lingered = [client.ended_at - client.began_at for client in slow.clients if client.is_stubborn]
    assert max(lingered) < TRICKLED + DEADLINE + LINGER + 2 * SLACK


def load_program(address: str, directory: Path, seconds: Seconds) -> Program:
    """The ordinary traffic, from a process of its own: eight clients in a closed loop."""
    command = [
        sys.executable,
        "-m",
        "bench.load",
        f"http://{address}/",
        "--json",
        "-c",
        "8",
        "-d",
        str(seconds),
    ]
    return Program("load", command, directory, {"PYTHONPATH": str(Path(__file__).parents[2])})


def assert_nothing_left(server: LbprocServer) -> None:
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
    wait_until(lambda: connections(server) == 0, "no connection is open")


def test_slow_clients_are_cut_and_the_others_are_served(stage: Stage, start_web: StartWeb) -> None:
    def answer(request: Message) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
        return head + LARGE if request.target == "/files/large" else text_response("ok")

    backend = stage.open("a")
    backend.response = answer
    server, address = start_web([backend], listener=limits(1))
    with (
        SlowClients(address, count=30, interval=0.1, bodies_for=0.5) as slow,
        Load(address, clients=4) as load,
    ):
        wait_until(lambda: slow.is_over, "every slow client is cut")
        answered = load.answered
        wait_until(lambda: load.answered > answered + 10, "the others are served still")
    assert_cut(slow.clients)
    assert (load.lost, load.refused, load.wrong) == (0, 0, [])
    assert_nothing_left(server)


@pytest.mark.soak
def test_two_thousand_slow_clients_are_cut_in_time_and_in_bounded_memory(
    start_nginx: Callable[[str], Nginx], start_web: StartWeb, tmp_path: Path
) -> None:
    with descriptors(3 * MANY + 500):
        nginx = start_nginx("files")
        (nginx.files / "large").write_bytes(LARGE)
        server, address = start_web([nginx.gentle_address], listener=limits(int(DEADLINE)))
        with load_program(address, tmp_path, seconds=2) as warming:
            assert warming.wait() == 0
        growth = Growth(server)
        most = 0
        with (
            load_program(address, tmp_path, seconds=TRICKLED + DEADLINE + SLACK) as load,
            SlowClients(address, MANY, interval=1.0, bodies_for=TRICKLED, stubborn_share=10) as slow,
        ):

            def is_over() -> bool:
                nonlocal most
                growth.look()
                most = max(most, connections(server))
                return slow.is_over

            wait_until(is_over, "every slow client is cut", within=60)
            assert load.wait() == 0, load.stdout()
        print(  # noqa: T201  shown with --soak -rP
            f"{most} connections, {growth.most_of_all / MANY / 1024:.0f} KiB each\n"
            + "".join(f"{kind}: cut after {spread(slow.of(kind))} s\n" for kind in Kind)
            + f"others: {load.stdout()}"
        )
        assert most >= MANY
        assert_cut(slow.clients)
        assert_in_time(slow)
        assert_nothing_left(server)
        late = [line["total_ms"] for line in server.access_log() if line["method"] is None]
        assert len(late) == len(slow.of(Kind.HEAD))  # heads that never became whole have no method
        assert max(late) < (DEADLINE + 1) * 1000
        assert growth.most_of_all < MANY * BYTES_A_CONNECTION


def spread(clients: Iterable[SlowClient]) -> str:
    ordered = sorted(client.cut_after for client in clients)
    return " to ".join(f"{ordered[int(share * (len(ordered) - 1))]:.2f}" for share in (0, 0.5, 0.9, 1))
