"""A real nginx as a backend: ``/`` says its name, ``/echo`` does so with a head that differs for each
target, ``/files/`` reads and writes files.

Owns its configuration. Writing is WebDAV's PUT, so uploads can be compared byte by byte.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.e2e.harness import Program
from tests.e2e.harness_client import fetch
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    server {{
        listen {address} backlog=4096;
        listen {gentle_address} backlog=4096 sndbuf=32k;
        location / {{ default_type text/plain; return 200 "{name}"; }}
        location /echo {{ add_header X-Echo $request_uri; return 200 "{name}"; }}
        location /files/ {{
            root {directory};
            dav_methods PUT;
            client_max_body_size 0;
        }}
    }}
    {servers}
}}
"""


class Nginx(Program):
    """One nginx with one worker.

    Args:
        program: path of the nginx binary.
        directory: for its configuration and files; made if missing.
        name: what ``/`` answers.
        servers: more of them, in nginx's words.

    Attributes:
        address: where it listens.
        gentle_address: the same with small send buffers. Without them loopback takes megabytes ahead of a
            reader that is slow, drops some of them, and sends those again seconds later.
    """

    def __init__(self, program: str, directory: Path, name: str, servers: str = "") -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.gentle_address = f"127.0.0.1:{free_port()}"
        self.files = directory / "files"
        self.files.mkdir(parents=True)
        # Test directories are closed to other users, and nginx leaves root for another user unless told not
        # to.
        user = "user root;" if os.geteuid() == 0 else ""
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                user=user,
                directory=directory,
                address=self.address,
                gentle_address=self.gentle_address,
                name=name,
                servers=servers,
            )
        )
        command = [program, "-p", str(directory), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]
        super().__init__(name, command, directory)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return fetch(self.address).status == 200
        except OSError:
            return False
