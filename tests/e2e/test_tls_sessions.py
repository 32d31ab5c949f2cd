"""Sessions of TLS are resumed by whichever worker gets the connection, through reloads and deaths."""

from __future__ import annotations

import os
import signal
import ssl
from typing import TYPE_CHECKING

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.certificates import Authority
from tests.e2e.harness import wait_until
from tests.e2e.harness_secure import TlsClient, client_context, tls_table
from tests.e2e.scrape import Admin

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

NAME = "www.example.com"
CONNECTIONS = 100
ENOUGH = 99
"""Of so many, at least, resume a session."""


class Client:
    """One that keeps its last session, as browsers do."""

    def __init__(self, address: str, authority: Authority, version: ssl.TLSVersion) -> None:
        self._address = address
        self._context = client_context(authority, version)
        self._session: ssl.SSLSession | None = None

    def visit(self, *, renew: bool = True) -> bool:
        """A connection with a request; returns whether it resumed the session.

        Args:
            renew: goes on with the session of this connection, else again with the one before.
        """
        with TlsClient(self._address, self._context, NAME, self._session) as client:
            assert client.request().status == 200
            if renew:
                self._session = client.socket.session
            return bool(client.socket.session_reused)

    def resumed(self, *, renew: bool) -> int:
        """How many of so many connections resume the session."""
        return sum(self.visit(renew=renew) for _ in range(CONNECTIONS))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_any_of_four_workers_resumes_a_session_after_a_reload_and_after_the_death_of_all_too(
    version: ssl.TLSVersion, tmp_path: Path, stage: Stage, start_web: StartWeb
) -> None:
    authority, admin = Authority(), Admin()
    pair = authority.issue(NAME).toml(tmp_path, "www")
    server, address = start_web(
        [stage.open("a")],
        listener='max_header_size = "16KiB"',
        rest=tls_table([pair]) + admin.table,
        workers=4,
    )
    if "tickets_not_shared" in server.events():
        pytest.skip("the OpenSSL of this Python does not take the keys of tickets")
    client = Client(address, authority, version)
    assert not client.visit()
    assert client.resumed(renew=True) >= ENOUGH
    assert client.resumed(renew=False) >= ENOUGH
    assert all(worker["requests"] > CONNECTIONS // 10 for worker in server.status()["workers"])
    assert admin.total("lbproc_tls_resumed_total") >= 2 * ENOUGH

    reload_elsewhere(server)
    assert client.resumed(renew=False) >= ENOUGH

    before = server.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: server.is_ready() and not set(before) & set(server.worker_pids()), "there are new workers"
    )
    assert client.resumed(renew=False) >= ENOUGH


def reload_elsewhere(server: LbprocServer) -> None:
    """A change of this listener, and none of its TLS."""
    text = server.config_path.read_text()
    server.config_path.write_text(text.replace('max_header_size = "16KiB"', 'max_header_size = "24KiB"'))
    answer = ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
    assert answer["outcome"] == "done", answer
    assert answer["changes"], answer
