# ruff: noqa: E501  messages stand here word for word, one on a line
"""Keys that a protocol has no use for are told, and those at their default are not."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w

from lbproc.config.model import Config
from lbproc.config.show import effective
from tests.config.document import found

POOL = '[pools.web]\nbackends = ["10.0.0.1:8000"]\n'


def listener(protocol: str, *lines: str) -> str:
    """A listener on lines 1 to 4, further keys of it from line 5 on."""
    head = ["[listeners.a]", 'bind = "127.0.0.1:80"', 'pool = "web"', f'protocol = "{protocol}"']
    return "\n".join([*head, *lines, POOL])


@pytest.mark.parametrize("protocol", ["http", "tcp", "udp", "tls_passthrough"])
def test_each_protocol_needs_a_pool_and_nothing_else(protocol: str) -> None:
    assert found(listener(protocol)) == []


@pytest.mark.parametrize("protocol", ["http", "tcp", "udp", "tls_passthrough"])
def test_what_config_show_writes_is_right_for_each_protocol(protocol: str) -> None:
    config = Config.model_validate(tomllib.loads(listener(protocol)))
    assert found(tomli_w.dumps(effective(config))) == []


@pytest.mark.parametrize(
    ("protocol", "lines", "message"),
    [
        ("tcp", "max_body_size = 1000", '5: listeners.a.max_body_size: is not looked at by protocol = "tcp"; leave it out, or write protocol = "http"'),
        ("udp", "max_header_count = 5", '5: listeners.a.max_header_count: is not looked at by protocol = "udp"; leave it out, or write protocol = "http"'),
        ("tls_passthrough", 'underscore_headers = "reject"', '5: listeners.a.underscore_headers: is not looked at by protocol = "tls_passthrough"; leave it out, or write protocol = "http"'),
        ("udp", "tls = {}", '5: listeners.a.tls: is not looked at by protocol = "udp"; leave it out, or write protocol = "http" or protocol = "tcp"'),
        ("tls_passthrough", "tls = {}", '5: listeners.a.tls: is not looked at by protocol = "tls_passthrough"; leave it out, or write protocol = "http" or protocol = "tcp"'),
        ("tcp", "redirect_https = true", '5: listeners.a.redirect_https: is not looked at by protocol = "tcp"; leave it out, or write protocol = "http"'),
        ("tcp", 'timeouts = { idle = "5s" }', '5: listeners.a.timeouts.idle: is not looked at by protocol = "tcp"; leave it out, or write protocol = "http" or protocol = "udp"'),
        ("udp", 'timeouts = { tunnel = "5s" }', '5: listeners.a.timeouts.tunnel: is not looked at by protocol = "udp"; leave it out, or write protocol = "http", protocol = "tcp" or protocol = "tls_passthrough"'),
        ("tcp", 'routes = [{ pool = "web" }]', '5: listeners.a.routes: is not looked at by protocol = "tcp"; leave it out, or write protocol = "http" or protocol = "tls_passthrough"'),
        ("http", 'routes = [{ pool = "web", match = { sni = "a.com" } }]', '5: listeners.a.routes[0].match.sni: cannot be seen by protocol = "http"; write host instead'),
        ("http", 'routes = [{ pool = "web", match = { alpn = "h2" } }]', '5: listeners.a.routes[0].match.alpn: cannot be seen by protocol = "http"; leave it out'),
        ("tls_passthrough", 'routes = [{ pool = "web", match = { host = "a.com" } }]', '5: listeners.a.routes[0].match.host: cannot be seen by protocol = "tls_passthrough"; write sni instead'),
        ("tls_passthrough", 'routes = [{ pool = "web", match = { path = "/a" } }]', '5: listeners.a.routes[0].match.path: cannot be seen by protocol = "tls_passthrough"; leave it out'),
        ("http", "proxy_protocol = true", '1: listeners.a.trusted_proxies: is missing, and nobody else may send a PROXY header; add the addresses of your proxies, such as trusted_proxies = "10.0.0.0/8"'),
        ("tcp", 'trusted_proxies = "10.0.0.0/8"', '5: listeners.a.trusted_proxies: is not looked at by protocol = "tcp" without PROXY headers; add proxy_protocol = true, or leave it out'),
        ("http", "redirect_https = 8443", "3: listeners.a.pool: is never used: listeners.a.redirect_https (a.toml:5) redirects every request; leave out one of them"),
    ],
)  # fmt: skip
def test_what_a_protocol_has_no_use_for(protocol: str, lines: str, message: str) -> None:
    assert found(listener(protocol, lines)) == [message]


def test_a_redirect_is_for_clients_in_clear() -> None:
    lines = '[listeners.a]\nbind = "127.0.0.1:80"\nredirect_https = true\n'
    assert found(lines + POOL) == []
    (message,) = found(lines + "tls = {}\n" + POOL)
    assert message == (
        "3: listeners.a.redirect_https: is for clients in clear, and these speak TLS; "
        "move it to a listener without tls, such as one on port 80"
    )
    assert found(listener("http", "redirect_https = false")) == []


def test_keys_that_are_at_their_default_or_wrong_in_themselves_are_passed_over() -> None:
    lines = ['max_body_size = "1GiB"', "max_header_size = 1", 'timeouts = { body = "30s", write = 3 }']
    assert found(listener("tcp", *lines)) == []
    assert found(listener("tls", "max_body_size = 1000")) == []


def test_udp_and_tcp_have_ports_of_their_own_and_udp_no_unix_socket() -> None:
    udp = '[listeners.b]\nbind = ["127.0.0.1:80", "0.0.0.0:81"]\nprotocol = "udp"\npool = "web"\n'
    assert found(udp + listener("tcp")) == []
    twice = udp + udp.replace("listeners.b", "listeners.c").replace("0.0.0.0:81", "127.0.0.1:81")
    assert [line.partition(";")[0] for line in found(twice + POOL)] == [
        '6: listeners.c.bind[0]: "127.0.0.1:80" is the address of listeners.b.bind[0] (a.toml:2)',
        '6: listeners.c.bind[1]: "127.0.0.1:81" overlaps the address of listeners.b.bind[1] (a.toml:2)',
    ]
    (message,) = found(udp.replace("0.0.0.0:81", "unix:/run/x.sock") + POOL)
    assert message == (
        '2: listeners.b.bind[1]: "unix:/run/x.sock" is a Unix socket, and protocol = "udp" is of IP; '
        'write an IP address and a port, such as "0.0.0.0:53"'
    )
