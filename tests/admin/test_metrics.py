"""The metrics are those documented, and their values those of the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lbproc import __version__
from lbproc.admin.metrics import METRICS, BackendRow, TableMetrics, render_page
from lbproc.config.certified import Certified
from lbproc.config.pem import CertificateFacts, CertificateFile, KeyFile
from lbproc.core.health import CheckCounts, Subject
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import (
    BackendCounter,
    ControllerView,
    ProcessState,
    Reader,
    Refusal,
    Role,
    SupervisorView,
    WorkerCounter,
    WorkerView,
)
from lbproc.types import Admin, Health, Liveness, Slot

KEY = KeyFile("/x.key", b"")
CERTIFICATE = CertificateFile(
    "/x.pem",
    b"",
    CertificateFacts(
        subject="CN=a.com",
        serial="1",
        fingerprint="00",
        names=("a.com",),
        addresses=(),
        key_kind="ECDSA",
        key_bits=256,
        not_before=0.0,
        not_after=1e9,
        chain_not_after=1e9,
    ),
)


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table.create(Capacities(columns=8, backends=8, pools=8, keys=8, ledger=8, membership_bytes=4096))
    yield table
    table.close()


def test_a_text_that_was_costly_is_given_again_for_a_second(table: Table) -> None:
    view = SupervisorView(table)
    times = [0, 20_000_000, 1_019_999_999, 1_020_000_000, 1_039_999_999, 1_040_000_000, 1_040_000_001]
    metrics = TableMetrics(Reader(table), list, iter(times).__next__)
    costly = metrics.render()
    view.set_generation(9)
    assert metrics.render() is costly
    assert b"lbproc_generation 9.0" in metrics.render()
    view.set_generation(10)
    assert b"lbproc_generation 10.0" in metrics.render(), "that one took less"


def scrape(metrics: TableMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_values_come_from_the_table(table: Table) -> None:
    view = SupervisorView(table)
    view.set_generation(3)
    rows = [BackendRow("web", name, view.ensure_row("web", name)) for name in ("a", 'b"\n\\')]
    workers = [WorkerView(table, view.allocate_column(Slot(slot), Role.WORKER)) for slot in range(2)]
    controller = ControllerView(table, view.allocate_column(None, Role.CONTROLLER))
    workers[0].set_state(ProcessState.READY)
    for worker in workers:
        worker.count(WorkerCounter.REQUESTS, 5)
        worker.count(WorkerCounter.RESPONSES_2XX, 4)
        worker.count_backend(rows[0].row, BackendCounter.REQUESTS, 7)
        worker.count_backend(rows[0].row, BackendCounter.RESPONSES_5XX)
        worker.count_backend(rows[0].row, BackendCounter.RESPONSE_NS, 250_000_000)
    workers[1].count(WorkerCounter.CONNECTIONS, 9)
    workers[1].take(rows[1].row, 10)
    controller.set_health(rows[1].row, Health.DOWN)
    view.set_admin(rows[1].row, Admin.DRAIN)
    found = scrape(TableMetrics(Reader(table), lambda: rows))
    a, b = {"pool": "web", "backend": "a"}, {"pool": "web", "backend": 'b"\n\\'}
    assert found["lbproc_build", labels(version=__version__)] == 1
    assert found["lbproc_generation", labels()] == 3
    assert 0 <= found["lbproc_uptime_seconds", labels()] < 60
    assert found["lbproc_workers", labels(state="ready")] == 1
    assert found["lbproc_workers", labels(state="starting")] == 1
    assert found["lbproc_worker_connections", labels(slot="1")] == 9
    assert found["lbproc_worker_requests_total", labels(slot="0")] == 5
    assert found["lbproc_client_requests_total", labels()] == 10
    assert found["lbproc_client_responses_total", labels(code_class="2xx")] == 8
    assert found["lbproc_requests_total", labels(**a)] == 14
    assert found["lbproc_requests_total", labels(**b)] == 0
    assert found["lbproc_responses_total", labels(**a, code_class="5xx")] == 2
    assert math.isclose(found["lbproc_response_seconds_total", labels(**a)], 0.5)
    assert found["lbproc_in_flight", labels(**b)] == 1
    assert found["lbproc_backend_up", labels(**a)] == 1
    assert found["lbproc_backend_up", labels(**b)] == 0
    assert found["lbproc_backend_ejected", labels(**b)] == 0
    assert found["lbproc_backend_admin", labels(**b, state="drain")] == 1
    assert found["lbproc_backend_admin", labels(**b, state="ready")] == 0


def test_active_checks_are_told(table: Table) -> None:
    view = SupervisorView(table)
    rows = [BackendRow("web", name, view.ensure_row("web", name)) for name in ("a", "b", "c")]
    controller = ControllerView(table, view.allocate_column(None, Role.CONTROLLER))
    controller.set_health(rows[0].row, Health.CHECKING)
    controller.set_checked(rows[0].row)
    controller.set_liveness(rows[0].row, Liveness.DEAD)
    controller.set_liveness(rows[1].row, Liveness.ALIVE)
    checks = [CheckCounts("web", "a", Subject.LIVENESS, 3, 4, 1.5, "status 500")]
    found = scrape(TableMetrics(Reader(table), lambda: rows, checks=lambda: checks))
    a, b, c = ({"pool": "web", "backend": name} for name in ("a", "b", "c"))
    assert found["lbproc_backend_health", labels(**a, state="checking")] == 1
    assert found["lbproc_backend_health", labels(**a, state="up")] == 0
    assert found["lbproc_backend_alive", labels(**a)] == 0
    assert found["lbproc_backend_alive", labels(**b)] == 1
    assert ("lbproc_backend_alive", labels(**c)) not in found
    assert 0 <= found["lbproc_last_check_seconds", labels(**a)] < 60
    assert ("lbproc_last_check_seconds", labels(**b)) not in found
    assert found["lbproc_checks_total", labels(**a, check="liveness", result="pass")] == 3
    assert found["lbproc_checks_total", labels(**a, check="liveness", result="fail")] == 4
    assert found["lbproc_check_seconds_total", labels(**a, check="liveness")] == 1.5


def test_certificates_are_told_once_each(table: Table) -> None:
    certificates = [
        Certified(("listeners", "web", "tls", "certificates", 0), CERTIFICATE, KEY, ("a.com", "b.com")),
        Certified(("listeners", "web", "tls", "certificates", 1), CERTIFICATE, KEY, ("a.com",)),
        Certified(("pools", "db", "tls", "certificate"), CERTIFICATE, KEY, ("CN=me",)),
    ]
    metrics = TableMetrics(Reader(table), list, certificates=lambda: certificates)
    text = metrics.render().decode()
    assert text.count("lbproc_certificate_not_after_seconds{") == 2
    found = scrape(metrics)
    name = "lbproc_certificate_not_after_seconds"
    assert found[name, labels(listener="web", pool="", name="a.com", file="/x.pem")] == 1e9
    assert found[name, labels(listener="", pool="db", name="CN=me", file="/x.pem")] == 1e9


def test_totals_outlive_a_worker(table: Table) -> None:
    view = SupervisorView(table)
    column = view.allocate_column(Slot(0), Role.WORKER)
    worker = WorkerView(table, column)
    worker.count(WorkerCounter.REQUESTS, 5)
    worker.count(WorkerCounter.CONNECTIONS, 2)
    view.repair(column)
    found = scrape(TableMetrics(Reader(table), list))
    assert found["lbproc_client_requests_total", labels()] == 5
    assert not [name for name, _ in found if name == "lbproc_worker_connections"]


def test_connections_of_listeners_and_refusals_are_those_of_all_workers(table: Table) -> None:
    view = SupervisorView(table)
    view.ensure_listener("web")
    for _ in range(2):
        words = WorkerView(table, view.allocate_column(Slot(0), Role.WORKER)).listener("web")
        words.take()
        words.refuse(Refusal.MAX_CONNECTIONS)
    words.refuse(Refusal.ADMITTED)
    found = scrape(TableMetrics(Reader(table), list, listeners=lambda: ["web", "of a moment ago"]))
    assert found["lbproc_listener_connections", labels(listener="web")] == 2
    refused = {key: value for key, value in found.items() if key[0] == "lbproc_refused_connections_total"}
    assert sum(refused.values()) == 2
    reason = labels(listener="web", reason="max_connections")
    assert refused["lbproc_refused_connections_total", reason] == 2
    assert len(refused) == len(Refusal) - 1
    assert found["lbproc_uncounted_connections_total", labels(listener="web")] == 1


def test_every_metric_is_exposed_under_its_name_with_its_labels(table: Table) -> None:
    view = SupervisorView(table)
    view.allocate_column(Slot(0), Role.WORKER)
    view.ensure_listener("web")
    row = view.ensure_row("p", "b")
    controller = ControllerView(table, view.allocate_column(None, Role.CONTROLLER))
    controller.set_checked(row)
    controller.set_liveness(row, Liveness.ALIVE)
    checks = [CheckCounts("p", "b", Subject.READINESS, 1, 2, 0.5, "")]
    backends = [BackendRow("p", "b", row)]
    certificates = [Certified(("listeners", "web", "tls", "certificates", 0), CERTIFICATE, KEY, ("a.com",))]
    found = scrape(
        TableMetrics(
            Reader(table),
            lambda: backends,
            checks=lambda: checks,
            certificates=lambda: certificates,
            listeners=lambda: ["web"],
        )
    )
    exposed = {(name, frozenset(label for label, _ in pairs)) for name, pairs in found}
    assert exposed == {(metric.name, frozenset(metric.labels)) for metric in METRICS}


def test_every_counter_of_the_table_is_a_metric() -> None:
    page = render_page()
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all((metric.name.endswith("_total")) == (metric.kind == "counter") for metric in METRICS)
    assert all(f"`{metric.name}`" in page for metric in METRICS)


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "metrics.md").read_text(encoding="utf-8")
    assert page == render_page(), "run: python -m lbproc.admin.metrics"
