"""The harness itself, without lbproc: a test can only be believed if its tools can."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import Program, all_processes, wait_until
from tests.e2e.harness_backend import BackendConnection, Stage, text_response
from tests.e2e.harness_client import RawClient, fetch, render_request
from tests.e2e.harness_wire import Message, Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.harness_nginx import Nginx

FORKING = "import os, signal\nif os.fork():\n    os.fork()\nprint(flush=True)\nsignal.pause()"


def test_destroying_a_program_leaves_nothing_of_its_group(tmp_path: Path) -> None:
    with Program("forking", [sys.executable, "-c", FORKING], tmp_path) as program:
        wait_until(lambda: program.stdout().count("\n") == 3, "three processes")
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
        assert len(program.processes()) == 2
    assert program.processes() == []
    program.destroy()


def test_a_program_that_exits_at_start_fails_with_its_standard_error(tmp_path: Path) -> None:
    class Never(Program):
        def is_ready(self) -> bool:
            return False

    command = [sys.executable, "-c", "raise SystemExit('no configuration')"]
    with (
        pytest.raises(AssertionError, match=r"exited with 1\nno configuration"),
        Never("short", command, tmp_path),
    ):
        pass


def test_waiting_ends_at_the_deadline() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.0 s: the end of time"):
        wait_until(lambda: False, "the end of time", within=0.0)


def test_the_process_table_has_this_process() -> None:
    mine = [process for process in all_processes() if process.pid == os.getpid()]
    assert [process.parent for process in mine] == [os.getppid()]


RESPONSES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", b""),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        b"hello!",
        b"",
    ),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\nB: 2\r\n\r\n", b"", b"A: 1\r\nB: 2"),
]


@pytest.mark.parametrize("step", range(1, 8))
def test_messages_are_read_whatever_the_fragments(step: int) -> None:
    reader = Reader(responses=True)
    wire = b"".join(response for response, _, _ in RESPONSES)
    messages: list[Message] = []
    for start in range(0, len(wire), step):
        reader.feed(wire[start : start + step])
        while (message := reader.next_message()) is not None:
            messages.append(message)
    read = [(message.body, message.trailers) for message in messages]
    assert read == [(body, trailers) for _, body, trailers in RESPONSES]
    assert reader.is_between_messages


def test_a_response_without_length_ends_with_the_connection() -> None:
    reader = Reader(responses=True)
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert reader.next_message() is None
    reader.feed(b"")
    message = reader.next_message()
    assert message is not None
    assert (message.status, message.body) == (200, b"abc")


def test_backends_record_and_answer(stage: Stage) -> None:
    backend = stage.open("a")
    with RawClient(backend.address) as client:
        assert client.request("/x", headers=["X-A: 1"]).body == b"a"
        assert client.request("/y", method="POST", body=b"123").body == b"a"
    assert [(request.method, request.target, request.body) for request in backend.requests] == [
        ("GET", "/x", b""),
        ("POST", "/y", b"123"),
    ]
    assert backend.requests[0].get("x-a") == "1"
    assert len(backend.connections) == 1
    assert stage.journal == ["a", "a"]


def test_a_held_backend_counts_until_it_is_released(stage: Stage) -> None:
    backend = stage.open("a")
    backend.response = lambda request: text_response(request.target)
    backend.hold()
    clients = [RawClient(backend.address) for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(render_request(f"/{number}"))
    backend.wait_in_flight(20)
    clients.pop().close()
    backend.wait_in_flight(19)
    backend.release()
    assert [client.read_response().body for client in clients] == [b"/%d" % number for number in range(19)]
    assert (backend.peak_in_flight, backend.abandoned) == (20, 1)
    for client in clients:
        client.close()


def test_a_backend_that_refuses_is_not_there(stage: Stage) -> None:
    backend = stage.open("a")
    backend.refuse()
    with pytest.raises(ConnectionRefusedError):
        RawClient(backend.address)


def test_a_script_has_the_raw_bytes(stage: Stage, tmp_path: Path) -> None:
    async def reset_after_head(connection: BackendConnection) -> None:
        assert await connection.read_head() == b"GET / HTTP/1.1\r\n\r\n"
        assert await connection.read_some() == b"rest"
        await connection.send(b"HTTP/1.1 200 OK\r\n")
        await connection.reset()

    backend = stage.open("a", reset_after_head, path=tmp_path / "a.sock")
    with RawClient(backend.address) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\nrest")
        assert client.read_until_close() in {b"", b"HTTP/1.1 200 OK\r\n"}
    assert bytes(backend.connections[0].raw) == b"GET / HTTP/1.1\r\n\r\nrest"


def test_nginx_answers_and_keeps_what_is_put(start_nginx: Callable[[str], Nginx]) -> None:
    nginx = start_nginx("one")
    assert fetch(nginx.address).body == b"one"
    upload = os.urandom(300_000)
    assert fetch(nginx.address, "/files/up", method="PUT", body=upload).status == 201
    assert (nginx.files / "up").read_bytes() == upload
    assert fetch(nginx.address, "/files/up").body == upload
    assert nginx.stop(signal.SIGQUIT) == 0
    assert nginx.processes() == []
