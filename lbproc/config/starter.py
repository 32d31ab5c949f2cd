"""The configuration that ``lbproc init`` writes: one that works, with what one changes first.

Owns one text. It is checked to be usable as it stands and to speak only of keys that exist.
"""

from __future__ import annotations

from typing import Final

STARTER: Final = """\
# A configuration of lbproc. See what is wrong with it: lbproc check. Start: lbproc run.
# Keys that are commented out show another value or a default; docs/configuration.md explains all of them.

[listeners.web]
bind = "127.0.0.1:8080"               # "0.0.0.0:8080" and "[::]:8080" to be reached from other machines
pool = "web"                          # where requests go that take no route
# trusted_proxies = ["10.0.0.0/8"]    # whose X-Forwarded-For is believed
# max_body_size = "1GiB"

# HTTPS: `lbproc cert self-signed NAME` makes a certificate to begin with, and says what to write here.

# Requests that go elsewhere. The first route that matches wins.
# [[listeners.web.routes]]
# name = "api"
# match = { host = "api.example.com", path_prefix = "/v1", method = ["GET", "POST"] }
# pool = "api"

[pools.web]
policy = "least_connections"          # round_robin, random, power_of_two, ip_hash, consistent_hash,
                                      # first_available
backends = [
  "127.0.0.1:9001",
  { address = "127.0.0.1:9002", name = "b", weight = 2 },   # max_connections = 100, backup = true
]

# [pools.web.timeouts]
# connect = "2s"
# response = "60s"
# read = "60s"

# [runtime]
# workers = "auto"                    # one per CPU this process may use, or a number
# drain_timeout = "10m"               # how long `lbproc stop` waits for requests that are under way
# user = "lbproc"                     # workers and controller run as this user when started as root

[admin]
bind = "127.0.0.1:9900"               # /healthz and /metrics; an address that is not local needs a token
# token = { env = "LBPROC_ADMIN_TOKEN" }

# [log]
# access = "stdout"                   # "off", or a path
# error = "stderr"                    # or a path
# level = "info"                      # debug, warning, error
"""
