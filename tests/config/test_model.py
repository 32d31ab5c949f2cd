# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lbproc.config.model import (
    BackendConfig,
    Config,
    ListenerConfig,
    MatchConfig,
    PoolConfig,
    RouteConfig,
    RuntimeConfig,
)
from lbproc.config.outline import TABLES
from lbproc.types import TcpAddress, UnixAddress
from tests.config.refusal import refusal

FIVE_LINES: dict[str, Any] = {
    "listeners": {"web": {"bind": "0.0.0.0:8080", "pool": "web"}},
    "pools": {"web": {"backends": ["10.0.0.1:8000", "10.0.0.2:8000"]}},
}


def test_the_defaults_are_those_that_are_documented() -> None:
    config = Config.model_validate(FIVE_LINES)
    listener, pool = config.listeners["web"], config.pools["web"]
    assert config.runtime == RuntimeConfig(
        workers="auto",
        control_socket=None,
        drain_timeout="10m",
        user=None,
        heartbeat_timeout="30s",
        max_columns=256,
        max_backends=4096,
        max_keys=1_048_576,
    )
    assert config.admin is None
    assert (config.log.access, config.log.format, config.log.error, config.log.level) == (
        "stdout",
        "json",
        "stderr",
        "info",
    )
    assert listener.bind == (TcpAddress("0.0.0.0", 8080),)
    assert (listener.protocol, listener.underscore_headers) == ("http", "drop")
    assert (listener.trusted_proxies, listener.routes) == ((), ())
    assert (listener.max_header_size, listener.max_header_count, listener.max_body_size) == (
        32_768,
        100,
        2**30,
    )
    assert list(listener.timeouts.model_dump().values()) == ["10s", "30s", "75s", "30s", "1h"]
    assert (pool.policy, pool.hash_key) == ("least_connections", "client_ip")
    assert (pool.timeouts.connect, pool.timeouts.response, pool.timeouts.read) == (2.0, 60.0, 60.0)
    assert pool.backends[1] == BackendConfig(
        address="10.0.0.2:8000", name="10.0.0.2:8000", weight=1, max_connections=None, backup=False
    )


def test_a_backend_is_an_address_or_a_table_and_is_named_by_its_address() -> None:
    pool = PoolConfig.model_validate(
        {"backends": ["unix:/run/a.sock", {"address": "[0::1]:80"}, {"address": "b:80", "name": "b"}]}
    )
    assert [backend.name for backend in pool.backends] == ["unix:/run/a.sock", "[::1]:80", "b"]
    assert pool.backends[0].address == UnixAddress("/run/a.sock")


def test_a_route_without_a_name_is_named_by_its_place() -> None:
    listener = ListenerConfig.model_validate(
        {
            "bind": ["127.0.0.1:80", "[::1]:80"],
            "routes": [{"pool": "a"}, {"pool": "b", "name": "x"}, {"pool": "c"}],
        }
    )
    assert [route.name for route in listener.routes] == ["0", "x", "2"]


def test_one_string_stands_for_a_list_of_one() -> None:
    match = MatchConfig.model_validate({"host": "A.com", "path": ["/a", "/b"], "method": "GET"})
    assert (match.host, match.path, match.path_prefix, match.method) == (
        ("a.com",),
        ("/a", "/b"),
        (),
        ("GET",),
    )


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (MatchConfig, {"host": []}, 'is an empty list; write at least one string such as "api.example.com", or leave out the key'),
        (MatchConfig, {"host": 1}, 'is an integer, not a string or a list of strings; write a string such as "api.example.com", or a list of them'),
        (PoolConfig, {"backends": []}, 'is an empty list; write at least one backend, such as ["10.0.0.1:8000"]'),
        (PoolConfig, {"backends": "a:1"}, 'is a string, not a list of backends; write a list such as ["10.0.0.1:8000"]'),
        (BackendConfig, 3, 'is an integer, not a backend; write an address such as "10.0.0.1:8000" or { address = "10.0.0.1:8000", weight = 2 }'),
        (ListenerConfig, {"bind": "127.0.0.1:80", "routes": {}}, "is a table, not a list of routes; begin each route with double brackets"),
        (PoolConfig, {"backends": ["a:1"], "policy": "peak_ewma"}, '"peak_ewma" is not a policy; write "least_connections", "round_robin", "random", "power_of_two", "ip_hash", "consistent_hash" or "first_available"'),
        (ListenerConfig, {"bind": "127.0.0.1:80", "protocol": "tls"}, '"tls" is not a protocol; write "http", "tcp", "udp" or "tls_passthrough"'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_what_would(kind: type, value: object, message: str) -> None:
    assert refusal(TypeAdapter(kind), value) == message


def test_a_configuration_cannot_be_changed_and_says_no_input() -> None:
    config = Config.model_validate(FIVE_LINES)
    with pytest.raises(ValidationError, match="frozen"):
        config.runtime = RuntimeConfig()  # type: ignore[misc]
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"admin": {"bind": "127.0.0.1:1", "tokn": "hush-puppy"}, "listeners": {}})
    assert "hush-puppy" not in str(caught.value)


def test_every_field_is_described_and_every_required_one_has_an_example() -> None:
    for table in TABLES.values():
        for key, field in table.model_fields.items():
            assert field.description, key
            assert field.examples or not field.is_required(), key


def test_a_route_needs_a_pool_only() -> None:
    assert RouteConfig(pool="web").match == MatchConfig()


def test_sessions_of_datagrams_are_limited_in_any_case() -> None:
    listener = {"bind": "127.0.0.1:53", "pool": "x"}
    read = ListenerConfig.model_validate
    assert read(listener).most_connections is None
    assert read({**listener, "protocol": "udp"}).most_connections == 10_000
    for protocol in ("http", "udp"):
        given = read({**listener, "protocol": protocol, "max_connections": 7})
        assert given.most_connections == 7
