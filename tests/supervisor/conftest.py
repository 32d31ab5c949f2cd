"""A place that children without rights can use, too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def readable_directory() -> Iterator[Path]:
    """A directory of this account that every other one can read; what is above ``tmp_path`` is private."""
    with tempfile.TemporaryDirectory(prefix="lbproc-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
