# ruff: noqa: E501  messages stand here word for word, one on a line
"""A pool goes together with the listeners that use it."""

from __future__ import annotations

import pytest

from tests.config.document import found

HTTP = '[listeners.http]\nbind = "127.0.0.1:80"\npool = "x"\n'
TCP = '[listeners.tcp]\nbind = "127.0.0.1:81"\npool = "x"\nprotocol = "tcp"\n'
UDP = '[listeners.udp]\nbind = "127.0.0.1:82"\npool = "x"\nprotocol = "udp"\n'
PASSED = (
    '[listeners.passed]\nbind = "127.0.0.1:83"\nprotocol = "tls_passthrough"\nroutes = [{ pool = "x" }]\n'
)
TLS = '[listeners.tls]\nbind = "127.0.0.1:84"\npool = "x"\ntls = {}\n'
POOL = '[pools.x]\nbackends = ["a:1"]\n'


@pytest.mark.parametrize(
    ("listeners", "lines"),
    [
        (HTTP, 'hash_key = "path"'),
        (TLS, 'hash_key = "sni"'),
        (PASSED, 'hash_key = "tls_session_id"'),
        (PASSED + TLS, 'hash_key = "sni"'),
        (HTTP + TCP + UDP + PASSED, 'hash_key = "client_ip"'),
        (HTTP + TCP, 'timeouts = { read = "5s" }\nretries = {}'),
        (TCP, 'timeouts = { connect = "5s", read = "60s" }'),
        (HTTP + TCP, "tls = {}"),
        (UDP, 'proxy_protocol = "v2"'),
        (HTTP, 'tls = {}\nhealth = { check = "tls" }'),
        (HTTP, "tls = {}\nhealth = { tls = {} }"),
        (HTTP, "tls = {}\nhealth = { port = 81 }"),
        (HTTP, "tls = {}\nhealth = {}"),
        (HTTP, "tls = { verify = false }"),
        (HTTP, 'hash_key = "nothing"'),
    ],
)
def test_what_goes_together(listeners: str, lines: str) -> None:
    assert found(listeners + POOL + lines) == []


@pytest.mark.parametrize(
    ("listeners", "lines", "message"),
    [
        (TCP, 'hash_key = "path"', '7: pools.x.hash_key: "path" is of requests, and listeners.tcp.pool (a.toml:3) brings connections; write "client_ip", or give that listener a pool of its own'),
        (HTTP + UDP, 'hash_key = "header:X-User"', '10: pools.x.hash_key: "header:X-User" is of requests, and listeners.udp.pool (a.toml:6) brings datagrams; write "client_ip", or give that listener a pool of its own'),
        (PASSED, 'hash_key = "cookie:a"', '7: pools.x.hash_key: "cookie:a" is of requests, and listeners.passed.routes[0].pool (a.toml:4) brings connections; write "client_ip", or give that listener a pool of its own'),
        (HTTP, 'hash_key = "sni"', '6: pools.x.hash_key: "sni" is of TLS handshakes, and listeners.http.pool (a.toml:3) brings requests in clear; write "client_ip", or give that listener a pool of its own'),
        (TLS + TCP, 'hash_key = "tls_session_id"', '11: pools.x.hash_key: "tls_session_id" is of TLS handshakes, and listeners.tcp.pool (a.toml:7) brings connections in clear; write "client_ip", or give that listener a pool of its own'),
        (TCP, "retries = {}", "7: pools.x.retries: is of requests, and listeners.tcp.pool (a.toml:3) brings connections; leave it out"),
        (UDP, 'timeouts = { read = "5s" }', "7: pools.x.timeouts.read: is of requests, and listeners.udp.pool (a.toml:3) brings datagrams; leave it out"),
        (HTTP + PASSED, "tls = {}", "10: pools.x.tls: cannot be: what listeners.passed.routes[0].pool (a.toml:7) brings is encrypted already; leave it out, or give that listener a pool of its own"),
        (UDP, "tls = {}", "7: pools.x.tls: cannot be: what listeners.udp.pool (a.toml:3) brings is UDP; leave it out, or give that listener a pool of its own"),
        (UDP, 'proxy_protocol = "v1"', '7: pools.x.proxy_protocol: "v1" cannot speak of UDP, which listeners.udp.pool (a.toml:3) brings; write "v2"'),
        (HTTP, 'tls = { verify = false, ca = "ca.pem" }', "6: pools.x.tls.ca: is not looked at while pools.x.tls.verify is false; leave out one of them"),
    ],
)  # fmt: skip
def test_what_does_not(listeners: str, lines: str, message: str) -> None:
    assert found(listeners + POOL + lines) == [message]


def test_datagrams_go_to_ports() -> None:
    (message,) = found(UDP + '[pools.x]\nbackends = ["a:1", "unix:/run/x.sock"]')
    assert message == (
        '6: pools.x.backends[1]: "unix:/run/x.sock" is a Unix socket, and listeners.udp.pool (a.toml:3) brings UDP; '
        "write a host and a port"
    )


def test_a_host_that_is_passed_through_uses_its_pool_so() -> None:
    passing = 'tls = { passthrough = { "db.example.com" = "y" } }'
    text = TLS.replace("tls = {}", passing) + POOL + '[pools.y]\nbackends = ["a:1"]\n'
    assert found(text + 'hash_key = "sni"') == []
    assert len(found(text + "tls = {}")) == 1
    (message,) = found(text.replace('"y"', '"z"'))
    assert (
        message
        == '4: listeners.tls.tls.passthrough."db.example.com": there is no pool "z"; name one that is there, such as "x", or add [pools.z]'
    )
