"""The process that loads a configuration: what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbproc.config.load import load_config
from lbproc.config.model import Config
from lbproc.errors import ControlError, StartError
from lbproc.supervisor.loader import LoadedConfig, Loader
from lbproc.telemetry.log import ErrorLog, open_error_log
from tests.descriptors import open_descriptors, opened_since

OLD = """
[listeners.web]
bind = "127.0.0.1:8080"
pool = "web"
[pools.web]
backends = ["10.0.0.1:8000"]
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    log = open_error_log(tmp_path / "error.log", "debug", "supervisor")
    yield log
    log.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lbproc.toml"
    path.write_text(OLD)
    return path


@contextmanager
def loading(
    file: Path, log: ErrorLog, adapt: Callable[[Config], Config] = lambda config: config
) -> Iterator[Loader]:
    before = open_descriptors()
    loader = Loader(file, {"TOKEN": "swordfish"}, load_config_of(OLD, file), adapt, lambda: None, log)
    yield loader
    loader.close()
    loader.close()
    os.wait()
    assert opened_since(before) == []


def load_config_of(text: str, file: Path) -> Config:
    path = file.with_name("old.toml")
    path.write_text(text)
    return load_config(path, {})


def outcome(loader: Loader) -> LoadedConfig:
    while True:
        readable, _, _ = select.select([loader], [], [], 20)
        assert readable
        if (said := loader.read()) is not None:
            return said


def test_it_gives_the_configuration_and_what_changes(file: Path, log: ErrorLog) -> None:
    file.write_text(OLD.replace("10.0.0.1", "10.0.0.2") + "[admin]\nbind='127.0.0.1:0'\ntoken={env='TOKEN'}")
    with loading(file, log) as loader:
        said = outcome(loader)
        assert said.changes[1:] == (
            "pools.web.backends: removed 10.0.0.1:8000",
            "pools.web.backends: added 10.0.0.2:8000",
        )
        assert said.refusal.startswith("admin: added: this cannot change while lbproc runs")
        memory, config = loader.take()
        assert config.admin is not None
        assert config.admin.token is not None
        assert config.admin.token.reveal() == "swordfish"
        os.close(memory)


def test_the_same_configuration_changes_nothing(file: Path, log: ErrorLog) -> None:
    with loading(file, log) as loader:
        assert outcome(loader) == LoadedConfig(())


def test_what_the_command_line_said_is_applied(file: Path, log: ErrorLog) -> None:
    def three(config: Config) -> Config:
        runtime = config.runtime.model_copy(update={"workers": 3})
        return config.model_copy(update={"runtime": runtime})

    with loading(file, log, three) as loader:
        assert outcome(loader).changes == ("runtime.workers: auto -> 3",)


def test_every_problem_is_told(file: Path, log: ErrorLog) -> None:
    file.write_text(OLD.replace("8080", "x").replace("web]\nback", "w]\nback"))
    with loading(file, log) as loader:
        said = outcome(loader)
        assert len(said.refusal.splitlines()) >= 2
        assert f"{file}:3: listeners.web.bind" in said.refusal
        with pytest.raises(ControlError):
            loader.take()


def test_a_file_that_is_not_there_is_a_problem(file: Path, log: ErrorLog) -> None:
    file.unlink()
    with loading(file, log) as loader:
        assert "lbproc.toml" in outcome(loader).refusal


def test_more_than_a_pipe_holds_is_told_whole(file: Path, log: ErrorLog) -> None:
    many = ", ".join(f'"10.1.{n // 250}.{n % 250}:80"' for n in range(4000))
    file.write_text(OLD.replace('"10.0.0.1:8000"', many))
    with loading(file, log) as loader:
        assert len(outcome(loader).changes) == 4001


def test_one_that_hangs_can_be_ended(file: Path, log: ErrorLog) -> None:
    file.unlink()
    os.mkfifo(file)
    with loading(file, log) as loader:
        assert loader.read() is None
        loader.kill()
        assert "ended without a word" in outcome(loader).refusal
        loader.kill()


def test_one_that_is_killed_or_crashes_has_ended_without_a_word(file: Path, log: ErrorLog) -> None:
    def crash(_: Config) -> Config:
        raise RuntimeError("a defect")

    def die(_: Config) -> Config:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    for adapt in (crash, die):
        with loading(file, log, adapt) as loader:
            assert outcome(loader).refusal.endswith("ended without a word")
    assert "RuntimeError: a defect" in (file.with_name("error.log")).read_text()


def test_without_descriptors_or_processes_it_is_an_error(
    file: Path, log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = open_descriptors()
    config = load_config_of(OLD, file)
    monkeypatch.setattr(os, "fork", no_fork)
    with pytest.raises(StartError, match="Resource temporarily unavailable"):
        Loader(file, {}, config, lambda config: config, lambda: None, log)
    assert opened_since(before) == []
