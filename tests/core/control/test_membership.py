"""What is published of the backends, and which word of the controller is believed."""

from __future__ import annotations

import msgpack

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership, host_names, is_host_name
from lbproc.types import Row, TcpAddress, parse_address

CONFIG = Config.model_validate(
    {
        "listeners": {"web": {"bind": "127.0.0.1:80", "pool": "web"}},
        "pools": {
            "web": {
                "backends": [
                    "10.0.0.1:8000",
                    {
                        "address": "db.internal:8000",
                        "name": "b",
                        "weight": 3,
                        "max_connections": 7,
                        "backup": True,
                    },
                    "unix:/run/app.sock",
                ]
            },
            "api": {"backends": ["db.internal:8000", "[::1]:9"]},
        },
    }
)


def make() -> Membership:
    rows: dict[tuple[str, str], Row] = {}
    tickets: dict[str, int] = {}
    return Membership(
        CONFIG,
        lambda pool, address: rows.setdefault((pool, address), Row(len(rows))),
        lambda pool: tickets.setdefault(pool, len(tickets)),
    )


def test_the_blob_has_every_backend_with_row_and_addresses() -> None:
    membership = make()
    assert membership.resolve({"db.internal:8000": ["10.9.9.9:8000", "[fd00::1]:8000"]})
    assert msgpack.unpackb(membership.encode()) == {
        "pools": {
            "web": {
                "ticket": 0,
                "backends": [
                    ["10.0.0.1:8000", "10.0.0.1:8000", 1, None, False, 0, ["10.0.0.1:8000"]],
                    ["b", "db.internal:8000", 3, 7, True, 1, ["10.9.9.9:8000", "[fd00::1]:8000"]],
                    ["unix:/run/app.sock", "unix:/run/app.sock", 1, None, False, 2, ["unix:/run/app.sock"]],
                ],
            },
            "api": {
                "ticket": 1,
                "backends": [
                    [
                        "db.internal:8000",
                        "db.internal:8000",
                        1,
                        None,
                        False,
                        3,
                        ["10.9.9.9:8000", "[fd00::1]:8000"],
                    ],
                    ["[::1]:9", "[::1]:9", 1, None, False, 4, ["[::1]:9"]],
                ],
            },
        }
    }


def test_a_name_that_is_not_resolved_yet_has_no_addresses() -> None:
    backends = msgpack.unpackb(make().encode())["pools"]["web"]["backends"]
    assert backends[1][6] == []


def test_rows_are_found_by_pool_and_backend() -> None:
    membership = make()
    assert membership.row("api", CONFIG.pools["api"].backends[0]) == 3


def test_only_news_are_changes() -> None:
    membership = make()
    name = "db.internal:8000"
    assert membership.resolve({name: ["10.0.0.1:1", "10.0.0.2:1"]})
    assert not membership.resolve({name: ["10.0.0.2:1", "10.0.0.1:1"]})
    assert not membership.resolve({name: []})
    assert membership.resolve({name: ["10.0.0.2:1"]})


def test_what_is_not_an_address_of_a_configured_name_is_not_believed() -> None:
    membership = make()
    before = membership.encode()
    assert not membership.resolve({"other:80": ["10.0.0.1:80"], "10.0.0.1:8000": ["6.6.6.6:80"]})
    assert not membership.resolve(
        {"db.internal:8000": ["nonsense", "", "name:80", "unix:/run/x", "10.0.0.1:99999"]}
    )
    assert membership.encode() == before
    assert membership.resolve({"db.internal:8000": ["nonsense", "10.0.0.1:80", "10.0.0.1:80"]})
    assert msgpack.unpackb(membership.encode())["pools"]["api"]["backends"][0][6] == ["10.0.0.1:80"]


def test_host_names_are_told_from_literals() -> None:
    assert host_names(CONFIG) == (TcpAddress("db.internal", 8000),)
    for text in ("127.0.0.1:1", "[::1]:1", "unix:/x"):
        assert not is_host_name(parse_address(text))
    assert not is_host_name(TcpAddress("fe80::1%eth0", 1))
    assert is_host_name(parse_address("localhost:1"))
