"""Random and mutated bytes against real processes: a status or a close, never a dead worker.

The attacks that are mutated here are tried as they are by the conformance tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.harness import LbprocServer, web_config
from tests.e2e.harness_backend import Backend, Stage
from tests.e2e.harness_client import RawClient
from tests.e2e.test_conformance_chunks import ALL as BODIES
from tests.e2e.test_conformance_chunks import CHUNKED
from tests.e2e.test_conformance_refused import ALL as HEADS
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ATTACKS = {case.name: case.sent for case in HEADS} | {case.name: CHUNKED + case.body for case in BODIES}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def backend(stage: Stage) -> Backend:
    return stage.open("good")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[LbprocServer]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    address = f"127.0.0.1:{free_port()}"
    with LbprocServer(directory, web_config(address, [backend.address])) as server:
        server.address = address  # type: ignore[attr-defined]
        pids = server.worker_pids()
        yield server
        server.assert_clean()
        assert server.worker_pids() == pids


@pytest.fixture(scope="module")
def address(server: LbprocServer) -> str:
    return str(server.address)  # type: ignore[attr-defined]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(min_size=1, max_size=300))
def test_random_bytes_get_a_status_or_a_close(address: str, octets: bytes) -> None:
    with RawClient(address) as client:
        client.send(octets)
        client.half_close()
        answer = client.read_until_close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 60),
    octets=st.binary(min_size=1, max_size=4),
    name=st.sampled_from(sorted(ATTACKS)),
)
def test_mutated_attacks_never_kill_a_worker(address: str, name: str, position: int, octets: bytes) -> None:
    payload = ATTACKS[name][:4000]
    with RawClient(address) as client:
        client.send(payload[:position] + octets + payload[position:])
        client.half_close()
        answer = client.read_until_close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
