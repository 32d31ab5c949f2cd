"""TLS and PROXY headers towards real clients: curl, openssl, Python's ssl; under a real supervisor."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from lbproc.core.proxy_protocol import ProxyHeader, render_v1, render_v2
from lbproc.types import TcpAddress
from tests.core.tls.hellos import hello_of_openssl
from tests.e2e.harness import PATIENCE, wait_until
from tests.e2e.harness_tls import Pki, everything
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Backend, Stage

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
ALERT = b"\x15\x03\x03\x00\x02\x02"


class Service:
    """lbproc with listeners of every kind in front of one backend."""

    def __init__(self, directory: Path, start: StartLbproc, backend: Backend) -> None:
        self.pki = Pki(directory)
        self.backend = backend
        self.web, self.strict, self.proxied, self.clear = (free_port() for _ in range(4))
        tls = self.pki.certificates()
        self.server: LbprocServer = start(
            f"""
[pools.web]
backends = ["{backend.address}"]
[listeners.web]
bind = "127.0.0.1:{self.web}"
pool = "web"
timeouts = {{ header = "1s" }}
[listeners.web.tls]
{tls}
[listeners.strict]
bind = "127.0.0.1:{self.strict}"
pool = "web"
[listeners.strict.tls]
{tls}
strict_sni = true
min_version = "1.3"
[listeners.proxied]
bind = "127.0.0.1:{self.proxied}"
pool = "web"
proxy_protocol = true
trusted_proxies = ["127.0.0.1"]
[listeners.proxied.tls]
{tls}
[listeners.clear]
bind = "127.0.0.1:{self.clear}"
redirect_https = {self.web}
[listeners.far]
bind = "127.0.0.2:{self.clear}"
pool = "web"
proxy_protocol = true
trusted_proxies = ["192.0.2.0/24"]
"""
        )

    def told(self, name: str) -> str | None:
        """A header of the last request that the backend has got."""
        return self.backend.requests[-1].get(name)

    def raw(self, port: int, sent: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
        sock = socket.create_connection((host, port), timeout=PATIENCE)
        sock.sendall(sent)
        return sock


@pytest.fixture
def service(
    tmp_path: Path, start_lbproc: StartLbproc, stage: Stage, require_program: RequireProgram
) -> Service:
    require_program("curl")
    require_program("openssl")
    return Service(tmp_path, start_lbproc, stage.open("backend"))


def test_versions_ciphers_names_and_handshakes_that_go_wrong(service: Service) -> None:
    pki, web = service.pki, service.web

    # Versions and ciphers
    for option, version in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
        said = pki.s_client(web, "a.test", option)
        assert said.is_answered
        assert said.version == version
    weak = ["-cipher", "DEFAULT:@SECLEVEL=0"]
    for refused in (["-tls1_1", *weak], ["-tls1", *weak], ["-tls1_2", "-cipher", "AES128-SHA"],
                    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]):  # fmt: skip
        said = pki.s_client(web, "a.test", *refused)
        assert said.status, refused
        assert "alert" in said.text, refused
    assert pki.s_client(service.strict, "a.test", "-tls1_2").status
    rsa = pki.s_client(web, "a.test", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert "Peer signature type: RSA" in rsa.text
    assert "Peer signature type: ECDSA" in pki.s_client(web, "a.test", "-tls1_2").text

    assert {line["tls"] for line in service.server.access_log(4)} == {"TLSv1.2", "TLSv1.3"}

    # Names
    for name in ("a.test", "b.test"):
        assert pki.curl(web, f"https://{name}/").text == "backend"
    assert pki.curl(web, "https://unknown.test/").status == 60  # not what the certificate is for
    assert "CN = a.test" in pki.s_client(web, None).text
    assert "unrecognized name" in pki.s_client(service.strict, "unknown.test").text
    assert "unrecognized name" in pki.s_client(service.strict, None).text
    assert pki.curl(service.strict, "https://b.test/", "-H", "Host: unknown.test", "-w", "%{http_code}"
                    ).text.endswith("421")  # fmt: skip

    # One connection, several requests
    both = pki.curl(web, "https://a.test/1", "https://a.test/2", "-w", " %{num_connects}\n")
    assert both.text == "backend 1\nbackend 0\n"
    assert (service.told("x-forwarded-proto"), service.told("x-forwarded-host")) == ("https", "a.test")

    # Plain HTTP, and the way from there
    plain = pki.curl(web, f"http://a.test:{web}/", "-i")
    assert plain.text.startswith("HTTP/1.1 400 Bad Request")
    assert "use https://" in plain.text
    moved = pki.curl(service.clear, "http://a.test/x?y", "-i")
    assert f"\r\nLocation: https://a.test:{web}/x?y\r\n" in moved.text
    assert moved.text.startswith("HTTP/1.1 308 ")

    # Handshakes that stall, are garbage, or come in pieces
    stalled = [service.raw(web, sent) for sent in (b"", b"\x16\x03", hello_of_openssl("a.test"))]
    for sent, answer in [(b"SSH-2.0-x\r\n", b""), (b"\x16\x03\x01\0\1\2", ALERT + b"\x0a")]:
        with service.raw(web, sent) as sock:
            assert everything(sock) == answer
    raw = hello_of_openssl("a.test")
    with service.raw(web) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(raw)):
            sock.sendall(raw[at : at + 1])
        assert sock.recv(1) == b"\x16"
    for number, sock in enumerate(stalled):
        with sock:
            assert bool(everything(sock)) is (number == 2)
    assert service.server.status()["workers"]


def test_certificates_of_clients(service: Service, tmp_path: Path) -> None:
    pki, web = service.pki, service.web
    good = pki.shown("good")
    for version in ("-tls1_2", "-tls1_3"):
        # Right, wrong, missing, expired
        assert pki.s_client(web, "closed.test", version, *good).is_answered
        assert service.told("x-client-cert-subject") == "CN=good"
        assert service.told("x-client-cert-san") == "DNS:good.test"
        assert len(service.told("x-client-cert-fingerprint") or "") == 64
        seen = len(service.backend.requests)
        for shown in ([], pki.shown("wrong"), pki.shown("expired")):
            said = pki.s_client(web, "closed.test", version, *shown)
            assert said.status
            assert "alert" in said.text
        assert pki.s_client(web, "other.test", version, *pki.shown("wrong")).status
        assert len(service.backend.requests) == seen
        # On another host
        request = "GET / HTTP/1.1\r\nHost: closed.test\r\nConnection: close\r\n\r\n"
        for name in ("a.test", "other.test"):
            said = pki.s_client(web, name, version, *good, request=request)
            assert "HTTP/1.1 421 Misdirected Request" in said.text
        assert len(service.backend.requests) == seen
        # Resumed, on this host and on others
        kept = ["-sess_out", str(tmp_path / "session")]
        shown = ["-sess_in", str(tmp_path / "session")]
        assert not pki.s_client(web, "closed.test", version, *good, *kept).is_resumed
        again = pki.s_client(web, "closed.test", version, *shown)
        assert again.is_resumed
        assert again.is_answered
        assert service.told("x-client-cert-subject") == "CN=good"
        other = pki.s_client(web, "other.test", version, *shown)
        assert not other.is_resumed
        assert other.is_answered
        assert service.told("x-client-cert-subject") is None
        for name in ("a.test", "other.test"):
            assert pki.s_client(web, name, version, *kept).is_answered
            said = pki.s_client(web, "closed.test", version, *shown)
            assert said.status
            assert "backend" not in said.text


def test_proxy_headers_only_from_whom_is_trusted(service: Service) -> None:
    pki = service.pki
    assert pki.curl(service.proxied, "https://a.test/", "--haproxy-protocol").text == "backend"
    assert service.told("x-forwarded-for") == "127.0.0.1"
    client, here = TcpAddress("203.0.113.7", 4711), TcpAddress("198.51.100.1", 443)
    line, block = render_v1(client, here), render_v2(ProxyHeader(client, here))
    for header in (line, block):
        plain = service.raw(service.proxied, header)
        with pki.context().wrap_socket(plain, server_hostname="b.test") as secure:
            secure.sendall(GET % b"b.test")
            assert b"200 OK" in secure.recv(65_536)
        assert service.told("x-forwarded-for") == "203.0.113.7"
    logged = sorted((line["client_ip"], line["tls"]) for line in service.server.access_log(3))
    assert logged == [("127.0.0.1", "TLSv1.3"), *[("203.0.113.7", "TLSv1.3")] * 2]
    seen = len(service.backend.requests)
    for sent in (GET % b"a.test", hello_of_openssl("a.test"), line[:-2] + b"\n", b"\r\n\r\n\0\r\nQUIT\n\x31"):
        with service.raw(service.proxied, sent) as sock:
            assert everything(sock) == b""
    for sent in (line + GET % b"a.test", block + GET % b"a.test", GET % b"a.test"):
        with service.raw(service.clear, sent, "127.0.0.2") as sock:
            assert everything(sock) == b""
    assert len(service.backend.requests) == seen
    wait_until(lambda: "proxy_header_rejected" in service.server.events(), "it is told")


def test_certificates_are_replaced_without_touching_connections(service: Service) -> None:
    pki, web = service.pki, service.web

    def serial(sock: ssl.SSLSocket) -> object:
        shown = sock.getpeercert()
        assert shown is not None
        return shown["serialNumber"]

    def is_served(sock: ssl.SSLSocket) -> bool:
        sock.sendall(GET % b"b.test")
        return b"200 OK" in sock.recv(65_536)

    with pki.connect(web, "b.test") as old:
        assert is_served(old)
        before = serial(old)
        pki.renew("b.test")
        reloaded = service.server.run_command("reload")
        assert reloaded.returncode == 0, reloaded.stderr
        assert is_served(old)
        with pki.connect(web, "b.test") as new:
            assert serial(new) != before
            assert is_served(new)
            assert is_served(old)
            stopped = service.server.stop()  # idle connections end in order: with a close_notify
            assert everything(old) == b""
            assert everything(new) == b""
    assert stopped == 0
