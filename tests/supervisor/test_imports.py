"""Children import nothing: after they have given up their rights they may not be able to read a module."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID

from tests.certificates import Authority
from tests.ports import free_port
from tests.supervisor.running import PATIENCE, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CONFIG = """
[runtime]
workers = 1
control_socket = "{directory}/control.sock"

[admin]
bind = "127.0.0.1:{admin}"
token = "hush"

[log]
access = "{directory}/access.log"
error = "{directory}/error.log"
level = "debug"

[listeners.web]
bind = "127.0.0.1:{port}"
pool = "web"

[listeners.secure]
bind = "127.0.0.1:{secure}"
pool = "web"
{secure_tls}

[pools.web]
backends = ["127.0.0.1:{backend}", "localhost:{backend}"]
policy = "round_robin"

[pools.checked]
backends = ["localhost:{checked}", "127.0.0.1:{refusing}"]
[pools.checked.health]
liveness_path = "/livez"
interval = "100ms"
tls = {{ ca = "{ca}", server_name = "app.internal" }}

[pools.plain]
backends = ["127.0.0.1:{checked}"]
[pools.plain.health]
interval = "100ms"
"""

TLS = Path(__file__).parents[1] / "health" / "tls"

SECURE_TLS = f'''
[listeners.secure.tls]
certificates = [{{{{ cert = "{TLS}/server.pem", key = "{TLS}/server.key" }}}}]
client_ca = "{{directory}}/clients.pem"
client_auth = "optional"
'''

PLAIN = """
[runtime]
workers = 1
control_socket = "{directory}/control.sock"

[log]
access = "off"
error = "{directory}/error.log"

[listeners.secure]
bind = "127.0.0.1:{secure}"
pool = "web"

