from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbproc.cli import main
from lbproc.config.starter import STARTER

FIVE_LINES = """\
[listeners.web]
bind = "0.0.0.0:8080"
pool = "web"
[pools.web]
backends = ["10.0.0.1:8000", "10.0.0.2:8000"]
"""
BROKEN = FIVE_LINES.replace('pool = "web"', 'pool = "wbe"').replace("10.0.0.2:8000", "10.0.0.2")
MESSAGES = """\
lbproc.toml:3: listeners.web.pool: there is no pool "wbe"; did you mean "web"?
lbproc.toml:5: pools.web.backends[1]: "10.0.0.2" is not an address; write the port too: "10.0.0.2:8000"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lbproc(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def test_check_says_that_a_configuration_is_right(here: Path) -> None:
    (here / "lbproc.toml").write_text(FIVE_LINES)
    result = lbproc("check")
    assert (result.exit_code, result.output) == (0, "lbproc.toml: ok, 1 listener, 2 backends\n")


def test_check_says_all_that_is_wrong_on_standard_error_and_leaves_with_2(here: Path) -> None:
    (here / "lbproc.toml").write_text(BROKEN)
    result = lbproc("check", "-c", "lbproc.toml")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", MESSAGES)


def test_check_speaks_json(here: Path) -> None:
    (here / "lbproc.toml").write_text(FIVE_LINES)
    assert json.loads(lbproc("check", "--json").stdout) == {
        "ok": True,
        "file": "lbproc.toml",
        "listeners": 1,
        "pools": 1,
        "backends": 2,
        "problems": [],
        "warnings": [],
    }
    (here / "lbproc.toml").write_text(BROKEN)
    result = lbproc("check", "--json")
    assert (result.exit_code, result.stderr) == (2, "")
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert answer["problems"][0] == {
        "file": "lbproc.toml",
        "line": 3,
        "key": "listeners.web.pool",
        "what": 'there is no pool "wbe"',
        "remedy": 'did you mean "web"?',
    }
    assert len(answer["problems"]) == 2
    assert answer["warnings"] == []


def test_check_prints_warnings_and_leaves_with_0(here: Path) -> None:
    (here / "lbproc.toml").write_text(FIVE_LINES + "[limits.x]\nconnections = 5\n")
    result = lbproc("check")
    what = "is not in the limits of any listener"
    remedy = 'add limits = ["x"] to a listener, or leave it out'
    assert (result.exit_code, result.stdout) == (0, "lbproc.toml: ok, 1 listener, 2 backends\n")
    assert result.stderr == f"warning: lbproc.toml:6: limits.x: {what}; {remedy}\n"
    (warning,) = json.loads(lbproc("check", "--json").stdout)["warnings"]
    assert warning == {"file": "lbproc.toml", "line": 6, "key": "limits.x", "what": what, "remedy": remedy}


def test_check_of_a_file_that_is_not_there_leaves_with_2(here: Path) -> None:
    result = lbproc("check", "-c", "none.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("none.toml: there is no such file; ")
    assert lbproc("check", "-c", str(here)).exit_code == 2


def test_show_prints_what_is_in_effect_as_toml_or_json(here: Path) -> None:
    (here / "a.toml").write_text(FIVE_LINES + '[admin]\nbind = "127.0.0.1:1"\ntoken = { env = "TOKEN" }\n')
    result = lbproc("config", "show", "-c", "a.toml", TOKEN="hush-puppy")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["listeners"]["web"]["max_header_size"] == "32KiB"
    as_json = lbproc("config", "show", "-c", "a.toml", "--json", TOKEN="hush-puppy")
    assert json.loads(as_json.stdout) == tomllib.loads(result.stdout)
    assert "hush-puppy" not in result.output + as_json.output


def test_show_of_a_broken_configuration_says_what_is_wrong(here: Path) -> None:
    (here / "lbproc.toml").write_text(BROKEN)
    result = lbproc("config", "show")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", MESSAGES)


def test_init_writes_a_configuration_that_check_takes(here: Path) -> None:
    result = lbproc("init")
    assert result.exit_code == 0
    assert (
        result.stdout
        == "lbproc.toml written. Next: change its backends, then lbproc check, then lbproc run.\n"
    )
    assert (here / "lbproc.toml").read_text() == STARTER
    assert lbproc("check").exit_code == 0


def test_init_leaves_alone_what_is_there_and_says_what_it_cannot_write(here: Path) -> None:
    (here / "a.toml").write_text("mine")
    result = lbproc("init", "a.toml")
    assert result.exit_code == 1
    assert "a.toml is there already; name another file, or move it away" in result.stderr
    assert (here / "a.toml").read_text() == "mine"
    result = lbproc("init", "none/a.toml")
    assert result.exit_code == 1
    assert "none/a.toml cannot be written: No such file or directory; name another file" in result.stderr


def test_the_working_directory_may_be_gone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = lbproc("check")
    assert result.exit_code in {1, 2}
    assert "No such file or directory" in result.stderr
