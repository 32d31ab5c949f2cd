"""A configuration in which every key of the model stands on a line of its own, and where each one stands.

The index is made by looking at the text line by line, not by the scanner that it tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lbproc.config.wording import KeyPath

COMPLETE: Final = """\
[runtime]
workers = "auto"
control_socket = "/run/lbproc/control.sock"
drain_timeout = "10m"
user = "lbproc"
heartbeat_timeout = "30s"
max_requests = 1000000
pid_file = "/run/lbproc/lbproc.pid"
max_columns = 256
max_backends = 4096
max_keys = 1048576

[admin]
bind = "127.0.0.1:9900"
token = { env = "LBPROC_ADMIN_TOKEN" }

[log]
access = "stdout"
format = "json"
error = "stderr"
level = "info"

[listeners.web]
bind = "0.0.0.0:8443"
protocol = "http"
pool = "web"
trusted_proxies = "10.0.0.0/8"
proxy_protocol = true
limits = "per_ip"
max_connections = 50000
max_header_size = "32KiB"
max_header_count = 100
max_body_size = "1GiB"
underscore_headers = "drop"

[listeners.web.tls]
min_version = "1.2"
ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"
client_ca = "@TLS@/ca.pem"
client_auth = "optional"
strict_sni = true
tickets = true
watch = false
passthrough = { "db.example.com" = "raw" }

[[listeners.web.tls.certificates]]
cert = "@TLS@/server.pem"
key = "@TLS@/server.key"
hosts = "app.internal"
client_ca = "@TLS@/ca.pem"
client_auth = "required"

[listeners.web.timeouts]
header = "10s"
body = "30s"
idle = "75s"
write = "30s"
tunnel = "1h"

[[listeners.web.routes]]
name = "api"
pool = "web"

[listeners.web.routes.match]
host = "api.example.com"
path = "/v1/models"
path_prefix = "/v1"
method = "GET"

[listeners.plain]
bind = "0.0.0.0:8081"
redirect_https = true

[listeners.database]
bind = "0.0.0.0:5432"
protocol = "tls_passthrough"

[[listeners.database.routes]]
pool = "raw"

[listeners.database.routes.match]
sni = "db.example.com"
alpn = "postgresql"

[pools.web]
policy = "consistent_hash"
hash_key = "header:X-User"
slow_start = "30s"
panic_threshold = 0.5
on_down = "keep"

proxy_protocol = "v2"

[pools.web.tls]
verify = true
ca = "@TLS@/ca.pem"
server_name = "app.internal"
min_version = "1.2"

[pools.web.tls.certificate]
cert = "@TLS@/own.pem"
key = "@TLS@/own.key"

[[pools.web.backends]]
address = "10.0.0.1:8000"
name = "b"
weight = 2
max_connections = 100
backup = false

[pools.web.retries]
attempts = 1
on = "timeout"
budget = 0.2
per_try_timeout = "10s"
max_body = "64KiB"

[pools.web.outlier]
consecutive_errors = 5
eject_for = "30s"
max_eject_for = "5m"
max_ejected = 0.5

[pools.web.timeouts]
connect = "2s"
response = "60s"
read = "60s"

[pools.web.health]
check = "http"
path = "/healthz"
method = "GET"
headers = { X-Probe = "1", Authorization = { env = "LBPROC_PROBE_LOGIN" } }
host = "app.internal"
liveness_path = "/livez"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3
doubt_interval = "1s"
down_interval = "4s"
address = "10.0.0.9:9000"
initial = "checking"

[pools.web.health.tls]
verify = true
server_name = "app.internal"
ca = "@TLS@/ca.pem"

[pools.web.health.expect]
status = "200-299"
body = "ok"

[[pools.raw.backends]]
address = "10.0.0.2:8000"

[pools.raw.health]
check = "tcp"
port = 9000
send = "PING"

[limits.per_ip]
key = "client_ip"
connections = 50
new_connections = "100/second"
burst = 200
when_full = "refuse"
""".replace("@TLS@", str(Path(__file__).parents[1] / "health" / "tls"))

ENVIRON: Final = {"LBPROC_ADMIN_TOKEN": "correct-horse-battery", "LBPROC_PROBE_LOGIN": "Basic YTpi"}

_ELEMENTS: Final = {"routes", "backends", "certificates"}


def index(text: str) -> dict[KeyPath, int]:
    """The line of every table and key of a text that is laid out as the one above."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("["):
            table = ()
            for part in line.strip("[]").split("."):
                table = (*table, part, 0) if part in _ELEMENTS else (*table, part)
            lines[table] = number
        elif line:
            lines[*table, line.split(" = ")[0]] = number
    return lines


def with_line(number: int, line: str) -> str:
    """The complete configuration with another line in place of one; an empty one leaves the key out."""
    lines = COMPLETE.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"
