"""Certificates are replaced under load: every request is answered, and every handshake is a good one."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.certificates import Authority
from tests.e2e.harness import wait_until
from tests.e2e.harness_secure import TlsClient, client_context, tls_table

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.certificates import Pair
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

NAME = "www.example.com"
CLIENTS = 6
REQUESTS_PER_CONNECTION = 5

short_and_long = pytest.mark.parametrize("rotations", [8, pytest.param(200, marks=pytest.mark.soak)])


class Visitor(threading.Thread):
    """Makes one connection after the other, each with some requests.

    Attributes:
        answered: requests.
        seen: serial numbers of certificates, those of resumed sessions left out.
        failures: what went wrong.
    """

    def __init__(self, address: str, context: ssl.SSLContext, *, resumes: bool) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._context = context
        self._resumes = resumes
        self.stopping = threading.Event()
        self.answered = 0
        self.seen: set[int] = set()
        self.failures: list[BaseException] = []

    def run(self) -> None:
        """Goes on until told to stop."""
        session: ssl.SSLSession | None = None
        while not self.stopping.is_set():
            try:
                with TlsClient(self._address, self._context, NAME, session) as client:
                    for _ in range(REQUESTS_PER_CONNECTION):
                        assert client.request().status == 200
                        self.answered += 1
                    if self._resumes:
                        session = client.socket.session
                    if not client.socket.session_reused:
                        self.seen.add(client.serial_number())
            except (OSError, AssertionError) as error:
                self.failures.append(error)


class Visitors:
    """Half of them resume sessions, half begin anew each time."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        self.visitors = [Visitor(address, context, resumes=bool(number % 2)) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for visitor in self.visitors:
            visitor.start()
        return self

    def __exit__(self, *_: object) -> None:
        for visitor in self.visitors:
            visitor.stopping.set()
        with ExitStack() as joined:
            for visitor in self.visitors:
                joined.callback(visitor.join, 30)
        assert not any(visitor.is_alive() for visitor in self.visitors), "a visitor hangs"

    @property
    def answered(self) -> int:
        """Requests so far."""
        return sum(visitor.answered for visitor in self.visitors)

    @property
    def failures(self) -> list[BaseException]:
        """What went wrong."""
        return [failure for visitor in self.visitors for failure in visitor.failures]

    @property
    def seen(self) -> set[int]:
        """Serial numbers of the certificates that were shown."""
        return set().union(*(visitor.seen for visitor in self.visitors))


@short_and_long
def test_rotation_by_reload_under_load_fails_nobody_and_every_certificate_is_shown(
    rotations: int, tmp_path: Path, stage: Stage, start_web: StartWeb
) -> None:
    authority = Authority()
    first = authority.issue(NAME)
    server, address = start_web([stage.open("a")], rest=tls_table([first.toml(tmp_path, "www")]), workers=3)
    with Visitors(address, client_context(authority)) as visitors:
        serials = [serial_of(first)]
        for _ in range(rotations):
            pair = authority.issue(NAME)
            pair.write(tmp_path, "www")
            answer = ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
            assert answer["outcome"] == "done", answer
            serials.append(serial_of(pair))
            before = visitors.answered
            wait_until(lambda: serials[-1] in visitors.seen, "the new certificate is shown")
            wait_until(lambda: visitors.answered > before + CLIENTS, "there is load")  # noqa: B023
    assert visitors.failures == []
    assert visitors.seen == set(serials)
    assert "tls_failed" not in server.events()


def test_watched_files_are_taken_under_load_and_fail_nobody(
    tmp_path: Path, stage: Stage, start_web: StartWeb
) -> None:
    authority = Authority()
    first, second = authority.issue(NAME), authority.issue(NAME, kind="RSA")
    table = tls_table([first.toml(tmp_path, "www")], "watch = true")
    server, address = start_web([stage.open("a")], rest=table, workers=2)
    with Visitors(address, client_context(authority)) as visitors:
        wait_until(lambda: visitors.answered > CLIENTS, "there is load")
        second.write(tmp_path, "www")
        wait_until(lambda: serial_of(second) in visitors.seen, "the new certificate is shown")
    assert visitors.failures == []
    assert "certificates_changed" in server.events()


def serial_of(pair: Pair) -> int:
    return pair.certificate.serial_number
