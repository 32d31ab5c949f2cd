from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lbproc.cli.client import ask, ask_to_stop
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Ready, Reply, StatusRequest, StopRequest
from lbproc.errors import ControlError
from tests.cli.answering import answering


def test_the_body_of_the_answer_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body={"version": "0.1.0"}))) as asked:
        assert ask(path, StatusRequest()) == {"version": "0.1.0"}
    assert asked == [StatusRequest()]


def test_a_refusal_is_raised_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with (
        answering(path, encode(Reply(ok=False, body="it is stopping already"))),
        pytest.raises(ControlError, match=r"^it is stopping already$"),
    ):
        ask(path, StatusRequest())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection without an answer"),
        (encode(Reply(ok=True, body={}))[:-1], "closed the connection without an answer"),
        (encode(Ready()), "answered with Ready; is it another version"),
        (encode(Reply(ok=True, body=None)), "an answer of another kind"),
        (b"HTTP/1.1 400 Bad Request\r\n", "control message"),
    ],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes, says: str) -> None:
    path = tmp_path / "control.sock"
    with answering(path, answer), pytest.raises(ControlError, match=says):
        ask(path, StatusRequest())


def test_silence_ends_after_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with answering(path, None), pytest.raises(ControlError, match=r"did not answer in 0\.05 s"):
        ask(path, StatusRequest(), timeout=0.05)


def test_no_socket_means_not_running(tmp_path: Path) -> None:
    with pytest.raises(
        ControlError, match=r"no lbproc is running here: there is no control socket .*control.sock;"
    ):
        ask(tmp_path / "control.sock", StatusRequest())


def test_left_over_socket_means_not_running(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with pytest.raises(ControlError, match="no lbproc is running here: nobody listens"):
        ask(path, StatusRequest())


def test_full_queue_is_said_to_be_busy(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ControlError, match="too busy to take a connection"):
            ask(path, StatusRequest(), timeout=0.01)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be a control socket"):
        ask(tmp_path / ("x" * 200), StatusRequest())


def test_a_directory_is_no_control_socket(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"nobody listens|cannot be a control socket"):
        ask(tmp_path, StatusRequest())


@pytest.mark.parametrize("now", [False, True])
def test_stop_waits_for_the_answer(tmp_path: Path, now: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbproc.cli.client.EXIT_TIMEOUT", 0.0)  # the process that answers is this one
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body=None))) as asked:
        ask_to_stop(path, now=now)
    assert asked == [StopRequest(now=now, wait=True)]


def test_stop_that_is_refused_raises(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with (
        answering(path, encode(Reply(ok=False, body="no"))),
        pytest.raises(ControlError, match=r"^no$"),
    ):
        ask_to_stop(path, now=False)
