"""What holds for all tests: soak tests run only when asked for, and in CI nothing is skipped.

- ``--soak`` selects the full-size tests too; without it they are deselected, which is no skip.
- ``LBPROC_REQUIRE_ALL=1`` turns every skip into a failure, so a missing program cannot hide in CI.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator


# The same examples on every run, on a machine of any speed; with --soak others, and more of them.
settings.register_profile("short", deadline=None, derandomize=True, database=None)
settings.register_profile("soak", deadline=None, max_examples=5_000)
settings.load_profile("short")


class RequireProgram(Protocol):
    def __call__(self, name: str) -> str: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the full-size tests too; they take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        settings.load_profile("soak")
        return
    soak = [item for item in items if item.get_closest_marker("soak") is not None]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LBPROC_REQUIRE_ALL"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though LBPROC_REQUIRE_ALL is set: {report.longreprtext}"
    return report


@pytest.fixture(scope="session")
def require_program() -> RequireProgram:
    """The path of a program; the test is skipped where it is missing."""

    def require(name: str) -> str:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return require
