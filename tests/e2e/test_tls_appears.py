"""TLS that comes with a reload shares its sessions too: whoever loads the configuration makes the trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.certificates import Authority
from tests.e2e.harness_secure import TlsClient, client_context, tls_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

NAME = "www.example.com"
CONNECTIONS = 40


def test_workers_that_were_born_without_tls_resume_each_others_sessions(
    tmp_path: Path, stage: Stage, start_web: StartWeb
) -> None:
    authority = Authority()
    server, address = start_web([stage.open("a")], workers=2)
    pids = server.worker_pids()
    table = tls_table([authority.issue(NAME).toml(tmp_path, "www")])
    server.config_path.write_text(server.config_path.read_text() + table)
    assert ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)["outcome"] == "done"
    context = client_context(authority)

    with TlsClient(address, context, NAME) as client:
        assert client.request().status == 200
        session = client.socket.session
    resumed = 0
    for _ in range(CONNECTIONS):
        with TlsClient(address, context, NAME, session) as client:
            assert client.request().status == 200
            resumed += bool(client.socket.session_reused)
    assert resumed == CONNECTIONS
    assert all(worker["requests"] for worker in server.status()["workers"])
    assert server.worker_pids() == pids
    assert "tickets_not_shared" not in server.events()
