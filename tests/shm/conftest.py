"""A small table for every test of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table

SMALL = Capacities(
    columns=6, backends=4, pools=2, keys=4, ledger=4, membership_bytes=64, listeners=2, flows=4
)


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table.create(SMALL)
    yield made
    made.close()
