"""What is published of the backends, and which word of the controller is believed."""

from __future__ import annotations

import msgpack
import pytest

from lbproc.config.model import BackendConfig, Config
from lbproc.core.control.membership import (
    Membership,
    host_names,
    initial_health,
    is_host_name,
    pools_of,
    published_names,
)
from lbproc.errors import CapacityError
from lbproc.types import Admin, Health, Row, TcpAddress, parse_address

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
        lambda pool, address, _: rows.setdefault((pool, address), Row(len(rows))),
        lambda pool: tickets.setdefault(pool, len(tickets)),
    )


def weights(membership: Membership, pool: str = "web") -> dict[str, int]:
    backends = msgpack.unpackb(membership.encode())["pools"][pool]["backends"]
    return {backend[0]: backend[2] for backend in backends}


def changed(backends: dict[str, list[object]]) -> Config:
    return Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:80"}},
            "pools": {name: {"backends": listed} for name, listed in backends.items()},
        }
    )


def test_the_blob_has_every_backend_with_row_and_addresses() -> None:
    membership = make()
    assert membership.resolve({"db.internal:8000": ["10.9.9.9:8000", "[fd00::1]:8000"]})
    assert msgpack.unpackb(membership.encode()) == {
        "generation": 1,
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
        },
    }


def test_a_name_that_is_not_resolved_yet_has_no_addresses() -> None:
    backends = msgpack.unpackb(make().encode())["pools"]["web"]["backends"]
    assert backends[1][6] == []


def test_rows_are_found_by_pool_and_backend() -> None:
    membership = make()
    (member, _) = membership.members("api")
    assert membership.row("api", member) == 3
    assert membership.rows() == {
        ("web", "10.0.0.1:8000"): 0,
        ("web", "db.internal:8000"): 1,
        ("web", "unix:/run/app.sock"): 2,
        ("api", "db.internal:8000"): 3,
        ("api", "[::1]:9"): 4,
    }
    assert membership.size() == 5


def test_backends_are_found_by_name_and_then_by_address() -> None:
    membership = make()
    by_name, by_address = membership.find("web", "b"), membership.find("web", "db.internal:8000")
    assert by_name is not None
    assert by_name == by_address
    assert membership.find("web", "c") is None
    confusing = changed(
        {"web": [{"address": "10.0.0.1:1", "name": "10.0.0.2:1"}, {"address": "10.0.0.2:1", "name": "x"}]}
    )
    found = Membership(confusing, lambda *_: Row(0), lambda _: 0).find("web", "10.0.0.2:1")
    assert found is not None
    assert found.address == "10.0.0.1:1"


def test_overrides_are_published() -> None:
    membership = make()
    pool = CONFIG.pools["web"]
    overrides = membership.overrides.with_weight("web", pool, "10.0.0.1:8000", 5)
    overrides = overrides.without_backend("web", pool, "unix:/run/app.sock")
    overrides = overrides.with_backend(
        "web", pool, BackendConfig.model_validate({"address": "new.test:1", "name": "n"})
    )
    membership.override(overrides)
    assert weights(membership) == {"10.0.0.1:8000": 5, "b": 3, "n": 1}
    assert membership.rows()["web", "new.test:1"] == 5
    assert membership.resolve({"new.test:1": ["10.0.0.9:1"]})
    assert msgpack.unpackb(membership.encode())["pools"]["web"]["backends"][2][6] == ["10.0.0.9:1"]


def test_what_the_table_has_no_room_for_changes_nothing() -> None:
    def row_of(pool: str, address: str, health: Health) -> Row:
        if address == "10.0.0.9:1":
            raise CapacityError("full")
        return Row(0)

    membership = Membership(CONFIG, row_of, lambda _: 0)
    before = membership.encode()
    added = BackendConfig.model_validate("10.0.0.9:1")
    with pytest.raises(CapacityError, match="full"):
        membership.override(membership.overrides.with_backend("web", CONFIG.pools["web"], added))
    assert membership.encode() == before


