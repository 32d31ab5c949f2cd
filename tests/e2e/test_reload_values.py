"""A reload under load changes timeouts, retries, passive checks, limits and logs; at once, and none fails."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.e2e.harness import wait_until
from tests.e2e.harness_backend import text_response
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.load import Load

if TYPE_CHECKING:
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

CLIENTS = 4
COMBINED = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "(?:GET|POST) (\S+) HTTP/1\.1" (\d{3}) \d+ "-" "-"')

ROUTES = """
[[listeners.web.routes]]
match = { path = "/slow" }
pool = "slow"
[[listeners.web.routes]]
match = { path = "/flaky" }
pool = "flaky"
"""
POOLS = """
[pools.slow]
backends = ["@slow"]
[pools.flaky]
policy = "first_available"
backends = ["@bad", "@good"]
"""
STRICT = """
[pools.slow]
backends = ["@slow"]
timeouts = { response = "300ms" }
[pools.flaky]
policy = "first_available"
backends = ["@bad", "@good"]
retries = { on = ["503"] }
outlier = { consecutive_errors = 2, eject_for = "1h" }
"""


class Service:
    """One lbproc, a load on its plain pool, and a connection that lasts through all reloads."""

    def __init__(self, stage: Stage, start_web: StartWeb) -> None:
        self.slow, self.bad, self.good = (stage.open(name) for name in ("slow", "bad", "good"))
        self.bad.response = text_response("busy", "503 Busy")
        self.slow.hold()
        self.server: LbprocServer
        self.server, self.address = start_web(
            [stage.open("a"), stage.open("b")],
            listener=ROUTES,
            pool=self.places(POOLS),
            log='format = "json"',
        )
        self.lax = self.server.config_path.read_text()
        self.strict = (
            self.lax.replace(self.places(POOLS), self.places(STRICT))
            .replace(ROUTES, 'max_body_size = "1KiB"\n' + ROUTES)
            .replace('format = "json"', 'format = "combined"')
        )

    def places(self, pools: str) -> str:
        for backend in (self.slow, self.bad, self.good):
            pools = pools.replace(f"@{backend.name}", backend.address)
        return pools

    def reload(self, config: str) -> None:
        self.server.config_path.write_text(config)
        answer = ask(self.server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
        assert answer["outcome"] == "done", answer

    def ejections(self) -> dict[str, bool]:
        rows: list[dict[str, Any]] = self.server.status()["pools"]["flaky"]["backends"]
        return {row["address"]: row["ejected"] for row in rows}

    def check_lax(self, client: RawClient) -> None:
        wait_until(lambda: not any(self.ejections().values()), "ejections have ended with their rules")
        seen = len(self.good.requests)
        assert [client.request("/flaky").status for _ in range(5)] == [503] * 5
        assert not any(self.ejections().values())
        assert len(self.good.requests) == seen
        assert client.request("/", method="POST", body=b"x" * 4096).status == 200

    def check_strict(self, client: RawClient) -> None:
        """On a connection that was there before the reload."""
        seen = len(self.bad.requests)
        assert [client.request("/flaky").body for _ in range(5)] == [b"good"] * 5
        assert len(self.bad.requests) == seen + 2
        assert self.ejections() == {self.bad.address: True, self.good.address: False}
        assert client.request("/slow").status == 504
        with RawClient(self.address) as other:
            assert other.request("/", method="POST", body=b"x" * 4096).status == 413
        assert client.request("/", method="POST", body=b"x" * 512).status == 200


def test_new_values_are_in_force_at_once_also_on_old_connections_and_no_request_fails(
    stage: Stage, start_web: StartWeb
) -> None:
    service = Service(stage, start_web)
    with Load(service.address, CLIENTS) as load, RawClient(service.address) as kept:
        for _ in range(2):
            service.check_lax(kept)
            with RawClient(service.address) as patient:
                patient.send(render_request("/slow"))
                service.slow.wait_in_flight(1)
                service.reload(service.strict)
                service.check_strict(kept)
                service.slow.release()
                assert patient.read_response().status == 200  # by the timeouts with which it began
                service.slow.hold()
            answered = load.answered
            wait_until(lambda answered=answered: load.answered > answered + 50, "the load goes on")  # type: ignore[misc]
            service.reload(service.lax)
    assert (load.lost, load.refused, load.wrong) == (0, 0, [])
    wait_until(lambda: len(service.server.access_lines()) >= load.answered, "all was logged")
    by_lax, by_strict = set(), set()
    for line in service.server.access_lines():
        if combined := COMBINED.fullmatch(line):
            by_strict.add((combined[1], int(combined[2])))
        else:
            entry = json.loads(line)
            by_lax.add((entry["target"], entry["status"]))
    # What was under way at the reload is logged as it began.
    assert by_lax == {("/", 200), ("/flaky", 503), ("/slow", 200)}
    assert by_strict == {("/", 200), ("/", 413), ("/flaky", 200), ("/slow", 504)}
