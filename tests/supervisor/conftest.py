"""A place that children without rights can use, too, and reloads that give up soon."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproc.core import reload as reload_limits


@pytest.fixture
def readable_directory() -> Iterator[Path]:
    """A directory of this account that every other one can read; what is above ``tmp_path`` is private."""
    with tempfile.TemporaryDirectory(prefix="lbproc-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of reloads, for supervisors that are forked from here."""
    monkeypatch.setattr(reload_limits, "BIND_WITHIN", 1.0)
    monkeypatch.setattr(reload_limits, "PREPARE_WITHIN", 1.0)
    monkeypatch.setattr(reload_limits, "FOLLOW_WITHIN", 1.0)
