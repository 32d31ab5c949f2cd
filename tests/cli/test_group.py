from __future__ import annotations

import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from lbproc import __version__
from lbproc.cli import main
from lbproc.cli.group import COMMANDS


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="lbproc")


def call_failing(monkeypatch: pytest.MonkeyPatch, name: str) -> Result:
    monkeypatch.setitem(COMMANDS, "failing", (f"tests.cli.failing:{name}", "Fail."))
    return call("failing")


def test_help_lists_every_command_with_its_line() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert f"  {name}" in result.output
        assert line in " ".join(result.output.split())


@pytest.mark.slow
def test_help_and_version_import_nothing_slow() -> None:
    program = (
        "import sys; sys.argv = ['lbproc', '--help']\n"
        "from lbproc.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'trio', 'pydantic', 'rich', 'h11', 'msgpack'} & set(sys.modules)))"
    )
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert call(name, "--help").exit_code == 0


@pytest.mark.parametrize("option", ["--version", "version"])
def test_version(option: str) -> None:
    result = call(option)
    assert (result.exit_code, result.output) == (0, f"lbproc {__version__}\n")


def test_no_command_shows_help_as_wrong_usage() -> None:
    result = call()
    assert result.exit_code == 2
    assert "Usage: lbproc" in result.output


def test_mistyped_command_is_answered_with_the_nearest_one() -> None:
    result = call("statsu")
    assert result.exit_code == 2
    assert "There is no command 'statsu'. Did you mean 'status'?" in result.output


def test_unknown_command_is_wrong_usage() -> None:
    result = call("xyzzy")
    assert result.exit_code == 2
    assert "xyzzy" in result.output


def test_unusable_configuration_exits_2_with_every_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call_failing(monkeypatch, "bad_config")
    assert result.exit_code == 2
    assert (
        result.stderr
        == "lbproc.toml:3: pools.web: is empty; give it backends\nlbproc.toml:9: x: what; that\n"
    )
    assert result.stdout == ""


def test_refusal_exits_1_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call_failing(monkeypatch, "not_running")
    assert (result.exit_code, result.stderr) == (1, "lbproc: no lbproc is running here\n")


def test_system_error_is_one_line_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call_failing(monkeypatch, "missing_file")
    assert result.exit_code == 1
    assert result.stderr == "lbproc: /nonexistent/lbproc.toml: No such file or directory\n"


def test_system_error_without_a_file_is_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call_failing(monkeypatch, "nameless")
    assert (result.exit_code, result.stderr) == (1, "lbproc: No space left on device\n")


def test_missing_extension_names_what_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call_failing(monkeypatch, "no_extension")
    assert result.exit_code == 1
    assert "C extension is not built" in result.stderr


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(call_failing(monkeypatch, "defect").exception, ImportError)


def test_other_systems_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    result = call("status")
    assert (result.exit_code, result.stderr) == (1, "lbproc: runs on Linux only; this is darwin\n")


TALKATIVE = (
    "from lbproc.cli.group import COMMANDS, main\n"
    "COMMANDS['talkative'] = ('tests.cli.failing:talkative', 'Talk.')\n"
    "main(['talkative'])"
)


@pytest.mark.slow
def test_reader_that_leaves_causes_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line of output\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 1


@pytest.mark.slow
def test_full_disk_under_standard_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        completed = subprocess.run(
            [sys.executable, "-c", TALKATIVE], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (completed.returncode, completed.stderr) == (1, "lbproc: No space left on device\n")


@pytest.mark.slow
def test_closed_standard_descriptors_are_occupied() -> None:
    program = (
        "import os\n"
        "from lbproc.cli.group import COMMANDS, main\n"
        "COMMANDS['nameless'] = ('tests.cli.failing:nameless', 'Fail.')\n"
        "try: main(['nameless'])\n"
        "except SystemExit as end: status = end.code\n"
        "open_now = [os.path.realpath(f'/proc/self/fd/{i}') for i in range(3)]\n"
        "os._exit(status if open_now == ['/dev/null'] * 3 else 99)"
    )
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 1


@pytest.mark.slow
def test_python_m_is_the_same_command() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "lbproc", "--help"], capture_output=True, text=True, check=True
    )
    assert completed.stdout.startswith("Usage: lbproc [OPTIONS]")
