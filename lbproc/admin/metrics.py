"""The metrics: which there are, and their values out of the table, in Prometheus' text format.

Owns names, labels and help texts, as data; operators build dashboards on them, so a name never changes its
meaning. docs/metrics.md is made from here (``python -m lbproc.admin.metrics``). Reads the table, and what the
controller's checks came to: no worker counts anything for metrics alone. With thousands of backends a text
takes the controller most of a second to make, so one that was costly is given again to whoever asks soon
after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lbproc import __version__
from lbproc.config.certified import Certified
from lbproc.core.health import CheckCounts
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.views import (
    BackendCounter,
    ColumnState,
    ProcessState,
    Reader,
    Refusal,
    Role,
    RowChecks,
    RowStatus,
    WorkerCounter,
)
from lbproc.types import Admin, Health, Liveness, Row

_NANOSECONDS = 1_000_000_000

_COSTLY = 20_000_000
_KEPT = 1_000_000_000
"""Nanoseconds: a text that took so long to make is given again for so long."""

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the value."""


@dataclass(frozen=True, slots=True)
class BackendRow:
    """Where a backend's numbers are."""

    pool: str
    name: str
    row: Row
    pool_index: int = 0


@dataclass(frozen=True, slots=True)
class _Backend:
    labels: tuple[str, str]
    totals: tuple[int, ...]
    in_flight: int
    status: RowStatus
    checks: RowChecks


