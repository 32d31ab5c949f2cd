"""What a shell is told when somebody presses the tab key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from lbproc.cli import main
from lbproc.cli.completion import complete_backend, complete_pool
from lbproc.cli.group import COMMANDS
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Reply
from tests.cli.answering import answering
from tests.cli.test_status import status

if TYPE_CHECKING:
    from tests.conftest import RequireProgram

ROOT = Path(__file__).parents[2]


def completed(*arguments: str, incomplete: str = "") -> list[str]:
    found = ShellComplete(main, {}, "lbproc", "_LBPROC_COMPLETE").get_completions(list(arguments), incomplete)
    return [item.value for item in found]


def script(shell: str) -> str:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_calls_lbproc(shell: str) -> None:
    assert f"_LBPROC_COMPLETE={shell}_complete" in script(shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_can_read_it(shell: str, require_program: RequireProgram) -> None:
    program = require_program(shell)
    subprocess.run(
        [program, "-n", "/dev/stdin"], input=script(shell), text=True, check=True, capture_output=True
    )


def test_another_shell_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_commands_and_options_and_commands_of_groups_are_completed() -> None:
    assert completed() == list(COMMANDS)
    assert completed(incomplete="st") == ["status", "stop"]
    assert {"show", "schema", "reference"} <= set(completed("config"))
    assert {"--json", "--watch", "--interval"} <= set(completed("status", incomplete="--"))
    assert "--version" in completed(incomplete="--")
    assert completed("completion") == ["bash", "zsh", "fish"]


def test_a_configuration_is_completed_by_the_shell_as_a_file() -> None:
    found = ShellComplete(main, {}, "lbproc", "X").get_completions(["run", "-c"], "lb")
    assert [item.type for item in found] == ["file"]


def test_completing_a_command_imports_none() -> None:
    program = (
        "import sys\nfrom lbproc.cli import main\nfrom click.shell_completion import ShellComplete\n"
        "ShellComplete(main, {}, 'lbproc', 'X').get_completions([], '')\n"
        "assert not {'trio', 'pydantic', 'rich'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def asked(
    path: Path, incomplete: str, kind: Any, monkeypatch: pytest.MonkeyPatch, body: object = None
) -> list[tuple[str, str | None]]:
    monkeypatch.setenv("LBPROC_SOCKET", str(path))
    context = click.Context(main)
    parameter = click.Argument(["target"])
    with answering(path, encode(Reply(ok=True, body=body or status()))):
        return [(item.value, item.help) for item in kind(context, parameter, incomplete)]


def test_backends_and_pools_of_the_running_lbproc_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.sock"
    assert asked(path, "", complete_backend, monkeypatch) == [
        ("web/a", "up, ready"),
        ("web/long-name", "up, ready"),
    ]
    assert asked(path, "web/l", complete_backend, monkeypatch) == [("web/long-name", "up, ready")]
    assert asked(path, "w", complete_pool, monkeypatch) == [("web", "least_connections, 2 backends")]
    assert asked(path, "x", complete_pool, monkeypatch) == []
    assert asked(path, "", complete_pool, monkeypatch, {"pools": 1}) == []


def test_without_an_lbproc_nothing_is_offered_and_nothing_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LBPROC_SOCKET", str(tmp_path / "none"))
    assert complete_backend(click.Context(main), click.Argument(["target"]), "") == []
    assert capsys.readouterr() == ("", "")


def test_the_control_socket_is_that_of_the_options_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.sock"
    monkeypatch.setenv("LBPROC_SOCKET", str(tmp_path / "none"))
    with answering(path, encode(Reply(ok=True, body=status()))):
        assert completed("drain", "--socket", str(path), incomplete="web/a") == ["web/a"]
