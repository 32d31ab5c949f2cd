"""A configuration that one process writes and all others read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest

from lbproc.config.model import Config
from lbproc.config.sealed import open_memory, seal, unseal
from lbproc.errors import ControlError


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = open_memory()
    yield descriptor
    os.close(descriptor)


CONFIG = Config.model_validate(
    {
        "admin": {"bind": "127.0.0.1:9900", "token": "swordfish"},
        "listeners": {"web": {"bind": ["127.0.0.1:8080", "unix:/run/x.sock"], "pool": "web"}},
        "pools": {"web": {"backends": [{"address": f"10.0.0.{n}:80", "name": f"b{n}"} for n in range(200)]}},
    }
)


def test_what_was_sealed_is_read_again_and_again_wherever_the_position_is(memory: int) -> None:
    seal(memory, CONFIG)
    os.lseek(memory, 7, os.SEEK_SET)
    for _ in range(2):
        config = unseal(memory)
        assert config == CONFIG
        assert config.admin is not None
        assert config.admin.token is not None
        assert config.admin.token.reveal() == "swordfish"


def test_nobody_can_change_it_afterwards(memory: int) -> None:
    seal(memory, CONFIG)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)


def test_what_is_not_sealed_or_something_else_is_not_read(memory: int) -> None:
    os.write(memory, pickle.dumps(CONFIG))
    with pytest.raises(ControlError, match="is not sealed"):
        unseal(memory)
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(ControlError, match="cannot be read"):
        unseal(reading)
    os.close(reading)


def test_another_object_is_refused(memory: int) -> None:
    seal(memory, "no configuration")  # type: ignore[arg-type]
    with pytest.raises(ControlError, match="is a str"):
        unseal(memory)
