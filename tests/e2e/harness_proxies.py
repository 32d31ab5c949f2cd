"""Real HAProxy and nginx at either side of lbproc, speaking the PROXY protocol with it.

As backends they tell in the body of an answer what a header said; in front they send one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.e2e.harness import Program
from tests.e2e.harness_client import RawClient
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

_HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend told
    bind {told} accept-proxy
    http-request return status 200 content-type text/plain lf-string "haproxy %[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id,length]"
"""  # noqa: E501
_FRONT = """
listen {name}
    mode tcp
    bind {bind}
    server lbproc {target} {send}
"""

_NGINX = """
{user}
load_module {module};
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
    server {{
        listen {told} proxy_protocol;
        location / {{
            default_type text/plain;
            return 200 "nginx $proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
        }}
    }}
}}
stream {{
{fronts}
}}
"""  # noqa: E501


class _Peer(Program):
    """One of them.

    Attributes:
        told: the address where it takes PROXY headers, of any version, and tells what they said.
        fronts: by name, the addresses where it takes clients and sends a header before them.
    """

    told: str
    fronts: dict[str, str]

    def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            RawClient(self.told).close()
        except OSError:
            return False
        return True


class Haproxy(_Peer):
    """HAProxy. Its fronts are pairs of a target and how it is spoken to, such as ``send-proxy-v2``."""

    def __init__(self, program: str, directory: Path, fronts: dict[str, tuple[str, str]]) -> None:
        directory.mkdir()
        self.told = f"127.0.0.1:{free_port()}"
        self.fronts = {name: f"127.0.0.1:{free_port()}" for name in fronts}
        config = directory / "haproxy.cfg"
        config.write_text(
            _HAPROXY.format(told=self.told)
            + "".join(
                _FRONT.format(name=name, bind=self.fronts[name], target=target, send=send)
                for name, (target, send) in fronts.items()
            )
        )
        super().__init__("haproxy", [program, "-f", str(config), "-db"], directory)


class NginxPeer(_Peer):
    """nginx. It sends version 1 only."""

    def __init__(self, program: str, directory: Path, targets: dict[str, str]) -> None:
        directory.mkdir()
        self.told = f"127.0.0.1:{free_port()}"
        self.fronts = {name: f"127.0.0.1:{free_port()}" for name in targets}
        config = directory / "nginx.conf"
        fronts = "\n".join(
            f"server {{ listen {self.fronts[name]}; proxy_pass {target}; proxy_protocol on; }}"
            for name, target in targets.items()
        )
        config.write_text(
            _NGINX.format(
                user="user root;" if os.geteuid() == 0 else "",
                module=STREAM_MODULE,
                directory=directory,
                told=self.told,
                fronts=fronts,
            )
        )
        command = [program, "-p", str(directory), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]
        super().__init__("nginx", command, directory)