[pools.web]
backends = ["127.0.0.1:{backend}"]
"""

ALERT = b"\x15\x03\x01\x00\x02\x02"
"""How an alert begins."""

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"2\r\nab\r\n0\r\n\r\n",
    b"GET /\xff\x00 nonsense\r\n\r\n",
    b"GET / HTTP/1.0\r\nX-Forwarded-For: 1.2.3.4, ::1\r\n\r\n",
]


class Clients:
    """Certificates of clients: one that takes a rare codec to read, one that only OpenSSL reads."""

    def __init__(self, directory: Path) -> None:
        authority = Authority("clients")
        authority.write(directory, "clients")
        wide = x509.NameAttribute(NameOID.COMMON_NAME, "wide", _ASN1Type.BMPString)
        wider = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "wider", _ASN1Type.UniversalString)
        good = authority.issue("good.test", purpose="client", subject=x509.Name([wide, wider]))
        broken = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"nonsense")
        bad = authority.issue("bad.test", purpose="client", extension=broken)
        self.good = good.write(directory, "good")
        self.bad = bad.write(directory, "bad")


def exchange(
    port: int, request: bytes, *, is_secure: bool = False, client: tuple[Path, Path] | None = None
) -> bytes:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        if is_secure:
            context = ssl.create_default_context(cafile=TLS / "ca.pem")
            if client is not None:
                context.load_cert_chain(*client)
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname="app.internal"))
        sock.sendall(request)
        with sock.makefile("rb") as answer:
            return answer.read()


def answer_once(listening: socket.socket, head: bytes) -> None:
    sock, _ = listening.accept()
    with sock:
        sock.recv(65536)
        sock.sendall(head)


def serve_checks(listening: socket.socket) -> None:
    """Answers over TLS, until the socket is closed; who does not speak it is reset."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_no_child_imports_anything_whatever_it_does(tmp_path: Path) -> None:
    imports, error_log = tmp_path / "imports", tmp_path / "error.log"
    port, admin = free_port(), free_port()
    clients = Clients(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as backend,
        socket.create_server(("127.0.0.1", 0)) as checked,
    ):
        threading.Thread(target=serve_checks, args=(checked,), daemon=True).start()
        config = tmp_path / "lbproc.toml"
        numbers = {"port": port, "admin": admin, "backend": backend.getsockname()[1]}
        numbers |= {"checked": checked.getsockname()[1], "refusing": free_port()}
        secure = numbers["secure"] = free_port()
        secure_tls = SECURE_TLS.format(directory=tmp_path)
        config.write_text(
            CONFIG.format(directory=tmp_path, ca=TLS / "ca.pem", secure_tls=secure_tls, **numbers)
        )
        command = [sys.executable, "-m", "tests.supervisor.watched_run", str(config), str(imports)]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                wait_for(
                    lambda: error_log.exists() and " ready workers=" in error_log.read_text(), "readiness"
                )
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer_once(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    assert b"200" in sock.recv(65536)
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer_once(backend, b"nonsense\r\n\r\n")
                    assert b" 50" in sock.recv(65536)
                backend.close()
                for request in REQUESTS:
                    assert exchange(port, request)
                    assert exchange(secure, request, is_secure=True)
                assert exchange(secure, REQUESTS[0], is_secure=True, client=clients.good)
                assert not exchange(secure, REQUESTS[0], is_secure=True, client=clients.bad)
                wait_for(lambda: "client: it cannot be read" in error_log.read_text(), "a refused client")
                assert exchange(secure, REQUESTS[0])  # which is told so in clear
                assert exchange(secure, b"\x16\x03\x01\xff\xffnonsense").startswith((ALERT, b"\x15\x03"))
                get = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                assert b" 401 " in exchange(admin, get + b"\r\n")
                assert b" 200 " in exchange(admin, get + b"Authorization: Bearer hush\r\n\r\n")
                assert b" 200 " in exchange(admin, b"GET /healthz HTTP/1.0\r\n\r\n")
                assert b" 400 " in exchange(admin, b"nonsense\r\n\r\n")
                wait_for(lambda: "backend_up pool=checked" in error_log.read_text(), "a good check")
                wait_for(lambda: "backend_down pool=checked" in error_log.read_text(), "a refused check")
                wait_for(lambda: "backend_down pool=plain" in error_log.read_text(), "a check that is reset")
                error_log.rename(tmp_path / "error.1")
                process.send_signal(signal.SIGUSR1)
                wait_for(error_log.exists, "the new log")
                os.kill(process.pid, signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
    assert imports.read_text().split() == []


def test_a_reload_that_first_asks_for_client_certificates_brings_what_reads_them(tmp_path: Path) -> None:
    imports, error_log, config = tmp_path / "imports", tmp_path / "error.log", tmp_path / "lbproc.toml"
    clients = Clients(tmp_path)
    numbers = {"secure": free_port(), "backend": free_port()}
    secure = numbers["secure"]
    config.write_text(PLAIN.format(directory=tmp_path, **numbers))
    command = [sys.executable, "-m", "tests.supervisor.watched_run", str(config), str(imports)]

    def workers() -> list[str]:
        return re.findall(r" worker_ready .*pid=(\d+)", error_log.read_text() if error_log.exists() else "")

    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_for(lambda: " ready workers=" in error_log.read_text() if workers() else False, "readiness")
            assert exchange(secure, REQUESTS[0]).startswith(b"HTTP/1.1 50")
            assert imports.read_text().split() == []
            with config.open("a") as file:
                file.write(SECURE_TLS.format(directory=tmp_path))
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: " reloaded " in error_log.read_text(), "the reload")
            prepared = imports.read_text().split()
            assert "cryptography.x509" in prepared
            assert exchange(secure, REQUESTS[0], is_secure=True, client=clients.good).startswith(
                b"HTTP/1.1 50"
            )
            assert not exchange(secure, REQUESTS[0], is_secure=True, client=clients.bad)
            os.kill(int(workers()[-1]), signal.SIGKILL)
            wait_for(lambda: len(workers()) > 1, "another worker")
            assert exchange(secure, REQUESTS[0], is_secure=True, client=clients.good).startswith(
                b"HTTP/1.1 50"
            )
            assert not exchange(secure, REQUESTS[0], is_secure=True, client=clients.bad)
            assert imports.read_text().split() == prepared
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
