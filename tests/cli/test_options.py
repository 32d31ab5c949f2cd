from __future__ import annotations

from pathlib import Path

import click
import pytest

from lbproc.cli.options import find_control_socket, socket_named_in
from lbproc.errors import ControlError
from lbproc.net.control_socket import default_control_socket


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lbproc.toml"
    path.write_text('[runtime]\ncontrol_socket = "/run/named.sock"\n')
    return path


def test_socket_option_comes_first(tmp_path: Path, config: Path) -> None:
    found = find_control_socket(Path("/given.sock"), None, {"LBPROC_SOCKET": "/variable.sock"}, tmp_path)
    assert found == Path("/given.sock")


def test_config_option_comes_before_the_variable(tmp_path: Path, config: Path) -> None:
    found = find_control_socket(None, config, {"LBPROC_SOCKET": "/variable.sock"}, tmp_path / "elsewhere")
    assert found == Path("/run/named.sock")


def test_variable_comes_before_the_working_directory(tmp_path: Path, config: Path) -> None:
    found = find_control_socket(None, None, {"LBPROC_SOCKET": "/variable.sock"}, tmp_path)
    assert found == Path("/variable.sock")


def test_configuration_in_the_working_directory_is_found(tmp_path: Path, config: Path) -> None:
    assert find_control_socket(None, None, {"LBPROC_SOCKET": ""}, tmp_path) == Path("/run/named.sock")


def test_nothing_said_means_the_default_place(tmp_path: Path) -> None:
    assert find_control_socket(None, None, {}, tmp_path) == default_control_socket()


def test_configuration_that_does_not_say_means_the_default_place(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.toml"
    path.write_text("")
    assert find_control_socket(None, path, {}, tmp_path) == default_control_socket()


def test_both_options_are_wrong_usage(tmp_path: Path, config: Path) -> None:
    with pytest.raises(click.UsageError, match="give one of them"):
        find_control_socket(Path("/given.sock"), config, {}, tmp_path)


def test_relative_path_counts_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.toml"
    path.write_text('[runtime]\ncontrol_socket = "here.sock"\n')
    assert socket_named_in(path) == tmp_path / "here.sock"


def test_directory_of_files(tmp_path: Path, config: Path) -> None:
    (tmp_path / "a.toml").write_text("[pools]\n")
    (tmp_path / "z.toml").write_text("[runtime]\nworkers = 2\n")
    assert socket_named_in(tmp_path) == Path("/run/named.sock")


def test_file_that_cannot_be_used_still_names_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "lbproc.toml"
    path.write_text('unknown = 1\n[runtime]\ncontrol_socket = "/run/x.sock"\nworkers = "many"\n')
    assert socket_named_in(path) == Path("/run/x.sock")


@pytest.mark.parametrize(
    "text", ["runtime = 3", "[runtime]\ncontrol_socket = 3", '[runtime]\ncontrol_socket = ""']
)
def test_values_of_another_kind_say_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lbproc.toml"
    path.write_text(text)
    assert socket_named_in(path) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[runtime", "is not TOML: .*--socket PATH works without it"),
        (b"\xff", "is not TOML"),
        (None, "cannot read"),
    ],
)
def test_unreadable_file_points_to_the_socket_option(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "lbproc.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ControlError, match=says):
        socket_named_in(path)