class _Snapshot:
    """The table at one time; read once for all metrics of a scrape."""

    __slots__ = (
        "backends",
        "certificates",
        "checks",
        "created_at",
        "generation",
        "listeners",
        "panics",
        "totals",
        "workers",
    )

    def __init__(
        self,
        reader: Reader,
        places: Sequence[BackendRow],
        checks: Sequence[CheckCounts],
        certificates: Sequence[Certified],
        listeners: Iterable[str],
    ) -> None:
        self.listeners = reader.listeners(listeners)
        self.checks = checks
        self.certificates = certificates
        self.panics = {
            pool: reader.panic(index)
            for pool, index in {place.pool: place.pool_index for place in places}.items()
        }
        self.created_at = reader.created_at()
        self.generation = reader.generation()
        self.totals = reader.worker_totals()
        self.workers: list[ColumnState] = [
            column for column in reader.columns() if column.role is Role.WORKER
        ]
        totals = reader.backends_totals([place.row for place in places])
        self.backends = [
            _Backend(
                (place.pool, place.name),
                counters,
                reader.in_flight(place.row),
                reader.status(place.row),
                reader.checks(place.row),
            )
            for place, counters in zip(places, totals, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class DescribedMetric:
    """One metric.

    Args:
        kind: a counter never falls while lbproc runs, a gauge may.
        name: its name; that of a counter ends in ``_total``.
        help: what it counts, one sentence.
        samples: its values.
        labels: the names of its labels.
    """

    kind: Literal["counter", "gauge"]
    name: str
    help: str
    samples: Callable[[_Snapshot], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def _total(counter: WorkerCounter, snapshot: _Snapshot) -> Iterator[Sample]:
    yield (), snapshot.totals[counter]


def _client_responses(snapshot: _Snapshot) -> Iterator[Sample]:
    for leading in range(5):
        yield (f"{leading + 1}xx",), snapshot.totals[WorkerCounter.RESPONSES_1XX + leading]


def _datagrams(snapshot: _Snapshot) -> Iterator[Sample]:
    yield ("in",), snapshot.totals[WorkerCounter.DATAGRAMS_IN]
    yield ("out",), snapshot.totals[WorkerCounter.DATAGRAMS_OUT]


def _workers(snapshot: _Snapshot) -> Iterator[Sample]:
    for state in ProcessState:
        yield (state.name.lower(),), sum(worker.state is state for worker in snapshot.workers)


def _of_worker(counter: WorkerCounter, snapshot: _Snapshot) -> Iterator[Sample]:
    for worker in snapshot.workers:
        yield (str(worker.slot),), worker.counters[counter]


def _of_backend(counter: BackendCounter, snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        yield backend.labels, backend.totals[counter]


def _backend_responses(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        for leading in range(5):
            total = backend.totals[BackendCounter.RESPONSES_1XX + leading]
            yield (*backend.labels, f"{leading + 1}xx"), total


def _backend_seconds(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        yield backend.labels, backend.totals[BackendCounter.RESPONSE_NS] / _NANOSECONDS


def _backend_in_flight(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        yield backend.labels, backend.in_flight


def _backend_up(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        yield backend.labels, backend.status.health in {Health.UP, Health.STARTING}


def _backend_health(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        for health in Health:
            yield (*backend.labels, health.name.lower()), backend.status.health is health


def _backend_alive(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        if backend.checks.liveness is not Liveness.UNKNOWN:
            yield backend.labels, backend.checks.liveness is Liveness.ALIVE


def _last_check(snapshot: _Snapshot) -> Iterator[Sample]:
    now = monotonic_ns()
    for backend in snapshot.backends:
        if backend.checks.checked_at:
            yield backend.labels, (now - backend.checks.checked_at) / _NANOSECONDS


def _check_results(snapshot: _Snapshot) -> Iterator[Sample]:
    for counts in snapshot.checks:
        labels = (counts.pool, counts.name, counts.subject.value)
        yield (*labels, "pass"), counts.passed
        yield (*labels, "fail"), counts.failed


def _check_seconds(snapshot: _Snapshot) -> Iterator[Sample]:
    for counts in snapshot.checks:
        yield (counts.pool, counts.name, counts.subject.value), counts.seconds


def _backend_ejected(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        yield backend.labels, backend.status.ejected


def _pool_panic(snapshot: _Snapshot) -> Iterator[Sample]:
    for pool, panic in snapshot.panics.items():
        yield (pool,), panic


def _backend_admin(snapshot: _Snapshot) -> Iterator[Sample]:
    for backend in snapshot.backends:
        for state in Admin:
            yield (*backend.labels, state.name.lower()), backend.status.admin is state


def _listener_connections(snapshot: _Snapshot) -> Iterator[Sample]:
    for name, counts in snapshot.listeners.items():
        yield (name,), counts.open


def _refused(snapshot: _Snapshot) -> Iterator[Sample]:
    for name, counts in snapshot.listeners.items():
        for refusal in Refusal:
            if refusal is not Refusal.ADMITTED:
                yield (name, refusal.name.lower()), counts.refused[refusal]


def _not_counted(snapshot: _Snapshot) -> Iterator[Sample]:
    for name, counts in snapshot.listeners.items():
        yield (name,), counts.refused[Refusal.ADMITTED]


def _certificate_ends(snapshot: _Snapshot) -> Iterator[Sample]:
    ends = {
        (one.listener, one.pool, one.names[0], one.cert.path): one.cert.facts.not_after
        for one in snapshot.certificates
    }
    yield from ends.items()


def _client_counter(name: str, counter: WorkerCounter, text: str) -> DescribedMetric:
    return DescribedMetric("counter", name, text, partial(_total, counter))


def _backend_counter(name: str, counter: BackendCounter, text: str) -> DescribedMetric:
    return DescribedMetric("counter", name, text, partial(_of_backend, counter), _BACKEND)


_BACKEND = ("pool", "backend")

METRICS = (
    DescribedMetric(
        "gauge", "lbproc_build", "1, with the version.", lambda _: [((__version__,), 1)], ("version",)
    ),
    DescribedMetric(
        "gauge",
        "lbproc_uptime_seconds",
        "Since the start of the supervisor.",
        lambda snapshot: [((), (monotonic_ns() - snapshot.created_at) / _NANOSECONDS)],
    ),
    DescribedMetric(
        "gauge",
        "lbproc_generation",
        "The generation of the configuration in force.",
        lambda snapshot: [((), snapshot.generation)],
    ),
    DescribedMetric("gauge", "lbproc_workers", "Worker processes by state.", _workers, ("state",)),
    DescribedMetric(
        "gauge",
        "lbproc_worker_connections",
        "Client connections open in the worker of a slot.",
        partial(_of_worker, WorkerCounter.CONNECTIONS),
        ("slot",),
    ),
    DescribedMetric(
        "counter",
        "lbproc_worker_requests_total",
        "Requests taken by the present worker of a slot; from 0 again after its death.",
        partial(_of_worker, WorkerCounter.REQUESTS),
        ("slot",),
    ),
    DescribedMetric(
        "gauge",
        "lbproc_tunnels",
        "Connections that are relayed as they are: upgraded ones, TCP, TLS that is passed through.",
        partial(_total, WorkerCounter.TUNNELS),
    ),
    _client_counter("lbproc_client_connections_total", WorkerCounter.ACCEPTED, "Connections accepted."),
    _client_counter(
        "lbproc_client_connections_handed_over_total",
        WorkerCounter.HANDED_OVER,
        "Connections that the worker which accepted them gave to one with fewer.",
    ),
    _client_counter(
        "lbproc_tls_handshakes_total", WorkerCounter.TLS_HANDSHAKES, "Full TLS handshakes with clients."
    ),
    _client_counter(
        "lbproc_tls_resumed_total", WorkerCounter.TLS_RESUMED, "TLS sessions that clients resumed."
    ),
    _client_counter(
        "lbproc_tls_failed_total",
        WorkerCounter.TLS_FAILED,
        "Connections that ended before TLS was there: what came was none, or not good.",
    ),
    DescribedMetric(
        "counter",
        "lbproc_datagrams_total",
        "Datagrams that were sent on, by `direction`: `in` to backends, `out` to clients.",
        _datagrams,
        ("direction",),
    ),
    _client_counter(
        "lbproc_datagrams_refused_total",
        WorkerCounter.DATAGRAMS_REFUSED,
        "Datagrams of clients that were dropped: over a limit, no backend, no good PROXY header, or at a "
        "listener that ends.",
    ),
    _client_counter(
        "lbproc_datagrams_lost_total",
        WorkerCounter.DATAGRAMS_LOST,
        "Datagrams that could not be sent on for lack of room or of a way; refused ones do not count here.",
    ),
    DescribedMetric(
        "gauge",
        "lbproc_listener_connections",
        "Connections of a listener that has `max_connections` or `limits`, over all workers.",
        _listener_connections,
        ("listener",),
    ),
    DescribedMetric(
        "counter",
        "lbproc_refused_connections_total",
        "Connections that such a listener refused, by `reason`: `max_connections`, `connections` and "
        "`new_connections` of a limit, `keys_full` (`max_keys` are in use and `when_full` is refuse), "
        "`ledger_full` (the worker holds as much as it can).",
        _refused,
        ("listener", "reason"),
    ),
    DescribedMetric(
        "counter",
        "lbproc_uncounted_connections_total",
        "Connections that were let in past a limit because `max_keys` are in use and `when_full` is admit.",
        _not_counted,
        ("listener",),
    ),
    _client_counter("lbproc_client_requests_total", WorkerCounter.REQUESTS, "Requests taken."),
    DescribedMetric(
        "counter",
        "lbproc_client_responses_total",
        "Responses to clients, lbproc's own among them.",
        _client_responses,
        ("code_class",),
    ),
    _client_counter(
        "lbproc_client_rejected_total",
        WorkerCounter.REJECTED,
        "Requests refused as malformed, or because their head did not arrive in time; "
        "connections without a good PROXY header.",
    ),
    _client_counter(
        "lbproc_client_gone_total", WorkerCounter.CLIENT_GONE, "Requests whose client left before the answer."
    ),
    _client_counter("lbproc_client_request_bytes_total", WorkerCounter.BYTES_IN, "Bytes of requests."),
    _client_counter("lbproc_client_response_bytes_total", WorkerCounter.BYTES_OUT, "Bytes of responses."),
    _client_counter("lbproc_log_lines_dropped_total", WorkerCounter.LOG_DROPPED, "Access log lines lost."),
    _client_counter(
        "lbproc_accept_pauses_total", WorkerCounter.ACCEPT_PAUSES, "Times that descriptors or memory ran out."
    ),
    _client_counter(
        "lbproc_defects_total", WorkerCounter.DEFECTS, "Connections ended by a defect of lbproc."
    ),
    _backend_counter(
        "lbproc_requests_total",
        BackendCounter.REQUESTS,
        "Requests, and connections that are relayed, sent to a backend.",
    ),
    DescribedMetric(
        "counter",
        "lbproc_responses_total",
        "Response heads from a backend.",
        _backend_responses,
        (*_BACKEND, "code_class"),
    ),
    DescribedMetric(
        "counter",
        "lbproc_response_seconds_total",
        "Sum of the times that a backend took to the end of its response head.",
        _backend_seconds,
        _BACKEND,
    ),
    _backend_counter("lbproc_failures_total", BackendCounter.FAILURES, "Requests that a backend failed."),
    _backend_counter(
        "lbproc_connect_failures_total", BackendCounter.CONNECT_FAILURES, "Connections that failed to open."
    ),
    _backend_counter(
        "lbproc_redispatches_total", BackendCounter.REDISPATCHES, "Requests given to another backend instead."
    ),
    _backend_counter(
        "lbproc_retries_total",
        BackendCounter.RETRIES,
        "Requests tried again after this backend failed them or answered so that `retries` names it.",
    ),
    _backend_counter(
        "lbproc_retries_denied_total",
        BackendCounter.RETRIES_DENIED,
        "Requests that would have been tried again if the retry budget of the pool had not been spent.",
    ),
    _backend_counter(
        "lbproc_backend_ejections_total", BackendCounter.EJECTIONS, "Ejections for failed requests."
    ),
    DescribedMetric(
        "gauge",
        "lbproc_pool_panic",
        "1 while fewer backends are available than `panic_threshold`, so that all are used.",
        _pool_panic,
        ("pool",),
    ),
    _backend_counter("lbproc_connects_total", BackendCounter.CONNECTS, "Connections opened to a backend."),
    _backend_counter(
        "lbproc_connection_reuses_total", BackendCounter.REUSES, "Requests on a kept connection."
    ),
    _backend_counter(
        "lbproc_request_bytes_total", BackendCounter.BYTES_IN, "Bytes of requests to a backend."
    ),
    _backend_counter("lbproc_response_bytes_total", BackendCounter.BYTES_OUT, "Bytes of its responses."),
    DescribedMetric(
        "gauge",
        "lbproc_in_flight",
        "Requests, tunnels and relayed connections under way to a backend, over all workers.",
        _backend_in_flight,
        _BACKEND,
    ),
    DescribedMetric(
        "gauge", "lbproc_backend_up", "1 while its health is up or starting, else 0.", _backend_up, _BACKEND
    ),
    DescribedMetric(
        "gauge",
        "lbproc_backend_health",
        "1 for what active checks think, 0 for the others.",
        _backend_health,
        (*_BACKEND, "state"),
    ),
    DescribedMetric(
        "gauge",
        "lbproc_backend_alive",
        "1 while `liveness_path` is answered, 0 while it is not; absent where nobody asks.",
        _backend_alive,
        _BACKEND,
    ),
    DescribedMetric(
        "gauge",
        "lbproc_last_check_seconds",
        "Since the last active check of a backend; absent where there was none.",
        _last_check,
        _BACKEND,
    ),
    DescribedMetric(
        "counter",
        "lbproc_checks_total",
        "Active checks by what they ask about (`readiness`, `liveness`) and result (`pass`, `fail`); from 0 "
        "again when the controller is started anew.",
        _check_results,
        (*_BACKEND, "check", "result"),
    ),
    DescribedMetric(
        "counter",
        "lbproc_check_seconds_total",
        "Sum of the times that active checks took; likewise.",
        _check_seconds,
        (*_BACKEND, "check"),
    ),
    DescribedMetric(
        "gauge", "lbproc_backend_ejected", "1 while it is ejected for failures.", _backend_ejected, _BACKEND
    ),
    DescribedMetric(
        "gauge",
        "lbproc_backend_admin",
        "1 for the state that the operator set, 0 for the others.",
        _backend_admin,
        (*_BACKEND, "state"),
    ),
    DescribedMetric(
        "gauge",
        "lbproc_certificate_not_after_seconds",
        "When a certificate expires, as seconds since 1970. `name` is the first host that it is for; "
        "`listener` is empty for one that is shown to backends, `pool` for all others.",
        _certificate_ends,
        ("listener", "pool", "name", "file"),
    ),
)


class TableMetrics(Collector):
    """Collects all metrics from the table.

    Args:
        reader: of the table.
        backends: gives the backends that there are now.
        clock: monotonic nanoseconds.
        checks: gives what active checks came to.
        certificates: gives those in force.
        listeners: gives the names of those that limit connections.
    """

    def __init__(
        self,
        reader: Reader,
        backends: Callable[[], Sequence[BackendRow]],
        clock: Callable[[], int] = monotonic_ns,
        checks: Callable[[], Sequence[CheckCounts]] = tuple,
        certificates: Callable[[], Sequence[Certified]] = tuple,
        listeners: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._reader = reader
        self._backends = backends
        self._checks = checks
        self._certificates = certificates
        self._listeners = listeners
        self._clock = clock
        self._kept = b""
        self._kept_until = -1
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing, so that registering reads no table."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        snapshot = _Snapshot(
            self._reader, self._backends(), self._checks(), self._certificates(), self._listeners()
        )
        for metric in METRICS:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.samples(snapshot):
                family.add_metric(labels, float(value))
            yield family

    def render(self) -> bytes:
        """The metrics in Prometheus' text format: of this moment, or of the last second if they are many."""
        began_at = self._clock()
        if began_at < self._kept_until:
            return self._kept
        text = generate_latest(self._registry)
        ended_at = self._clock()
        if ended_at - began_at >= _COSTLY:
            self._kept, self._kept_until = text, ended_at + _KEPT
        return text


def render_page() -> str:
    """The text of docs/metrics.md."""
    rows = "\n".join(
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels) or 'none'} "
        f"| {metric.help} |"
        for metric in METRICS
    )
    return f"""# Metrics

`GET /metrics` on the admin listener (`[admin] bind`) answers in Prometheus' text format. With `[admin]
token` the request needs `Authorization: Bearer TOKEN`. Names and labels are stable.

The numbers are sums over all workers and outlive a worker that dies, except those with the label `slot`,
which belong to the present worker of that slot. With so many backends that the answer takes more than 20 ms
to make, the same answer is given for a second. `backend` is the backend's name, by default its address.
`code_class` is `1xx` to `5xx`.

| metric | kind | labels | meaning |
|---|---|---|---|
{rows}

`GET /healthz` needs no token. It answers 200 while at least one worker is ready and 503 otherwise, with a
JSON object: `status` (`ok` or `unavailable`) and `workers_ready` (a number).

This page is generated by `python -m lbproc.admin.metrics`.
"""


if __name__ == "__main__":
    Path(__file__).parents[2].joinpath("docs", "metrics.md").write_text(render_page(), encoding="utf-8")
