from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.load import Answer, BadResponseError, Load, main, render_results
from tests.e2e.harness_backend import BackendConnection, Stage, text_response
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.mark.parametrize("new_connections", [False, True])
def test_every_request_is_counted_by_its_status(stage: Stage, new_connections: bool) -> None:
    backend = stage.open("a")
    load = Load(f"http://{backend.address}/x", connections=4, requests=40, new_connections=new_connections)
    seconds = load.run()
    assert load.results.statuses == {200: 40}
    assert not load.results.failures
    assert len(backend.requests) == 40
    assert len(backend.connections) == (40 if new_connections else 4)
    assert "statuses  200: 40\nfailures  0\n" in render_results(load.results, seconds)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", "closed before the response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "truncated"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "truncated"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", "surplus bytes"),
        (b"what?\r\n\r\n", "no status line"),
    ],
)
def test_failures_are_told_apart(stage: Stage, answer: bytes, failure: str) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()
        await connection.send(answer)

    backend = stage.open("a", script)
    load = Load(f"http://{backend.address}/", connections=1, requests=2)
    load.run()
    assert load.results.failures == {failure: 2}


def test_a_reset_is_told_from_an_end(stage: Stage) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.read_request()
        await connection.reset()

    backend = stage.open("a", script)
    load = Load(f"http://{backend.address}/", connections=1, requests=1)
    load.run()
    assert load.results.failures == {"reset before the response": 1}


def test_a_refused_connection_is_a_failure() -> None:
    load = Load(f"http://127.0.0.1:{free_port()}/", connections=2, requests=5)
    load.run()
    assert load.results.failures == {"refused": 5}
    assert load.results.percentile(0.99) == 0.0


def test_an_answer_that_does_not_come_is_given_up(stage: Stage) -> None:
    backend = stage.open("a")
    backend.hold()
    load = Load(f"http://{backend.address}/", connections=1, requests=1, timeout=0.01)
    load.run()
    assert load.results.failures == {"no answer in time": 1}


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_the_end_of_an_answer_is_found_in_any_fragments(wire: bytes, step: int) -> None:
    answer = Answer()
    ends = [answer.feed(wire[start : start + step]) for start in range(0, len(wire), step)]
    assert ends == [False] * (len(ends) - 1) + [True]


def test_an_answer_without_length_ends_with_the_connection() -> None:
    answer = Answer()
    assert not answer.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert answer.closes
    answer.feed_end()
    with pytest.raises(BadResponseError):
        Answer().feed_end()


def test_the_command_prints_json_and_fails_on_server_errors(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = stage.open("a")
    assert main([f"http://{backend.address}/", "-n", "3", "-c", "1"]) == 0
    backend.response = text_response("broken", "503 Service Unavailable")
    capsys.readouterr()
    assert main([f"http://{backend.address}/", "-n", "3", "-c", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["statuses"] == {"503": 3}


def test_a_url_that_cannot_be_loaded_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["https://127.0.0.1/"])
    assert "is not http://HOST" in capsys.readouterr().err
