"""How each proxy is set up: the same work, equal workers, least connections, one log line a request.

Owns the configurations. Buffers are the defaults of each program and HAProxy's splice options stay off. What
is set beyond defaults is only what makes the work comparable: connections to backends are kept and used by
any request (not so by default in nginx and HAProxy), Host is passed on, X-Forwarded-For is added, the access
log goes to a file.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import BenchError, Program
from bench.rows import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.certificate import Certificate

ROOT = Path(__file__).absolute().parents[1]
SMALL_BODY = "x" * 128

_HAPROXY = """
global
    nbthread {workers}
    maxconn {connections}
    no strict-limits
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    timeout client 75s
    timeout server 60s
    timeout connect 2s
frontend web
    bind 127.0.0.1:{port}
    default_backend web
backend web
    balance leastconn
    http-reuse always
{servers}
"""

_HAPROXY_MORE = """
frontend web-tls
    bind 127.0.0.1:{tls_port} ssl crt {both} alpn http/1.1
    default_backend web
listen tcp
    mode tcp
    option tcplog
    bind 127.0.0.1:{tcp_port}
    balance leastconn
{servers}
"""

_NGINX = """
{user}
worker_processes {workers};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/temp;
    proxy_temp_path {directory}/temp;
    fastcgi_temp_path {directory}/temp;
    uwsgi_temp_path {directory}/temp;
    scgi_temp_path {directory}/temp;
    upstream web {{
        least_conn;
{servers}
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
{tls}
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""

_NGINX_MORE = """
        listen 127.0.0.1:{tls_port} ssl backlog=4096;
        ssl_certificate {cert};
        ssl_certificate_key {key};
"""

_CADDY = """
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    log {{
        output file {directory}/access.log
    }}
    reverse_proxy {servers} {{
        lb_policy least_conn
    }}
}}
"""

_CADDY_MORE = """
https://:{tls_port} {{
    bind 127.0.0.1
    tls {cert} {key}
    log {{
        output file {directory}/access-tls.log
    }}
    reverse_proxy {servers} {{
        lb_policy least_conn
    }}
}}
"""

_LBPROC = """
[runtime]
workers = {workers}
control_socket = "{directory}/control.sock"
[log]
access = "{directory}/access.log"
[listeners.web]
bind = "127.0.0.1:{port}"
pool = "web"
[pools.web]
policy = "least_connections"
backends = [{servers}]
"""

_LBPROC_MORE = """
[listeners.web-tls]
bind = "127.0.0.1:{tls_port}"
pool = "web"
[listeners.web-tls.tls]
certificates = [{{ cert = "{cert}", key = "{key}" }}]
[listeners.tcp]
protocol = "tcp"
bind = "127.0.0.1:{tcp_port}"
pool = "web"
"""

_BACKEND = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/temp;
    proxy_temp_path {directory}/temp;
    fastcgi_temp_path {directory}/temp;
    uwsgi_temp_path {directory}/temp;
    scgi_temp_path {directory}/temp;
    sendfile on;
    keepalive_requests 1000000000;
    server {{
{listens}
        location / {{ default_type text/plain; return 200 "{body}"; }}
        location /large {{ root {directory}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class More:
    """The ports for TLS and TCP, and the certificate. Who knows no TCP does not listen there."""

    tls_port: int
    tcp_port: int
    certificate: Certificate

    def fill(self, text: str, **values: object) -> str:
        """A part of a configuration."""
        return text.format(
            tls_port=self.tls_port,
            tcp_port=self.tcp_port,
            cert=self.certificate.cert,
            key=self.certificate.key,
            both=self.certificate.both,
            **values,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy runs and what it serves."""

    directory: Path
    port: int
    workers: int
    backends: Sequence[int]
    connections: int = 4096
    """How many clients it must be able to hold; for a program that wants to know."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Of lbproc, beyond ours."""
    more: More | None = None
    """What is served beside HTTP."""


def start_backends(directory: Path, ports: Sequence[int]) -> Program:
    """One nginx that listens on all ``ports``: a small answer on ``/``, a large file on ``/large``."""
    directory.mkdir()
    with (directory / "large").open("wb") as large:
        large.write(os.urandom(LARGE_BYTES))
    listens = "".join(f"        listen 127.0.0.1:{port} backlog=4096;\n" for port in ports)
    text = _BACKEND.format(
        user=_nginx_user(), directory=directory, listens=listens, body=SMALL_BODY, connections=10_000
    )
    return Program("backends", _nginx_command(directory, text), directory, ports[0])


def haproxy(place: Place) -> Program:
    servers = "\n".join(f"    server s{port} 127.0.0.1:{port}" for port in place.backends)
    text = _HAPROXY.format(
        workers=place.workers, port=place.port, servers=servers, connections=place.connections
    )
    if place.more is not None:
        text += place.more.fill(_HAPROXY_MORE, servers=servers)
    config = _written(place, "haproxy.cfg", text)
    return Program(
        "haproxy", [find_program("haproxy"), "-db", "-f", str(config)], place.directory, place.port
    )


def nginx(place: Place) -> Program:
    servers = "\n".join(f"        server 127.0.0.1:{port};" for port in place.backends)
    text = _NGINX.format(
        user=_nginx_user(),
        workers=place.workers,
        directory=place.directory,
        port=place.port,
        tls="" if place.more is None else place.more.fill(_NGINX_MORE),
        servers=servers,
        connections=place.connections + 1000,  # those to backends are counted with those of clients
    )
    return Program("nginx", _nginx_command(place.directory, text), place.directory, place.port)


def caddy(place: Place) -> Program:
    servers = " ".join(f"127.0.0.1:{port}" for port in place.backends)
    text = _CADDY.format(port=place.port, directory=place.directory, servers=servers)
    if place.more is not None:
        text += place.more.fill(_CADDY_MORE, directory=place.directory, servers=servers)
    config = _written(place, "Caddyfile", text)
    command = [find_program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    environ = {
        "GOMAXPROCS": str(place.workers),
        "HOME": str(place.directory),
        "XDG_DATA_HOME": str(place.directory),
        "XDG_CONFIG_HOME": str(place.directory),
    }
    return Program("caddy", command, place.directory, place.port, environ)


def lbproc(place: Place) -> Program:
    servers = ", ".join(f'"127.0.0.1:{port}"' for port in place.backends)
    text = _LBPROC.format(workers=place.workers, directory=place.directory, port=place.port, servers=servers)
    if place.more is not None:
        text += place.more.fill(_LBPROC_MORE)
    config = _written(place, "lbproc.toml", text)
    command = [sys.executable, "-m", "lbproc", "run", "-c", str(config)]
    return Program("lbproc", command, place.directory, place.port, {"PYTHONPATH": str(ROOT), **place.environ})


PEERS: dict[str, Callable[[Place], Program]] = {
    "lbproc": lbproc,
    "haproxy": haproxy,
    "nginx": nginx,
    "caddy": caddy,
}
"""Every proxy by its name, in the order of the report."""


TCP_PEERS = frozenset({"lbproc", "haproxy"})
"""Who relays TCP as it is packaged; the others need modules."""


def is_installed(name: str) -> bool:
    """Whether a peer can take part."""
    return name == "lbproc" or _find(name) is not None


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def find_program(name: str) -> str:
    """The path of a program, or a BenchError that says what to install."""
    path = _find(name)
    if path is None:
        raise BenchError(f"{name} is not installed; apt-get install {name}")
    return path


def _nginx_user() -> str:
    # Started by root, nginx would serve as a user who may not read this directory.
    return "user root;" if os.geteuid() == 0 else ""


def _nginx_command(directory: Path, text: str) -> list[str]:
    (directory / "nginx.conf").write_text(text)
    (directory / "temp").mkdir()
    prefix = ["-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]
    return [find_program("nginx"), *prefix, "-g", "daemon off;"]


def _written(place: Place, name: str, text: str) -> Path:
    path = place.directory / name
    path.write_text(text)
    return path
