"""The client of the row of handshakes: what it counts, and that it resumes nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.certificate import write_certificate
from bench.handshakes import run_handshakes
from bench.process import BenchError
from bench.rows import ROWS

ROW = replace(next(row for row in ROWS if row.name == "handshake"), connections=3)
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers each connection once, and notes whether it went on from an earlier one."""

    def __init__(self, directory: Path, answer: bytes) -> None:
        self.resumed: list[bool] = []
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        certificate = write_certificate(directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.both)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as sock:
                    assert sock.recv(65536).startswith(b"GET / ")
                    self.resumed.append(bool(sock.session_reused))
                    sock.sendall(self._answer)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def answer() -> bytes:
    return GOOD


@pytest.fixture
def server(tmp_path: Path, answer: bytes) -> Iterator[Server]:
    server = Server(tmp_path, answer)
    yield server
    server.close()


def test_every_connection_is_a_full_handshake(server: Server) -> None:
    totals = run_handshakes(ROW, ROW.make(), server.port, 0.05)
    assert totals.requests == totals.work == len(server.resumed) >= ROW.connections
    assert totals.failures == 0
    assert not any(server.resumed)
    assert 0 < totals.p50_us <= totals.p90_us <= totals.p99_us


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\n\r\n"])
def test_a_run_without_a_good_answer_is_no_measurement(server: Server) -> None:
    with pytest.raises(BenchError, match="nothing was answered"):
        run_handshakes(ROW, ROW.make(), server.port, 0.01)