def test_the_next_generation_knows_what_is_known_and_what_operators_change_until_then() -> None:
    membership = make()
    membership.resolve({"db.internal:8000": ["10.9.9.9:8000"]})
    config = changed({"web": ["10.0.0.1:8000", "db.internal:8000", "later.test:1"]})
    prepared = membership.prepare(config, 2)
    assert membership.resolve({"later.test:1": ["10.0.0.7:1"]})
    changes = membership.overrides.with_weight("web", CONFIG.pools["web"], "10.0.0.1:8000", 5)
    membership.override(changes.with_admin("web", "unix:/run/app.sock", Admin.DRAIN))
    blob = msgpack.unpackb(prepared.encode())
    assert blob["generation"] == 2
    assert [backend[6] for backend in blob["pools"]["web"]["backends"]] == [
        ["10.0.0.1:8000"],
        ["10.9.9.9:8000"],
        ["10.0.0.7:1"],
    ]
    assert weights(prepared) == {"10.0.0.1:8000": 5, "db.internal:8000": 1, "later.test:1": 1}
    assert prepared.rows()["web", "10.0.0.1:8000"] == membership.rows()["web", "10.0.0.1:8000"]
    # in force from here on
    prepared.override(prepared.overrides.with_admin("web", "later.test:1", Admin.DRAIN))
    after = prepared.prepare(changed({"web": [{"address": "10.0.0.1:8000", "weight": 2}, "later.test:1"]}), 3)
    assert weights(after) == {"10.0.0.1:8000": 2, "later.test:1": 1}
    assert [member.admin for member in after.members("web")] == [Admin.READY, Admin.DRAIN]
    last = after.prepare(after.config, 4)
    assert not last.resolve({"db.internal:8000": ["10.1.1.1:1"]}), "nobody has that name any more"


def test_one_that_was_prepared_can_be_thrown_away() -> None:
    membership = make()
    before = membership.encode()
    membership.prepare(changed({"web": ["10.0.0.1:8000"]}), 2)
    assert membership.encode() == before
    again = membership.prepare(changed({"web": ["10.0.0.2:8000"]}), 3)
    assert weights(again) == {"10.0.0.2:8000": 1}


def test_new_backends_begin_as_their_pool_says() -> None:
    seen: dict[str, Health] = {}

    def row_of(pool: str, address: str, health: Health) -> Row:
        seen[pool] = health
        return Row(len(seen))

    config = Config.model_validate(
        {
            "listeners": {"web": {"bind": "127.0.0.1:80"}},
            "pools": {
                "none": {"backends": ["10.0.0.1:1"]},
                "checked": {"backends": ["10.0.0.1:1"], "health": {}},
                "hopeful": {"backends": ["10.0.0.1:1"], "health": {"initial": "up"}},
                "careful": {"backends": ["10.0.0.1:1"], "health": {"initial": "down"}},
            },
        }
    )
    Membership(config, row_of, lambda _: 0)
    assert seen == {
        "none": Health.UP,
        "checked": Health.CHECKING,
        "hopeful": Health.UP,
        "careful": Health.DOWN,
    }
    assert initial_health(config.pools["checked"]) is Health.CHECKING


def test_published_names_say_whether_they_are_resolved() -> None:
    membership = make()
    name = TcpAddress("db.internal", 8000)
    assert published_names(msgpack.unpackb(membership.encode())["pools"]) == {name: False}
    membership.resolve({"db.internal:8000": ["10.9.9.9:8000"]})
    assert published_names(msgpack.unpackb(membership.encode())["pools"]) == {name: True}


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


def test_a_blob_of_another_generation_has_no_pools() -> None:
    blob = make().encode()
    assert pools_of(blob, 1) == msgpack.unpackb(blob)["pools"]
    assert pools_of(blob, 2) is None
    assert pools_of(b"", 2) == {}


def test_the_backends_of_another_configuration_are_known_before_it_is_prepared() -> None:
    membership = make()
    added = BackendConfig.model_validate("10.0.0.9:1")
    membership.override(membership.overrides.with_backend("web", CONFIG.pools["web"], added))
    config = changed({"web": ["10.0.0.1:8000", "later.test:1"], "new": ["10.0.0.1:8000"]})
    expected = membership.backends_with(config)
    assert ("web", "10.0.0.9:1") in expected
    assert expected == membership.prepare(config, 2).all_members().keys()
