"""The commands that steer backends: what they ask, and what they say of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lbproc.cli import main
from lbproc.cli.steering import ProgressLine, render_progress
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import (
    AdminRequest,
    BackendAddRequest,
    BackendRemoveRequest,
    Message,
    Progress,
    Reply,
    WeightRequest,
)
from tests.cli.answering import answering

BODY = {"pool": "web", "backend": "b", "address": "10.0.0.2:80", "in_flight": 3, "warnings": []}
STATE = BODY | {"admin": "drain", "was": "ready"}


def run(path: Path, *arguments: str, answer: bytes | dict[str, Any]) -> tuple[Result, list[Message]]:
    octets = answer if isinstance(answer, bytes) else encode(Reply(ok=True, body=answer))
    with answering(path / "control.sock", octets) as asked:
        result = CliRunner().invoke(main, [*arguments, "--socket", str(path / "control.sock")])
    return result, asked


@pytest.mark.parametrize("command", ["drain", "ready", "maintenance"])
def test_states_are_asked_for_by_their_name(tmp_path: Path, command: str) -> None:
    body = STATE | {"admin": command, "was": "other"}
    result, asked = run(tmp_path, command, "web/10.0.0.2:80", answer=body)
    assert asked == [AdminRequest("web", "10.0.0.2:80", command, wait=False, timeout=0.0)]
    assert (result.exit_code, result.output) == (0, f"web/b: {command}, 3 in flight\n")


def test_the_pool_ends_at_the_first_slash(tmp_path: Path) -> None:
    _, asked = run(tmp_path, "drain", "web/unix:/run/a.sock", answer=STATE)
    assert asked == [AdminRequest("web", "unix:/run/a.sock", "drain", wait=False, timeout=0.0)]


def test_waiting_is_asked_for_with_its_limit(tmp_path: Path) -> None:
    octets = encode(Progress({"in_flight": 2})) + encode(Reply(ok=True, body=STATE | {"in_flight": 0}))
    result, asked = run(tmp_path, "drain", "web/b", "--wait", "--timeout", "1m30s", answer=octets)
    assert asked == [AdminRequest("web", "b", "drain", wait=True, timeout=90.0)]
    assert (result.exit_code, result.output) == (0, "web/b: drain, 0 in flight\n")
    _, asked = run(tmp_path, "drain", "web/b", "--wait", answer=STATE)
    assert asked == [AdminRequest("web", "b", "drain", wait=True, timeout=0.0)]


def test_what_was_so_before_is_said(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "drain", "web/b", answer=STATE | {"was": "drain"})
    assert result.output == "web/b: drain, as before, 3 in flight\n"


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "drain", "web/b", answer=STATE | {"warnings": ["nobody is left"]})
    assert (result.exit_code, result.stderr) == (0, "warning: nobody is left\n")


def test_json_is_the_answer_as_it_came(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "drain", "web/b", "--json", answer=STATE | {"warnings": ["nobody is left"]})
    assert json.loads(result.output) == STATE | {"warnings": ["nobody is left"]}
    assert result.stderr == ""


def test_a_refusal_is_the_reason_and_status_1(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "drain", "web/c", answer=encode(Reply(ok=False, body="no backend named")))
    assert (result.exit_code, result.stderr) == (1, "lbproc: no backend named\n")


def test_a_stop_ends_a_wait_with_status_1(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "drain", "web/b", "--wait", answer={"status": 0})
    assert (result.exit_code, result.stderr) == (1, "lbproc: lbproc was stopped meanwhile\n")


def test_weights(tmp_path: Path) -> None:
    result, asked = run(tmp_path, "weight", "web/b", "5", answer=BODY | {"weight": 5, "was": 2})
    assert asked == [WeightRequest("web", "b", 5)]
    assert result.output == "web/b: weight 5, was 2\n"
    result, asked = run(tmp_path, "weight", "web/b", "reset", answer=BODY | {"weight": 2, "was": 2})
    assert asked == [WeightRequest("web", "b", None)]
    assert result.output == "web/b: weight 2, as before\n"


def test_backends_that_come(tmp_path: Path) -> None:
    result, asked = run(tmp_path, "backends", "add", "web", "10.0.0.2:80", answer=BODY | {"weight": 1})
    assert asked == [BackendAddRequest("web", {"address": "10.0.0.2:80"})]
    assert result.output == "web/b (10.0.0.2:80): added, weight 1\n"
    options = ("--weight", "3", "--name", "b", "--max-connections", "9", "--backup")
    _, asked = run(tmp_path, "backends", "add", "web", "10.0.0.2:80", *options, answer=BODY | {"weight": 3})
    given = {"address": "10.0.0.2:80", "weight": 3, "name": "b", "max_connections": 9, "backup": True}
    assert asked == [BackendAddRequest("web", given)]
    named = BODY | {"backend": "10.0.0.2:80", "weight": 3}
    result, _ = run(tmp_path, "backends", "add", "web", "10.0.0.2:80", answer=named)
    assert result.output == "web/10.0.0.2:80: added, weight 3\n"


def test_paths_of_unix_sockets_count_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, asked = run(tmp_path, "backends", "add", "web", "unix:app.sock", answer=BODY | {"weight": 1})
    assert asked == [BackendAddRequest("web", {"address": f"unix:{tmp_path}/app.sock"})]
    _, asked = run(tmp_path, "backends", "remove", "web", "unix:/run/app.sock", answer=BODY)
    assert asked == [BackendRemoveRequest("web", "unix:/run/app.sock", wait=False, timeout=0.0)]


def test_backends_that_go(tmp_path: Path) -> None:
    result, asked = run(tmp_path, "backends", "remove", "web/b", answer=BODY)
    assert asked == [BackendRemoveRequest("web", "b", wait=False, timeout=0.0)]
    assert result.output == "web/b: removed, 3 in flight\n"
    waiting = ("--wait", "--timeout", "5s")
    _, asked = run(tmp_path, "backends", "remove", "web", "10.0.0.2:80", *waiting, answer=BODY)
    assert asked == [BackendRemoveRequest("web", "10.0.0.2:80", wait=True, timeout=5.0)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("drain", "web"), "is not POOL/BACKEND"),
        (("drain", "/b"), "is not POOL/BACKEND"),
        (("drain", "web/"), "is not POOL/BACKEND"),
        (("drain", "web/b", "--wait", "--timeout", "30"), 'write "30s" for seconds'),
        (("drain", "web/b", "--wait", "--timeout", "0s"), "is no time to wait"),
        (("drain", "web/b", "--timeout", "30s"), "give --wait, too"),
        (("weight", "web/b", "-1"), "No such option"),
        (("weight", "web/b", "1.5"), "is not a weight"),
        (("backends", "remove", "web"), "is not POOL/BACKEND"),
        (("backends", "remove", "web", "b", "c"), "name one backend"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_progress_is_one_line_that_goes(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(is_shown=True)
    line.show({"in_flight": 12, "late_workers": 0, "health": ""})
    line.show({"in_flight": 1, "late_workers": 0, "health": ""})
    line.clear()
    line.clear()
    assert capsys.readouterr().out == "\r12 in flight\r1 in flight \r" + " " * 11 + "\r"


def test_progress_says_what_is_waited_for() -> None:
    assert render_progress({"in_flight": 3}) == "3 in flight"
    assert "1 worker(s)" in render_progress({"in_flight": 3, "late_workers": 1})
    assert render_progress({"in_flight": 3, "health": "checking"}) == "checking, not taking requests yet"
