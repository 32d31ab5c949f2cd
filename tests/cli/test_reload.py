"""What `lbproc reload` and `lbproc config diff` ask, and what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbproc.cli import main
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Message, ReloadRequest, Reply
from tests.cli.answering import answering

OLD = """\
[listeners.web]
bind = "127.0.0.1:8080"
pool = "web"
[pools.web]
backends = ["10.0.0.1:8000"]
"""
CHANGES = ["log.level: info -> debug", "pools.web.backends: added 10.0.0.2:8000"]


def lbproc(directory: Path, reply: Reply, *arguments: str) -> tuple[Result, list[Message]]:
    path = directory / "control.sock"
    with answering(path, encode(reply)) as asked:
        result = CliRunner().invoke(main, [*arguments, "--socket", str(path)])
    return result, asked


def answer(outcome: str, changes: list[str] | None = None) -> Reply:
    body = {"outcome": outcome, "generation": 3, "config": "/etc/lbproc.toml", "changes": changes or []}
    return Reply(ok=True, body=body)


def test_reload_asks_and_prints_what_changed(tmp_path: Path) -> None:
    result, asked = lbproc(tmp_path, answer("done", CHANGES), "reload")
    assert asked == [ReloadRequest("", dry_run=False)]
    assert (result.exit_code, result.output) == (
        0,
        "/etc/lbproc.toml is in force, generation 3\n"
        "  log.level: info -> debug\n"
        "  pools.web.backends: added 10.0.0.2:8000\n",
    )


def test_warnings_are_printed_beside_the_answer(tmp_path: Path) -> None:
    reply = answer("unchanged")
    assert isinstance(reply.body, dict)
    warned = Reply(ok=True, body=reply.body | {"warnings": ["a.toml:3: limits.x: is bad; mend it"]})
    result, _ = lbproc(tmp_path, warned, "reload")
    assert result.exit_code == 0
    assert result.stderr == "warning: a.toml:3: limits.x: is bad; mend it\n"
    result, _ = lbproc(tmp_path, warned, "reload", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["warnings"] == ["a.toml:3: limits.x: is bad; mend it"]


def test_a_dry_run_prints_what_would_change(tmp_path: Path) -> None:
    result, asked = lbproc(tmp_path, answer("planned", CHANGES[:1]), "reload", "--dry-run")
    assert asked == [ReloadRequest("", dry_run=True)]
    assert result.output == "/etc/lbproc.toml would change:\n  log.level: info -> debug\n"


@pytest.mark.parametrize("outcome", ["planned", "unchanged"])
def test_no_change_is_said_too(tmp_path: Path, outcome: str) -> None:
    result, _ = lbproc(tmp_path, answer(outcome), "reload")
    assert result.output == "/etc/lbproc.toml changes nothing; it is in force, generation 3\n"


def test_another_file_counts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, asked = lbproc(tmp_path, answer("unchanged"), "reload", "--file", "new.toml")
    assert asked == [ReloadRequest(str(tmp_path / "new.toml"), dry_run=False)]


def test_reload_speaks_json(tmp_path: Path) -> None:
    result, _ = lbproc(tmp_path, answer("done", CHANGES), "reload", "--json")
    assert json.loads(result.output) == answer("done", CHANGES).body


def test_a_refusal_is_on_standard_error_and_leaves_with_1(tmp_path: Path) -> None:
    reply = Reply(ok=False, body="lbproc.toml:3: listeners.web.pool: no\nlbproc.toml:9: x: no")
    result, _ = lbproc(tmp_path, reply, "reload")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "lbproc: lbproc.toml:3: listeners.web.pool: no\nlbproc.toml:9: x: no\n"


def test_two_files_are_compared_without_a_running_lbproc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.toml").write_text(OLD)
    Path("lbproc.toml").write_text(OLD.replace("10.0.0.1", "10.0.0.2") + '[runtime]\nuser = "nobody"\n')
    result = CliRunner().invoke(main, ["config", "diff", "--with", "old.toml"])
    assert (result.exit_code, result.output) == (
        0,
        "runtime.user: none -> nobody (needs a restart)\n"
        "pools.web.backends: removed 10.0.0.1:8000\n"
        "pools.web.backends: added 10.0.0.2:8000\n",
    )
    result = CliRunner().invoke(main, ["config", "diff", "-c", "old.toml", "--with", "lbproc.toml", "--json"])
    assert json.loads(result.output)["needs_restart"] == ["runtime.user: nobody -> none"]
    same = CliRunner().invoke(main, ["config", "diff", "-c", "old.toml", "--with", "old.toml"])
    assert same.output == "no difference\n"


def test_a_file_is_compared_with_what_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.toml").write_text(OLD)
    result, asked = lbproc(tmp_path, answer("planned", CHANGES), "config", "diff", "-c", "new.toml")
    assert asked == [ReloadRequest(str(tmp_path / "new.toml"), dry_run=True)]
    assert result.output.splitlines() == CHANGES
