from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproc.config.load import SYSTEM_FILE, find_config, load_config
from lbproc.config.problem import UnusableConfigError
from lbproc.types import TcpAddress, UnixAddress
from tests.config.complete import COMPLETE, ENVIRON

FIVE_LINES = """\
[listeners.web]
bind = "0.0.0.0:8080"
pool = "web"
[pools.web]
backends = ["10.0.0.1:8000", "unix:app.sock"]
"""
HUSH = "hush-puppy"


def problems(path: Path, text: str | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """What loading a path reports; the file may be written first."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnusableConfigError) as caught:
        load_config(path, environ or {})
    return [line.replace(f"{path.parent}/", "") for line in caught.value.problems]


def test_five_lines_are_enough(tmp_path: Path) -> None:
    file = tmp_path / "lbproc.toml"
    file.write_text(FIVE_LINES)
    config = load_config(file, {})
    assert config.listeners["web"].bind == (TcpAddress("0.0.0.0", 8080),)
    assert [backend.address for backend in config.pools["web"].backends] == [
        TcpAddress("10.0.0.1", 8000),
        UnixAddress(str(tmp_path / "app.sock")),
    ]


def test_an_empty_file_says_what_is_missing(tmp_path: Path) -> None:
    assert problems(tmp_path / "a.toml", "") == [
        'a.toml:1: listeners: is missing; add [listeners.web] with bind = "0.0.0.0:8080"'
    ]


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = '[pools.web]\nbackends = ["a"]\n[listeners.web]\npool = "wbe"\nbind = 1\n[runtime]\nworkers = -1\n'
    assert [line.split(": ")[:2] for line in problems(tmp_path / "a.toml", text)] == [
        ["a.toml:2", "pools.web.backends[0]"],
        ["a.toml:4", "listeners.web.pool"],
        ["a.toml:5", "listeners.web.bind"],
        ["a.toml:7", "runtime.workers"],
    ]


def test_problems_of_a_directory_name_the_file_they_are_in(tmp_path: Path) -> None:
    (tmp_path / "20.toml").write_text('[pools.web]\nbackends = ["a"]\n')
    (tmp_path / "10.toml").write_text('\n[listeners.web]\nbind = "0.0.0.0:80"\npool = "b"\n')
    assert [line.removeprefix(f"{tmp_path.name}/").split(": ")[:2] for line in problems(tmp_path)] == [
        ["10.toml:4", "listeners.web.pool"],
        ["20.toml:2", "pools.web.backends[0]"],
    ]


def with_token(written: str) -> str:
    return FIVE_LINES + f'[admin]\nbind = "127.0.0.1:9900"\ntoken = {written}\n'


def test_a_secret_comes_from_the_file_the_environment_or_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{HUSH}\n")
    for written in (f'"{HUSH}"', '{ env = "TOKEN" }', '{ file = "token" }'):
        file = tmp_path / "a.toml"
        file.write_text(with_token(written))
        config = load_config(file, {"TOKEN": HUSH})
        assert config.admin is not None
        assert config.admin.token is not None
        assert config.admin.token.reveal() == HUSH
        assert HUSH not in f"{config} {config!r} {config.model_dump()} {config.model_dump_json()}"


def test_a_secret_that_cannot_be_read_is_reported_without_it(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(HUSH.encode() + b"\xff")
    (tmp_path / "large").write_text(HUSH * 10_000)
    (tmp_path / "lines").write_text(f"{HUSH}\n{HUSH}\n")
    for written, reason in (
        ('{ file = "binary" }', "it is not UTF-8 text"),
        ('{ file = "large" }', "it is larger than 64 KiB"),
        ('{ file = "none" }', "No such file or directory"),
        ('{ file = "." }', "Is a directory"),
        ('{ file = "a\\u0000b" }', "embedded null byte"),
        ('{ file = "lines" }', "cannot be sent"),
        ('{ env = "TOKEN" }', "TOKEN is not set"),
        (f'[ "{HUSH}" ]', "is an array, not a secret"),
        (f'{{ env = "{HUSH}" }}', "names no environment variable"),
        (f'{{ value = "{HUSH}" }}', "is a table, but not"),
        (f'"{HUSH} {HUSH}"', "cannot be sent"),
        (f'"{HUSH}"\ntokens = "{HUSH}"', "is not a known key"),
    ):
        (line,) = problems(tmp_path / "a.toml", with_token(written))
        assert reason in line
        assert HUSH not in line


def test_an_error_says_nothing_of_the_steps_that_led_to_it(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(with_token(f'["{HUSH}"]'))
    with pytest.raises(UnusableConfigError) as caught:
        load_config(file, {})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_the_configuration_here_is_found_before_that_of_the_system(tmp_path: Path) -> None:
    here, system = tmp_path / "here", tmp_path / "system.toml"
    here.mkdir()
    with pytest.raises(UnusableConfigError) as caught:
        find_config({}, here, system)
    assert caught.value.problems == (
        f"{here}: there is no lbproc.toml here, and no {system}; "
        'name one with -c FILE, or write a first one with "lbproc init"',
    )
    system.touch()
    assert find_config({}, here, system) == system
    (here / "lbproc.toml").touch()
    assert find_config({}, here, system) == Path("lbproc.toml")
    assert Path("/etc/lbproc/lbproc.toml") == SYSTEM_FILE


@pytest.mark.slow
def test_what_has_no_certificates_is_loaded_without_what_reads_them(tmp_path: Path) -> None:
    directory = Path(__file__).parents[1] / "health" / "tls"
    plain = '[listeners.x]\nbind = "127.0.0.1:1"\npool = "x"\n[pools.x]\nbackends = ["a:1"]\n'
    tls = (
        f'[[listeners.x.tls.certificates]]\ncert = "{directory}/server.pem"\nkey = "{directory}/server.key"\n'
    )
    for name, text in (("plain", plain), ("tls", plain + tls)):
        (tmp_path / name).write_text(text)
    program = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from lbproc.config.load import load_config\n"
        f"load_config(Path({str(tmp_path / 'plain')!r}), {{}})\n"
        "print('cryptography' in sys.modules)\n"
        f"config = load_config(Path({str(tmp_path / 'tls')!r}), {{}})\n"
        "print('cryptography' in sys.modules)\n"
        "open(sys.argv[1], 'wb').write(pickle.dumps(config))"
    )
    pickled = tmp_path / "pickled"
    loads = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')); print('cryptography' in sys.modules)"
    said = [
        subprocess.run(
            [sys.executable, "-c", code, pickled], capture_output=True, text=True, check=True
        ).stdout
        for code in (program, loads)
    ]
    assert said == ["False\nTrue\n", "False\n"]


def test_a_file_that_cannot_be_looked_at_is_found_so_that_reading_it_says_why(tmp_path: Path) -> None:
    assert find_config({}, tmp_path, tmp_path / ("x" * 300)) == tmp_path / ("x" * 300)


MUTATION = st.tuples(
    st.integers(0, len(COMPLETE)),
    st.integers(0, 12),
    st.text(max_size=6) | st.sampled_from(list("[]{}=.,\"'#\\\n")),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(st.lists(MUTATION, max_size=4))
def test_whatever_a_file_holds_it_loads_or_every_problem_has_a_line(
    tmp_path_factory: pytest.TempPathFactory, mutations: list[tuple[int, int, str]]
) -> None:
    text = COMPLETE
    for place, length, put in mutations:
        text = text[:place] + put + text[place + length :]
    file = tmp_path_factory.mktemp("any") / "a.toml"
    file.write_bytes(text.encode())
    try:
        load_config(file, ENVIRON)
    except UnusableConfigError as error:
        for problem in error.found:
            assert 1 <= problem.line <= text.count("\n") + 1
            assert problem.what
            assert problem.right
            assert str(problem).isprintable()
            assert ENVIRON["LBPROC_ADMIN_TOKEN"] not in str(problem)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_without_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "a.toml"
    file.write_bytes(content)
    with pytest.raises(UnusableConfigError):
        load_config(file, {})


@pytest.mark.slow
def test_a_large_hostile_file_is_answered_in_bounded_time_and_length(tmp_path: Path) -> None:
    names = "\n".join(f'p{number}.backends = ["x"]' for number in range(20_000))
    keys = "\n".join(f"unknown{number} = 1" for number in range(20_000))
    lines = problems(tmp_path / "a.toml", f'[listeners.web]\nbind = "x"\n[pools]\n{names}\n[log]\n{keys}\n')
    assert len(lines) == 501
    assert "more problems" in lines[-1]


def test_the_working_directory_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert os.path.lexists(tmp_path)
    with pytest.raises(UnusableConfigError, match="cannot be read: No such file or directory"):
        load_config(Path("a.toml"), {})
