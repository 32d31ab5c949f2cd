"""Real servers that speak TLS, nginx and ``openssl s_server``: passed through by name, and as backends.

curl verifies what it is shown, so it has spoken with the server itself.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Authority
from tests.e2e.harness import PATIENCE, Program
from tests.e2e.harness_client import RawClient, fetch
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc

pytestmark = pytest.mark.slow

NGINX = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 3;
    ssl_client_certificate {ca};
    ssl_verify_client optional;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen {address} ssl http2;
        set $dn $ssl_client_s_dn;
        ssl_certificate {directory}/nginx.pem;
        ssl_certificate_key {directory}/nginx.key;
        location / {{
            return 200 "nginx $ssl_server_name $server_protocol $ssl_protocol $ssl_session_reused $dn";
        }}
    }}
}}
"""

CONFIG = """
[listeners.passed]
bind = "127.0.0.1:{passed}"
protocol = "tls_passthrough"
[[listeners.passed.routes]]
match = {{ sni = "nginx.test" }}
pool = "passed-nginx"
[[listeners.passed.routes]]
match = {{ sni = "*.openssl.test" }}
pool = "passed-openssl"
[pools.passed-nginx]
backends = ["{nginx}"]
[pools.passed-openssl]
backends = ["{openssl}"]

[listeners.web]
bind = "127.0.0.1:{web}"
pool = "encrypted"
[pools.encrypted]
backends = ["{nginx}"]
[pools.encrypted.tls]
ca = "{directory}/ca.pem"
server_name = "nginx.test"
certificate = {{ cert = "{directory}/lbproc.pem", key = "{directory}/lbproc.key" }}
[pools.encrypted.health]
path = "/"
tls = {{ ca = "{directory}/ca.pem", server_name = "nginx.test" }}
"""


class TlsServer(Program):
    """A program that listens; ready when somebody can connect."""

    def __init__(self, name: str, command: list[str], directory: Path, address: str) -> None:
        super().__init__(name, command, directory)
        self.address = address

    def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            RawClient(self.address).close()
        except OSError:
            return False
        return True


def start_nginx(program: str, directory: Path, authority: Authority) -> TlsServer:
    address = f"127.0.0.1:{free_port()}"
    authority.issue("nginx.test").write(directory, "nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(user=user, directory=directory, address=address, ca=directory / "ca.pem"))
    command = [program, "-p", str(directory), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]
    return TlsServer("nginx", command, directory, address)


def start_openssl(program: str, directory: Path, authority: Authority) -> TlsServer:
    address = f"127.0.0.1:{free_port()}"
    cert, key = authority.issue("www.openssl.test", kind="RSA").write(directory, "openssl")
    command = [program, "s_server", "-accept", address, "-cert", str(cert), "-key", str(key), "-www"]
    return TlsServer("s_server", [*command, "-quiet"], directory, address)


def test_real_servers_are_passed_through_by_name_and_spoken_to_as_backends(
    tmp_path: Path,
    programs: Callable[[Program], None],
    require_program: RequireProgram,
    start_lbproc: StartLbproc,
) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    authority.issue(purpose="client", common_name="lbproc").write(tmp_path, "lbproc")
    servers = [
        start_nginx(require_program("nginx"), tmp_path, authority),
        start_openssl(require_program("openssl"), tmp_path, authority),
    ]
    for server in servers:
        programs(server)
        server.start()
    passed, web = free_port(), free_port()
    addresses = {"nginx": servers[0].address, "openssl": servers[1].address}
    lbproc = start_lbproc(CONFIG.format(passed=passed, web=web, directory=tmp_path, **addresses))

    def curl(url: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [require_program("curl"), "--silent", "--show-error", "--noproxy", "*", "--cacert", str(ca)]
        command += ["--connect-to", f"::127.0.0.1:{passed}", *options, url]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    # HTTP/2 too: nobody looks inside.
    said = curl("https://nginx.test/").stdout.split()
    assert said[:4] == ["nginx", "nginx.test", "HTTP/2.0", "TLSv1.3"]
    assert curl("https://nginx.test/", "--http1.1", "--tls-max", "1.2").stdout.split()[2:4] == [
        "HTTP/1.1",
        "TLSv1.2",
    ]
    shown = ("--cert", str(tmp_path / "lbproc.pem"), "--key", str(tmp_path / "lbproc.key"))
    assert curl("https://nginx.test/", *shown).stdout.split()[5:] == ["CN=lbproc"]
    assert "s_server" in curl("https://www.openssl.test/").stdout
    # It reaches a server that has no certificate for this name, and a name that nobody has is turned away.
    assert curl("https://other.openssl.test/").returncode == 60
    refused = curl("https://nobody.test/")
    assert refused.returncode == 35
    assert "unrecognized name" in refused.stderr

    # As a backend: verified, with a certificate of lbproc's own; nginx ends connections, and sessions go on.
    told = [fetch(f"127.0.0.1:{web}").body.decode().split() for _ in range(20)]
    assert {tuple(words[:4]) for words in told} == {("nginx", "nginx.test", "HTTP/1.1", "TLSv1.3")}
    assert {words[5] for words in told} == {"CN=lbproc"}
    assert "r" in {words[4] for words in told}
    assert {line["status"] for line in lbproc.access_log(24) if line["listener"] == "web"} == {200}
