"""Real load on real servers: wrk, curl and nginx; bodies far larger than any buffer."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import PATIENCE, Program, wait_until
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.memory import Growth

if TYPE_CHECKING:
    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_nginx import Nginx

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
ALLOWED_GROWTH = 16 * MEBIBYTE
ESTABLISHED = "01"
"""The state in /proc/net/tcp."""

SHORT = pytest.param(2, id="short")
LONG = pytest.param(30, id="soak", marks=pytest.mark.soak)


def run_wrk(wrk: str, address: str, seconds: int, *headers: str) -> str:
    command = [wrk, "-t2", "-c64", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run(
        [*command, f"http://{address}/"], capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    return done.stdout


@pytest.mark.parametrize("seconds", [SHORT, LONG])
def test_not_one_request_fails_under_wrk(
    start_nginx: Callable[[str], Nginx], start_web: StartWeb, require_program: RequireProgram, seconds: int
) -> None:
    wrk = require_program("wrk")
    servers = [start_nginx(name) for name in "abc"]
    server, address = start_web(servers, workers=4)
    for headers in ((), ("Connection: close",)):
        report = run_wrk(wrk, address, seconds, *headers)
        print(report)  # noqa: T201  shown with --soak -rP
        assert "Non-2xx" not in report
        assert "Socket errors" not in report
        found = re.search(r"(\d+) requests in", report)
        assert found is not None
        assert int(found[1]) > 100
    wait_until(lambda: set(server.in_flight().values()) == {0}, "what wrk left behind is cancelled")
    backends = server.status()["pools"]["web"]["backends"]
    assert all(backend["failures"] == 0 for backend in backends)
    assert all(backend["requests"] > 0 for backend in backends)


def make_file(path: Path, size: int) -> str:
    """Writes a file of bytes that repeat nowhere near, and returns its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // MEBIBYTE):
            block = hashlib.shake_128(number.to_bytes(4, "big")).digest(MEBIBYTE)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


class Stall:
    """Whether a server has bytes to send to lbproc that lbproc does not take: asked again until it is so."""

    def __init__(self, address: str) -> None:
        self._port = f":{int(address.rpartition(':')[2]):04X}"
        self._queued = 0

    def is_seen(self) -> bool:
        """Whether the kernel holds as many unsent bytes as at the last look, and some."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        own = [row for row in rows if row[1].endswith(self._port) and row[3] == ESTABLISHED]
        before, self._queued = self._queued, sum(int(row[4].partition(":")[0], 16) for row in own)
        return 0 < before == self._queued


@pytest.mark.parametrize(
    "size", [pytest.param(40, id="short"), pytest.param(500, id="soak", marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_large_download_arrives_whole_in_little_memory(
    start_nginx: Callable[[str], Nginx], start_web: StartWeb, size: int, slow: bool
) -> None:
    nginx = start_nginx("files")
    expected = make_file(nginx.files / "large", size * MEBIBYTE)
    server, address = start_web([nginx], workers=4)
    growth = Growth(server)
    digest = hashlib.sha256()
    left = size * MEBIBYTE
    with RawClient(address, receive_buffer=8192 if slow else None) as client:
        client.send(render_request("/files/large", headers=["Connection: close"]))
        received = client.socket.recv(65536)
        while b"\r\n\r\n" not in received:
            received += client.socket.recv(65536)
        body = received.partition(b"\r\n\r\n")[2]
        pauses = [size * MEBIBYTE * part // 10 for part in (4, 7, 10)] if slow else []
        while body:
            digest.update(body)
            left -= len(body)
            if pauses and left < pauses[-1]:
                pauses.pop()
                wait_until(Stall(nginx.address).is_seen, "the client's pause has reached nginx")
                growth.look()
            elif left // MEBIBYTE != (left + len(body)) // MEBIBYTE:
                growth.look()
            body = client.socket.recv(4096 if slow else 262_144)
    assert (left, pauses) == (0, [])
    assert digest.hexdigest() == expected
    assert growth.looks >= size
    assert growth.most < ALLOWED_GROWTH


@pytest.mark.parametrize(
    "size", [pytest.param(20, id="short"), pytest.param(200, id="soak", marks=pytest.mark.soak)]
)
def test_large_chunked_upload_arrives_whole_in_little_memory(
    start_nginx: Callable[[str], Nginx],
    start_web: StartWeb,
    require_program: RequireProgram,
    tmp_path: Path,
    size: int,
) -> None:
    curl = require_program("curl")
    nginx = start_nginx("files")
    source = tmp_path / "source"
    expected = make_file(source, size * MEBIBYTE)
    server, address = start_web([nginx], workers=4)
    growth = Growth(server)
    # Not as fast as it goes, so that there is a time in which to look.
    command = [curl, "-sS", "-f", "--limit-rate", "20M", "-T", str(source)]
    with Program(
        "curl", [*command, "-H", "Transfer-Encoding: chunked", f"http://{address}/files/stored"], tmp_path
    ) as upload:

        def is_done() -> bool:
            growth.look()
            return not upload.is_running()

        wait_until(is_done, "the upload is done", within=10 * PATIENCE)
        assert upload.wait() == 0, upload.stderr()
    with (nginx.files / "stored").open("rb") as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == expected
    assert growth.looks >= 10
    assert growth.most < ALLOWED_GROWTH
