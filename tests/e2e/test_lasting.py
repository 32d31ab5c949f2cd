"""What the table holds outlasts a reload and the death of every worker: counts, credit, slow starts."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.harness_client import fetch
from tests.e2e.scrape import Admin

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

STARTED = 10
"""Retries that a pool may make at once when lbproc starts."""


def backends(server: LbprocServer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = server.status()["pools"]["web"]["backends"]
    return rows


def reload(server: LbprocServer) -> None:
    """A change elsewhere."""
    text = server.config_path.read_text()
    one, other = 'max_header_size = "24KiB"', 'max_header_size = "16KiB"'
    server.config_path.write_text(text.replace(one, other) if one in text else text.replace(other, one))
    answer = ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
    assert answer["outcome"] == "done", answer


def kill_workers(server: LbprocServer) -> None:
    before = server.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: server.is_ready() and not set(before) & set(server.worker_pids()), "there are new workers"
    )


def test_totals_retry_credit_and_slow_starts_outlast_a_reload_and_the_death_of_all_workers(
    stage: Stage, start_web: StartWeb
) -> None:
    admin = Admin()
    both = [stage.open(name) for name in "ab"]
    for backend in both:
        backend.response = text_response("busy", "503 Busy")
    server, address = start_web(
        both,
        listener='max_header_size = "16KiB"',
        pool='slow_start = "20s"\nretries = { attempts = 1, on = ["503"], budget = 0.001 }',
        rest=admin.table,
    )
    for _ in range(STARTED + 5):
        assert fetch(address).status == 503
    sent = 2 * STARTED + 5

    def totals() -> tuple[float, ...]:
        return (
            sum(row["requests"] for row in backends(server)),
            admin.total("lbproc_responses_total", pool="web", code_class="5xx"),
            admin.total("lbproc_retries_total"),
            admin.total("lbproc_retries_denied_total"),
        )

    def assert_all_is_as_it_was(asked: int) -> None:
        expected = (sent + asked, sent + asked, STARTED, 5 + asked)
        wait_until(lambda: totals() == expected, "all is counted, which is a moment after it was answered")
        for row in backends(server):  # of 18 steps, each longer than any of this takes
            assert row["health"] == "starting"
            assert 0.15 <= row["effective_weight"] <= 0.9

    wait_until(lambda: all(row["effective_weight"] >= 0.15 for row in backends(server)), "the first step")
    assert_all_is_as_it_was(0)
    events: list[Callable[[LbprocServer], None]] = [reload, kill_workers, reload]
    for number, happen in enumerate(events, start=1):
        happen(server)
        assert_all_is_as_it_was(number - 1)
        assert fetch(address).status == 503  # what was spent is spent: it is not tried again
        assert_all_is_as_it_was(number)
    assert server.status()["generation"] == 3
