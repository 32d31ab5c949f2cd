"""The metrics of a running lbproc, read over its admin listener as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness_client import fetch
from tests.ports import free_port


class Admin:
    """An admin listener: ``table`` goes into the configuration."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.table = f'[admin]\nbind = "{self.address}"\n'

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels at least."""
        page = fetch(self.address, "/metrics")
        assert page.status == 200
        found = [
            sample.value
            for family in text_string_to_metric_families(page.body.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"there is no {name} with {labels}"
        return sum(found)
